"""What a command imports before it does anything: start-up time and memory, which every call of it pays."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest

from tests.loopback import Loopback

HEAVY = ("torch", "transformers", "obspy", "matplotlib", "distributed", "dask", "pandas", "scipy", "xarray", "zarr")
SHOW = """\
import json, sys
from s1batch.cli import main
try:
    main(json.loads(sys.argv[1]))
except SystemExit as end:
    print("exit", end.code)
print(json.dumps(sorted(name for name in sys.modules if "." not in name)))
"""


def imported_by(*words: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", SHOW, json.dumps(words)], capture_output=True, text=True, check=True, timeout=250
    )
    *_, end, modules = done.stdout.splitlines()
    assert end == "exit 0", done.stderr
    return set(json.loads(modules))


def test_help_imports_nothing_heavy():
    assert not imported_by("--help") & {*HEAVY, "numpy", "pyarrow", "polars", "aiohttp", "pydantic", "jinja2"}


def test_a_job_file_is_understood_without_any_reader():
    show = "import sys, json, s1batch.jobfile; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", show], capture_output=True, text=True, check=True, timeout=250)
    modules = set(json.loads(done.stdout))
    assert {name for name in modules if name.startswith("s1batch.readers.") and name.count(".") > 2} == {
        f"s1batch.readers.{kind}.spec"
        for kind in ("images", "join", "papers", "results", "seismic", "sensors", "tables")
    }
    assert not modules & {*HEAVY, "pyarrow", "polars", "PIL"}


@pytest.mark.parametrize("again", [pytest.param(False, marks=pytest.mark.slow), True])
async def test_a_run_over_a_table_and_an_endpoint_imports_no_library_that_it_does_not_use(tmp_path, again):
    (tmp_path / "rows.jsonl").write_text('{"q": "one"}\n{"q": "two"}\n')
    job = tmp_path / "job.yaml"
    async with Loopback() as server:
        job.write_text(
            json.dumps(
                {
                    "source": {"kind": "table", "path": "rows.jsonl"},
                    "job": {"kind": "ask", "prompt": "{{ q }}"},
                    "engine": {"kind": "http", "urls": [server.url]},
                }
            )
        )
        for _ in range(1 + again):
            modules = await asyncio.to_thread(imported_by, "run", str(job), "-o", str(tmp_path / "out"))
    assert not modules & set(HEAVY)


WAIT = """\
import signal, sys, threading
import s1batch
def stop(number, frame):
    sys.exit(75)
signal.signal(signal.SIGINT, stop)
import polars
print("waiting", flush=True)
threading.Event().wait()
"""


def test_ctrl_c_is_heard_by_a_wait_that_began_after_polars_was_imported():
    """Polars replaces the handler of SIGINT by one behind which the system goes on waiting."""
    with subprocess.Popen([sys.executable, "-c", WAIT], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "waiting\n"
        time.sleep(0.3)  # until it waits
        running.send_signal(signal.SIGINT)
        try:
            assert running.wait(200) == 75
        finally:
            running.kill()
