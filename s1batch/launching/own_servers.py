"""Servers that a run starts for itself: `engine up` below a guard that outlives no run, watched and started again.

The run holds the only end of a pipe into the guard and into `engine up`. Whatever becomes of the run, the pipe ends
with it; then `engine up` ends its servers, and the guard kills what is left. Over several nodes of an allocation, srun
stands between the two: it hands the end of the pipe to the `engine up` of each node.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from s1batch.deadline import Deadline
from s1batch.engine.serving.backends import choose_backend
from s1batch.engine.serving.commands import plan_nodes
from s1batch.engine.serving.engine_spec import ServedEngineSpec
from s1batch.errors import EngineUnavailable, Interrupted, OutOfTime, ResultsError, S1BatchError, UsageError
from s1batch.launching import guard
from s1batch.launching.allocation import find_place
from s1batch.launching.loading import Loading, LoadingFile
from s1batch.launching.log_tail import tail
from s1batch.launching.member import read_ends
from s1batch.launching.registry import read_registry, ready_endpoints
from s1batch.launching.starting import ENDS
from s1batch.launching.supervisor import GUARD_MARGIN_S
from s1batch.stopping import StopSign

POLL_S = 0.2

RESTART_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
"""Waits before a restart; they double."""

LATE_S = 10.0
"""What servers get to end by themselves behind the run's deadline: their task must requeue itself before the limit."""

SETTLED_S, SETTLED_ANSWERS = 3600.0, 1000
"""Servers that have served for so long, or answered so often, can serve: restarts count anew."""


