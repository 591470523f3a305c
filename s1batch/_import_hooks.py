"""Registers `DataFrame.s1` and `Dataset.s1` when polars and xarray are imported, before or after s1batch.

Neither is imported for that: importing them takes longer than `s1batch --help` may.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

_HOMES = {"polars": "s1batch.frames", "xarray": "s1batch.arrays"}
"""Libraries, and the modules whose `register` adds `.s1` to their objects."""


def install() -> None:
    """Register now what is imported already, and everything else as soon as it is."""
    for name in _HOMES:
        if name in sys.modules:
            _register(name)
        elif not any(isinstance(finder, _Finder) and finder.name == name for finder in sys.meta_path):
            sys.meta_path.insert(0, _Finder(name))


def _register(name: str) -> None:
    import_module(_HOMES[name]).register()
    if name == "polars" and callable(signal.getsignal(signal.SIGINT)):
        # Polars puts a handler before Python's, behind which the system goes on waiting for a lock: Ctrl-C would be
        # heard only when an engine has loaded. Python itself asks for the opposite.
        signal.siginterrupt(signal.SIGINT, True)


class _Finder(importlib.abc.MetaPathFinder):
    """Lets the other finders find a library, and adds a step behind its loading; then gets out of the way."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Registering(spec.loader)
        return spec


class _Registering(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        _register(module.__name__)
