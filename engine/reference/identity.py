"""Which weights a checkpoint folder stands for, told from its files without loading them (and without torch)."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Literal

from s1batch.canonical import digest
from s1batch.engine.reference.config import ModelConfig
from s1batch.records import ModelIdentity

INITIALISATION = 1
"""Version of the rule that turns a seed into weights; raised whenever that rule changes."""

NANO = "nano"
"""Name of the model that comes with the package."""

NANO_RATE_HZ = 102.0
"""The sampling rate that it was trained at, where a token of a series is 100 samples; see its model card."""

Dtype = Literal["float32", "bfloat16"]
"""Number types that the engine computes in."""


def model_folder(model: str, base_dir: Path) -> Path:
    """Return the checkpoint folder of `nano`, or of a path relative to `base_dir`."""
    if model == NANO:
        return Path(str(resources.files(__package__).joinpath("nano")))
    return base_dir / Path(model).expanduser()


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a checkpoint folder, sorted; none means that weights come from a seed."""
    return sorted(folder.glob("*.safetensors"))


def read_identity(folder: Path, seed: int = 0, dtype: Dtype = "float32") -> ModelIdentity:
    """Return the identity of the weights: of the files where there are some, else of configuration and seed.

    The number type belongs to it: rounding changes answers.

    The tokenizer and the chat template belong to it, for they change what the weights see.

    Raises:
        UsageError: The folder holds no usable `config.json`.
    """
    config = ModelConfig.read(folder)
    files = weight_files(folder)
    weights = [_file_digest(path) for path in files] if files else [f"initialisation {INITIALISATION}", seed]
    around = [_file_digest(folder / name) for name in ("tokenizer.json", "chat_template.jinja")]
    revision = digest([config.to_document(), weights, around, _file_digest(folder / "generation_config.json")])
    return ModelIdentity(name=folder.resolve().name, revision=revision, dtype=dtype)


def _file_digest(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
