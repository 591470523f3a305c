"""Zarr, version 2 and 3, sharded or not, local or at a URL.

Arrays are opened one by one, so that a broken one costs itself alone, and by Zarr's own library: the times of a long
array are not loaded as an index, arrays without names of dimensions are read too, and chunks that a store does not
hold can be told from stored zeros. Where the Rust codecs of `zarrs` are installed they decode local stores.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.paths import encode_path
from s1batch.readers.sensors.retry import Retry
from s1batch.readers.sensors.stores import ArrayInfo, Box

Found = TypeVar("Found")

METADATA = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
"""Files of which a folder that is a Zarr store holds one."""

_OPENING = threading.Lock()

_ABSENT = 2**64 - 1
"""The offset of an inner chunk that a shard does not hold."""

_MOST_KNOWN = 10_000
"""Chunks and shards that are remembered to be there or not."""

_ROOT_ARRAY = "array"
"""What an array is called that is a store by itself."""


class ZarrStore:
    """An open Zarr hierarchy; several threads may read it.

    Args:
        where: Absolute path of a folder, or a URL.
        shown: What messages call it.
        options: Storage options for URLs.
        retry: How often a remote store is asked again.

    Raises:
        SourceError: It is no Zarr store, or its root cannot be read.
    """

    def __init__(self, where: str, shown: str, options: Mapping[str, Any], retry: Retry) -> None:
        import zarr

        self._shown = shown
        self._retry = retry
        self._folder = None if "://" in where else where
        # The Rust codecs open files themselves, by names in UTF-8.
        self._is_fast = self._folder is not None and encode_path(where) == where and find_spec("zarrs") is not None
        if self._folder is None:
            self._store: Any = zarr.storage.FsspecStore.from_url(where, storage_options=dict(options), read_only=True)
        else:
            self._store = zarr.storage.LocalStore(self._folder, read_only=True)
        self._arrays: dict[str, Any] = {}
        self._known: dict[tuple[str, str], bool | NDArray[np.bool_]] = {}
        self.broken: dict[str, str] = {}
        self.arrays: dict[str, ArrayInfo] = {}
        for name, array in sorted(self._walk()):
            try:
                self.arrays[name] = _info(name, array)
                self._arrays[name] = array
            except (TypeError, ValueError, KeyError) as error:
                self.broken[name] = f"{shown}/{name}: {_words(error)}"

    def read(self, name: str, box: Box) -> NDArray[Any]:
        """Return the values of a box."""
        found = self._asked(f"{self._shown}/{name}", lambda: np.asarray(self._arrays[name][box]))
        shape = tuple(part.stop - part.start for part in box)
        return found.reshape(shape)

    def absent(self, name: str, box: Box) -> float:
        """Return the share of a box that lies in chunks (or shards) which the store does not hold."""
        array = self._arrays[name]
        stored = array.shards or array.chunks
        missing = 0
        for place in _touched(box, stored):
            inside = _within(box, place, stored)
            held = self._held(name, array, place)
            if held is False:
                missing += _volume(inside)
            elif held is not True and not held.all():
                corner = [number * size for number, size in zip(place, stored, strict=True)]
                local = tuple(slice(a.start - c, a.stop - c) for a, c in zip(inside, corner, strict=True))
                inner = (each for each in _touched(local, array.chunks) if not held[each])
                missing += sum(_volume(_within(local, each, array.chunks)) for each in inner)
        total = _volume(box)
        return missing / total if total else 0.0

    def close(self) -> None:
        """Nothing is open between reads."""

    def _held(self, name: str, array: Any, place: tuple[int, ...]) -> bool | NDArray[np.bool_]:
        """Return whether a chunk is there; of a shard, which of its inner chunks are."""
        key = array.metadata.encode_chunk_key(place)
        known = self._known.get((name, key))
        if known is None:
            path = f"{array.path}/{key}" if array.path else key
            end = _index_bytes(array)
            if end:
                known = _index_of(array, self._asked(f"{self._shown}/{path}", lambda: self._end_of(path, end)))
            elif self._folder is not None:
                known = os.path.exists(os.path.join(self._folder, path))
            else:
                known = bool(self._asked(f"{self._shown}/{path}", lambda: _sync(self._store.exists(path))))
            if len(self._known) > _MOST_KNOWN:
                self._known.clear()
            self._known[name, key] = known
        return known

    def _end_of(self, path: str, nbytes: int) -> bytes | None:
        """Return the last bytes of a file of the store; None where there is no such file."""
        from zarr.abc.store import SuffixByteRequest
        from zarr.core.buffer import default_buffer_prototype

        if self._folder is not None:
            try:
                with open(os.path.join(self._folder, path), "rb") as file:
                    file.seek(max(os.fstat(file.fileno()).st_size - nbytes, 0))
                    return file.read()
            except FileNotFoundError:
                return None
        found = _sync(self._store.get(path, default_buffer_prototype(), SuffixByteRequest(nbytes)))
        return None if found is None else bytes(found.to_bytes())

    def _walk(self) -> Iterator[tuple[str, Any]]:
        """Yield all arrays with their names; what cannot be opened goes into `broken`."""
        import zarr

        def opened(path: str, consolidated: bool | None = None) -> Any:
            keywords: dict[str, Any] = {} if consolidated is None else {"use_consolidated": consolidated}
            with _opening(fast=self._is_fast):
                return zarr.open(store=self._store, path=path, mode="r", **keywords)

        try:
            root = self._asked(self._shown, lambda: opened(""))
        except SourceError as error:
            if error.reason == "source_unreachable" or (self._folder is None and error.reason == "source_missing"):
                raise
            raise SourceError("not_readable", error.detail) from error
        if isinstance(root, zarr.Array):
            yield _ROOT_ARRAY, root
            return
        consolidated = root.metadata.consolidated_metadata
        if consolidated is not None:
            names = sorted(consolidated.flattened_metadata)
            for name in names:
                if hasattr(consolidated.flattened_metadata[name], "shape"):
                    try:
                        with _opening(fast=self._is_fast):
                            array = root[name]
                    except (ValueError, KeyError, TypeError, OSError) as error:
                        self.broken[name] = f"{self._shown}/{name}: {_words(error)}"
                        continue
                    yield name, array
            return
        waiting = [""]
        while waiting:
            group = waiting.pop()
            for child in self._asked(self._shown, partial(_names, self._store, group)):
                path = f"{group}/{child}" if group else child
                try:
                    found = self._asked(f"{self._shown}/{path}", partial(opened, path, False))
                except SourceError as error:
                    if error.reason == "source_unreachable":
                        raise
                    if self._is_node(path):
                        self.broken[path] = error.detail
                    continue
                if isinstance(found, zarr.Array):
                    yield path, found
                else:
                    waiting.append(path)

    def _is_node(self, path: str) -> bool:
        return any(_sync(self._store.exists(f"{path}/{name}")) for name in METADATA)

    def _asked(self, what: str, work: Callable[[], Found]) -> Found:
        try:
            return self._retry.call(what, work)
        except SourceError:
            raise
        except FileNotFoundError as error:
            raise SourceError("source_missing", f"{what}: there is no such store or array") from error
        except PermissionError as error:
            raise SourceError("not_readable", f"{what}: {_words(error)}") from error
        except Exception as error:  # codecs raise anything for damaged chunks
            raise SourceError("decode_error", f"{what}: {_words(error)}") from error


def _index_bytes(array: Any) -> int:
    """Return the length of the index at the end of a shard; 0 where there is none that is understood."""
    if array.shards is None or len(array.metadata.codecs) != 1:
        return 0
    codec = array.metadata.codecs[0]
    names = [type(inner).__name__ for inner in codec.index_codecs]
    if getattr(codec.index_location, "value", "") != "end" or names != ["BytesCodec", "Crc32cCodec"]:
        return 0
    return 16 * math.prod(_inner_grid(array)) + 4


def _index_of(array: Any, end: bytes | None) -> bool | NDArray[np.bool_]:
    """Return which inner chunks a shard holds: those with an offset (Zarr 3 specification, sharding-indexed codec)."""
    if end is None:
        return False
    grid = _inner_grid(array)
    if len(end) != 16 * math.prod(grid) + 4:
        return True  # it is cut, which reading it will tell
    return np.asarray(np.frombuffer(end[:-4], "<u8").reshape(*grid, 2)[..., 0] != _ABSENT)


def _inner_grid(array: Any) -> tuple[int, ...]:
    return tuple(shard // chunk for shard, chunk in zip(array.shards, array.chunks, strict=True))


def _touched(box: Box, sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Yield the places of the chunks that a box touches."""
    return itertools.product(
        *(range(part.start // size, -(-part.stop // size)) for part, size in zip(box, sizes, strict=True))
    )


def _within(box: Box, place: Sequence[int], sizes: Sequence[int]) -> Box:
    """Return what of a box lies in a chunk."""
    return tuple(
        slice(max(part.start, number * size), min(part.stop, (number + 1) * size))
        for part, number, size in zip(box, place, sizes, strict=True)
    )


def _volume(box: Box) -> int:
    return math.prod(part.stop - part.start for part in box)


def is_zarr_folder(path: str) -> bool:
    """Return whether a folder is a Zarr store, or is named as one."""
    return path.endswith(".zarr") or any(os.path.exists(os.path.join(path, name)) for name in METADATA)


def _info(name: str, array: Any) -> ArrayInfo:
    attrs = dict(array.attrs)
    names = attrs.pop("_ARRAY_DIMENSIONS", None) or getattr(array.metadata, "dimension_names", None)
    if not isinstance(names, (list, tuple)) or len(names) != array.ndim:
        names = [None] * array.ndim
    dims = tuple(f"dim_{number}" if dim is None else str(dim) for number, dim in enumerate(names))
    if len(set(dims)) != len(dims):
        dims = tuple(f"dim_{number}" for number in range(array.ndim))
    fill = None
    if array.metadata.zarr_format == 2 and "_FillValue" not in attrs and array.dtype.kind in "iuf":
        # Version 2 has one field for "never written" and for CF's _FillValue. Zero is what it holds when nobody chose
        # a value, so zeros are measurements; any other value was chosen to stand for nothing.
        value = array.fill_value
        fill = value if value is not None and value != 0 else None
    elif isinstance(attrs.get("_FillValue"), str) and array.dtype.kind in "iuf":
        attrs["_FillValue"] = _fill_of_text(attrs["_FillValue"], array.dtype)
    return ArrayInfo(
        name=name, dims=dims, shape=tuple(array.shape), dtype=array.dtype, attrs=attrs, chunks=array.chunks, fill=fill
    )


def _fill_of_text(text: str, dtype: np.dtype[Any]) -> Any:
    """Return `_FillValue` as xarray stores it in version 3: base64 of a float64, or a number as text."""
    from base64 import standard_b64decode
    from binascii import Error

    try:
        if dtype.kind == "f":
            raw = standard_b64decode(text)
            if len(raw) == 8:
                return np.frombuffer(raw, "<f8")[0]
        return float(text)
    except (ValueError, Error):
        return None


@contextmanager
def _opening(*, fast: bool) -> Iterator[None]:
    """A context in which arrays are opened: quietly, and with the fastest codecs that are installed.

    Zarr's configuration and Python's filters of warnings belong to the whole process, so one thread opens at a time.
    """
    import zarr

    fastest = {"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"} if fast else {}
    with _OPENING, warnings.catch_warnings(), zarr.config.set(fastest):
        # About types that are not in the standard, and what the Rust codecs leave to Python.
        warnings.simplefilter("ignore")
        yield


def _names(store: Any, group: str) -> list[str]:
    async def listed() -> list[str]:
        return [name.rstrip("/") async for name in store.list_dir(group)]

    found: list[str] = _sync(listed())
    return sorted(name for name in found if name and name not in METADATA and name != ".zattrs")


def _sync(work: Any) -> Any:
    from zarr.core.sync import sync

    return sync(work)


def _words(error: BaseException) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"its metadata is no JSON ({error.msg})"
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
