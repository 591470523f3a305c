"""Whole runs in which the model calls tools: one outcome for each row, no answer asked twice, all written down."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import s1batch
from s1batch.execution import RunOptions
from s1batch.records import turns_from_text
from tests import tools
from tests.archives import write_archive
from tests.faults import runs
from tests.faults.runs import write_table

SCHEMA = {
    "type": "object",
    "properties": {"told": {"type": "array", "items": {"type": "string"}}},
    "required": ["told"],
}

SMALL = {
    "type": "object",
    "properties": {"told": {"type": "boolean"}},
    "required": ["told"],
    "additionalProperties": False,
}
"""One bounded field: an untrained model comes to its end."""

REFERENCE = {"kind": "reference", "threads": 1}


def job(table: Path, engine: Any, *names: str, **fields: Any) -> dict[str, Any]:
    engine = {"kind": "replay", "function": f"tests.tools:{engine}"} if isinstance(engine, str) else engine
    return {
        "name": "tools",
        "source": {"kind": "table", "path": str(table)},
        "job": {
            "kind": "ask",
            "prompt": "Call {{ text }}",
            "schema": SCHEMA,
            "tools": [f"tests.tools:{name}" for name in names],
            **fields,
        },
        "engine": engine,
    }


def rows(results: Any) -> list[dict[str, Any]]:
    assert results.verify().complete
    return list(results.scan().collect().sort("span_start").iter_rows(named=True))


def test_a_row_holds_the_answer_and_the_turns_before_it(tmp_path: Path) -> None:
    table = write_table(tmp_path, ["depth"])
    (row,) = rows(s1batch.run(job(table, "by_name", "depth"), tmp_path / "out"))
    assert (row["outcome"], row["told"]) == ("ok", ['{"station": "RJOB", "depth": 8.5}'])
    assert (row["prompt_tokens"], row["output_tokens"], row["attempts"]) == (30, 12, 2), "both questions are counted"
    (turn,) = json.loads(row["turns"])
    assert turn["calls"] == [{"name": "depth", "arguments": '{"station": "RJOB"}'}]
    (result,) = turn["results"]
    assert (result["id"], result["text"], result["failed"]) == ("call00000", row["told"][0], False)
    assert turn["fingerprint"] != row["fingerprint"]


def test_what_goes_wrong_with_a_tool_is_told_to_the_model(tmp_path: Path) -> None:
    table = write_table(tmp_path, ["fail", "hang", "large", "no_json", "nothing"])
    spec = job(table, "by_name", "fail", "hang", "large", "no_json", tool_timeout_s=1.5)
    try:
        found = rows(s1batch.run(spec, tmp_path / "out"))  # nobody waits for a tool that hangs for minutes
    finally:
        tools.HOLD.set()
    assert [row["outcome"] for row in found] == ["ok"] * 5
    said = [json.loads(row["told"][0])["error"] for row in found]
    assert said == [
        "ValueError: no such event",
        "no result within 1.5 s",
        "the result has 10,000,000 characters, the most is 20,000: ask for less",
        "its result is no JSON: a set stands in it",
        "there is no tool 'nothing'; there are fail, hang, large, no_json",
    ]
    assert all(turns_from_text(row["turns"])[0].results[0].failed for row in found)


def test_a_call_that_does_not_fit_can_be_mended_by_the_model(tmp_path: Path) -> None:
    table = write_table(tmp_path, ["x"])
    (row,) = rows(s1batch.run(job(table, "clumsy", "depth"), tmp_path / "out"))
    assert row["outcome"] == "ok"
    *wrong, right = row["told"]
    assert json.loads(right) == {"station": "RJOB", "depth": 8500.0}
    for text, part in zip(wrong, ["no JSON", "Input should be 'RJOB' or 'ALTN'", "no tool", "dictionary"], strict=True):
        assert part in json.loads(text)["error"]
    first, second = turns_from_text(row["turns"])
    shown = [result.call for result in (*first.results, *second.results)]
    assert [call.id for call in shown] == [f"call{number:05d}" for number in range(5)]
    assert [call.name for call in shown] == ["depth", "depth", "unknown", "depth", "depth"]
    assert all(isinstance(json.loads(call.arguments), dict) for call in shown), "what any server takes back"


def test_whatever_the_model_writes_into_a_call_can_be_kept_and_sent(tmp_path: Path) -> None:
    table = write_table(tmp_path, ["x"])
    (row,) = rows(s1batch.run(job(table, "strange", "depth"), tmp_path / "out"))
    assert (row["outcome"], row["told"]) == ("ok", ["done"])
    (turn,) = turns_from_text(row["turns"])
    assert all("<|im_end|>" not in result.text + result.call.arguments for result in turn.results)


@pytest.mark.parametrize(
    ("answers", "reason", "said", "turns"),
    [
        ("untiring", "too_many_turns", "max_turns", 2),
        ("garbled", "bad_tool_call", "cannot be read", 0),
        ("greedy_for_calls", "bad_tool_call", "100 calls", 0),
    ],
)
def test_a_conversation_that_leads_nowhere_ends_in_a_reason(
    answers: str, reason: str, said: str, turns: int, tmp_path: Path
) -> None:
    table = write_table(tmp_path, ["x"])
    (row,) = rows(s1batch.run(job(table, answers, "depth", max_turns=3), tmp_path / "out"))
    assert (row["outcome"], row["reason"]) == ("unparsed", reason)
    assert said in row["detail"]
    assert len(turns_from_text(row["turns"])) == turns


def test_tools_see_the_series_of_their_row(tmp_path: Path) -> None:
    archive = write_archive(tmp_path / "archive", stations=1)
    spec = job(archive, "by_name", "steps")
    spec["source"] = {"kind": "seismic", "paths": [str(archive / "**/*")], "components": "ZNE"}
    spec["window"] = {"length": "30s", "tail": "short"}
    spec["job"]["prompt"] = "Call steps"
    found = s1batch.run(spec, tmp_path / "out").scan().collect()
    assert set(found["outcome"]) == {"ok"}
    assert found["told"].list.first().cast(pl.Int64).max() == 3000


def test_a_second_question_that_cannot_be_asked_is_refused_with_what_was_said_before(tmp_path: Path) -> None:
    table = write_table(tmp_path, ["x"])
    fields: dict[str, Any] = {"tool_choice": "depth", "schema": SMALL}
    (row,) = rows(s1batch.run(job(table, REFERENCE, "depth", **fields), tmp_path / "first"))
    first = turns_from_text(row["turns"])[0].response.prompt_tokens
    assert first is not None
    spec = job(table, REFERENCE, "depth", **fields, sampling={"max_tokens": 32_768 - first})
    (row,) = rows(s1batch.run(spec, tmp_path / "out"))
    assert (row["outcome"], row["reason"]) == ("refused", "context_too_long")
    assert row["detail"].startswith("question 2, with the results of tools:")
    assert len(turns_from_text(row["turns"])) == 1


def test_a_forced_call_runs_through_the_reference_engine_and_again_costs_nothing(tmp_path: Path) -> None:
    table = write_table(tmp_path, ["one", "two", "one"])
    spec = job(table, REFERENCE, "depth", tool_choice="required", schema=SMALL, max_turns=2)
    results = s1batch.run(spec, tmp_path / "out")
    found = rows(results)
    assert [row["outcome"] for row in found] == ["ok"] * 3
    for row in found:
        (turn,) = turns_from_text(row["turns"])
        arguments = json.loads(turn.response.tool_calls[0].arguments)
        assert json.loads(turn.results[0].text) == tools.depth(**arguments)
    assert found[0]["fingerprint"] == found[2]["fingerprint"]
    # Which of the two equal rows a question is counted for depends on which comes first.
    assert found[0]["attempts"] + found[2]["attempts"] == 2, "the same question was asked once"
    assert s1batch.run(spec, tmp_path / "out").summary.added == 0
    stored = {**spec, "engine": {"kind": "replay", "path": str(tmp_path / "out")}}
    replayed = rows(s1batch.run(stored, tmp_path / "replayed"))
    assert [(row["text"], row["told"]) for row in replayed] == [(row["text"], row["told"]) for row in found]
    assert [len(turns_from_text(row["turns"])) for row in replayed] == [1, 1, 1]


@pytest.mark.parametrize(("answers", "name"), [("noted", "die_once"), ("dies_at_the_second", "depth")])
def test_a_kill_between_two_questions_asks_nothing_twice(answers: str, name: str, tmp_path: Path) -> None:
    """While the tool runs, and while the second question is on its way."""
    table = write_table(tmp_path, [name])
    path = runs.write_job(tmp_path, job(table, answers, name))
    asked = tmp_path / "asked.txt"
    env = {"ASKED": str(asked), "DIED": str(tmp_path / "died")}
    assert runs.run(path, env=env).process.returncode != 0
    assert len(asked.read_text().split()) == (1 if answers == "noted" else 2)
    status = s1batch.open_results(tmp_path / "out")
    assert status.status().rows == 0
    assert runs.run(path, env=env).process.returncode == 0
    found = asked.read_text().split()
    received = set(found) if answers == "noted" else {found[0]}
    assert all(found.count(each) == 1 for each in received), "what was answered is not asked again"
    (row,) = rows(status)
    assert (row["outcome"], row["attempts"], len(turns_from_text(row["turns"]))) == ("ok", 2, 1)
    assert row["prompt_tokens"] == 30


def test_a_retry_asks_only_what_was_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "asked.txt"
    monkeypatch.setenv("ASKED", str(asked))
    monkeypatch.setenv("DIED", str(tmp_path / "mended"))
    spec = job(write_table(tmp_path, ["depth"]), "fails_at_the_second", "depth")
    (row,) = rows(s1batch.run(spec, tmp_path / "out"))
    assert (row["outcome"], row["reason"], len(turns_from_text(row["turns"]))) == ("failed", "server_error", 1)
    (tmp_path / "mended").touch()
    (row,) = rows(s1batch.run(spec, tmp_path / "out", options=RunOptions(retry=("failed",))))
    assert (row["outcome"], len(turns_from_text(row["turns"]))) == ("ok", 1)
    first, second, third = asked.read_text().split()
    assert second == third != first


def test_answers_of_earlier_runs_serve_identical_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = tmp_path / "asked.txt"
    monkeypatch.setenv("ASKED", str(asked))
    spec = {**job(write_table(tmp_path, ["depth", "depth"]), "noted", "depth"), "run": {"part_chunks": 1}}
    s1batch.run(spec, tmp_path / "out", options=RunOptions(limit=1))
    found = rows(s1batch.run(spec, tmp_path / "out"))
    assert [row["outcome"] for row in found] == ["ok", "ok"]
    assert len(asked.read_text().split()) == 2
    assert [row["attempts"] for row in found] == [2, 0], "tokens and attempts are counted where they were paid"
    assert found[1]["prompt_tokens"] == 0
