"""The Pythons that programs run by, and what they are told of the network: to stay away from it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS = Path(__file__).parent / "requirements"
ENVIRONMENTS = ("peers", "curator")
"""Each has a file of pinned versions; curator's do not go together with the others'."""

SHOWN = ("datatrove", "daft", "ray", "bespokelabs-curator", "aiohttp")
"""Libraries whose versions a table names."""

QUIET = {
    "DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",
    "DAFT_ANALYTICS_ENABLED": "0",
    "DAFT_PROGRESS_BAR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TELEMETRY_ENABLED": "0",
    "CURATOR_VIEWER": "0",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OPENAI_API_KEY": "none",
    "NO_PROXY": "127.0.0.1,localhost",
}
"""Variables of every program: nobody reports home, downloads, or draws on a terminal."""


class MissingEnvironmentError(Exception):
    """The virtual environments are not there."""


def set_up(folder: Path, say: Callable[[str], None]) -> None:
    """Make the virtual environments of all peers; what is there is left alone.

    Args:
        folder: Where they go, `FOLDER/peers` and `FOLDER/curator`.
        say: Told what happens.
    """
    for name in ENVIRONMENTS:
        place, wanted = folder / name, REQUIREMENTS / f"{name}.txt"
        if not (place / "bin/python").exists():
            say(f"{place}: a new environment")
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True, timeout=120)
        say(f"{place}: installing {wanted.name}")
        install = [str(place / "bin/python"), "-m", "pip", "install", "--quiet", "--requirement", str(wanted)]
        subprocess.run(install, check=True, timeout=1800)


def python_of(folder: Path, environment: str | None) -> str:
    """Return the Python of an environment; None is the one that s1batch runs by.

    Raises:
        MissingEnvironmentError: It is not there.
    """
    if environment is None:
        return sys.executable
    python = folder / environment / "bin/python"
    if not python.exists():
        raise MissingEnvironmentError(f"{python} is missing: python -m tests.benchmarks.peers setup --folder {folder}")
    return str(python)


def versions(folder: Path) -> dict[str, str]:
    """Return the versions of the peers that are installed."""
    code = (
        "import importlib.metadata as m, json, sys\n"
        "print(json.dumps({d.metadata['Name'].lower(): d.version for d in m.distributions()}))"
    )
    found: dict[str, str] = {"python": sys.version.split()[0]}
    for name in ENVIRONMENTS:
        done = subprocess.run([python_of(folder, name), "-c", code], capture_output=True, check=True, timeout=120)
        installed = json.loads(done.stdout)
        found |= {library: installed[library] for library in SHOWN if library in installed and library not in found}
    return found
