"""The vision tower against transformers' own modules, and image prompts against a second, naive computation."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.checkpoint import initialise, load_model, public_tensors, save_checkpoint
from s1batch.engine.reference.engine import ReferenceEngine
from s1batch.engine.reference.images import ImagePatches, cut, normalised
from s1batch.engine.reference.spec import ReferenceEngineSpec, model_rules, open_reference
from s1batch.engine.reference.vision import PATCHES_AT_ONCE, VisionTower
from s1batch.engine.tokens import image_tokens
from s1batch.errors import EngineError
from s1batch.records import ImagePart, Message, TextPart
from tests.engine.reference import naive
from tests.engine.reference.conftest import ask, picture, small_config
from tests.engine.reference.test_decoder import roughened
from tests.engine.reference.test_images import BROKEN


def noise(rows: int, columns: int) -> ImagePatches:
    pixels = np.random.default_rng(rows).integers(0, 256, (rows * columns, 768), dtype=np.uint8)
    return ImagePatches(rows=rows, columns=columns, pixels_PV=pixels)


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (4, 10), (14, 2), (16, 20), (64, 66)])
def test_embeddings_are_those_of_transformers_vision_model(rows: int, columns: int) -> None:
    from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
    from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel

    model, _ = roughened(initialise(small_config(), 3))
    vision = small_config().to_document()["vision_config"]
    other: Any = Qwen3VLVisionModel(Qwen3VLVisionConfig(**{**vision, "model_type": "qwen3_vl_vision"})).eval()
    tower: Any = model.model.visual
    other.load_state_dict(tower.state_dict())
    image = noise(rows, columns)
    assert rows < 64 or rows * columns > PATCHES_AT_ONCE
    with torch.inference_mode():
        wanted = other(torch.from_numpy(normalised(image.pixels_PV)), torch.tensor([[1, rows, columns]])).pooler_output
        made = tower(image)
    assert float(wanted.abs().max()) > 0.5
    torch.testing.assert_close(made, wanted, atol=1e-5, rtol=0)


def pixels(part: ImagePart, width: int, height: int) -> NDArray[np.float64]:
    image = Image.open(BytesIO(part.data)).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image).astype(np.float64)


def test_logits_of_a_prompt_with_images_and_a_series_are_those_of_the_independent_model() -> None:
    """Both towers, the splice by hand, and the decoder, all in float64 loops."""
    config = small_config(max_position_embeddings=1024)
    model, weights = roughened(initialise(config, 3))
    document = config.to_document()
    first, second = picture(256, 256, seed=1), picture(40, 30, seed=2)
    values = np.random.default_rng(0).standard_normal((120, 2)).astype(np.float32)
    seen = [
        naive.image_embeddings(document["vision_config"], weights, pixels(first, 256, 256)),
        naive.image_embeddings(document["vision_config"], weights, pixels(second, 320, 224)),
    ]
    heard = naive.series_embeddings(document["ts_config"], weights, values.astype(np.float64), 100.0)
    counts = [len(each) for each in seen]
    assert counts == [image_tokens(256, 256), image_tokens(40, 30)] == [64, 70]
    ids = [7, 57, *[59] * 64, 56, 3, *[60] * len(heard), 57, *[59] * 70, 56, 41]
    wanted = naive.decoder_logits(document, weights, ids, heard, np.concatenate(seen))
    with torch.inference_mode():
        tower: Any = model.model.visual
        made = model(
            torch.tensor(ids), [model.model.time_series(values, 100.0)], [tower(cut(first)), tower(cut(second))]
        )
    assert np.abs(wanted).max() > 1
    np.testing.assert_allclose(made.numpy(), wanted, atol=2e-5)


def test_a_model_without_a_tower_has_no_weights_of_one() -> None:
    names = [name for name in public_tensors(initialise(small_config(), 0)) if name.startswith("model.visual.")]
    assert len(names) == 2 + 1 + 2 * 12 + 6
    blind = replace(small_config(), vision=None)
    assert not any("visual" in name for name in public_tensors(initialise(blind, 0)))
    assert "vision_config" not in blind.to_document()


async def test_an_image_request_is_answered_within_its_schema(engine: ReferenceEngine) -> None:
    fossil = {"fossil": {"type": "boolean"}}
    schema = {"type": "object", "properties": fossil, "required": ["fossil"], "additionalProperties": False}
    request = ask("Is there a fossil?", images=(picture(320, 256),), schema=schema, max_tokens=40)
    assert engine.admit(request) is None
    response = await engine.answer(request)
    assert (response.error, response.finish_reason) == (None, "stop")
    jsonschema.validate(json.loads(response.text), schema)
    text_only = await engine.answer(ask("Is there a fossil?", schema=schema, max_tokens=1))
    assert response.prompt_tokens is not None
    assert text_only.prompt_tokens is not None
    assert response.prompt_tokens == text_only.prompt_tokens + 80 + 2


async def test_the_engine_computes_what_the_model_computes(
    engine: ReferenceEngine, chat: ChatFormat, nano_folder: Path
) -> None:
    """The first greedy token is the largest of the logits of the whole prompt at once; the picture decides it."""
    model = load_model(nano_folder)
    answers = set()
    for seed in range(3):
        request = ask("?", images=(picture(600, 300, seed=seed),), series=(600,), max_tokens=1)
        prompt = chat.prompt(request.messages, thinking=False)
        with torch.inference_mode():
            tower: Any = model.model.visual
            heard = [model.model.time_series(part.values_TC, part.rate_hz) for part in request.series]
            logits = model(torch.tensor(prompt.ids), heard, [tower(cut(part)) for part in request.images])[-1]
        response = await engine.answer(request)
        assert response.text == chat.split([int(logits.argmax())], thinking=False)[0]
        answers.add(logits.max().item())
    assert len(answers) == 3


async def test_answers_about_images_do_not_depend_on_who_asks_at_the_same_time(engine: ReferenceEngine) -> None:
    requests = [
        ask(f"{number}", images=(picture(300 + 40 * number, 256, seed=number),), max_tokens=6) for number in range(5)
    ]
    requests += [ask("text", max_tokens=9), ask("both", images=(picture(64, 64),), series=(600,), max_tokens=5)]
    together = await asyncio.gather(*(engine.answer(request) for request in requests))
    for request, response in zip(requests, together, strict=True):
        alone = await engine.answer(request)
        assert response.error is None
        assert replace(alone, seconds=0.0) == replace(response, seconds=0.0)


async def test_a_bad_image_costs_its_own_answer_only(engine: ReferenceEngine) -> None:
    whole = picture(320, 256)
    torn = ImagePart(whole.data[: len(whole.data) // 2])
    for part in BROKEN.values():
        refusal = engine.admit(ask(images=(part,)))
        assert refusal is not None
        assert refusal.reason == "preprocess_failed"
    refusal = engine.admit(ask(images=(torn,)))
    assert refusal is not None, "its header is whole, its pixels are not"
    assert (refusal.outcome, refusal.reason) == ("refused", "preprocess_failed")
    requests = [ask(images=(part,), max_tokens=2) for part in (whole, torn, *BROKEN.values(), whole)]
    good, bad, *broken, last = await asyncio.gather(*(engine.answer(request) for request in requests))
    assert (bad.error, bad.finish_reason) == ("preprocess_failed", "error")
    assert [response.error for response in broken] == ["preprocess_failed"] * len(BROKEN)
    assert good.error is last.error is None
    assert good.text == last.text


async def test_images_count_towards_the_context_exactly(engine: ReferenceEngine) -> None:
    large = picture(32, 32)
    parts = tuple(large for _ in range(400))
    one = await engine.answer(ask(images=(large,), max_tokens=1))
    assert one.prompt_tokens is not None
    limit = 32768 - one.prompt_tokens - 399 * 66
    assert engine.admit(ask(images=parts, max_tokens=limit)) is None
    refusal = engine.admit(ask(images=parts, max_tokens=limit + 1))
    assert refusal is not None
    assert refusal.reason == "context_too_long"


async def test_a_cancelled_answer_about_a_large_image_frees_its_place(
    engine: ReferenceEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A square of four megapixels takes seconds; the work is noticed to be unwanted long before."""
    begun, embedded = threading.Event(), VisionTower._embedded

    def begin(tower: VisionTower, image: ImagePatches, check: Callable[[], None]) -> torch.Tensor:
        begun.set()
        return embedded(tower, image, check)

    monkeypatch.setattr(VisionTower, "_embedded", begin)
    large = asyncio.create_task(engine.answer(ask(images=(picture(2048, 2048),))))
    assert await asyncio.to_thread(begun.wait, 200)
    large.cancel()
    with pytest.raises(asyncio.CancelledError):
        await large
    async with asyncio.timeout(200):
        assert (await engine.answer(ask(max_tokens=2))).error is None


