"""Whole runs over a table of images: every picture reaches the model as it is, and a torn one reaches none."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pybase64
import pytest
from PIL import Image
from torch import Tensor

import s1batch
from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.checkpoint import initialise, load_model, save_checkpoint
from s1batch.engine.reference.engine import ReferenceEngine
from s1batch.engine.reference.identity import NANO, model_folder, read_identity
from s1batch.records import ImagePart, Message, Request, Sampling, TextPart
from tests.engine.reference import naive
from tests.engine.reference.conftest import picture, small_config
from tests.engine.reference.test_decoder import roughened
from tests.faults.runs import http
from tests.loopback import Loopback

PROMPT = "What is in {{ image }}?"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three pictures that are whole, and four rows that have none."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    whole = picture(256, 256, seed=1)
    (folder / "a.png").write_bytes(whole.data)
    (folder / "b.jpg").write_bytes(picture(40, 30, seed=2, kind="JPEG").data)
    (folder / "c.webp").write_bytes(picture(320, 224, seed=3, kind="WEBP").data)
    (folder / "torn.png").write_bytes(whole.data[: len(whole.data) // 2])
    (folder / "text.png").write_text("no image")
    names = ["a.png", "b.jpg", "torn.png", "c.webp", "text.png", "missing.png", "../../../etc/passwd"]
    path = folder / "pictures.jsonl"
    path.write_bytes(b"".join(orjson.dumps({"image": name}) + b"\n" for name in names))
    return path


def job(table: Path, engine: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "name": "pictures",
        "source": {"kind": "table", "path": str(table), "images": "image"},
        "job": {"kind": "ask", "prompt": PROMPT, "sampling": {"max_tokens": 6}, **fields},
        "engine": engine,
    }


def rows(results: Any) -> list[dict[str, Any]]:
    assert results.verify().complete
    return list(results.scan().collect().sort("span_start").iter_rows(named=True))


BAD = {
    2: ("unreadable", "decode_error", "truncated"),
    4: ("unreadable", "unknown_format", "no JPEG, PNG, WebP"),
    5: ("unreadable", "source_missing", "missing.png"),
    6: ("unreadable", "not_readable", "outside of source.image_root"),
}


def check_bad(found: list[dict[str, Any]]) -> None:
    for number, (outcome, reason, said) in BAD.items():
        row = found[number]
        assert (row["outcome"], row["reason"], row["attempts"]) == (outcome, reason, 0)
        assert said in row["detail"]


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[tuple[Path, Any, Any, list[Tensor], ReferenceEngine]]:
    """A checkpoint of a few thousand weights that are far from their start, and an engine that shows its logits."""
    nano = model_folder(NANO, Path())
    config = small_config(vocab_size=1024, max_position_embeddings=1024)
    model, weights = roughened(initialise(replace(config, ts_token_id=9, image_token_id=5), 3))
    folder = tmp_path / "small"
    save_checkpoint(model, folder, nano)
    network = load_model(folder)
    logits: list[Tensor] = []
    network.lm_head.register_forward_hook(lambda module, given, made: logits.append(made[0].clone()))
    engine = ReferenceEngine(model=network, chat=ChatFormat(folder), identity=read_identity(folder), threads=1)
    yield folder, model.config.to_document(), weights, logits, engine
    await engine.aclose()


async def test_an_image_job_computes_what_an_independent_model_computes(
    table: Path, tmp_path: Path, small: tuple[Path, Any, Any, list[Tensor], ReferenceEngine]
) -> None:
    """Pixels, tower, splice and decoder once more, in loops over float64, from the rows of a whole run."""
    folder, document, weights, logits, engine = small
    spec = job(table, {"kind": "reference", "model": str(folder), "threads": 1})
    found = rows(await asyncio.to_thread(s1batch.run, spec, tmp_path / "out"))
    check_bad(found)
    assert [row["image_files"] for row in found[:2]] == [["a.png"], ["b.jpg"]]
    chat = ChatFormat(folder)
    for number, (name, width, height) in {0: ("a.png", 256, 256), 1: ("b.jpg", 320, 224)}.items():
        data = (table.parent / name).read_bytes()
        text = TextPart(text=f"What is in {name}?\n")
        part = ImagePart(data, found_mime(name))
        request = Request(
            messages=(Message(role="user", parts=(text, part)),), sampling=Sampling(max_tokens=6), model=engine.model
        )
        assert request.fingerprint == found[number]["fingerprint"]
        logits.clear()
        response = await engine.answer(request)
        assert (response.text, response.output_tokens) == (found[number]["text"], found[number]["output_tokens"])
        answer = [int(each.argmax()) for each in logits]

        image = Image.open(BytesIO(data)).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        seen = naive.image_embeddings(document["vision_config"], weights, np.asarray(image).astype(np.float64))
        places = "<|image_pad|>" * (width * height // 1024)
        ids = chat.encode(
            f"<|im_start|>user\nWhat is in {name}?\n<|vision_start|>{places}<|vision_end|><|im_end|>\n"
            "<|im_start|>assistant\n<think></think>\n\n"
        )
        assert response.prompt_tokens == len(ids)
        wanted = naive.decoder_logits(document, weights, [*ids, *answer[:-1]], None, seen)[len(ids) - 1 :]
        assert np.abs(wanted).max() > 1
        made = np.stack([each.numpy() for each in logits])
        np.testing.assert_allclose(made, wanted, atol=5e-5)


def found_mime(name: str) -> str:
    return {"a.png": "image/png", "b.jpg": "image/jpeg"}[name]


def digest(body: dict[str, Any]) -> str:
    """Answer with the sizes of the pictures that arrived."""
    sizes = []
    for part in body["messages"][0]["content"]:
        if part["type"] == "image_url":
            data = pybase64.b64decode(part["image_url"]["url"].split(",", 1)[1], validate=True)
            sizes.append(Image.open(BytesIO(data)).size)
    return json.dumps(sizes)


async def test_every_whole_image_and_no_torn_one_is_sent(table: Path, tmp_path: Path) -> None:
    """LMDeploy would fill the torn one with grey and answer about it."""
    async with Loopback(answer=digest) as server:
        results = await asyncio.to_thread(s1batch.run, job(table, http(server.url)), tmp_path / "out")
    found = rows(results)
    check_bad(found)
    assert [found[number]["text"] for number in (0, 1, 3)] == ["[[256, 256]]", "[[40, 30]]", "[[320, 224]]"]
    assert server.served == 3


async def test_the_plan_knows_that_there_are_images(table: Path, tmp_path: Path) -> None:
    blind = save_blind(tmp_path / "blind")
    spec = job(table, {"kind": "reference", "model": str(blind), "threads": 1})
    plan = await asyncio.to_thread(s1batch.plan, spec)
    assert plan.totals.refused == {"image_not_supported": 7}
    plan = await asyncio.to_thread(s1batch.plan, job(table, {"kind": "reference"}))
    assert plan.totals.asked == 7
    assert plan.totals.prompt_tokens > 7 * 1024


def save_blind(folder: Path) -> Path:
    config = replace(small_config(vocab_size=1024), vision=None, ts_token_id=9, image_token_id=5)
    save_checkpoint(initialise(config, 5), folder, model_folder(NANO, Path()))
    return folder
