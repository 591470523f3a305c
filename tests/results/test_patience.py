"""A disk that is full, read-only or away for a while costs time, and nothing that was answered."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s1batch.errors import LockedError, ResultsError, StorageAway
from s1batch.results.holder import read_holder
from s1batch.results.journal import read_journal
from s1batch.results.lease import LeaseKeeper
from s1batch.results.part_writer import journal_rows, part_journals
from s1batch.results.patience import Patience
from s1batch.results.store import ResultsStore
from tests.plans import SCHEMA, minutes, row

A, B, C = minutes(3, per_part=3)
KEYS = [entry.chunk.key for entry in (A, B, C)]

AWAY = [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE]


class Disk:
    """Lets calls of the system that change a folder fail while it is away."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.failing, self.returns = str(folder), 0, False
        for name in ("open", "write", "fsync", "utime", "unlink", "replace"):
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, real: Callable[..., object]) -> Callable[..., object]:
        def call(what: object, *rest: object, **more: object) -> object:
            if self.failing and not (real.__name__ == "open" and rest[0] == os.O_RDONLY | os.O_CLOEXEC):
                path = os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else os.fspath(what)  # type: ignore[call-overload]
                if str(path).startswith(self.folder):
                    raise OSError(self.failing, os.strerror(self.failing), path)
            return real(what, *rest, **more)

        return call

    def noticed(self, line: str) -> None:
        """Come back when somebody says that it is waited for, if that is wanted."""
        if self.returns and line.startswith("waiting"):
            self.failing = 0


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(tmp_path, monkeypatch)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def store(tmp_path: Path, disk: Disk, said: list[str]) -> Iterator[ResultsStore]:
    def say(line: str) -> None:
        said.append(line)
        disk.noticed(line)

    patience = Patience(tmp_path / "journal", 200.0, say, look_every_s=0.05)
    with ResultsStore(tmp_path, SCHEMA, patience=patience) as store:
        yield store


@pytest.mark.parametrize("code", AWAY)
def test_a_part_is_finished_when_the_disk_is_back(code: int, store: ResultsStore, disk: Disk, said: list[str]) -> None:
    with store.open_part(0) as writer:
        writer.append(row(A))
        disk.failing, disk.returns = code, True
        writer.finish(KEYS[:1])
    assert store.finished() == {0}
    assert part_journals(store.layout, 0) == []
    assert [line.partition(" ")[0] for line in said] == ["waiting", "the"], said


@pytest.mark.parametrize("code", AWAY)
def test_rows_appended_before_during_and_after_are_all_on_file(code: int, store: ResultsStore, disk: Disk) -> None:
    with store.open_part(0) as writer:
        writer.append(row(A))
        disk.failing = code
        with pytest.raises(StorageAway):
            writer.append(row(B))
        disk.failing = 0
        writer.append(row(B))
        writer.append(row(C))
    assert set(journal_rows(part_journals(store.layout, 0), SCHEMA)) == set(KEYS)


def test_coroutines_wait_without_holding_their_loop_up(store: ResultsStore, disk: Disk) -> None:
    async def main() -> int:
        disk.failing = errno.ENOSPC
        waiting = [
            asyncio.create_task(store.patience.through_async(lambda entry=entry: writer.append(row(entry))))  # type: ignore[misc]
            for entry in (A, B, C)
        ]
        rounds = 0
        while not all(task.done() for task in waiting):
            await asyncio.sleep(0.01)
            rounds += 1
            if rounds == 20:
                disk.failing = 0
        await asyncio.gather(*waiting)
        return rounds

    with store.open_part(0) as writer:
        assert asyncio.run(main()) >= 20
    assert set(journal_rows(part_journals(store.layout, 0), SCHEMA)) == set(KEYS)
    assert store.patience.lost == 0


def test_what_a_disk_forgot_is_written_again_in_the_background(
    store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush that fails may have dropped what was appended before: another journal gets all of it, without a call."""
    with store.open_part(0) as writer:
        real, failed = os.fsync, threading.Event()

        def fsync(handle: int) -> None:
            if not failed.is_set():
                failed.set()
                raise OSError(errno.EIO, "Input/output error")
            real(handle)

        monkeypatch.setattr(os, "fsync", fsync)
        writer.append(row(A))
        give_up = time.monotonic() + 60
        while len(part_journals(store.layout, 0)) < 2 and time.monotonic() < give_up:
            time.sleep(0.02)
        contents = [read_journal(path).payloads for path in part_journals(store.layout, 0)]
        assert len(contents) == 2
        assert contents[0] == contents[1] != []


def test_a_disk_that_stays_away_ends_it_with_a_line(tmp_path: Path, disk: Disk) -> None:
    patience = Patience(tmp_path / "journal", 1.0, look_every_s=0.05)
    with ResultsStore(tmp_path, SCHEMA, patience=patience) as store:
        disk.failing = errno.EROFS
        with pytest.raises(StorageAway, match=r"read-only.*\(run.storage_patience_s: 1 s\)"):
            store.open_part(0)
        before = time.monotonic()
        with pytest.raises(StorageAway):
            store.open_part(1)
        assert time.monotonic() - before < 0.9, "nobody waits again where one has given up"
        disk.failing = 0


def test_a_folder_that_was_never_written_is_not_waited_for(tmp_path: Path, disk: Disk) -> None:
    disk.failing = errno.EROFS
    before = time.monotonic()
    with pytest.raises(StorageAway):
        ResultsStore(tmp_path / "new", SCHEMA, patience=Patience(tmp_path / "new/journal", 200.0))
    assert time.monotonic() - before < 100


def test_other_troubles_are_not_waited_for(store: ResultsStore, disk: Disk, said: list[str]) -> None:
    disk.failing = errno.EACCES
    with pytest.raises(ResultsError, match="permission denied"):
        store.open_part(0)
    disk.failing = 0
    assert said == []


def test_a_lease_that_could_not_be_given_back_is_given_back_later(tmp_path: Path, disk: Disk) -> None:
    with LeaseKeeper(tmp_path, heartbeat_s=0.05) as keeper:
        lease = keeper.acquire("gate")
        disk.failing = errno.EROFS
        keeper.release(lease)
        assert read_holder(lease.path) is not None
        disk.failing = 0
        give_up = time.monotonic() + 60
        while lease.path.exists() and time.monotonic() < give_up:
            time.sleep(0.02)
        assert not lease.path.exists()


def test_a_lease_that_could_not_be_given_back_can_be_taken_again_at_once(tmp_path: Path, disk: Disk) -> None:
    with LeaseKeeper(tmp_path, heartbeat_s=3600) as keeper:
        lease = keeper.acquire("gate")
        disk.failing = errno.ENOSPC
        keeper.release(lease)
        disk.failing = 0
        assert keeper.acquire("gate").token != lease.token


def test_a_holder_whose_disk_was_away_looks_before_it_finishes(store: ResultsStore) -> None:
    """Its heartbeats failed, another one took the part over on its own, working mount: only one of them finishes."""
    with store.open_part(0) as writer:
        writer.append(row(A))
        lease = writer._lease
        lease._seen -= 3600
        lease.path.write_text('{"token": "of another"}')
        with pytest.raises(LockedError, match="another run took it over"):
            writer.finish(KEYS[:1])
    assert store.finished() == set()
