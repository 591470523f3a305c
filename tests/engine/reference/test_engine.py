"""The engine behind its seam: admission, answers, failures of one request, cancellation, the end."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pydantic import ValidationError
from torch import Tensor

from s1batch.config import answer_fields
from s1batch.engine.base import Engine
from s1batch.engine.reference.cache import Memory
from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.checkpoint import initialise, save_checkpoint
from s1batch.engine.reference.engine import ReferenceEngine
from s1batch.engine.reference.generate import BLOCK
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.spec import ReferenceEngineSpec, open_reference
from s1batch.errors import EngineUnavailable, UsageError
from s1batch.records import ImagePart, Message, ModelIdentity, Request, Response, SeriesPart, TextPart
from tests.engine.reference.conftest import ask, picture, small_config

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "contain": {"type": "boolean"},
        "p_index": {"type": ["integer", "null"], "minimum": 0, "maximum": 5999},
    },
    "required": ["contain", "p_index"],
    "additionalProperties": False,
}


def same(response: Response) -> Response:
    return replace(response, seconds=0.0)


async def test_it_is_an_engine(engine: ReferenceEngine) -> None:
    seam: Engine = engine
    assert seam.name == "reference 0.1.0"
    assert (seam.model.name, seam.model.dtype, len(seam.model.revision)) == ("nano", "float32", 32)
    assert seam.batch_class(ask(series=(6000,))) is None
    request = ask(series=(6000,))
    assert seam.adapt(request) is request


async def test_an_answer_accounts_for_its_tokens(engine: ReferenceEngine) -> None:
    request = ask(series=(6000,), schema=SCHEMA, max_tokens=5)
    response = await engine.answer(request)
    assert response.error is None
    assert response.fingerprint == request.fingerprint
    assert response.finish_reason == "length"
    assert response.output_tokens == 5
    text_only = await engine.answer(ask(max_tokens=1))
    assert response.prompt_tokens is not None
    assert text_only.prompt_tokens is not None
    assert response.prompt_tokens == text_only.prompt_tokens + 62 + 2
    assert (response.engine, response.model) == ("reference 0.1.0", "nano")
    assert response.seconds > 0
    assert response.reasoning is None


async def test_answers_do_not_depend_on_who_asks_at_the_same_time(engine: ReferenceEngine) -> None:
    requests = [
        ask("How many? " * (1 + number), temperature=0.7 * (number % 2), seed=number, max_tokens=3 + number % 6)
        for number in range(17)
    ]
    requests.append(ask(series=(1200,), schema=SCHEMA, max_tokens=40))
    together = await asyncio.gather(*(engine.answer(request) for request in requests))
    for request, response in zip(requests, together, strict=True):
        assert same(await engine.answer(request)) == same(response)


async def test_probabilities_tell_of_every_generated_token(engine: ReferenceEngine) -> None:
    request = ask(series=(600,), max_tokens=9, logprobs=3)
    response = await engine.answer(request)
    plain = await engine.answer(replace(request, sampling=replace(request.sampling, logprobs=None)))
    assert plain.logprobs is None
    assert plain.text == response.text
    assert response.logprobs is not None
    assert len(response.logprobs) == response.output_tokens
    for told in response.logprobs:
        assert len(told.top) == 3
        assert told.top[0] == (told.token, told.logprob), "greedy takes the most probable one"
        assert [value for _, value in told.top] == sorted((value for _, value in told.top), reverse=True)
        assert all(value <= 0 for _, value in told.top)
    assert "".join(told.token for told in response.logprobs).startswith(response.text[:2])


async def test_a_request_that_fits_no_memory_is_refused_and_one_that_must_wait_waits() -> None:
    small = open_reference(ReferenceEngineSpec(kind="reference", threads=1, kv_mb=1), Path())
    large = open_reference(ReferenceEngineSpec(kind="reference", threads=1), Path())
    requests = [ask(f"{number}", max_tokens=3 + number, series=(600,) if number % 3 else ()) for number in range(6)]
    requests.insert(3, ask("long", max_tokens=230))  # 512 tokens are 1 MB: it needs all the memory
    narrow = await asyncio.gather(*(small.answer(request) for request in requests))
    wide = await asyncio.gather(*(large.answer(request) for request in requests))
    assert [same(response) for response in narrow] == [same(response) for response in wide]
    assert all(response.error is None for response in narrow)
    too_long = ask("long", max_tokens=600)
    refusal = small.admit(too_long)
    assert refusal is not None
    assert refusal.reason == "context_too_long"
    assert "kv_mb" in refusal.detail
    assert (await small.answer(too_long)).error == "context_too_long"
    assert large.admit(too_long) is None
    await small.aclose()
    await large.aclose()


async def test_in_bfloat16_answers_are_others_and_as_independent_of_the_batch(engine: ReferenceEngine) -> None:
    narrow = open_reference(ReferenceEngineSpec(kind="reference", threads=1, dtype="bfloat16"), Path())
    assert narrow.model == replace(engine.model, dtype="bfloat16")
    requests = [ask(f"{number}", series=(300,), logprobs=0, max_tokens=5) for number in range(2)]
    requests += [ask("picture", images=(picture(320, 256),), logprobs=0, max_tokens=2)]
    requests += [ask("sampled", temperature=1.0, max_tokens=5, logprobs=0, seed=number) for number in range(4)]
    together = await asyncio.gather(*(narrow.answer(request) for request in requests))
    for request, response in zip(requests, together, strict=True):
        assert response.error is None
        assert same(await narrow.answer(request)) == same(response)
        exact = await engine.answer(request)
        assert exact.logprobs is not None
        assert response.logprobs is not None
        # The first token's prompt is the same; bfloat16 has 8 bits.
        assert abs(exact.logprobs[0].logprob - response.logprobs[0].logprob) < 0.3 or request.sampling.temperature
    assert together[0].logprobs != (await engine.answer(requests[0])).logprobs
    await narrow.aclose()


async def test_guided_answers_fit_their_schema_unless_the_limit_cuts_them(engine: ReferenceEngine) -> None:
    requests = [
        ask(f"Question {seed}", schema=SCHEMA, temperature=1.5, seed=seed, max_tokens=6 if seed % 4 == 0 else 40)
        for seed in range(16)
    ]
    for response in await asyncio.gather(*(engine.answer(request) for request in requests)):
        if response.finish_reason == "length":
            assert response.output_tokens == 6
        else:
            jsonschema.validate(json.loads(response.text), SCHEMA)
            assert response.finish_reason == "stop"


async def test_with_thinking_reasoning_and_answer_come_apart(engine: ReferenceEngine) -> None:
    cut = await engine.answer(ask(thinking=True, max_tokens=5))
    assert cut.finish_reason == "length"
    assert cut.text == ""
    assert cut.reasoning
    # At a high temperature the untrained model comes upon `</think>` sooner or later.
    request = ask(thinking=True, schema=SCHEMA, temperature=50.0, max_tokens=6000, seed=1)
    response = await engine.answer(request)
    assert response.finish_reason == "stop"
    assert response.reasoning
    jsonschema.validate(json.loads(response.text), SCHEMA)


def with_parts(request: Request, *parts: Any) -> Request:
    return replace(request, messages=(Message(role="user", parts=(*parts, TextPart(text="?"))),))


BAD = {
    "context_too_long": ask(max_tokens=40_000),
    "preprocess_failed": with_parts(ask(), ImagePart(b"x")),
    "series_too_short": ask(series=(48,)),
    "not_finite": with_parts(ask(), SeriesPart(np.full((100, 1), np.nan, dtype=np.float32), 100.0)),
    "wrong_shape": with_parts(ask(), SeriesPart(np.zeros((3, 100), dtype=np.float32), 100.0)),
    "rate_missing": with_parts(ask(), SeriesPart(np.zeros((100, 1), dtype=np.float32), 0.0)),
    "prompt_error": ask("a <TS_CONTEXT> b"),
    "schema_not_supported": ask(schema={"type": "array", "uniqueItems": True}),
}


async def test_a_bad_request_is_refused_beforehand_and_fails_alone_when_asked_anyway(engine: ReferenceEngine) -> None:
    for reason, request in BAD.items():
        refusal = engine.admit(request)
        assert refusal is not None
        assert (refusal.outcome, refusal.reason) == ("refused", reason)
    good = [ask(f"Good {number}", max_tokens=4) for number in range(4)]
    assert all(engine.admit(request) is None for request in good)
    responses = await asyncio.gather(*(engine.answer(request) for request in (*BAD.values(), *good)))
    assert [response.error for response in responses[: len(BAD)]] == list(BAD)
    assert all(response.finish_reason == "error" and response.detail for response in responses[: len(BAD)])
    for request, response in zip(good, responses[len(BAD) :], strict=True):
        assert response.error is None
        assert same(response) == same(await engine.answer(request))


async def test_the_context_limit_is_exact(engine: ReferenceEngine) -> None:
    response = await engine.answer(ask(max_tokens=1))
    assert response.prompt_tokens is not None
    limit = 32768 - response.prompt_tokens
    assert engine.admit(ask(max_tokens=limit)) is None
    refusal = engine.admit(ask(max_tokens=limit + 1))
    assert refusal is not None
    assert refusal.reason == "context_too_long"


async def test_a_cancelled_answer_frees_its_place(engine: ReferenceEngine) -> None:
    endless = asyncio.create_task(engine.answer(ask(max_tokens=20_000, temperature=1.0)))
    long_series = asyncio.create_task(engine.answer(ask(series=(600_000,))))
    await asyncio.sleep(0.3)
    assert not endless.done()
    endless.cancel()
    long_series.cancel()
    for task in (endless, long_series):
        with pytest.raises(asyncio.CancelledError):
            await task
    async with asyncio.timeout(200):
        assert (await engine.answer(ask(max_tokens=2))).output_tokens == 2


async def test_closing_ends_answers_under_way_and_the_thread() -> None:
    engine = open_reference(ReferenceEngineSpec(kind="reference", threads=2), Path())
    pending = [asyncio.create_task(engine.answer(ask(max_tokens=20_000, temperature=1.0))) for _ in range(20)]
    await asyncio.sleep(0.2)
    await engine.aclose()
    for result in await asyncio.gather(*pending, return_exceptions=True):
        assert isinstance(result, EngineUnavailable)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reference")]
    with pytest.raises(EngineUnavailable):
        await engine.answer(ask())
    await engine.aclose()


async def test_an_engine_that_was_never_asked_closes() -> None:
    await open_reference(ReferenceEngineSpec(kind="reference"), Path()).aclose()


async def test_tokens_are_counted_as_the_model_sees_them(engine: ReferenceEngine) -> None:
    assert engine.count_tokens("12345") == 5


async def test_a_checkpoint_folder_opens_relative_to_the_job_file(tmp_path: Path, nano_folder: Path) -> None:
    config = small_config(vocab_size=1024)
    config = replace(config, ts_token_id=9, image_token_id=5)
    save_checkpoint(initialise(config, 5), tmp_path / "mine", nano_folder)
    engine = open_reference(ReferenceEngineSpec(kind="reference", model="mine", threads=1), tmp_path)
    assert engine.model.name == "mine"
    assert (await engine.answer(ask(max_tokens=3))).output_tokens == 3
    await engine.aclose()
    save_checkpoint(initialise(replace(config, ts_token_id=8), 5), tmp_path / "mine", nano_folder)
    with pytest.raises(UsageError, match="disagree"):
        open_reference(ReferenceEngineSpec(kind="reference", model="mine"), tmp_path)
    with pytest.raises(UsageError, match=r"config\.json"):
        open_reference(ReferenceEngineSpec(kind="reference", model="nowhere"), tmp_path)


def test_only_what_changes_an_answer_is_an_answer_field() -> None:
    spec = ReferenceEngineSpec(kind="reference", weights_seed=3)
    spec = spec.model_copy(update={"kv_mb": 7, "max_batch": 3})
    assert answer_fields(spec) == {"kind": "reference", "model": "nano", "weights_seed": 3, "dtype": "float32"}
    with pytest.raises(ValidationError):
        ReferenceEngineSpec.model_validate({"kind": "reference", "max_batch": 0})


def test_the_job_file_block_the_identity_and_token_counts_need_no_torch() -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "import s1batch.engine.reference.spec as spec\n"
        "from s1batch.engine.reference.chat import ChatFormat\n"
        "folder = spec.model_folder('nano', Path())\n"
        "assert spec.read_identity(folder).revision and ChatFormat(folder).count_tokens('12') == 2\n"
        "assert not {'torch', 'llguidance'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


class BreaksWhileDecoding(InternS1Pro):
    """A network with a programming error that shows only in a decoding step."""

    def states(self, embedded_TH: Tensor, memory: Memory, routed: list[Tensor] | None = None) -> Tensor:
        """Fail on the shape of a decoding step."""
        if embedded_TH.shape[0] == BLOCK:
            raise ZeroDivisionError("broken")
        return super().states(embedded_TH, memory, routed)


async def test_a_broken_engine_says_so_to_everybody_and_leaves_nobody_waiting(
    chat: ChatFormat, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", died.append)
    network = BreaksWhileDecoding(small_config(vocab_size=1024))
    engine = ReferenceEngine(model=network, chat=chat, identity=ModelIdentity(name="broken"), max_batch=2, threads=1)
    async with asyncio.timeout(200):
        results = await asyncio.gather(*(engine.answer(ask(f"{n}")) for n in range(5)), return_exceptions=True)
    assert all(isinstance(result, EngineUnavailable) and "broken" in str(result) for result in results)
    with pytest.raises(EngineUnavailable, match="broken"):
        await engine.answer(ask())
    await engine.aclose()
    assert [args.exc_type for args in died] == [ZeroDivisionError]


async def test_reasoning_is_cut_at_its_budget_and_an_answer_follows(engine: ReferenceEngine, chat: ChatFormat) -> None:
    free = await engine.answer(ask(thinking=True, max_tokens=60))
    assert (free.text, free.finish_reason) == ("", "length"), "untrained for it, the model thinks to the end"
    bound = await engine.answer(ask(thinking=True, thinking_budget=20, max_tokens=60, schema=SCHEMA))
    jsonschema.validate(json.loads(bound.text), SCHEMA)
    assert bound.finish_reason == "stop"
    assert bound.reasoning is not None
    assert free.reasoning is not None
    assert free.reasoning.startswith(bound.reasoning), "the same thought, cut"
    assert chat.count_tokens(bound.reasoning) <= 20
    without = await engine.answer(ask(thinking=True, thinking_budget=20, max_tokens=60))
    assert without.reasoning == bound.reasoning
    assert without.output_tokens is not None
    assert without.output_tokens > 21
    ample = await engine.answer(ask(thinking=True, thinking_budget=59, max_tokens=60))
    assert ample.reasoning is not None
    assert free.reasoning.startswith(ample.reasoning), "a budget that is not spent changes nothing before its end"
