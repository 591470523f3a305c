"""One node's servers, from their start to their end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from s1batch.engine.http.discovery import describe, model_error
from s1batch.engine.http.http_client import HttpClient
from s1batch.engine.serving.commands import Command, NodePlan
from s1batch.engine.serving.spec import ServingSpec
from s1batch.errors import EngineUnavailable, Interrupted
from s1batch.launching import guard
from s1batch.launching.log_tail import tail
from s1batch.launching.registry import RegisteredEndpoint, Registration, forget_dead, register
from s1batch.launching.staging import Staged, Staging
from s1batch.launching.surroundings import own_address, require_surroundings
from s1batch.results.process import ProcessIdentity

T = TypeVar("T")

PROBE_TIMEOUT_S = 10.0
TAIL_LINES = 30

PROGRESS_S = 30.0
"""How often somebody who waits for a model to load is told how far it is."""

GUARD_MARGIN_S = guard.KILL_TIMEOUT_S + 5.0
"""What a guard may take beyond the grace before it is killed itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Started:
    command: Command
    process: Process
    log: Path
    exit: asyncio.Task[int]


class Supervisor:
    """Starts a node's commands, each below a guard, and ends them all whatever happens.

    Args:
        spec: The description of the servers.
        plan: What runs on this node.
        registry: Folder in which the node registers.
        logs: Folder for the servers' output.
        say: Called with each line for the user.
        staging: Brings the checkpoint to the node's own disk first; None: it is served from where it is.
        of_run: A run started this, and holds the other end of standard input: its end asks to stop. When a signal asks
            instead, the other nodes must end too.
    """

    def __init__(
        self,
        spec: ServingSpec,
        plan: NodePlan,
        *,
        registry: Path,
        logs: Path,
        say: Callable[[str], None],
        staging: Staging | None = None,
        of_run: bool = False,
    ) -> None:
        self._staging = staging
        self._of_run = of_run
        self._input_ended = False
        self._spec = spec
        self._plan = plan
        self._registry = registry
        self._logs = logs
        self._say = say
        self._started: list[_Started] = []
        self._stop = asyncio.Event()
        self._began = time.monotonic()
        self._deadline = self._began + spec.ready_timeout_s
        self._process = ProcessIdentity.current()

    async def run(self) -> None:
        """Serve until a signal asks to stop.

        Raises:
            UsageError: Something that is needed is missing, or a port is taken.
            EngineUnavailable: A server ended, was not healthy in time, or ceased to be.
            Interrupted: A signal came before all servers were healthy, or to one of the nodes of a run.
        """
        require_surroundings(self._spec, self._plan)
        self._logs.mkdir(parents=True, exist_ok=True)
        urls = self._plan.urls(own_address(self._plan, self._say))
        registration = self._registration(urls)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asks to ignore SIGHUP
                loop.add_signal_handler(number, self._asked_to_stop)
        if self._of_run:
            loop.add_reader(sys.stdin.fileno(), self._look_at_input)
        guard.become_subreaper()
        forget_dead(self._registry)
        record = register(self._registry, registration)
        try:
            staged = await self._unless_ended(self._stage())
            self._deadline = time.monotonic() + self._spec.ready_timeout_s
            await self._bring_up(record, urls)
            registration = replace(registration, staging_s=staged.seconds, copied_bytes=staged.copied_bytes)
            register(self._registry, replace(registration, ready=True, logs=self._log_names()))
            served = f"serves {' '.join(urls)}" if urls else "computes for the first node"
            self._say(f"node {self._plan.rank} is ready after {self._age_s():.0f} s and {served}")
            with contextlib.suppress(Interrupted):
                await self._unless_ended(self._watch(urls))
            if self._of_run and not self._input_ended:
                raise Interrupted(f"node {self._plan.rank} was asked to stop by a signal")
        finally:
            record.unlink(missing_ok=True)
            await self._end()

    # ---------------------------------------------------------------------------------------------- before

    def _registration(self, urls: Sequence[str]) -> Registration:
        single = self._spec.single_prefill
        return Registration(
            host=self._plan.host,
            node_rank=self._plan.rank,
            server=self._spec.server,
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            ready=False,
            process=self._process,
            endpoints=tuple(
                RegisteredEndpoint(url=url, model=self._spec.served_name, single_prefill=single) for url in urls
            ),
        )

    # ----------------------------------------------------------------------------------------------- start

    async def _stage(self) -> Staged:
        if self._staging is None:
            return Staged()
        halt = threading.Event()
        try:
            return await asyncio.to_thread(self._staging.bring, halt.is_set, self._say)
        finally:
            halt.set()  # for the thread, which nobody can cancel

    async def _bring_up(self, record: Path, urls: Sequence[str]) -> None:
        for command in self._plan.commands:
            if command.after:
                self._say(f"waiting for {command.after}")
                await self._unless_ended(_accepts(command.after), f"{command.after} accepts no connections")
            await self._start(command, record)
        if urls:
            await self._unless_ended(self._healthy(urls), "not all servers are healthy")

    async def _start(self, command: Command, record: Path) -> None:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        log = self._logs / f"node{self._plan.rank}-{command.role}-{stamp}-{os.getpid()}.log"
        log.write_text(f"$ {command.shell()}\n", encoding="utf-8")
        arguments = ["--log", str(log), "--grace-s", str(self._spec.stop_grace_s), "--forget", str(record), "--"]
        process = await asyncio.create_subprocess_exec(
            # -P: the folder of the guard is no place to import from.
            *(sys.executable, "-P", guard.__file__, *arguments, *command.argv),
            stdin=asyncio.subprocess.PIPE,  # its end tells the guard that this process is gone
            env={**os.environ, **dict(command.env)},
            # In a session of its own, so that Ctrl-C reaches this process only.
            start_new_session=True,
        )
        self._say(f"{command.role} started, its output is in {log}")
        self._started.append(
            _Started(command=command, process=process, log=log, exit=asyncio.create_task(process.wait()))
        )

    async def _healthy(self, urls: Sequence[str]) -> None:
        missing = list(urls)
        delay_s, told = 0.2, time.monotonic()
        async with HttpClient() as client:
            while missing:
                found = await self._problems(client, missing)
                missing = [url for url in missing if found[url]]
                if missing:
                    await asyncio.sleep(delay_s)
                    delay_s = min(2 * delay_s, 2.0)
                if missing and time.monotonic() - told > PROGRESS_S:
                    told = time.monotonic()
                    last = (tail(self._started[-1].log, 1) or [""])[0]
                    ready = len(urls) - len(missing)
                    self._say(
                        f"{self._age_s():.0f} s: {ready} of {len(urls)} servers are healthy; the log ends: {last}"
                    )

    async def _watch(self, urls: Sequence[str]) -> None:
        """Ask for the health of the servers for ever.

        Raises:
            EngineUnavailable: One of them gave no sign of health for too long.
        """
        since: dict[str, float] = {}
        async with HttpClient() as client:
            while True:
                await asyncio.sleep(self._spec.check_every_s)
                for url, problem in (await self._problems(client, urls)).items():
                    if not problem:
                        if since.pop(url, None) is not None:
                            self._say(f"{url} is healthy again")
                        continue
                    if url not in since:
                        since[url] = time.monotonic()
                        self._say(f"{url}: {problem}")
                    silent_s = time.monotonic() - since[url]
                    if silent_s > self._spec.unhealthy_after_s:
                        self._show_tails()
                        raise _unavailable(
                            f"{url} has not been healthy for {silent_s:.0f} s ({problem}); all was ended"
                        )

    async def _problems(self, client: HttpClient, urls: Sequence[str]) -> dict[str, str]:
        """Return what is wrong with each server; an empty text when it is healthy.

        Raises:
            EngineUnavailable: Another model is served there.
        """
        found = await asyncio.gather(*(describe(client, url, {}, PROBE_TIMEOUT_S) for url in urls))
        problems = {}
        for each in found:
            listed = each.status == 200 or each.dialect == "transformers"
            problems[each.url] = each.error or ("" if listed else f"/v1/models answers {each.status}")
            if not problems[each.url] and (error := model_error(each, self._spec.served_name, each.dialect)):
                raise _unavailable(f"{each.url}: {error}: something else listens there, or name is wrong")
        return problems

    async def _unless_ended(self, work: Coroutine[Any, Any, T], late: str = "") -> T:
        """Return what the work gives, unless a signal, a server's end, or the deadline comes first.

        Args:
            work: What to do.
            late: What is the matter when the deadline comes first; empty when there is none.

        Raises:
            Interrupted: A signal asked to stop.
            EngineUnavailable: A server ended, or the deadline came.
        """
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop.wait())
        exits = {each.exit for each in self._started}
        left_s = max(self._deadline - time.monotonic(), 0.0) if late else None
        try:
            await asyncio.wait({task, stop, *exits}, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                raise Interrupted("stopped before the servers were ready")
            for each in self._started:
                if each.exit.done():
                    self._show_tails([each])
                    code = each.exit.result()
                    how = f"ended with code {code}" if code >= 0 else f"was killed by signal {-code}"
                    raise _unavailable(f"{each.command.role} {how} after {self._age_s():.0f} s: see {each.log}")
            if not task.done():
                self._show_tails()
                patience = f"ready_timeout_s: {self._spec.ready_timeout_s:g}"
                raise _unavailable(f"{late} after {self._age_s():.0f} s ({patience}); all was ended")
            return task.result()
        finally:
            for each_task in (task, stop):
                each_task.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)

    # ------------------------------------------------------------------------------------------------- end

    def _look_at_input(self) -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._input_ended = True
            self._asked_to_stop()

    def _asked_to_stop(self) -> None:
        if not self._stop.is_set():
            self._stop.set()
            self._say("stopping the servers (once more: at once)")
            return
        for each in self._started:  # a guard that is told twice does not wait
            if each.process.returncode is None:
                each.process.terminate()

    async def _end(self) -> None:
        """End everything: servers before what they stand on."""
        for each in reversed(self._started):
            if each.process.returncode is None:
                each.process.terminate()
            await asyncio.wait({each.exit}, timeout=self._spec.stop_grace_s + GUARD_MARGIN_S)
            if not each.exit.done():
                each.process.kill()
                await each.exit
        # What a guard left behind because it was killed itself has been handed to this process.
        gone = guard.kill_descendants(guard.KILL_TIMEOUT_S)
        if not gone:
            self._say("warning: some processes of this node could not be killed; they may hang in a driver")
        elif self._started:
            self._say("all servers of this node have ended")

    def _show_tails(self, which: Sequence[_Started] | None = None) -> None:
        for each in self._started if which is None else which:
            lines = tail(each.log, TAIL_LINES)
            self._say(f"--- the last lines of {each.log}")
            for line in lines:
                self._say(f"  {line}")

    def _log_names(self) -> tuple[str, ...]:
        return tuple(str(each.log) for each in self._started)

    def _age_s(self) -> float:
        return time.monotonic() - self._began


async def _accepts(address: str) -> None:
    """Wait until a port accepts connections."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
        except (OSError, TimeoutError):
            await asyncio.sleep(0.5)
            continue
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        return


def _unavailable(text: str) -> EngineUnavailable:
    return EngineUnavailable("engine_unavailable", text)
