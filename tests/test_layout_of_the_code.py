"""The rules about who may import whom, and what an installation holds."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("s1batch", "engine", "readers", "jobs")

SHARED = {
    "__version__",
    "errors",
    "records",
    "canonical",
    "columns",
    "config",
    "geometry",
    "grid",
    "long_series",
    "paths",
    "plotting",
    "windows",
    "times",
    "special_tokens",
}
"""What readers, engines and jobs may import of s1batch."""


def sources(*folders: str) -> list[Path]:
    found = []
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if folder == "s1batch" and path.relative_to(ROOT / "s1batch").parts[0] in FOLDERS:
                continue  # links to the other folders
            found.append(path)
    return found


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("folder", ["engine", "readers", "jobs"])
def test_engines_readers_and_jobs_know_only_the_shared_records(folder):
    for path in sources(folder):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "s1batch" or len(parts) < 2:
                continue
            assert parts[1] in SHARED | {folder}, f"{path.relative_to(ROOT)} imports {name}"


@pytest.mark.parametrize(
    ("library", "home"),
    [("dask", "s1batch/workers"), ("distributed", "s1batch/workers"), ("dask_jobqueue", "s1batch/workers")],
)
def test_one_package_imports_dask(library, home):
    users = {
        str(path.parent.relative_to(ROOT))
        for path in sources(*FOLDERS)
        if any(name.split(".")[0] == library for name in imports(path))
    }
    assert users <= {home}


def test_no_module_imports_lmdeploy_outside_its_package():
    for path in sources(*FOLDERS):
        if (ROOT / "engine" / "lmdeploy") not in path.parents:
            assert not any(name.split(".")[0] == "lmdeploy" for name in imports(path)), path


def test_the_command_line_starts_without_heavy_libraries():
    heavy = ("torch", "polars", "pyarrow", "obspy", "dask", "distributed", "aiohttp", "scipy", "matplotlib", "pydantic")
    code = f"import sys, s1batch.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_the_wheel_holds_every_source_file_below_one_top_level(tmp_path):
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=800)
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.split("/")[0] for name in names} == {"s1batch"}
    expected = set()
    for path in sources(*FOLDERS):
        relative = path.relative_to(ROOT)
        expected.add(str(relative) if relative.parts[0] == "s1batch" else f"s1batch/{relative}")
    assert expected <= names
    assert {"s1batch/engine/reference/nano/config.json", "s1batch/py.typed"} <= names
