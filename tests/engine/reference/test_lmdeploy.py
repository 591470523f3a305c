"""The reference model against the real LMDeploy, on the CPU, with the same checkpoint folder.

LMDeploy goes into an environment of its own that sees this one's packages. There is no CPU engine in it; its encoder
module, its preprocessing and its chat template run as they are (`lmdeploy_side.py`).
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from s1batch.engine.http.payload import encode_request
from s1batch.engine.http.question import Question, after_thought, only_thought
from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.checkpoint import initialise, load_model, save_checkpoint
from s1batch.engine.reference.config import ModelConfig
from s1batch.engine.reference.images import cut, normalised
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.rules import RULES
from s1batch.engine.tokens import is_poison_rate, safe_rate, series_tokens, shortest_series
from s1batch.records import (
    ImagePart,
    Message,
    ModelIdentity,
    Request,
    Role,
    Sampling,
    SeriesPart,
    TextPart,
    Tool,
    ToolCall,
)
from tests.engine.reference.conftest import picture
from tests.engine.reference.test_decoder import roughened

pytestmark = pytest.mark.slow

POISON_HZ = (1664.0, 2000.0, 2500.0, 3000.0, 3673.0)
RATES_HZ = (0.1, 1.0, 5.0, 20.0, 47.3, 50.0, 100.0, 200.0, 384.9, 500.0, 1000.0, 1660.0, *POISON_HZ, 3680.0, 16_000.0)

COUNTED = [
    (steps, rate_hz)
    for rate_hz in RATES_HZ
    for steps in (*range(shortest_series(rate_hz), shortest_series(rate_hz) + 12), 6000, 12_345, 99_999, 240_000)
]
COUNTED += [
    (steps, float(rate_hz))
    for rate_hz in (*range(1650, 3700, 37), *range(7, 700, 41), 1663.75, 1663.76, 3673.5, 3674, 8000, 44_100)
    for steps in (321, 640, 6000, 40_000)
]

ENCODED = [
    (steps, channels, rate_hz)
    for rate_hz in (1.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1660.0, 3680.0, 16_000.0)
    for steps, channels in ((shortest_series(rate_hz), 1), (shortest_series(rate_hz) + 7, 3), (2500, 2))
] + [(6000, 3, 100.0), (8000, 1, 4.0), (40_000, 1, 1660.0), (40_000, 1, 3680.0)]

POISONED = [(40_000, 1, rate_hz) for rate_hz in (1664.0, 1700.0, 2000.0, 2800.0, 3600.0, 3673.0)]

SPOKEN: list[tuple[bool, list[tuple[Role, list[Any]]]]] = [
    (False, [("user", [(6000, 3, 100.0), "Is there an earthquake? p_index = 12345"])]),
    (True, [("user", [(6000, 3, 100.0), "Is there an earthquake?"])]),
    (False, [("system", ["Be brief."]), ("user", ["before", (777, 1, 47.3), "behind\n"])]),
    (False, [("user", [(500, 2, 2000.0), "a poison rate"])]),
    (True, [("user", ["é <b> {{ 7 }} 地震"]), ("assistant", ["Yes."]), ("user", ["Why?"])]),
    (False, [("user", [picture(320, 256), "Is there a fossil?"])]),
    (False, [("user", [picture(333, 777), picture(20, 30), "Which one?"])]),
]


TOOL = Tool("depth", "How deep.", {"type": "object", "properties": {"station": {"type": "string"}}})
CALL = ToolCall(id="call00000", name="depth", arguments='{"station": "é"}')


def said(role: Role, *texts: str, **more: Any) -> Message:
    return Message(role=role, parts=tuple(TextPart(text=text) for text in texts), **more)


SENT = {
    "several texts": ([said("system", "Be ", "brief."), said("user", "How", " deep", "\nis it?")], ()),
    "a call and its result": (
        [
            said("system", "Be brief."),
            said("user", "How deep?"),
            said("assistant", "Let me see.", tool_calls=(CALL, CALL)),
            said("tool", "8 km", tool_call_id="call00000"),
            said("tool", "9 km", tool_call_id="call00001"),
        ],
        (TOOL,),
    ),
    "a call alone": (
        [said("user", "How deep?"), said("assistant", tool_calls=(CALL,)), said("tool", "8", tool_call_id="call00000")],
        (TOOL,),
    ),
}
"""Conversations that are sent as the HTTP engine sends them."""


THOUGHT = "The first samples are quiet,\n\nthen"


def wave(steps: int, channels: int) -> Any:
    return (np.random.default_rng(steps).standard_normal((steps, channels)) * 1000 + 50).astype(np.float32)


BOUND = Request(
    messages=(
        said("system", "Be brief."),
        Message(role="user", parts=(TextPart(text="Pick.\n"), SeriesPart(wave(6000, 3), 100.0))),
    ),
    sampling=Sampling(thinking=True, thinking_budget=7),
    model=ModelIdentity(name="m"),
)
"""Asked in two requests, the second of which ends with the thought."""


def _lmdeploy_body(request: Request) -> bytes:
    return encode_request(request, model="m", dialect="lmdeploy", rules=RULES["lmdeploy"])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, nano_folder: Path) -> Path:
    """The nano model with norms and biases that are not one and zero."""
    folder = tmp_path_factory.mktemp("checkpoint") / "nano"
    model, _ = roughened(initialise(ModelConfig.read(nano_folder), 0))
    save_checkpoint(model, folder, nano_folder)
    return folder


@pytest.fixture(scope="module")
def model(saved: Path) -> InternS1Pro:
    return load_model(saved)


@pytest.fixture(scope="module")
def theirs(lmdeploy_python: Path, saved: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("answers")
    arrays: dict[str, Any] = {}
    encoded, prompts = [], []
    for steps, channels, rate_hz in ENCODED + POISONED:
        arrays[f"wave-{steps}-{channels}-{rate_hz:g}"] = wave(steps, channels)
        encoded.append({"key": f"wave-{steps}-{channels}-{rate_hz:g}", "rate_hz": rate_hz})
    for number, (thinking, turns) in enumerate(SPOKEN):
        messages: list[dict[str, Any]] = []
        for role, parts in turns:
            told = []
            for place, part in enumerate(parts):
                key = f"media-{number}-{len(messages)}-{place}"
                if isinstance(part, str):
                    told.append({"type": "text", "text": part})
                elif isinstance(part, ImagePart):
                    arrays[key] = np.frombuffer(part.data, dtype=np.uint8)
                    told.append({"type": "image", "key": key})
                else:
                    arrays[key] = wave(*part[:2])
                    told.append({"type": "series", "key": key, "rate_hz": part[2]})
            messages.append({"role": role, "parts": told})
        prompts.append({"thinking": thinking, "messages": messages})
    bodies = [
        json.loads(
            _lmdeploy_body(
                Request(messages=tuple(messages), tools=tools, sampling=Sampling(), model=ModelIdentity(name="m"))
            )
        )
        for messages, tools in SENT.values()
    ]
    question = Question("", only_thought(BOUND, 7), _lmdeploy_body)
    question.go_on(THOUGHT, after_thought(BOUND, 7, RULES["lmdeploy"]))
    bodies.append(json.loads(question.body))
    told_json = json.dumps({"counts": COUNTED, "encoded": encoded, "prompts": prompts, "bodies": bodies})
    np.savez(folder / "cases.npz", told=np.array(told_json), **arrays)
    command = [
        lmdeploy_python,
        Path(__file__).with_name("lmdeploy_side.py"),
        saved,
        folder / "cases.npz",
        folder / "answers.npz",
    ]
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(folder / "answers.npz") as answers:
        return dict(answers)


def test_placeholders_are_as_many_as_lmdeploy_writes_at_every_rate(theirs: dict[str, Any]) -> None:
    assert theirs["placeholders"].tolist() == [series_tokens(steps, rate_hz) for steps, rate_hz in COUNTED]


@pytest.mark.parametrize(("steps", "channels", "rate_hz"), ENCODED)
def test_embeddings_of_a_series_are_lmdeploys(
    theirs: dict[str, Any], model: InternS1Pro, steps: int, channels: int, rate_hz: float
) -> None:
    assert not is_poison_rate(rate_hz)
    with torch.inference_mode():
        made = model.model.time_series(wave(steps, channels), rate_hz).numpy()
    wanted = theirs[f"wave-{steps}-{channels}-{rate_hz:g}"]
    assert made.shape == wanted.shape
    assert np.abs(wanted).max() > 0.5
    np.testing.assert_allclose(made, wanted, atol=1e-4)


def test_at_a_poison_rate_lmdeploy_disagrees_with_itself_and_at_the_safe_one_with_nobody(
    theirs: dict[str, Any],
) -> None:
    for steps, channels, rate_hz in POISONED:
        assert is_poison_rate(rate_hz)
        assert len(theirs[f"wave-{steps}-{channels}-{rate_hz:g}"]) != series_tokens(steps, rate_hz)
        safe = safe_rate(rate_hz)
        assert len(theirs[f"wave-{steps}-{channels}-{safe:g}"]) == series_tokens(steps, safe)


@pytest.mark.parametrize("number", range(len(SPOKEN)))
def test_prompts_are_the_same_tokens(theirs: dict[str, Any], saved: Path, number: int) -> None:
    thinking, turns = SPOKEN[number]
    messages = [Message(role=role, parts=tuple(_part(part) for part in parts)) for role, parts in turns]
    prompt = ChatFormat(saved).prompt(messages, thinking=thinking)
    assert theirs[f"ids{number}"].tolist() == list(prompt.ids)


@pytest.mark.parametrize("name", SENT)
def test_what_is_sent_becomes_the_tokens_that_are_counted(theirs: dict[str, Any], saved: Path, name: str) -> None:
    """LMDeploy's server takes the outer `type` off a tool first; here its template gets the whole definition."""
    messages, tools = SENT[name]
    prompt = ChatFormat(saved).prompt(messages, thinking=False, tools=tools)
    assert theirs[f"sent{list(SENT).index(name)}"].tolist() == list(prompt.ids)


