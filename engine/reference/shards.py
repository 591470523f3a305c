"""Weights in several safetensors files with an index, written and read tensor by tensor: no model has to fit memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from s1batch.engine.reference.identity import weight_files
from s1batch.errors import UsageError

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"

SHARD_BYTES = 4_000_000_000
"""A file is closed before it grows beyond this; a tensor that is larger by itself gets a file of its own."""


class ShardWriter:
    """Collects tensors and writes them as one file, or as several with an index.

    Args:
        folder: An existing folder without weights.
        dtype: What the tensors are stored as.
        shard_bytes: Most bytes per file.
    """

    def __init__(self, folder: Path, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> None:
        self._folder = folder
        self._dtype = dtype
        self._shard_bytes = shard_bytes
        self._held: dict[str, Tensor] = {}
        self._held_bytes = 0
        self._written: list[list[str]] = []
        self._total_bytes = 0

    def add(self, name: str, tensor: Tensor) -> None:
        """Take one tensor; files are written as they fill."""
        stored = tensor.to(self._dtype).contiguous()
        if stored is tensor or stored.data_ptr() == tensor.data_ptr():
            stored = stored.clone()  # the caller may reuse its memory, and files must not share storage
        if self._held and self._held_bytes + stored.nbytes > self._shard_bytes:
            self._flush()
        self._held[name] = stored
        self._held_bytes += stored.nbytes

    def finish(self) -> None:
        """Write the last file, give all their final names, and write the index where there are several."""
        self._flush()
        count = len(self._written)
        if count == 1:
            self._part(1).replace(self._folder / WEIGHTS)
            return
        names = {number: f"model-{number:05d}-of-{count:05d}.safetensors" for number in range(1, count + 1)}
        for number, name in names.items():
            self._part(number).replace(self._folder / name)
        weight_map = {key: names[number] for number, keys in enumerate(self._written, start=1) for key in keys}
        index = {"metadata": {"total_size": self._total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (self._folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.tmp"

    def _flush(self) -> None:
        self._written.append(list(self._held))
        write_safetensors(self._held, self._part(len(self._written)))
        self._total_bytes += self._held_bytes
        self._held, self._held_bytes = {}, 0


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a checkpoint folder, from the files' headers.

    Raises:
        UsageError: A file is damaged, or two hold the same tensor.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder):
        with _reading(path), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 -- this file object is no mapping
                if name in shapes:
                    raise UsageError(f"{path} repeats {name} of another file in {folder}")
                shapes[name] = tuple(file.get_slice(name).get_shape())
    return shapes


def stored_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of a checkpoint folder, one in memory at a time.

    Raises:
        UsageError: A file is damaged.
    """
    for path in weight_files(folder):
        with _reading(path), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                yield name, file.get_tensor(name)


def write_safetensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write one file that whoever may read its folder may read; the library makes it private."""
    save_file(tensors, path, metadata={"format": "pt"})
    path.chmod(path.parent.stat().st_mode & 0o666)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
