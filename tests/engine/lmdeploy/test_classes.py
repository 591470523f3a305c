"""What the job file's block says of LMDeploy's classes, and what is built on them, against the real LMDeploy 0.18.0."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from s1batch.engine.lmdeploy.engine_fields import BACKENDS, SET_ELSEWHERE, EngineFields, engine_field_names
from s1batch.engine.lmdeploy.generation_fields import SET_BY_THE_JOB, GenerationFields
from s1batch.engine.lmdeploy.question import generation_fields, response_format
from s1batch.engine.rules import RULES
from s1batch.records import Message, ModelIdentity, Request, Sampling, TextPart, Tool

pytestmark = pytest.mark.slow

SIDE = Path(__file__).with_name("lmdeploy_side.py")

SCHEMA = {
    "type": "object",
    "properties": {"found": {"type": "boolean"}, "at": {"type": "integer"}},
    "required": ["found", "at"],
    "additionalProperties": False,
}
TOOL = Tool("depth", "How deep.", {"type": "object", "properties": {"m": {"type": "integer"}}, "required": ["m"]})

EXAMPLES: dict[Any, Any] = {bool: True, int: 32, float: 0.5, str: "auto"}

SPECIAL: dict[str, Any] = {
    "hf_overrides": {"text_config": {"num_hidden_layers": 2}},
    "adapters": {"one": "/one"},
    "custom_module_map": {"a": "b"},
    "kv_transfer_config": {"kv_connector": "x", "kv_role": "kv_both"},
    "quant_policy": 8,
    "prefix_cache_decode_state_interval": 64,
    "moe_a2a_backend": "deepep",
}

THOUGHT = 'It is { "found" } perhaps.</think>\n\n{"found": true, "at": 3}'


def example(annotation: Any) -> Any:
    """A value of a type: the last one of a choice, so that it is seldom the default."""
    inner = [each for each in get_args(annotation) if each is not type(None)]
    if get_origin(annotation) is Literal:
        return inner[-1]
    if get_origin(annotation) is list:
        return [example(inner[0])]
    return example(inner[0]) if inner else EXAMPLES[annotation]


def request(**fields: Any) -> Request:
    message = Message(role="user", parts=(TextPart(text="?"),))
    sampling = fields.pop("sampling", Sampling())
    return Request(messages=(message,), sampling=sampling, model=ModelIdentity(name="m"), **fields)


VALUES: dict[str, dict[str, Any]] = {
    backend: {
        name: SPECIAL[name] if name in SPECIAL else example(EngineFields.model_fields[name].annotation)
        for name in engine_field_names(backend)
    }
    for backend in BACKENDS
}

RULES_HERE = replace(RULES["lmdeploy"], thinking_with_schema=True)

GRAMMARS: dict[str, tuple[Any, dict[str, str]]] = {
    "thinking": (
        response_format(request(schema=SCHEMA, sampling=Sampling(thinking=True)), RULES_HERE),
        {
            THOUGHT: "end",
            THOUGHT.replace("3", '"3"'): '"',
            THOUGHT.replace("\n\n", ""): '{"',
            THOUGHT + " or so": "or",
            "It is <|im_end|>": "<|im_end|>",
            '{"found": true, "at": 3}': "more",
        },
    ),
    "call": (
        response_format(request(tools=(TOOL, replace(TOOL, name="size")), tool_choice="required"), RULES_HERE),
        {
            '<tool_call>\n{"name": "size", "arguments": {"m": 3}}\n</tool_call>': "end",
            '<tool_call>\n{"name": "depth", "arguments": {"m": 3}}\n</tool_call>': "end",
            '<tool_call>\n{"name": "weight"': "w",
            "It is 3 m.": "I",
        },
    ),
}
"""Texts, and what comes of them: the token at which they are stopped, whether they may end, or must go on."""

JOINED = [
    ([(6000, 3, 100.0), (5000, 3, 100.0)], "RuntimeError: Sizes of tensors must match"),
    ([(6000, 3, 100.0), (6000, 1, 100.0)], "RuntimeError: Sizes of tensors must match"),
    ([(6000, 3, 100.0), (6000, 3, 50.0)], "[2, 6000, 3] at [100.0, 50.0]"),
    ([(6000, 3, 100.0), (6000, 3, 100.0)], "[2, 6000, 3] at [100.0, 100.0]"),
]
"""Series that are prefilled together, and what the real model's input code makes of them."""


@pytest.fixture(scope="module")
def theirs(lmdeploy_python: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("side")
    generation = {name: example(info.annotation) for name, info in GenerationFields.model_fields.items()}
    for sampling in (Sampling(temperature=0.7, top_k=20), Sampling(repetition_penalty=1.1, logprobs=3)):
        generation |= generation_fields(request(sampling=sampling, schema=SCHEMA), RULES_HERE)
    told = {
        "values": {**VALUES, "generation": generation},
        "joined": [shapes for shapes, _ in JOINED],
        "grammars": {name: (tag, list(texts)) for name, (tag, texts) in GRAMMARS.items()},
    }
    (folder / "told.json").write_text(json.dumps(told))
    command = [lmdeploy_python, SIDE, folder / "told.json", folder / "answers.json", checkpoint]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads((folder / "answers.json").read_text())
    return found


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_field_of_the_engine_configurations_is_known_and_no_other(theirs: dict[str, Any], backend: Any) -> None:
    known = {*engine_field_names(backend), *SET_ELSEWHERE}
    real = set(theirs["names"][backend])
    assert real <= known
    assert set(engine_field_names(backend)) <= real


def test_every_field_of_the_generation_configuration_is_known_and_no_other(theirs: dict[str, Any]) -> None:
    assert set(theirs["names"]["generation"]) == {*GenerationFields.model_fields, *SET_BY_THE_JOB}


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_field_reaches_the_real_configuration(theirs: dict[str, Any], backend: Any) -> None:
    for name, value in VALUES[backend].items():
        found = theirs["taken"][backend][name]
        assert "KVTransferConfig" in found if name == "kv_transfer_config" else found in (str(value), "INT8"), name


def test_every_field_of_the_sampling_reaches_the_real_configuration(theirs: dict[str, Any]) -> None:
    found = theirs["taken"]["generation"]
    assert (found["do_sample"], found["top_k"], found["repetition_penalty"], found["logprobs"]) == (
        "True",
        "1",
        "1.1",
        "3",
    )
    assert found["stop_words"] == "['auto']"


@pytest.mark.parametrize("number", range(len(JOINED)))
def test_series_of_different_shape_or_rate_must_not_be_prefilled_together(theirs: dict[str, Any], number: int) -> None:
    """Other lengths or channels end LMDeploy's main loop; another rate passes, and gives other counts of embeddings."""
    assert theirs["joined"][number].startswith(JOINED[number][1])


@pytest.mark.parametrize("name", GRAMMARS)
def test_lmdeploys_guided_decoding_follows_the_structural_tags(theirs: dict[str, Any], name: str) -> None:
    texts = GRAMMARS[name][1]
    found = dict(zip(texts, theirs["followed"][name], strict=True))
    assert {text: result.strip() for text, result in found.items()} == texts
