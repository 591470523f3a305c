"""Answers that no schema expects: one row each, nothing dangerous on the terminal, files that everybody can read."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import orjson
import polars as pl
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import s1batch
from s1batch.cli import main
from s1batch.records import Request, Response
from tests.faults.runs import PATIENCE_S, ROOT, ask_job, http, run, serve, stored, write_job, write_table
from tests.loopback import Reply, completion, prompt_text

NASTY = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\x1b[0m \x9b31m \u202eright to left\u202c \x00 \r\n\t\x08 ￾ \U000e0041"

CASES: dict[str, tuple[bytes, str]] = {
    "no JSON": (completion("I think it is granite."), "unparsed"),
    "not in the schema": (completion('{"digest": 7, "more": [1, 2]}'), "unparsed"),
    "a list": (completion('["granite"]'), "unparsed"),
    "empty": (completion(""), "unparsed"),
    "only reasoning": (completion(None, reasoning_content="Let me think about it."), "unparsed"),
    "ten megabytes": (completion("x" * 10_000_000), "unparsed"),
    "ten megabytes in the schema": (completion(orjson.dumps({"digest": "y" * 10_000_000}).decode()), "unparsed"),
    "deep": (completion('{"digest":' * 50_000), "unparsed"),
    "control characters": (completion(NASTY), "unparsed"),
    "control characters in the schema": (completion(orjson.dumps({"digest": NASTY}).decode()), "ok"),
    "half a surrogate": (
        completion("HERE").replace(b'"HERE"', rb'"{\"digest\": \"\\ud800 alone\"}"'),
        "unparsed",
    ),
    "half a surrogate in the body": (completion("HERE").replace(b"HERE", rb"\ud800 alone"), "failed"),
    "no UTF-8": (completion("HERE").replace(b"HERE", b"\xff\xfe\x80"), "failed"),
    "a huge number": (completion('{"digest": 1e999999}'), "unparsed"),
    "an integer of 5,000 digits": (completion('{"digest": ' + "9" * 5000 + "}"), "unparsed"),
    "twice the key": (completion('{"digest": "a", "digest": "b"}'), ""),
    "cut by the limit": (completion('{"digest": "gra', finish_reason="length"), "length"),
    "an unknown end": (completion('{"digest": "a"}', finish_reason="repetition"), "failed"),
    "good": (completion('{"digest": "a"}'), "ok"),
}


def nasty(number: int, body: dict[str, Any]) -> Reply:
    """The answer that the prompt names, also when it goes back to be mended."""
    name = prompt_text({"messages": body["messages"][:1]}).rpartition("about ")[2].removesuffix(".")
    return Reply(body=CASES[name][0])


def s1batch_says(*arguments: str, here: bool = True) -> bytes:
    """Run a command, in this process or in one of its own; return what it wrote."""
    if here:
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code == 0, done.output
        return done.stdout_bytes
    command = [sys.executable, "-m", "s1batch", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=PATIENCE_S)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def dangerous(said: bytes) -> set[str]:
    """Return the characters of an output that do more than stand there."""
    return {letter for letter in said.decode() if not letter.isprintable() and letter != "\n"}


def test_every_answer_is_one_row_and_nothing_of_it_reaches_the_terminal(tmp_path):
    """Through a real server, the command line and Parquet."""
    with serve("--script", "tests.faults.test_answers:nasty") as server:
        job = write_job(tmp_path, ask_job(write_table(tmp_path, list(CASES)), http(server.url, max_attempts=2)))
        ended = run(job)
    out = tmp_path / "out"
    assert ended.process.returncode == 3, ended.said
    found = s1batch.open_results(out).scan().sort("row_index").collect()
    outcomes = dict(zip(CASES, found["outcome"], strict=True))
    expected = {name: outcome for name, (_, outcome) in CASES.items() if outcome}
    assert {name: outcomes[name] for name in expected} == expected
    assert s1batch.open_results(out).verify().ok
    assert max(map(len, found["text"])) >= 10_000_000
    assert pq.read_table(out / "rows").num_rows == len(CASES)
    assert not dangerous(ended.said.encode())
    wide = ("--wide", "--columns", "digest,detail,reasoning,outcome")
    for arguments in (("show", str(out)), ("show", str(out), *wide), ("show", str(out), "--columns", "text,detail")):
        assert not dangerous(s1batch_says(*arguments)), arguments
    for arguments in (("status", str(out)), ("verify", str(out))):
        assert not dangerous(s1batch_says(*arguments)), arguments
    s1batch_says("export", str(out), str(tmp_path / "rows.csv"), here=False)
    assert pl.read_csv(tmp_path / "rows.csv", infer_schema=False).height == len(CASES)


def surrogates(request: Request) -> Response:
    """An engine of one's own may return what no server can send."""
    text = '{"digest": "\ud800"}' if "1" in request.text else "\ud800 \udfff " + NASTY
    return Response(fingerprint=request.fingerprint, text=text, reasoning="\udc80", detail="\ud83d")


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_lone_surrogates_are_written_as_escapes(killed, tmp_path):
    """In a part's file, and in a journal that is read back after a kill."""
    table = write_table(tmp_path, ["stone 1", "stone 2"])
    engine = {"kind": "replay", "function": "tests.faults.test_answers:surrogates"}
    asked = ask_job(table, engine)
    job = write_job(tmp_path, {**asked, "job": {**asked["job"], "repair": 0}})
    if killed:
        assert run(job, sabotage={"kill_at_write": 2}).process.returncode == -9
        assert stored(tmp_path / "out").height == 2
    ended = run(job)
    assert ended.process.returncode == 3, ended.said
    found = s1batch.open_results(tmp_path / "out").scan().sort("row_index").collect()
    assert found["text"][1].startswith("\\ud800 \\udfff ")
    assert found["reasoning"].to_list() == ["\\udc80"] * 2
    assert not dangerous(s1batch_says("show", str(tmp_path / "out"), "--wide", "--columns", "text,reasoning,digest"))


def test_nothing_dangerous_comes_from_names_of_files_either(tmp_path):
    """A file name with an escape sequence, in rows and in messages."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "\x1b[2J\x07evil\n.jsonl").write_bytes(b'{"text": "a"}\nnot json\n')
    engine = {"kind": "replay", "function": "tests.answers:echo"}
    changes = {"source": {"kind": "table", "path": f"{folder}/*.jsonl"}}
    ended = run(write_job(tmp_path, ask_job(folder, engine, **changes)))
    assert not dangerous(ended.said.encode())
    shown = s1batch_says("show", str(tmp_path / "out"), "--wide", "--columns", "source,source_file,detail")
    assert not dangerous(shown)
