"""Answers of tasks: every question is noted with the task that asked it, and takes as long as its prompt says."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

from s1batch.errors import EngineError
from s1batch.records import Request


async def steady(request: Request) -> str:
    """Note the question in a file of the task in the folder that ASKED names; take ANSWER_S seconds if it is slow."""
    task = f"{os.environ.get('SLURM_ARRAY_JOB_ID', 'none')}_{os.environ.get('SLURM_ARRAY_TASK_ID', 'none')}"
    with (Path(os.environ["ASKED"]) / task).open("a") as file:
        file.write(f"{request.fingerprint} {os.environ.get('SLURM_RESTART_COUNT', '0')} {time.time():.3f}\n")
    await asyncio.sleep(float(os.environ.get("ANSWER_S", "1")) if "slow" in request.text else 0.01)
    return json.dumps({"length": len(request.text)})


async def held(request: Request) -> str:
    """Note the question likewise; answer a slow one once the folder HELD has a file `all`, or one of that name.

    Names are those of the array (`12`) and of the task (`12_3`). So a test decides when a task goes on, at any speed.
    """
    array, task = (os.environ.get(f"SLURM_ARRAY_{name}_ID", "none") for name in ("JOB", "TASK"))
    with (Path(os.environ["ASKED"]) / f"{array}_{task}").open("a") as file:
        file.write(f"{request.fingerprint} {os.environ.get('SLURM_RESTART_COUNT', '0')} {time.time():.3f}\n")
    folder = Path(os.environ["HELD"])
    while "slow" in request.text and not any((folder / name).exists() for name in ("all", array, f"{array}_{task}")):  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return json.dumps({"length": len(request.text)})


async def by_worker(request: Request) -> str:
    """Note the question in a file of the job that asks it, with the node; take ANSWER_S seconds if it is slow."""
    with (Path(os.environ["ASKED"]) / os.environ.get("SLURM_JOB_ID", "none")).open("a") as file:
        file.write(f"{request.fingerprint} {os.environ.get('SLURMD_NODENAME', 'none')}\n")
    await asyncio.sleep(float(os.environ.get("ANSWER_S", "1")) if "slow" in request.text else 0.01)
    return json.dumps({"length": len(request.text)})


async def poisoned(request: Request) -> str:
    """Like `by_worker`, but a question that holds the words in POISON ends the process."""
    if os.environ["POISON"] in request.text:
        os._exit(1)
    return await by_worker(request)


def mended(request: Request) -> str:
    """Fail until the file that MENDED names is there."""
    if not Path(os.environ["MENDED"]).exists():
        raise EngineError("server_error", "out of order")
    return json.dumps({"length": len(request.text)})
