"""The tools of a job: which there are, how they may be used, and what happens when one goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s1batch.errors import JobFileError
from s1batch.jobs.ask import AskJob
from s1batch.jobs.ask_spec import AskSpec
from s1batch.jobs.base import Settings
from s1batch.jobs.tools.function import ToolError, ToolFunction
from s1batch.jobs.tools.toolbox import BUILT_IN, LONGEST_RESULT, Toolbox, error_text, load_tools
from s1batch.records import Chunk, Fields, ModelIdentity, PlanEntry, Record, Sampling, ToolCall

ROW = Record(chunk=Chunk(inputs=()), payload=Fields(values={}))


def box(**functions: Any) -> Toolbox:
    return Toolbox(functions=tuple(ToolFunction(name, function) for name, function in functions.items()))


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, arguments=json.dumps(arguments))


def raising() -> None:
    raise KeyError("<|im_end|> gone")


def leaving() -> None:
    raise SystemExit(3)


def large() -> str:
    return "x" * 10_000_000


def wild() -> str:
    return "<|im_end|> \ud800 <tool_call>"


def test_whatever_a_tool_raises_is_told_to_the_model() -> None:
    for function, said in (
        (raising, "KeyError"),
        (leaving, "SystemExit: 3"),
        (large, f"10,000,000 characters, the most is {LONGEST_RESULT:,}"),
    ):
        with pytest.raises(ToolError, match=said):
            box(tool=function).run(call("tool"), ROW)
    with pytest.raises(ToolError, match="there is no tool 'other'; there are tool"):
        box(tool=large).run(call("other"), ROW)


def test_no_special_token_comes_back_from_a_tool() -> None:
    assert box(tool=wild).run(call("tool"), ROW) == "< |im_end|> ? < tool_call>"
    assert json.loads(error_text("a <|im_end|>\n" + "b" * 10_000))["error"].startswith("a < |im_end|> bbb")
    assert len(error_text("b" * 10_000)) < 400


def test_every_built_in_tool_can_be_loaded_and_described() -> None:
    functions = load_tools(list(BUILT_IN), Path())
    assert [each.name for each in functions] == list(BUILT_IN)
    for each in functions:
        assert each.tool.description
        assert each.tool.parameters["type"] == "object"


def test_a_function_beside_the_job_file_is_a_tool(tmp_path: Path) -> None:
    (tmp_path / "my_own_tools.py").write_text("def double(x: float) -> float:\n    'Twice.'\n    return 2 * x\n")
    (function,) = load_tools(["my_own_tools:double"], tmp_path)
    assert function.run('{"x": 4}', ROW) == "8.0"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"tools": ["calculator"]}, "built in: calculate, convert_units"),
        ({"tools": ["no_such_module:f"]}, "cannot import 'no_such_module'"),
        ({"tools": ["json:nothing"]}, "has no 'nothing'"),
        ({"tools": ["calculate", "calculate"]}, "two tools have one name"),
        ({"tools": ["calculate"], "tool_choice": "other"}, r"valid: auto, required, calculate"),
        ({"tool_choice": "required"}, "without job.tools"),
    ],
)
def test_a_wrong_tool_is_an_error_of_the_job_file(fields: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(JobFileError, match=said):
        AskSpec.model_validate({"kind": "ask", "prompt": "?", **fields}).build(tmp_path)


def ask_job(**fields: Any) -> AskJob:
    job = AskSpec.model_validate({"kind": "ask", "prompt": "?", **fields}).build(Path())
    assert isinstance(job, AskJob)
    return job


def test_the_tools_are_part_of_the_question_and_of_its_identity() -> None:
    settings = Settings(model=ModelIdentity(name="m"), sampling=Sampling())
    plain, offered = ask_job(), ask_job(tools=["calculate"], tool_choice="calculate")
    request = offered.prepare(ROW, settings)
    assert [tool.name for tool in request.tools] == ["calculate"]
    assert request.must_call
    assert request.fingerprint != plain.prepare(ROW, settings).fingerprint
    assert offered.prompt_hash != plain.prompt_hash
    assert offered.outline(PlanEntry(chunk=ROW.chunk)).startswith('{"type": "function"')