async def test_a_model_without_a_tower_takes_no_images(tmp_path: Path, nano_folder: Path) -> None:
    config = replace(small_config(vocab_size=1024), vision=None, ts_token_id=9, image_token_id=5)
    assert model_rules(config).modalities == {"text", "series"}
    model = initialise(config, 5)
    save_checkpoint(model, tmp_path / "blind", nano_folder)
    engine = open_reference(ReferenceEngineSpec(kind="reference", model="blind", threads=1), tmp_path)
    request = ask(images=(picture(64, 64),))
    refusal = engine.admit(request)
    assert refusal is not None
    assert refusal.reason == "image_not_supported"
    assert (await engine.answer(request)).error == "image_not_supported"
    await engine.aclose()


def test_places_and_embeddings_of_images_must_match() -> None:
    model = initialise(small_config(), 0)
    for ids, count in (([1, 59, 2], 0), ([1, 59, 2], 2), ([1, 2], 1)):
        with pytest.raises(EngineError, match="embeddings of images"):
            model.embed(torch.tensor(ids), [], [torch.zeros(count, 24)] if count else [])


def test_the_message_may_hold_images_before_between_and_behind_text(chat: ChatFormat) -> None:
    small = picture(32, 32)
    message = Message(role="user", parts=(small, TextPart(text="a"), small, TextPart(text="b"), small))
    prompt = chat.prompt([message], thinking=False)
    pads = "<|image_pad|>" * 64
    block = f"<|vision_start|>{pads}<|vision_end|>"
    assert prompt.text.startswith(f"<|im_start|>user\n{block}a{block}b{block}<|im_end|>")
