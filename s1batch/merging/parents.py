"""The folders that are merged: opened for reading, and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from s1batch.errors import ConflictError
from s1batch.plan_store import PlanStore
from s1batch.results.part_files import PartFiles
from s1batch.results.store import ResultsStore
from s1batch.runspec import RunSpec, read_run_spec

WHICH_DATA = frozenset(
    f"source.{name}"
    for name in (
        "path",
        "paths",
        "manifest",
        "network",
        "station",
        "location",
        "channel",
        "starttime",
        "endtime",
        "hash",
    )
)
"""Answer fields that say which data are asked about; they may differ, for a chunk's key says where its data are."""


@dataclass(frozen=True, slots=True)
class Parent:
    """One folder that is merged; nothing in it is changed.

    Attributes:
        path: The folder.
        spec: Its run.
        plan: Its plan.
        store: Its results.
        files: Its files of rows.
        plan_number: Which of the different plans it has, by their first folder.
        written_ns: When the rows of each finished part were written.
    """

    path: Path
    spec: RunSpec
    plan: PlanStore
    store: ResultsStore
    files: PartFiles
    plan_number: int
    written_ns: dict[int, int]


def open_parents(paths: Sequence[Path]) -> list[Parent]:
    """Open the folders that are merged.

    Raises:
        ConflictError: They are of different jobs or models, or one is named twice; the text names what differs.
        ResultsError: One holds no results.
    """
    parents: list[Parent] = []
    seen: dict[str, int] = {}
    for path in paths:
        spec = read_run_spec(path / "run.json")
        if any(path.resolve() == parent.path.resolve() for parent in parents):
            raise ConflictError(f"{path} is named twice")
        if parents:
            _check_same(parents[0], spec, path)
        plan = PlanStore(path)
        store = ResultsStore(path, None)
        if parents:
            differences = parents[0].store.schema.differences(store.schema.arrow)
            if differences:
                raise ConflictError(f"{path} has other columns than {parents[0].path}: {'; '.join(differences)}")
        files = store.files()
        number = seen.setdefault(_plan_digest(plan), len(seen))
        parents.append(Parent(path, spec, plan, store, files, number, dict(files.written_ns())))
    return parents


def _check_same(first: Parent, spec: RunSpec, path: Path) -> None:
    one, other = first.spec.answers, spec.answers
    differing = [
        f"{name}: {one.get(name)!r:.100} in {first.path}, {other.get(name)!r:.100} in {path}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name) and name not in WHICH_DATA
    ]
    if differing:
        raise ConflictError(
            "these are answers to different questions, which do not make one table: " + "; ".join(differing)
        )


def _plan_digest(plan: PlanStore) -> str:
    keys, parts = blake3(), blake3()
    for table in plan.tables(["chunk_key", "part"]):
        keys.update("\n".join(table.column("chunk_key").to_pylist()).encode() + b"\n")
        parts.update(table.column("part").to_numpy().tobytes())
    return str(keys.hexdigest() + parts.hexdigest())
