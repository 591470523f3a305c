"""The job files in docs/jobs.md are job files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml

from s1batch.assembly import make_job
from s1batch.blocks import TaskSpec
from s1batch.jobfile import load_job

PAGE = (Path(__file__).parent.parent / "docs" / "jobs.md").read_text()
FILES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("text", FILES, ids=[yaml.safe_load(text)["name"] for text in FILES])
def test_each_job_file_loads_and_its_job_is_made(text):
    assert make_job(load_job(yaml.safe_load(text))).columns


def test_every_kind_of_job_has_its_line():
    kinds = [
        tag for block in get_args(get_args(TaskSpec)[0]) for tag in get_args(block.model_fields["kind"].annotation)
    ]
    assert [kind for kind in kinds if f"| `{kind}` |" not in PAGE] == []
