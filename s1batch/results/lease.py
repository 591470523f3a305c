"""Leases: two runs never work on the same part, on shared file systems too.

A lease is a file that is created exclusively and touched every few seconds. Its age is judged by the clock that sets
modification times: a probe file is touched beside it, and the two times are compared, so that clocks of hosts may
differ. Before a lease counts as stale it must also stay untouched while one watches, so that a clock that jumps takes
no lease from a living holder. A holder on this machine is simply looked up: dead is stale at once, alive is never.

Taking over is free of races. Every lease holds a random token, and only who creates the guard of that token, again
exclusively, may remove that lease; the holder itself too, when it releases. So no one can remove a fresh lease in the
belief that it is the old one.
"""

from __future__ import annotations

import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path

import orjson

from s1batch.errors import LockedError
from s1batch.results.atomic import make_folder, results_errors
from s1batch.results.holder import Holder, read_holder
from s1batch.results.lease_clock import FileSystemClock, LeaseClock
from s1batch.results.process import ProcessIdentity
from s1batch.results.task_identity import TaskIdentity

STALE_S = 60.0
"""A lease without a heartbeat for this long is stale."""

HEARTBEAT_S = 5.0
"""Pause between two heartbeats."""

_LOOKS = 11
"""How often the disk is tried while one watches whether a lease is touched."""


class Lease:
    """A lease that this process holds; `lost` tells when another one took it over.

    Args:
        name: Its name.
        path: Its file.
        token: Its random identity.
        clock: What stamps its file.
        stale_s: Age without heartbeat after which others may take it over.
    """

    def __init__(self, name: str, path: Path, token: str, clock: LeaseClock, stale_s: float) -> None:
        self.name = name
        self.path = path
        self.token = token
        self.lost = False
        self._clock = clock
        self._stale_s = stale_s
        self._seen = time.monotonic()

    def beat(self) -> None:
        """Give a sign of life if it is still held.

        Raises:
            OSError: It cannot be given; whether the lease is held is not known then.
        """
        holder = read_holder(self.path)
        if holder is None or holder.token != self.token:
            self.lost = True
        else:
            self._clock.touch(self.path)
            self._seen = time.monotonic()

    def check(self) -> None:
        """Make sure that the lease is still held: where no heartbeat succeeded for long, look, and give one.

        Raises:
            LockedError: This process, or its disk, stood still for so long that another one took over.
            ResultsError: The file cannot be read or touched.
        """
        if not self.lost and time.monotonic() - self._seen > self._stale_s / 4:
            with results_errors(self.path):
                self.beat()
        if self.lost:
            raise LockedError(f"{self.name}: another run took it over while this one stood still; run again to go on")


