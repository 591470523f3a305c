"""A disk that does not answer: whoever calls it hangs, and nobody else does."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s1batch.errors import StorageAway
from s1batch.results.atomic import rename, write_atomic
from s1batch.results.patience import Patience
from s1batch.results.store import ResultsStore
from tests.plans import SCHEMA, minutes, row

A, B = minutes(2, per_part=2)


class Hanging:
    """Lets writes to a folder hang until they are let on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers = threading.Event()
        self.answers.set()
        real = os.write

        def write(handle: int, data: bytes) -> int:
            if os.readlink(f"/proc/self/fd/{handle}").startswith(str(folder)):
                assert self.answers.wait(60)
            return real(handle, data)

        monkeypatch.setattr(os, "write", write)


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hanging]:
    disk = Hanging(tmp_path, monkeypatch)
    yield disk
    disk.answers.set()


@pytest.fixture
def said() -> list[str]:
    return []


async def until(holds: Callable[[], object]) -> None:
    give_up = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < give_up, "in vain"
        await asyncio.sleep(0.01)


async def test_a_loop_goes_on_while_a_write_hangs_and_rows_can_be_looked_at(
    tmp_path: Path, disk: Hanging, said: list[str]
) -> None:
    patience = Patience(tmp_path / "journal", 60.0, said.append, silent_s=0.2)
    with ResultsStore(tmp_path, SCHEMA, patience=patience) as store, store.open_part(0) as writer:
        writer.append(row(A))
        disk.answers.clear()
        waiting = asyncio.create_task(patience.through_async(lambda: writer.append(row(B))))
        await until(lambda: patience.is_away)
        assert set(writer.rows) == {A.chunk.key}
        assert "does not answer" in said[0]
        assert "1 answer in memory" in said[0]
        disk.answers.set()
        await waiting
        await until(lambda: not patience.is_away)
        assert set(writer.rows) == {A.chunk.key, B.chunk.key}
    assert "answers again after" in said[1]
    assert patience.lost == 0


async def test_whoever_waits_is_let_go_when_the_patience_is_over_and_a_process_is_ended(
    tmp_path: Path, disk: Hanging
) -> None:
    ended: list[str] = []
    patience = Patience(tmp_path / "journal", 0.5, silent_s=0.2, end_process=ended.append)
    with ResultsStore(tmp_path, SCHEMA, patience=patience) as store, store.open_part(0) as writer:
        disk.answers.clear()
        with pytest.raises(StorageAway, match=r"has not answered for .*run.storage_patience_s: 0.5 s"):
            await patience.through_async(lambda: writer.append(row(A)))
        await until(lambda: ended)
        assert "has not answered" in ended[0]
        assert patience.lost == 1
        disk.answers.set()


async def test_an_answer_is_stored_although_its_part_is_cancelled(tmp_path: Path, disk: Hanging) -> None:
    patience = Patience(tmp_path / "journal", 60.0)
    with ResultsStore(tmp_path, SCHEMA, patience=patience) as store:
        with store.open_part(0) as writer:
            writer.append(row(A))
            disk.answers.clear()
            waiting = asyncio.create_task(patience.through_async(lambda: writer.append(row(B))))
            await asyncio.sleep(0.1)
            waiting.cancel()
            await asyncio.sleep(0.1)
            assert not waiting.done()
            disk.answers.set()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        with store.open_part(0) as writer:
            assert set(writer.rows) == {A.chunk.key, B.chunk.key}
    assert patience.lost == 0


async def test_a_run_that_is_stopped_waits_for_its_grace_only(tmp_path: Path, disk: Hanging) -> None:
    stopped = threading.Event()
    ended: list[str] = []
    how = {"silent_s": 0.2, "grace_s": 0.1}
    patience = Patience(tmp_path / "journal", 600.0, stopped=stopped.is_set, end_process=ended.append, **how)  # type: ignore[arg-type]
    with ResultsStore(tmp_path, SCHEMA, patience=patience) as store, store.open_part(0) as writer:
        disk.answers.clear()
        waiting = asyncio.create_task(patience.through_async(lambda: writer.append(row(A))))
        await until(lambda: patience.is_away)
        stopped.set()
        await until(lambda: ended)
        with pytest.raises(StorageAway):
            await waiting
        disk.answers.set()


@pytest.mark.parametrize("took_place", [True, False])
def test_a_rename_counts_by_where_the_file_is(
    took_place: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        if took_place:
            real(source, target)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    (tmp_path / "target").write_bytes(b"old")
    monkeypatch.setattr(os, "replace", replace)
    if took_place:
        write_atomic(tmp_path / "target", b"new")
    else:
        (tmp_path / "source").write_bytes(b"new")
        with pytest.raises(FileNotFoundError):
            rename(tmp_path / "source", tmp_path / "target")
    assert (tmp_path / "target").read_bytes() == (b"new" if took_place else b"old")
