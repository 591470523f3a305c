"""The reference engine in a job file, what it takes, and how it is opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from s1batch.config import Config, placement
from s1batch.engine.reference.config import ModelConfig
from s1batch.engine.reference.identity import NANO, Dtype, model_folder, read_identity
from s1batch.engine.rules import RULES, Rules

if TYPE_CHECKING:
    from s1batch.engine.reference.engine import ReferenceEngine

KV_MB = 1024
"""Most memory for keys and values, unless a job says otherwise: 512 nano sequences of 1,024 tokens."""


class ReferenceEngineSpec(Config):
    """`engine: {kind: reference}`.

    Attributes:
        kind: Tells the engine.
        model: `nano`, which comes with the package, or the path of a checkpoint folder, relative to the job file.
        weights_seed: Seed of the weights, where the folder holds none.
        dtype: Number type of the computation. bfloat16 is several times faster on processors with matrix units for it,
            and slower on others; its answers are others, so it is part of their identity.
        max_batch: Most answers that grow together.
        threads: Threads that share the work; left out: as many as torch would use.
        kv_mb: Most memory for keys and values, in MB of 2**20 bytes. Requests wait for it, and one that needs more than
            that is refused.
    """

    kind: Literal["reference"]
    model: str = NANO
    weights_seed: int = 0
    dtype: Dtype = "float32"
    max_batch: int = placement(16, ge=1)
    threads: int | None = placement(None, ge=1)
    kv_mb: int = placement(KV_MB, ge=1)


def model_rules(config: ModelConfig) -> Rules:
    """Return what a model of this configuration takes: its context, and images only where it has a vision tower."""
    rules = replace(RULES["reference"], context_tokens=config.text.max_position_embeddings)
    return rules if config.vision is not None else replace(rules, modalities=rules.modalities - {"image"})


def open_reference(spec: ReferenceEngineSpec, base_dir: Path) -> ReferenceEngine:
    """Load the model and return the engine; its thread starts with the first request.

    Args:
        spec: The job file's block.
        base_dir: The folder that a relative `model` path starts from.

    Raises:
        UsageError: The folder is no checkpoint of this model.
    """
    import torch

    from s1batch.engine.reference.chat import ChatFormat
    from s1batch.engine.reference.checkpoint import load_model
    from s1batch.engine.reference.companions import check_image_processing
    from s1batch.engine.reference.engine import ReferenceEngine

    folder = model_folder(spec.model, base_dir)
    check_image_processing(folder)
    model = load_model(folder, spec.weights_seed)
    if spec.dtype == "bfloat16":
        model.compute_in(torch.bfloat16)
    chat = ChatFormat(folder)
    chat.check(model.config, folder)
    return ReferenceEngine(
        model=model,
        chat=chat,
        identity=read_identity(folder, spec.weights_seed, spec.dtype),
        max_batch=spec.max_batch,
        threads=spec.threads,
        kv_mb=spec.kv_mb,
    )
