"""What this machine can run, and what to install for the rest."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from importlib import metadata

from s1batch import __version__

_PARTS = (
    ("reference engine (CPU)", ("torch", "llguidance", "tokenizers", "safetensors"), "pip install s1batch"),
    ("HTTP engine", ("httptools",), "pip install s1batch"),
    ("seismic reader", ("pymseed", "obspy", "scipy"), "pip install s1batch"),
    (
        "sensor reader: Zarr, NetCDF, HDF5, remote stores",
        ("xarray", "zarr", "h5py", "h5netcdf", "cftime", "fsspec", "zarrs"),
        "pip install 's1batch[sensors]'",
    ),
    ("objects in S3", ("s3fs",), "pip install 's1batch[s3]'"),
    (
        "paper reader: JSONL, Parquet, PDF, JATS, TEI",
        ("chonkie", "tokie", "lxml", "pypdfium2"),
        "pip install 's1batch[papers]'",
    ),
    (
        "image reader: TIFF, FITS, DICOM",
        ("pillow", "tifffile", "imagecodecs", "astropy", "pydicom"),
        "pip install 's1batch[images]'",
    ),
    ("worker processes", ("dask", "distributed"), "pip install s1batch"),
    ("workers as jobs of Slurm (--scheduler slurm)", ("dask-jobqueue",), "pip install 's1batch[slurm]'"),
    (
        "LMDeploy on this machine (engine.kind lmdeploy, and its server)",
        ("lmdeploy",),
        "on a machine with CUDA: pip install -c constraints/lmdeploy.txt 's1batch[lmdeploy]'",
    ),
)


def doctor_lines() -> Iterator[str]:
    """Yield a line for the machine and one for each part of s1batch."""
    yield f"s1batch {__version__}, Python {platform.python_version()}, {platform.platform()}"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    free = shutil.disk_usage(".").free / 2**30
    yield f"{os.cpu_count()} cores, {memory:.0f} GiB of memory, {free:.0f} GiB free on this disk; {_gpus()}"
    for part, packages, command in _PARTS:
        versions = {package: _version(package) for package in packages}
        missing = [package for package, version in versions.items() if version is None]
        if missing:
            yield f"  no   {part}: {', '.join(missing)} not installed; {command}"
        else:
            yield f"  yes  {part}: " + ", ".join(f"{package} {version}" for package, version in versions.items())
    slurm = shutil.which("sbatch")
    yield f"  {'yes' if slurm else 'no '}  Slurm: {slurm or 'sbatch is not on the PATH'}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _gpus() -> str:
    if _version("torch") is None:
        return "GPUs not known (torch is not installed)"
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return f"{len(names)} CUDA devices: {', '.join(sorted(set(names)))}"
