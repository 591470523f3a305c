"""The reference engine in a job file, and how it is opened."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from s1batch.config import Config, placement
from s1batch.engine.reference.identity import NANO, model_folder, read_identity

if TYPE_CHECKING:
    from s1batch.engine.reference.engine import ReferenceEngine


class ReferenceEngineSpec(Config):
    """`engine: {kind: reference}`.

    Attributes:
        kind: Tells the engine.
        model: `nano`, which comes with the package, or the path of a checkpoint folder, relative to the job file.
        weights_seed: Seed of the weights, where the folder holds none.
        dtype: Number type of the computation.
        max_batch: Most answers that grow together.
        threads: Threads that encode series; left out: as many as torch would use.
    """

    kind: Literal["reference"]
    model: str = NANO
    weights_seed: int = 0
    dtype: Literal["float32"] = "float32"
    max_batch: int = placement(16, ge=1)
    threads: int | None = placement(None, ge=1)


def open_reference(spec: ReferenceEngineSpec, base_dir: Path) -> ReferenceEngine:
    """Load the model and return the engine; its thread starts with the first request.

    Args:
        spec: The job file's block.
        base_dir: The folder that a relative `model` path starts from.

    Raises:
        UsageError: The folder is no checkpoint of this model.
    """
    from s1batch.engine.reference.chat import ChatFormat
    from s1batch.engine.reference.checkpoint import load_model
    from s1batch.engine.reference.engine import ReferenceEngine

    folder = model_folder(spec.model, base_dir)
    model = load_model(folder, spec.weights_seed)
    chat = ChatFormat(folder)
    if chat.place_id != model.config.ts_token_id or chat.vocabulary > model.config.text.vocab_size:
        from s1batch.errors import UsageError

        raise UsageError(f"{folder}: tokenizer.json and config.json disagree about <TS_CONTEXT> or the vocabulary")
    return ReferenceEngine(
        model=model,
        chat=chat,
        identity=read_identity(folder, spec.weights_seed),
        max_batch=spec.max_batch,
        threads=spec.threads,
    )
