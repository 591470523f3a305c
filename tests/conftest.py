"""Settings for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

# A test run says the same about a revision every time. `HYPOTHESIS_PROFILE=search` explores new examples.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))
