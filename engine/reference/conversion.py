"""Checkpoint folders of any size: made from a configuration and a seed, or rewritten in another number type.

Both go tensor by tensor, so memory holds one file's worth. A folder appears under its name when it is complete.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from os import getpid
from pathlib import Path

import torch

from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.checkpoint import TEXT_FILES, fill_initial, public_names
from s1batch.engine.reference.companions import write_companions
from s1batch.engine.reference.config import ModelConfig
from s1batch.engine.reference.identity import weight_files
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.shards import SHARD_BYTES, ShardWriter, stored_shapes, stored_tensors
from s1batch.errors import UsageError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Number types in which weights can be stored here."""


def write_initial(
    config: ModelConfig, seed: int, folder: Path, text_files: Path, shard_bytes: int = SHARD_BYTES
) -> None:
    """Write a checkpoint whose weights follow from the seed, as `checkpoint.initialise` makes them.

    Args:
        config: The model; its `dtype` is what the weights are stored as.
        seed: Of the weights.
        folder: Where to; must not exist.
        text_files: The folder whose tokenizer and chat template belong to the model.
        shard_bytes: Most bytes per file.

    Raises:
        UsageError: The tokenizer does not fit the configuration, the folder exists, or the disk is too small.
    """
    dtype = _dtype(config)
    ChatFormat(text_files).check(config, text_files)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        blank = InternS1Pro(config).state_dict()
    _check_room(folder, sum(math.prod(tensor.shape) for tensor in blank.values()) * dtype.itemsize)
    with _new_folder(folder) as unfinished:
        writer = ShardWriter(unfinished, dtype, shard_bytes)
        for name, shape in blank.items():
            tensor = shape if not shape.is_meta else torch.empty(shape.shape)
            fill_initial(name, tensor, config, seed)
            for key, part in public_names(name, tensor):
                writer.add(key, part)
        _finish(writer, config, unfinished, text_files)


def convert(source: Path, folder: Path, dtype: str | None = None, shard_bytes: int = SHARD_BYTES) -> None:
    """Rewrite a checkpoint folder: one tensor per expert and matrix, in files of a bounded size with an index.

    Args:
        source: A checkpoint folder with weights.
        folder: Where to; must not exist.
        dtype: `float32` or `bfloat16`; None keeps what the configuration says.
        shard_bytes: Most bytes per file.

    Raises:
        UsageError: The weights are not those that config.json describes, or the folder cannot be written.
    """
    config = ModelConfig.read(source)
    if not weight_files(source):
        raise UsageError(f"{source} holds no weights; `s1batch model init` writes some from a seed")
    config = replace(config, dtype=dtype or config.dtype)
    wanted = _dtype(config)
    found, expected = stored_shapes(source), _expected(config)
    if found != expected:
        different = sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))
        first = different[0]
        raise UsageError(
            f"the weights in {source} do not fit its config.json: {len(different)} keys differ, such as {first}, "
            f"whose shape is {found.get(first, 'missing')} and should be {expected.get(first, 'absent')}"
        )
    _check_room(folder, sum(math.prod(shape) for shape in found.values()) * wanted.itemsize)
    with _new_folder(folder) as unfinished:
        writer = ShardWriter(unfinished, wanted, shard_bytes)
        for name, tensor in stored_tensors(source):
            writer.add(name, tensor)
        _finish(writer, config, unfinished, source)


def _expected(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        blank = InternS1Pro(config).state_dict()
    return {key: tuple(part.shape) for name, tensor in blank.items() for key, part in public_names(name, tensor)}


def _finish(writer: ShardWriter, config: ModelConfig, folder: Path, text_files: Path) -> None:
    writer.finish()
    for name in TEXT_FILES:
        shutil.copyfile(text_files / name, folder / name)
    write_companions(config, folder)


def _dtype(config: ModelConfig) -> torch.dtype:
    if config.dtype not in DTYPES:
        raise UsageError(f"dtype {config.dtype!r} cannot be written (valid: {', '.join(DTYPES)})")
    return DTYPES[config.dtype]


def _check_room(folder: Path, needed: int) -> None:
    existing = next(parent for parent in folder.absolute().parents if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UsageError(
            f"{needed / 1e9:,.1f} GB of weights do not fit {existing}, which has {free / 1e9:,.1f} GB left"
        )


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    if folder.exists():
        raise UsageError(f"{folder} exists already; name a new folder")
    unfinished = folder.with_name(f".{folder.name}.{getpid()}.tmp")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        unfinished.rename(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