class LeaseKeeper:
    """Takes leases and keeps them alive from one thread; a context manager.

    Args:
        folder: Where lease files are.
        clock: What times are taken from.
        identity: This process.
        stale_s: Age without heartbeat after which a lease is stale.
        heartbeat_s: Pause between two heartbeats.
        call: Entered around each heartbeat, so that one that hangs is noticed.
    """

    def __init__(
        self,
        folder: Path,
        *,
        clock: LeaseClock | None = None,
        identity: ProcessIdentity | None = None,
        stale_s: float = STALE_S,
        heartbeat_s: float = HEARTBEAT_S,
        call: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._folder = folder
        self._clock = clock or FileSystemClock()
        self._identity = identity or ProcessIdentity.current()
        self._stale_s = stale_s
        self._heartbeat_s = heartbeat_s
        self._call = call
        self._lock = threading.Lock()
        self._held: dict[str, Lease] = {}
        self._unreleased: dict[str, Lease] = {}
        self._gone: dict[ProcessIdentity, float] = {}
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> LeaseKeeper:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextmanager
    def lease(self, name: str) -> Iterator[Lease]:
        """Hold the lease `name` for the length of a block.

        Raises:
            LockedError: Another process holds it; the text names host, process and since when.
            ResultsError: The folder cannot be written.
        """
        held = self.acquire(name)
        try:
            yield held
        finally:
            self.release(held)

    def acquire(self, name: str) -> Lease:
        """Take a lease; see `lease`."""
        if self._stop.is_set():
            raise ValueError("this keeper of leases is closed")
        make_folder(self._folder)
        path = self._folder / f"{name}.json"
        with results_errors(path):
            while True:
                created = self._create(name, path)
                if created is not None:
                    return created
                holder = read_holder(path)
                if holder is not None and holder.token in self._unreleased:
                    self._release_again()
                elif holder is not None and not (self._is_stale(path, holder) and self._remove(path, holder.token)):
                    raise LockedError(
                        f"{name} is held by {holder}; wait for it, or end it and run again "
                        f"(a lease without a sign of life for {self._stale_s:g} s is taken over)"
                    )

    def held(self) -> frozenset[str]:
        """Return the names of the leases that are held here."""
        with self._lock:
            return frozenset(lease.name for lease in self._held.values())

    def release(self, lease: Lease) -> None:
        """Give a lease back; nothing happens when it was lost."""
        with self._lock:
            self._held.pop(lease.token, None)
            self._unreleased[lease.token] = lease
        # A lease that cannot be removed now is no reason to fail the work that was done under it. The thread tries
        # again, because that of a living process of this host does not go stale; behind its end it does.
        with suppress(OSError):
            self._release_again()

    def free_dead(self, names: Iterable[str]) -> list[str]:
        """Give back leases whose holders have died on this machine, and return their names.

        Only here is that known; elsewhere one would wait until they are stale. Trouble with a file leaves it as it is.
        """
        freed = []
        for name in names:
            path = self._folder / f"{name}.json"
            with suppress(OSError):
                holder = read_holder(path)
                dead = holder is not None and holder.process is not None and self._identity.knows_dead(holder.process)
                if holder is not None and dead and self._remove(path, holder.token):
                    freed.append(name)
        return freed

    def close(self) -> None:
        """Give all leases back and end the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for lease in list(self._held.values()):
            self.release(lease)

    def _release_again(self) -> None:
        with self._lock:
            waiting = list(self._unreleased.values())
        for lease in waiting:
            self._remove(lease.path, lease.token)
            with self._lock:
                self._unreleased.pop(lease.token, None)

    def _create(self, name: str, path: Path) -> Lease | None:
        token = secrets.token_hex(8)
        task = TaskIdentity.here()
        content = {
            "token": token,
            "process": self._identity.plain(),
            "since_ns": time.time_ns(),
            "task": task.name,
            "restarts": task.restarts,
        }
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return None
        try:
            os.write(handle, orjson.dumps(content, option=orjson.OPT_INDENT_2))
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        lease = Lease(name, path, token, self._clock, self._stale_s)
        with self._lock:
            self._held[token] = lease
            if self._thread is None:
                self._thread = threading.Thread(target=self._beat, name="s1batch-lease-heartbeat", daemon=True)
                self._thread.start()
        return lease

    def _is_stale(self, path: Path, holder: Holder) -> bool:
        if holder.process is not None:
            if holder.touched_ns <= self._gone.get(holder.process, -math.inf):
                return True
            dead = self._identity.knows_dead(holder.process)
            if dead is not None:
                return dead
        age_s = (self._clock.file_time_ns(self._folder) - holder.touched_ns) / 1e9
        if abs(age_s) < self._stale_s:
            return False
        # A disk that nobody can write, if for a second of this only, keeps the holder from its heartbeat as well.
        watch_s = 2 * self._heartbeat_s + 1
        for _ in range(_LOOKS):
            self._clock.sleep(watch_s / _LOOKS)
            self._clock.file_time_ns(self._folder)
        later = read_holder(path)
        stale = later is None or later == holder
        if stale and holder.process is not None:
            # One heartbeat serves all leases of a process, so its other leases need no second look.
            self._gone[holder.process] = holder.touched_ns + self._heartbeat_s * 1e9
        return stale

    def _remove(self, path: Path, token: str) -> bool:
        """Remove the lease that holds `token`, unless another process is about to; False then."""
        guards = self._guard(path, token)
        if guards is None:
            return False
        holder = read_holder(path)
        if holder is not None and holder.token == token:
            path.unlink(missing_ok=True)  # a request that a network file system sent twice finds nothing
        for guard in guards:
            guard.unlink(missing_ok=True)
        return True

    def _guard(self, path: Path, token: str) -> list[Path] | None:
        """Create the guard of a token and return it with its predecessors; None when a living process has it.

        The guard of a process that died holding it is followed by one with the next number.
        """
        guards: list[Path] = []
        while True:
            guard = path.with_name(f"{path.stem}.{token}.{len(guards)}.guard")
            guards.append(guard)
            try:
                handle = os.open(guard, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
            except FileExistsError:
                if not self._is_abandoned(guard):
                    return None
                continue
            try:
                os.write(handle, orjson.dumps({"token": token, "process": self._identity.plain()}))
            except OSError:
                # On a full disk: a guard that names nobody would keep the lease from everybody for a minute.
                guard.unlink(missing_ok=True)
                raise
            finally:
                os.close(handle)
            return guards

    def _is_abandoned(self, guard: Path) -> bool:
        holder = read_holder(guard)
        return holder is not None and self._is_stale(guard, holder)

    def _beat(self) -> None:
        while not self._stop.wait(self._heartbeat_s):
            with self._lock:
                held = list(self._held.values())
            for lease in held:
                # A heartbeat that fails once is tried again; a lease that goes stale meanwhile shows as lost then.
                with suppress(OSError), self._call():
                    lease.beat()
            with suppress(OSError), self._call():
                self._release_again()
