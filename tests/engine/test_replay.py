"""Claims about `s1batch.engine.replay` and `s1batch.engine.stored_answers`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from s1batch.config import answer_fields
from s1batch.engine.replay import ReplayEngine, ReplayEngineSpec
from s1batch.engine.rules import RULES
from s1batch.engine.stored_answers import StoredAnswers
from s1batch.errors import EngineError, EngineUnavailable, UsageError
from s1batch.records import Message, ModelIdentity, Request, Response, Sampling, SeriesPart, TextPart
from tests.engine.build import MODEL, text_request
from tests.engine.virtual_loop import run_virtually


def function_answer(request: Request) -> str:
    """Found by its name in a job file."""
    return request.text.upper()


def write_run(folder: Path, rows: list[dict[str, Any]], *, model: dict[str, str] | None = None) -> Path:
    """A results directory: rows in two files of small row groups, and run.json."""
    (folder / "rows").mkdir(parents=True)
    half = len(rows) // 2
    for name, part in (("part-00000.parquet", rows[:half]), ("part-00001.parquet", rows[half:])):
        if part:
            pq.write_table(pa.Table.from_pylist(part), folder / "rows" / name, row_group_size=3)
    if model is not None:
        (folder / "run.json").write_text(json.dumps({"model": model}))
    return folder


def row(request: Request, text: str, **more: Any) -> dict[str, Any]:
    return {"fingerprint": request.fingerprint, "text": text, "outcome": "ok", **more}


def ask(engine: ReplayEngine, request: Request) -> Response:
    return run_virtually(engine.answer(request))


def test_the_answers_of_a_run_come_back_as_they_were_given(tmp_path: Path) -> None:
    requests = [text_request(f"question {i}") for i in range(20)]
    rows = [
        row(
            request,
            f"answer {i}",
            outcome="length" if i == 3 else "ok",
            reasoning="hm" if i % 2 else None,
            finish_reason="length" if i == 3 else "stop",
            prompt_tokens=100 + i,
            cached_tokens=None,
            output_tokens=i,
            seconds=1.5,
            engine="lmdeploy 0.18.0",
            model="Intern-S1-Pro",
        )
        for i, request in enumerate(requests)
    ]
    engine = ReplayEngine(StoredAnswers(write_run(tmp_path / "run", rows)), model=MODEL)
    third = ask(engine, requests[3])
    assert third == Response(
        fingerprint=requests[3].fingerprint,
        text="answer 3",
        reasoning="hm",
        finish_reason="length",
        prompt_tokens=103,
        output_tokens=3,
        seconds=1.5,
        attempts=0,
        engine=f"{engine.name} of lmdeploy 0.18.0",
        model="Intern-S1-Pro",
    )
    assert [ask(engine, request).text for request in requests] == [f"answer {i}" for i in range(20)]


def test_a_question_that_was_not_asked_then_is_not_found(tmp_path: Path) -> None:
    engine = ReplayEngine(StoredAnswers(write_run(tmp_path / "run", [row(text_request("a"), "x")])), model=MODEL)
    response = ask(engine, text_request("b"))
    assert (response.error, response.finish_reason, response.text) == ("not_found", "error", "")
    assert "run" in response.detail


def test_rows_without_an_answer_are_no_answers(tmp_path: Path) -> None:
    failed = text_request("failed")
    rows = [
        row(failed, "", outcome="failed"),
        {"fingerprint": "", "text": "", "outcome": "refused"},
        {"fingerprint": None, "text": None, "outcome": "unreadable"},
        row(text_request("unparsed"), "no JSON", outcome="unparsed"),
    ]
    answers = StoredAnswers(write_run(tmp_path / "run", rows))
    assert len(answers) == 1
    assert answers.get(failed.fingerprint) is None


@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(st.tuples(st.integers(0, 30), st.text(max_size=20)), max_size=40),
    suffix=st.sampled_from([".parquet", ".jsonl"]),
    cache_bytes=st.sampled_from([0, 200, 1 << 20]),
)
def test_the_first_answer_to_a_fingerprint_counts(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, str]], suffix: str, cache_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("answers") / f"answers{suffix}"
    table = [{"fingerprint": f"{number:032x}", "text": text} for number, text in rows]
    if suffix == ".parquet":
        pl.DataFrame(table, schema={"fingerprint": pl.String, "text": pl.String}).write_parquet(path, row_group_size=4)
    else:
        path.write_text("".join(json.dumps(each) + "\n" for each in table))
    answers = StoredAnswers(path, cache_bytes=cache_bytes)
    first: dict[str, str] = {}
    for each in table:
        first.setdefault(each["fingerprint"], each["text"])
    for number in range(31):
        found = answers.get(f"{number:032x}")
        assert (found.text if found else None) == first.get(f"{number:032x}")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", b'{"fingerprint": "a", "text": "b"}\n{"fingerprint": "a", "te', "line 2: no JSON"),
        ("a.jsonl", b"[1, 2]\n", "line 1: not of the form"),
        ("a.jsonl", b'{"fingerprint": 7, "text": "b"}\n', "line 1: not of the form"),
        ("a.jsonl", b'{"fingerprint": "a", "text": null}\n', "line 1: not of the form"),
        ("a.parquet", b"PAR1 and nothing else", "cannot be read as Parquet"),
        ("a.parquet", b"", "cannot be read as Parquet"),
        ("a.csv", b"fingerprint,text", "no table of answers"),
    ],
)
def test_a_file_that_holds_no_answers_is_refused_with_its_place(
    tmp_path: Path, name: str, content: bytes, complaint: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=complaint):
        StoredAnswers(tmp_path / name)


def test_a_folder_without_answers_and_a_table_without_texts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="results directory"):
        StoredAnswers(tmp_path)
    pq.write_table(pa.table({"fingerprint": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="no column text"):
        StoredAnswers(tmp_path)


def test_a_file_that_changes_during_the_replay_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"fingerprint": "a", "text": "b"}\n')
    answers = StoredAnswers(tmp_path)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(UsageError, match="changed while it was replayed"):
        answers.get("a")


def series_request(rate_hz: float, declared_rate_hz: float | None = None) -> Request:
    part = SeriesPart(np.eye(5000, 3, dtype=np.float32), rate_hz, declared_rate_hz)
    message = Message(role="user", parts=(part, TextPart(text="Pick.")))
    return Request(messages=(message,), sampling=Sampling(), model=MODEL)


def test_a_series_is_found_although_its_engine_was_told_another_rate(tmp_path: Path) -> None:
    """An engine that was told 1660 Hz for 1700 Hz stored another fingerprint; `adapt` finds it again."""
    told, plain = series_request(1700.0, 1660.0), series_request(2000.0)
    engine = ReplayEngine(StoredAnswers(write_run(tmp_path / "run", [row(told, "x"), row(plain, "y")])), model=MODEL)
    assert ask(engine, engine.adapt(series_request(1700.0))).text == "x"
    assert ask(engine, engine.adapt(series_request(2000.0))).text == "y"
    unknown = series_request(3000.0)
    assert engine.adapt(unknown) is unknown


def test_a_series_is_found_although_its_engine_was_sent_a_channel_standardised(tmp_path: Path) -> None:
    values_TC = np.random.default_rng(0).normal(size=(500, 2)).astype(np.float32) + np.float32(1e5)
    message = Message(role="user", parts=(SeriesPart(values_TC, 100.0),))
    asked = Request(messages=(message,), sampling=Sampling(), model=MODEL)
    sent = RULES["reference"].adapt(asked)
    assert sent.fingerprint != asked.fingerprint
    engine = ReplayEngine(StoredAnswers(write_run(tmp_path / "run", [row(sent, "x")])), model=MODEL)
    assert ask(engine, engine.adapt(asked)).text == "x"


def test_a_function_answers_with_a_text_or_a_response_plain_or_async() -> None:
    async def slowly(request: Request) -> Response:
        return Response(fingerprint=request.fingerprint, text="slow", output_tokens=4)

    request = text_request("hello")
    plain = ask(ReplayEngine(function_answer, model=MODEL), request)
    assert (plain.text, plain.fingerprint, plain.attempts) == ("HELLO", request.fingerprint, 1)
    assert plain.engine.startswith("replay ")
    assert ask(ReplayEngine(slowly, model=MODEL), request).output_tokens == 4
    unsigned = ReplayEngine(lambda _: Response(fingerprint="", text="x"), model=MODEL)
    assert ask(unsigned, request).fingerprint == request.fingerprint


def test_a_function_may_fail_one_request_or_end_the_engine() -> None:
    def limited(request: Request) -> str:
        raise EngineError("rate_limited", "slow down")

    def gone(request: Request) -> str:
        raise EngineUnavailable("connection", "nobody there")

    assert ask(ReplayEngine(limited, model=MODEL), text_request("x")).error == "rate_limited"
    with pytest.raises(EngineUnavailable):
        ask(ReplayEngine(gone, model=MODEL), text_request("x"))
    with pytest.raises(TypeError, match="returned int"):
        ask(ReplayEngine(lambda _: 7, model=MODEL), text_request("x"))  # type: ignore[arg-type, return-value]


def test_latency_is_a_number_or_depends_on_the_request() -> None:
    async def seconds(engine: ReplayEngine, text: str) -> float:
        import asyncio

        loop = asyncio.get_running_loop()
        started = loop.time()
        await engine.answer(text_request(text))
        return loop.time() - started

    assert run_virtually(seconds(ReplayEngine(function_answer, model=MODEL, latency_s=2.0), "x")) == 2.0
    by_length = ReplayEngine(function_answer, model=MODEL, latency_s=lambda request: float(len(request.text)))
    assert run_virtually(seconds(by_length, "four")) == 4.0


IDENTITY = {"name": "Intern-S1-Pro", "revision": "abc", "dtype": "bfloat16", "quantisation": "fp8"}


def test_the_model_of_a_stored_run_is_read_from_its_run_json(tmp_path: Path) -> None:
    stored = replace(text_request("a"), model=ModelIdentity(**IDENTITY))
    run = write_run(tmp_path / "run", [row(stored, "x"), row(text_request("b"), "y")], model=IDENTITY)
    for path in (run, run / "rows", run / "rows" / "part-00000.parquet"):
        engine = ReplayEngineSpec(path=str(path)).open()
        assert engine.model == ModelIdentity(**IDENTITY)
        assert ask(engine, replace(text_request("a"), model=engine.model)).text == "x"


def test_a_model_that_contradicts_the_stored_run_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [row(text_request("a"), "x")], model=IDENTITY)
    assert ReplayEngineSpec(path=str(run), model="Intern-S1-Pro").open().model.revision == "abc"
    with pytest.raises(UsageError, match="revision is 'other'"):
        ReplayEngineSpec(path=str(run), revision="other").open()


def test_answers_without_a_run_need_the_model_in_the_job_file(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"fingerprint": "a", "text": "b"}\n')
    with pytest.raises(UsageError, match=r"give engine\.model"):
        ReplayEngineSpec(path=str(tmp_path)).open()
    assert ReplayEngineSpec(path=str(tmp_path), model="m").open().model == ModelIdentity(name="m")
    (tmp_path / "run.json").write_text('{"job": {}}')
    with pytest.raises(UsageError, match="does not say which model"):
        ReplayEngineSpec(path=str(tmp_path)).open()
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="cannot be read"):
        ReplayEngineSpec(path=str(tmp_path)).open()


def test_a_function_is_named_in_the_job_file() -> None:
    name = f"{__name__}:function_answer"
    engine = ReplayEngineSpec(function=name).open()
    assert engine.model == ModelIdentity(name=name)
    assert ask(engine, text_request("hello")).text == "HELLO"
    for wrong in ("no_such_module_here:f", f"{__name__}:nothing", __name__, f"{__name__}:MODEL", ":f"):
        with pytest.raises(UsageError, match=r"engine\.function"):
            ReplayEngineSpec(function=wrong).open()


def test_a_spec_has_either_a_path_or_a_function_and_latency_changes_no_answer() -> None:
    with pytest.raises(ValidationError, match="either path or function"):
        ReplayEngineSpec()
    with pytest.raises(ValidationError, match="either path or function"):
        ReplayEngineSpec(path="a", function="b:c")
    assert "latency_s" not in answer_fields(ReplayEngineSpec(path="a", latency_s=3))


def test_blocks_in_memory_stay_within_their_bound(tmp_path: Path) -> None:
    rows = [row(text_request(str(i)), "x" * 1000) for i in range(60)]
    answers = StoredAnswers(write_run(tmp_path / "run", rows), cache_bytes=8000)
    for i in (*range(60), *range(0, 60, 7)):
        assert answers.get(text_request(str(i)).fingerprint) is not None
        assert answers.cached_bytes <= 8000