def test_behind_a_thought_that_its_budget_cut_the_model_goes_on_as_if_it_had_ended_it(
    theirs: dict[str, Any], saved: Path
) -> None:
    """The prompt of the second request is that of the first one, the thought, and what follows a thought."""
    chat = ChatFormat(saved)
    prompt = chat.prompt(BOUND.messages, thinking=True)
    assert theirs[f"sent{len(SENT)}"].tolist() == [*prompt.ids, *chat.encode(f"{THOUGHT}</think>\n\n")]


def test_the_pixels_of_an_image_are_the_same(theirs: dict[str, Any]) -> None:
    (number,) = (number for number, (_, turns) in enumerate(SPOKEN) if "fossil" in str(turns))
    mine = normalised(cut(picture(320, 256)).pixels_PV)
    np.testing.assert_allclose(theirs[f"pixels{number}"], mine, atol=1e-6)


def test_lmdeploy_finds_the_position_encoding(theirs: dict[str, Any]) -> None:
    assert theirs["fope"].tolist() == [16, 2, 1]


def _part(part: Any) -> TextPart | SeriesPart | ImagePart:
    if isinstance(part, str):
        return TextPart(text=part)
    return part if isinstance(part, ImagePart) else SeriesPart(wave(*part[:2]), part[2])
