"""Settings for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# CI proves a revision and must say the same about it twice; exploring new examples is for developers' machines.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")