class OwnServers:
    """The servers of one run; a context manager that starts them and takes them down.

    Args:
        spec: The job's engine.
        base_dir: The job file's folder.
        folder: Where their description, registration and logs go; this run's own.
        host: The name or address under which the run's workers reach this host.
        loading: How long the servers of this job take to load, and whether there is time for it.
        deadline: By when the run must be over; None: there is no limit.
        stop: Looked at while they start.
        say: Called with each line for the user.
        answers: Called now and then; how many rows the run has added.
        failed: Called once, from another thread, when they have ended and cannot be started again.

    Raises (on entering):
        UsageError: They cannot be started so.
        EngineUnavailable: They did not become healthy.
        OutOfTime: They would not be ready before the allocation ends.
        Interrupted: `stop` was set meanwhile.
    """

    def __init__(
        self,
        spec: ServedEngineSpec,
        base_dir: Path,
        folder: Path,
        *,
        host: str,
        loading: LoadingFile,
        deadline: Deadline | None,
        stop: StopSign,
        say: Callable[[str], None],
        answers: Callable[[], int],
        failed: Callable[[S1BatchError], None],
    ) -> None:
        self._spec = spec
        self._folder = folder.resolve()
        self._stop = stop
        self._say = say
        self._answers = answers
        self._failed = failed
        self._loading = loading
        self._deadline = deadline
        self._place = find_place(spec.nodes, host)
        serving = spec.serving(self._place.hosts, base_dir)
        # One folder for all runs of this job, so that what one node has read is compared with what any other has.
        self._serving = serving.model_copy(update={"digests": str(folder.resolve().parent / "digests")})
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._told = 0
        self._began, self._log_start = 0.0, 0
        self._watching: threading.Thread | None = None
        self.urls: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        plan_nodes(self._serving, choose_backend(self._serving), self._serving.nodes)  # says what cannot be started
        self._loading.require_time()
        self._folder.mkdir(parents=True, exist_ok=True)
        description = self._serving.model_dump(mode="json", exclude_defaults=True)
        self._file.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        try:
            self._start()
            self.urls = self._until_ready()
        except BaseException:
            self._end()
            raise
        self._watching = threading.Thread(target=self._watch, name="s1batch-servers", daemon=True)
        self._watching.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        if self._watching is not None:
            self._watching.join()
        self._end()

    @property
    def _file(self) -> Path:
        return self._folder / "serve.yaml"

    @property
    def _registry(self) -> Path:
        return self._folder / self._serving.endpoints

    @property
    def _log(self) -> Path:
        return self._folder / "up.log"

    @property
    def _grace_s(self) -> float:
        """What `engine up` may take to end its servers, one after the other."""
        return 2 * (self._serving.stop_grace_s + GUARD_MARGIN_S)

    def _start(self) -> None:
        for folder in (self._registry, self._folder / ENDS):
            for path in folder.glob("*.json"):
                path.unlink()  # of servers that have ended
        self._began, self._log_start = time.monotonic(), self._told
        free = ",".join(self._spec.free_ports)
        command = [sys.executable, "-m", "s1batch", "engine", "up", str(self._file), "--of-run", free]
        # Only this process holds the other end of the guard's standard input.
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", guard.__file__, "--log", str(self._log)),
                *("--grace-s", str(self._grace_s), "--share-input", "--", *self._place.command(command)),
            ],
            env=self._place.environment(),
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def _until_ready(self) -> tuple[str, ...]:
        """Wait until the servers of every node are healthy, and return where they are.

        Raises:
            UsageError: `engine up` found something missing.
            EngineUnavailable: They ended.
            Interrupted: The run is to stop.
        """
        every = set(range(len(self._place.hosts)))
        while not self._closing.is_set() and not self._stop.is_set():
            self._tell()
            if self._code() is not None:
                raise self._death()
            found = [one for _, one in read_registry(self._registry)] if self._registry.is_dir() else []
            if every <= {one.node_rank for one in found if one.ready}:
                loading = Loading.of(time.monotonic() - self._began, found)
                self._say(f"  {loading.told()}")
                try:
                    self._loading.write(loading)
                except ResultsError as error:
                    self._say(f"{error} (only how long the servers took to load is lost)")
                return tuple(each.url for each in ready_endpoints(found))
            self._closing.wait(POLL_S)
        raise Interrupted("stopped before the servers were ready")

    def _code(self) -> int | None:
        return None if self._process is None else self._process.poll()

    def _death(self) -> UsageError | EngineUnavailable:
        self._tell()
        # Nodes that were only told to stop say so too; one that was killed says nothing, but srun does.
        ends = [end for end in read_ends(self._folder / ENDS) if end[0] != Interrupted.exit_code]
        code, last = ends[0] if ends else (self._code(), self._last_words())
        if code == UsageError.exit_code:
            return UsageError(f"engine: {last}")
        return EngineUnavailable("engine_unavailable", f"the servers of this run have ended: {last} ({self._log})")

    def _last_words(self) -> str:
        """Return what the log of this start says of its end: the first line of srun about a task, or the last one."""
        lines: list[str] = []
        with suppress(OSError), self._log.open("rb") as file:
            file.seek(self._log_start)
            lines += [line.decode(errors="replace").strip() for line in file]
        ends = [line for line in lines if line.startswith("srun: error: ")]
        return (ends or tail(self._log, 1) or ["they said nothing"])[0]

    def _tell(self) -> None:
        """Pass on what `engine up` has said since the last time."""
        try:
            with self._log.open("rb") as file:
                file.seek(self._told)
                lines = file.read().splitlines(keepends=True)
        except OSError:
            return  # not there yet, or out of reach: another time
        for line in lines:
            if line.endswith(b"\n"):
                self._told += len(line)
                self._say(f"  {line.decode(errors='replace').rstrip()}")

    # ------------------------------------------------------------------------------------- in a thread of its own

    def _watch(self) -> None:
        restarts, since, answers = 0, time.monotonic(), self._answers()
        while not self._closing.wait(POLL_S):
            self._tell()
            if self._code() is None:
                continue
            error: S1BatchError = self._death()
            settled = time.monotonic() - since > SETTLED_S or self._answers() - answers >= SETTLED_ANSWERS
            restarts = 1 if settled else restarts + 1
            if restarts > self._spec.max_restarts:
                self._failed(error)
                return
            self._say(f"{error}: starting them again ({restarts} of {self._spec.max_restarts})")
            self._end()
            if self._closing.wait(min(RESTART_WAIT_S * 2.0 ** (restarts - 1), LONGEST_WAIT_S)):
                return
            try:
                self._loading.require_time()
                self._start()
                self._until_ready()
            except OutOfTime as late:
                self._failed(late)
                return
            except (EngineUnavailable, UsageError):
                continue  # counted in the next round
            except Interrupted:
                return
            except OSError as trouble:
                self._failed(S1BatchError(f"{self._folder}: the servers cannot be started again: {trouble}"))
                return
            since, answers = time.monotonic(), self._answers()

    def _end(self) -> None:
        """End what was started, and wait for it."""
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.stdin is not None:
            process.stdin.close()  # which tells the guard
        patience_s = 2 * self._grace_s + GUARD_MARGIN_S  # the guard has the grace before and after SIGTERM
        if self._deadline is not None:
            patience_s = min(patience_s, self._deadline.left_s + LATE_S)
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.terminate()  # told twice, the guard kills at once
            try:
                process.wait(GUARD_MARGIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._tell()


def run_folder(servers: Path) -> Path:
    """Return the folder of one run below a results folder's `servers`."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return servers / f"{socket.gethostname()}-{stamp}-{os.getpid()}"


def host_for(*, remote: bool) -> str:
    """Return the name under which this host's servers are asked: by workers here, or by those of another host."""
    return socket.gethostname() if remote else "127.0.0.1"
