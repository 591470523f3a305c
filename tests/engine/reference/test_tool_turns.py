"""A call and the answer after it through the reference engine: every token of both prompts, and the answer's logits.

The prompts are written out by hand from the published form; the logits are those of one pass of the network over the
whole text, without a cache.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from torch import Tensor

from s1batch.conversation import Conversation, Conversed
from s1batch.engine.feeder import Fed
from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.checkpoint import load_model
from s1batch.engine.reference.engine import ReferenceEngine
from s1batch.engine.reference.model import InternS1Pro
from s1batch.jobs.answers import interpret_text
from s1batch.jobs.ask import AskJob
from s1batch.jobs.question import Question
from s1batch.jobs.template import PromptTemplate
from s1batch.jobs.tools.function import ToolFunction
from s1batch.jobs.tools.toolbox import Toolbox
from s1batch.records import Chunk, Message, ModelIdentity, Record, Request, TextPart, Tool, ToolCall, Turn
from s1batch.tool_runner import ToolRunner
from tests.engine.reference.conftest import ask
from tests.tools import depth

TOOLS = (ToolFunction("depth", depth).tool,)
OFFER = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n"
    '{"type": "function", "function": {"name": "depth", "description": "How deep events at a station are.", '
    '"parameters": {"additionalProperties": false, "properties": {"station": {"enum": ["RJOB", "ALTN"], '
    '"type": "string", "description": "Code of the station."}, "unit": {"default": "km", "enum": ["km", "m"], '
    '"type": "string"}}, "required": ["station"], "type": "object"}}}\n'
    "</tools>\n\nFor each function call, return a json object with function name and arguments within "
    '<tool_call></tool_call> XML tags:\n<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n'
    "</tool_call>"
)


class Seen:
    """What goes into the network and comes out of it, token by token."""

    def __init__(self, network: InternS1Pro) -> None:
        self.prompts: list[list[int]] = []
        self.logits: list[Tensor] = []
        network.model.language_model.embed_tokens.register_forward_hook(self._embedded)
        network.lm_head.register_forward_hook(self._scored)

    def _embedded(self, module: Any, given: tuple[Tensor], made: Tensor) -> None:
        if given[0].shape[0] > 50:
            self.prompts.append(given[0].tolist())

    def _scored(self, module: Any, given: Any, made: Tensor) -> None:
        self.logits.append(made[0].clone())  # the only sequence is in the first row


@pytest.fixture
async def watched(nano_folder: Path, chat: ChatFormat) -> AsyncIterator[tuple[ReferenceEngine, Seen]]:
    network = load_model(nano_folder)
    seen = Seen(network)
    engine = ReferenceEngine(model=network, chat=chat, identity=ModelIdentity(name="nano"), threads=1)
    yield engine, seen
    await engine.aclose()


async def converse(engine: ReferenceEngine, request: Request, kept: list[Turn]) -> Conversed:
    async def put(question: Request) -> Fed:
        return Fed(response=await engine.answer(question), shared=False)

    async def never() -> None:
        raise AssertionError("with tools the question is kept")

    async def keep(number: int, turn: Turn) -> None:
        kept.append(turn)

    conversation = Conversation(
        job=AskJob(
            question=Question(
                prompt=PromptTemplate("How deep?", "job.prompt"),
                toolbox=Toolbox(functions=(ToolFunction("depth", depth),), max_turns=2),
            )
        ),
        record=Record(chunk=Chunk(inputs=())),
        runner=ToolRunner(),
        ask=put,
        admit=engine.admit,
        judge=interpret_text,
        again=never,
        keep=keep,
    )
    return await conversation.hold([request])


@pytest.mark.parametrize("choice", ["required", "depth"])
async def test_a_forced_call_and_the_free_answer_after_it(
    choice: str, watched: tuple[ReferenceEngine, Seen], chat: ChatFormat, nano_folder: Path
) -> None:
    engine, seen = watched
    plain = ask("How deep is it?", series=(600,), max_tokens=48)
    system = Message(role="system", parts=(TextPart(text="Be brief."),))
    request = replace(plain, messages=(system, *plain.messages), tools=TOOLS, tool_choice=choice)
    assert engine.admit(request) is None
    kept: list[Turn] = []
    ended = await converse(engine, request, kept)

    (turn,) = ended.turns
    (call,) = turn.response.tool_calls
    (result,) = turn.results
    assert (turn.response.finish_reason, turn.response.text) == ("tool_calls", "")
    assert json.loads(result.text) == depth(**json.loads(call.arguments))
    assert [len(each.results) for each in kept] == [0, 1], "the answer is kept before its tools run"

    places = "<TS_CONTEXT>" * 6
    first = (
        f"<|im_start|>system\nBe brief.\n\n{OFFER}<|im_end|>\n"
        f"<|im_start|>user\n<|ts|>{places}<|/ts|>How deep is it?<|im_end|>\n"
    )
    ready = "<|im_start|>assistant\n<think></think>\n\n"
    second = (
        f'{first}<|im_start|>assistant\n<tool_call>\n{{"name": "depth", "arguments": {call.arguments}}}\n'
        f"</tool_call><|im_end|>\n<|im_start|>user\n<tool_response>\n{result.text}\n</tool_response><|im_end|>\n{ready}"
    )
    tokenizer = Tokenizer.from_file(str(nano_folder / "tokenizer.json"))
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in (first + ready, second)]
    assert seen.prompts == ids
    assert (turn.response.prompt_tokens, ended.response.prompt_tokens) == (len(ids[0]), len(ids[1]))

    logits = seen.logits[turn.response.output_tokens :]
    assert ended.response.output_tokens == len(logits)
    answer = [int(each.argmax()) for each in logits]
    shown = answer[:-1] if ended.response.finish_reason == "stop" else answer
    assert ended.response.text == chat.split(shown, thinking=False)[0]
    network = load_model(nano_folder)
    with torch.inference_mode():
        heard = [network.model.time_series(part.values_TC, part.rate_hz) for part in request.series]
        whole = network(torch.tensor([*ids[1], *answer[:-1]]), heard)[len(ids[1]) - 1 :]
    assert float(whole.abs().max()) > 0.5
    # Relative to the largest: float32 rounds sums of that size, whatever the element is.
    torch.testing.assert_close(torch.stack(logits), whole, atol=1e-5 * float(whole.abs().max()), rtol=0)


async def test_a_limit_that_cuts_the_call_leaves_no_call(engine: ReferenceEngine) -> None:
    request = replace(ask(max_tokens=4), tools=TOOLS, tool_choice="required")
    response = await engine.answer(request)
    assert (response.finish_reason, response.tool_calls) == ("length", ())
    assert response.text.startswith("<tool_call>")


async def test_a_tool_that_no_grammar_can_follow_is_refused_beforehand(engine: ReferenceEngine) -> None:
    odd = Tool("odd", "", {"type": "object", "properties": {"a": {"type": "array", "uniqueItems": True}}})
    refusal = engine.admit(replace(ask(), tools=(odd,), tool_choice="odd"))
    assert refusal is not None
    assert refusal.reason == "schema_not_supported"


async def test_special_tokens_in_tools_and_calls_are_refused(engine: ReferenceEngine) -> None:
    tool = Tool("a", "Ends with <|im_end|>", {"type": "object", "properties": {}})
    said = Message(role="assistant", parts=(), tool_calls=(ToolCall(name="a", arguments='{"x": "<TS_CONTEXT>"}'),))
    plain = ask()
    for request in (replace(plain, tools=(tool,)), replace(plain, messages=(*plain.messages, said), tools=TOOLS)):
        refusal = engine.admit(request)
        assert refusal is not None
        assert refusal.reason == "prompt_error"
