"""What is known of an engine before it is loaded."""

from __future__ import annotations

import pytest

from s1batch.assembly import engine_facts
from s1batch.jobfile import load_job
from tests.archives import pick_job, write_archive


@pytest.mark.parametrize(("rate_hz", "is_warned"), [(None, True), (100, True), (102, False)])
def test_a_rate_that_nano_was_not_trained_at_is_pointed_out(tmp_path, rate_hz, is_warned):
    job = pick_job(write_archive(tmp_path / "archive", stations=1, seconds=60), engine={"kind": "reference"})
    job["source"]["rate_hz"] = rate_hz
    assert ("source.rate_hz: 102" in engine_facts(load_job(job)).told) == is_warned
