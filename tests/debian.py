"""Packages of Debian that tests of real daemons and file systems need, installed where that is possible."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import pytest

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_POLICY = Path("/usr/sbin/policy-rc.d")


class CannotRun(Exception):
    """Something that tests need cannot be installed or started here; the text says why."""


class NotOffered(CannotRun):
    """The kernel, or the container around the tests, does not offer it."""


def give_up(reason: CannotRun) -> NoReturn:
    """Skip a test that cannot run here; in CI, where everything can be installed, only if the kernel stands against it.

    Raises:
        CannotRun: In CI.
    """
    if "CI" in os.environ and not isinstance(reason, NotOffered):
        raise reason
    pytest.skip(str(reason))


def install(wanted: Mapping[str, str]) -> None:
    """Install what is missing, and let none of it start on its own.

    Args:
        wanted: Packages, each with a program of its own.

    Raises:
        CannotRun: That is not possible here.
    """
    missing = [package for package, program in wanted.items() if shutil.which(program, path=PATH) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise CannotRun(f"{', '.join(missing)} not installed, and no apt-get as root here")
    apt = ["apt-get", "-y", "-q", "-o", "DPkg::Lock::Timeout=120", "-o", "Dpkg::Options::=--force-unsafe-io"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    ours = not _POLICY.exists()
    if ours:
        _POLICY.write_text("#!/bin/sh\nexit 101\n")
        _POLICY.chmod(0o755)
    try:
        for update in (False, True):
            if update:
                subprocess.run([*apt, "update"], env=environment, capture_output=True, timeout=300, check=False)
            command = [*apt, "install", "--no-install-recommends", *missing]
            done = subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600
            )
            if done.returncode == 0:
                return
    finally:
        if ours:
            _POLICY.unlink()
    raise CannotRun(f"apt-get cannot install {', '.join(missing)}: {done.stderr.strip()[-300:]}")
