"""NetCDF 3 and 4 and HDF5, through xarray: without CF decoding, without indexes, without dask."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from inspect import signature
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from s1batch.errors import SourceError
from s1batch.readers.extras import need
from s1batch.readers.sensors.retry import Retry
from s1batch.readers.sensors.stores import ArrayInfo, Box

_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_STARTS = (0, 512, 1024, 2048, 4096)
"""Where an HDF5 file may begin: behind a block that belongs to the user."""

DEFAULT_FILLS = {
    "i2": -32767,
    "i4": -2147483647,
    "i8": -9223372036854775806,
    "u2": 65535,
    "u4": 4294967295,
    "u8": 18446744073709551614,
    "f4": 9.969209968386869e36,
    "f8": 9.969209968386869e36,
}
"""What NetCDF writes where nothing was written (netcdf.h, NC_FILL_*); bytes have none by its conventions."""


class FileStore:
    """An open file.

    Args:
        where: Absolute path, or an open binary file for what lies at a URL.
        shown: What messages call it.
        engine: xarray's engine, from `engine_of`.
        retry: How often a remote store is asked again.

    Raises:
        SourceError: It cannot be opened.
    """

    def __init__(self, where: str | BinaryIO, shown: str, engine: str, retry: Retry) -> None:
        import xarray as xr

        self._shown = shown
        self._retry = retry
        self._file = None if isinstance(where, str) else where
        self.broken: dict[str, str] = {}
        extra = {"phony_dims": "access"} if engine == "h5netcdf" else {}
        keywords: dict[str, Any] = {
            "engine": engine,
            "chunks": None,
            "cache": False,
            "mask_and_scale": False,
            "decode_times": False,
            "decode_timedelta": False,
            "decode_coords": False,
            "concat_characters": True,
            **extra,
        }
        if "create_default_indexes" in signature(xr.open_dataset).parameters:
            keywords["create_default_indexes"] = False  # older versions read the labels of all dimensions into memory

        def opened() -> dict[str, Any]:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about names of dimensions that plain HDF5 does not have
                if engine == "scipy":
                    return {"/": xr.open_dataset(where, **keywords)}
                return dict(xr.open_groups(where, **keywords))

        try:
            self._groups = retry.call(shown, opened)
        except SourceError:
            raise
        except FileNotFoundError as error:
            raise SourceError("source_missing", f"{shown}: there is no such file") from error
        except Exception as error:  # HDF5 raises anything for damaged files
            raise SourceError("not_readable", f"{shown}: {_words(error)}") from error
        is_netcdf = engine == "scipy" or _is_netcdf4(where)
        found: dict[str, ArrayInfo] = {}
        self._variables: dict[str, Any] = {}
        for group, dataset in self._groups.items():
            for short, variable in dataset.variables.items():
                name = f"{group.strip('/')}/{short}".strip("/")
                self._variables[name] = variable
                found[name] = _info(name, variable, is_netcdf=is_netcdf)
        self.arrays: Mapping[str, ArrayInfo] = dict(sorted(found.items()))

    def read(self, name: str, box: Box) -> NDArray[Any]:
        """Return the values of a box."""
        what = f"{self._shown}/{name}"
        try:
            return np.asarray(self._retry.call(what, lambda: self._variables[name][box].values))
        except SourceError:
            raise
        except Exception as error:  # as above
            raise SourceError("decode_error", f"{what}: {_words(error)}") from error

    def absent(self, name: str, box: Box) -> float:
        """Return 0: what was never written cannot be told from the fill value in such files."""
        return 0.0

    def close(self) -> None:
        """Close the file."""
        for dataset in self._groups.values():
            dataset.close()
        if self._file is not None:
            self._file.close()


def engine_of(file: BinaryIO, shown: str) -> str:
    """Return xarray's engine for a file, by its first bytes.

    Raises:
        SourceError: `empty_file` or `unknown_format`.
        MissingExtra: The library that reads it is not installed.
    """
    start = file.read(8)
    if not start:
        raise SourceError("empty_file", f"{shown}: the file is empty")
    if start[:3] == b"CDF" and start[3:4] in (b"\x01", b"\x02"):
        return "scipy"
    if start[:4] == b"CDF\x05":
        raise SourceError(
            "unknown_format", f"{shown}: NetCDF 3 with 64-bit data (CDF-5); convert it with nccopy -k nc4"
        )
    for begin in _HDF5_STARTS:
        file.seek(begin)
        if file.read(8) == _HDF5:
            need("h5netcdf", "sensors", f"{shown}: HDF5 and NetCDF 4")
            return "h5netcdf"
    raise SourceError("unknown_format", f"{shown}: no Zarr, NetCDF or HDF5 (it begins with {start!r})")


def _is_netcdf4(where: str | BinaryIO) -> bool:
    """Return whether an HDF5 file was written as NetCDF 4."""
    import h5py

    with h5py.File(where, "r") as file:
        return "_NCProperties" in file.attrs


def _info(name: str, variable: Any, *, is_netcdf: bool) -> ArrayInfo:
    dtype = np.dtype(variable.dtype)
    attrs = dict(variable.attrs)
    chunks = variable.encoding.get("chunksizes")
    fill = None
    if is_netcdf and "_FillValue" not in attrs and not attrs.get("_Unsigned"):
        default = DEFAULT_FILLS.get(dtype.newbyteorder("=").str[1:])
        fill = None if default is None else dtype.type(default)
    return ArrayInfo(
        name=name,
        dims=tuple(str(dim) for dim in variable.dims),
        shape=tuple(variable.shape),
        dtype=dtype,
        attrs=attrs,
        chunks=tuple(chunks) if chunks else None,
        fill=fill,
    )


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
