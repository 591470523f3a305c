"""What the comparison says of stored outputs of each program; no peer is needed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.benchmarks.harness import ROOT
from tests.benchmarks.peers import __main__ as command_line
from tests.benchmarks.peers.environments import ENVIRONMENTS, QUIET, REQUIREMENTS, MissingEnvironmentError, python_of
from tests.benchmarks.peers.outcomes import Outcome, Row, expected_answer, judge
from tests.benchmarks.peers.programs import PROGRAMS, SCRIPTS, Task
from tests.benchmarks.peers.scenarios import PARTS, SCENARIOS, write
from tests.benchmarks.peers.tables import report, scenario_table

TEXTS = {"0": "none", "1": "one", "2": "two", "3": "three"}
RIGHT = {name: expected_answer(text) for name, text in TEXTS.items()}


@pytest.fixture
def task(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    return Task(url="http://127.0.0.1:1", prompts=tmp_path / "p", parts=tmp_path, lines=tmp_path / "l", folder=folder)


def record(program: str, **fields):
    server = {"requests": 2000, "peak": 256, "again": 0}
    outcome = {"right": 2000, "reasons": 0, "empty": 0, "wrong": 0, "missing": 0, "twice": 0}
    plain = {"scenario": "throughput", "program": program, "wall_s": 2.0, "cpu_s": 1.5, "peak_mb": 170.0, "code": 0}
    plain |= {"ended": "itself", "window_s": 0.8, "before_s": 1.0, "load": 0.5, "server": server, "outcome": outcome}
    return {**plain, **fields}


def test_every_prompt_is_counted_once_whatever_became_of_it():
    texts = {str(number): str(number) for number in range(6)}
    rows = [Row(name="0", text=expected_answer("0")), Row(name="1", reason="refused"), Row(name="2")]
    rows += [Row(name="3", text=expected_answer("0")), Row(name="4", text=expected_answer("4"))]
    rows += [Row(name="4", text=expected_answer("4"))]
    outcome = judge(rows, texts)
    assert outcome == Outcome(right=1, reasons=1, empty=1, wrong=1, twice=1, missing=1)
    assert outcome.silent == 4


def test_rows_of_parquet_folders_are_read_and_torn_files_hold_none(task):
    task.output.mkdir()
    pq.write_table(pa.table({"id": ["0", "1"], "response": [RIGHT["0"], None]}), task.output / "a.parquet")
    (task.output / "torn.parquet").write_bytes(b"PAR1 and no more")
    for name in ("daft", "ray", "bare"):
        assert judge(PROGRAMS[name].rows(task, TEXTS), TEXTS) == Outcome(right=1, empty=1, missing=2)


def test_documents_of_datatrove_without_a_rollout_are_empty(task):
    (task.output / "data").mkdir(parents=True)
    lines = [{"id": "0", "text": "none", "metadata": {"rollout_results": [{"text": RIGHT["0"]}]}}]
    lines.append({"id": "1", "text": "one", "metadata": {"rollout_results": []}})
    (task.output / "data/00000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert judge(PROGRAMS["datatrove"].rows(task, TEXTS), TEXTS) == Outcome(right=1, empty=1, missing=2)


def test_failures_that_curator_keeps_apart_are_reasons(task):
    pq.write_table(pa.table({"id": ["0", "2"], "response": [RIGHT["0"], RIGHT["2"]]}), task.output)
    kept = task.state / "run"
    kept.mkdir(parents=True)
    failed = [{"original_row": {"id": name}} for name in ("1", "1", "2")]
    (kept / "failed_requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in failed))
    assert judge(PROGRAMS["curator"].rows(task, TEXTS), TEXTS) == Outcome(right=2, reasons=1, missing=1)


def test_rows_of_s1batch_keep_their_reasons(task):
    (task.output / "rows").mkdir(parents=True)
    columns = {
        "row_index": [1, 0],
        "text": ["", RIGHT["0"]],
        "outcome": ["failed", "ok"],
        "reason": ["bad_request", None],
    }
    pq.write_table(pa.table(columns), task.output / "rows/part-0.parquet")
    assert judge(PROGRAMS["s1batch"].rows(task, TEXTS), TEXTS) == Outcome(right=1, reasons=1, missing=2)


def test_every_script_is_there_and_runs_by_its_own_python(task, tmp_path):
    for name in ENVIRONMENTS:
        (tmp_path / name / "bin").mkdir(parents=True)
        (tmp_path / name / "bin/python").touch()
    for name, program in PROGRAMS.items():
        command = program.command(task, tmp_path)
        expected = sys.executable if name in ("bare", "s1batch") else str(tmp_path / program.environment / "bin/python")
        assert command[0] == expected
        assert program.script is None or (SCRIPTS / program.script).exists()
        assert program.environ(task).items() >= QUIET.items()
    settings = json.loads((task.folder / "settings.json").read_text())
    assert settings["in_flight"] == PROGRAMS["curator"].in_flight
    assert "QUIET" not in os.environ


def test_ray_is_given_its_number_of_requests_by_a_variable(task):
    (variable,) = PROGRAMS["ray"].variables
    assert PROGRAMS["ray"].environ(task)[variable] == "256"


@pytest.mark.slow
def test_a_signal_ends_the_command_with_all_that_it_started(tmp_path):
    """A peer that hangs, its server, and the command itself."""
    python = tmp_path / "peers/bin/python"
    python.parent.mkdir(parents=True)
    (tmp_path / "curator/bin").mkdir(parents=True)
    # It answers the question for its versions, and hangs over everything else.
    python.write_text(f"#!/bin/sh\n[ $1 = -c ] && echo '{{}}' && exit\necho $$ > {tmp_path}/hangs\nexec sleep 600\n")
    python.chmod(0o755)
    (tmp_path / "curator/bin/python").symlink_to(python)
    command = [sys.executable, "-m", "tests.benchmarks.peers", "run", "--folder", str(tmp_path)]
    command += ["--only", "large", "--programs", "datatrove"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        give_up = time.monotonic() + 120
        while not (tmp_path / "hangs").exists() and time.monotonic() < give_up:
            time.sleep(0.05)
        process.terminate()
        assert process.wait(timeout=120) == 128 + signal.SIGTERM
    hung = int((tmp_path / "hangs").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(hung, 0)


def test_a_missing_environment_is_one_line_with_the_command(tmp_path, capsys):
    with pytest.raises(MissingEnvironmentError, match="setup --folder"):
        python_of(tmp_path, "peers")
    assert command_line.main(["run", "--folder", str(tmp_path), "--only", "tail"]) == 2
    assert "setup --folder" in capsys.readouterr().err


def test_every_requirement_is_pinned():
    for name in ENVIRONMENTS:
        lines = (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        wanted = [line for line in lines if line and not line.startswith("#")]
        assert wanted
        assert all("==" in line for line in wanted)


def test_prompts_are_the_same_in_every_form(tmp_path):
    prompts = write("repeated", tmp_path)
    lines = [json.loads(line) for line in prompts.lines.read_text().splitlines()]
    parts = [row for file in sorted(prompts.parts.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]
    assert pq.read_table(prompts.parquet).to_pylist() == lines == parts
    assert {line["id"]: line["text"] for line in lines} == prompts.texts
    assert (len(lines), len(set(prompts.texts.values()))) == (2000, 20)
    assert len(list(prompts.parts.iterdir())) == PARTS


def test_scenarios_name_programs_that_there_are():
    for scenario in SCENARIOS.values():
        assert set(scenario.programs) <= set(PROGRAMS)
        assert set(scenario.options) <= set(PROGRAMS)


def test_a_table_shows_medians_and_the_worst_outcome():
    lost = {"right": 1950, "reasons": 0, "empty": 0, "wrong": 0, "missing": 50, "twice": 0}
    runs = [record("s1batch", wall_s=wall) for wall in (3.0, 1.0, 2.0)]
    runs += [record("datatrove", window_s=2.0, outcome=lost), record("ray", window_s=None, ended="limit", code=-9)]
    lines = scenario_table(SCENARIOS["throughput"], runs).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[4:]}
    assert cells["**s1batch**"] == ["2.00", "1.50", "170", "2,500", "256", "2,000", "0"]
    assert cells["datatrove"][-4:] == ["1,000", "256", "1,950", "0"]
    assert cells["Ray Data"][-4:] == ["-", "256", "2,000", "killed at the limit"]


def test_every_scenario_prints_a_table_and_show_prints_what_is_stored(tmp_path, capsys):
    killed = {"killed": {"ended": "stop", "wall_s": 5.0, "asked": 1080, "answered": 1000}}
    lost = {"right": 1950, "reasons": 0, "empty": 20, "wrong": 0, "missing": 30, "twice": 0}
    records = [record("daft", scenario=name, outcome=lost, **killed) for name in SCENARIOS]
    stored: dict[str, Any] = {"records": records, "versions": {"daft": "0.7.26"}, "machine": "2 cores"}
    (tmp_path / "results.json").write_text(json.dumps(stored))
    assert command_line.main(["show", "--folder", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert printed.strip() == report(records, stored["versions"], "2 cores").strip()
    assert printed.count("| Daft |") == len(SCENARIOS)
    assert "50 (20 null, 30 missing)" in printed


def test_the_tables_of_a_page_are_replaced_and_the_rest_stays(tmp_path, capsys):
    stored = {"records": [record("daft")], "versions": {}, "machine": "2 cores"}
    (tmp_path / "results.json").write_text(json.dumps(stored))
    page = tmp_path / "page.md"
    page.write_text(f"Before.\n\n{command_line.BEGIN}\nold\n{command_line.END}\n\nBehind.\n")
    for _ in range(2):
        assert command_line.main(["show", "--folder", str(tmp_path), "--into", str(page)]) == 0
    shown = page.read_text()
    assert shown.startswith("Before.\n\n<!--")
    assert shown.endswith("-->\n\nBehind.\n")
    assert "old" not in shown
    assert shown.count("| Daft |") == 1


def test_the_documentation_has_a_place_for_the_tables():
    page = (ROOT / "docs/benchmarks.md").read_text()
    assert page.index(command_line.BEGIN) < page.index(command_line.END)
