"""Shared by the tests of the reference engine: a small configuration, the nano folder, one open engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.config import ModelConfig, SeriesConfig, TextConfig, VisionConfig
from s1batch.engine.reference.engine import ReferenceEngine
from s1batch.engine.reference.identity import NANO, model_folder
from s1batch.engine.reference.spec import ReferenceEngineSpec, open_reference
from s1batch.records import ImagePart, Message, ModelIdentity, Request, Sampling, SeriesPart, TextPart


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def nano_folder() -> Path:
    return model_folder(NANO, Path())


@pytest.fixture(scope="session")
def chat(nano_folder: Path) -> ChatFormat:
    return ChatFormat(nano_folder)


@pytest.fixture
async def engine() -> AsyncIterator[ReferenceEngine]:
    opened = open_reference(ReferenceEngineSpec(kind="reference", threads=1), Path())
    yield opened
    await opened.aclose()


def small_config(**text: Any) -> ModelConfig:
    """A model of a few thousand weights, with every dimension different."""
    shape: dict[str, Any] = {
        "vocab_size": 61,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 16,
        "num_experts": 12,
        "num_experts_per_tok": 6,
        "moe_intermediate_size": 12,
        "router_n_groups": 3,
        "max_position_embeddings": 512,
    }
    return ModelConfig(
        text=TextConfig(**(shape | text)),
        series=SeriesConfig(
            d_model=12,
            encoder_layers=2,
            encoder_attention_heads=3,
            encoder_ffn_dim=20,
            num_mel_bins=9,
            max_source_positions=16,
            ts_adapt_out_dim=14,
            ts_hidden_dim=14,
            out_hidden_size=24,
        ),
        vision=VisionConfig(
            depth=2,
            hidden_size=24,
            intermediate_size=20,
            num_heads=3,
            num_position_embeddings=25,
            out_hidden_size=24,
        ),
        ts_token_id=60,
        image_token_id=59,
        video_token_id=58,
        vision_start_token_id=57,
        vision_end_token_id=56,
    )


def picture(width: int, height: int, *, seed: int = 0, kind: str = "PNG", mode: str = "RGB") -> ImagePart:
    """An encoded image of coloured noise over a gradient."""
    noise = np.random.default_rng(seed).integers(0, 60, (height, width, 3))
    gradient = np.linspace(0, 190, width)[None, :, None] + np.zeros((height, 1, 1))
    file = BytesIO()
    Image.fromarray((noise + gradient).astype(np.uint8)).convert(mode).save(file, kind)
    return ImagePart(file.getvalue(), f"image/{kind.lower()}")


def ask(
    text: str = "Is there an earthquake?",
    *,
    series: tuple[int, ...] = (),
    images: tuple[ImagePart, ...] = (),
    schema: dict[str, Any] | None = None,
    seed: int = 0,
    sample_index: int = 0,
    **sampling: Any,
) -> Request:
    """A request with series of the given lengths (three channels at 100 Hz), then images."""
    parts = [
        SeriesPart(np.random.default_rng(steps).standard_normal((steps, 3)).astype(np.float32), 100.0)
        for steps in series
    ]
    message = Message(role="user", parts=(*parts, *images, TextPart(text=text)))
    return Request(
        messages=(message,),
        sampling=Sampling(**{"max_tokens": 16, **sampling}),
        model=ModelIdentity(name="nano"),
        seed=seed,
        sample_index=sample_index,
        schema=schema,
    )
