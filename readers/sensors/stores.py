"""What all stores of arrays look like to this reader: names, shapes, attributes, and blocks of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Box = tuple[slice, ...]
"""A half-open range for each dimension of an array."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArrayInfo:
    """An array without its values.

    Attributes:
        name: `group/variable` below the store.
        dims: Name of each dimension; where the store has none, `dim_0` and so on.
        shape: Entries of each dimension.
        dtype: Type of the stored numbers, before CF packing is undone.
        attrs: Its attributes, as stored.
        chunks: What is decoded together, along each dimension; None for arrays in one piece.
        fill: What the store's own convention, apart from attributes, says stands for no value; None for nothing.
    """

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    chunks: tuple[int, ...] | None = None
    fill: Any = None

    @property
    def group(self) -> str:
        """The group that it lies in; empty for the root."""
        return self.name.rpartition("/")[0]

    @property
    def short(self) -> str:
        """Its name within its group."""
        return self.name.rpartition("/")[2]

    @property
    def size(self) -> int:
        """How many values it has."""
        return int(np.prod(self.shape, dtype=object)) if self.shape else 1


class ArrayStore(Protocol):
    """An open store; one thread uses it at a time."""

    @property
    def arrays(self) -> Mapping[str, ArrayInfo]:
        """All arrays by name, sorted."""

    @property
    def broken(self) -> Mapping[str, str]:
        """Arrays and groups whose description cannot be read: why, by name."""

    def read(self, name: str, box: Box) -> NDArray[Any]:
        """Return values as stored, with all dimensions.

        Raises:
            SourceError: They cannot be read or decoded.
        """

    def absent(self, name: str, box: Box) -> float:
        """Return the share of a box that lies in chunks which the store does not hold, 0 to 1."""

    def close(self) -> None:
        """Close files."""


def coordinate_of(store: ArrayStore, info: ArrayInfo, dim: str) -> ArrayInfo | None:
    """Return the 1-D array that labels a dimension: of the same name, in the array's group or one above it."""
    group = info.group
    size = info.shape[info.dims.index(dim)]
    while True:
        found = store.arrays.get(f"{group}/{dim}" if group else dim)
        if found is not None and found.dims == (dim,) and found.shape == (size,):
            return found
        if not group:
            return None
        group = group.rpartition("/")[0]


def nearby(store: ArrayStore, info: ArrayInfo, name: str) -> ArrayInfo | None:
    """Return the array of a name in an array's group or one above it; a name with a slash counts from the root."""
    group = info.group
    while True:
        found = store.arrays.get(f"{group}/{name}" if group else name)
        if found is not None or not group:
            return found
        group = group.rpartition("/")[0]
