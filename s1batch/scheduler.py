"""Who runs the parts: this process, or worker processes through Dask (`workers`)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from typing import Protocol

from s1batch.assembly import requests_in_flight
from s1batch.class_turns import ALL_AT_ONCE, ClassTurn
from s1batch.errors import Interrupted, S1BatchError, UsageError
from s1batch.part_gate import most_open_parts
from s1batch.part_runner import PartSummary
from s1batch.process_settings import give_back_memory
from s1batch.records import Refusal
from s1batch.session import Session, SessionSetup, SessionStats
from s1batch.stopping import Ending, StopSign, at_once

POLL_S = 0.2

GIVE_BACK_EVERY_S = 0.5
"""How often memory that was freed goes back to the system."""


@dataclass(frozen=True, slots=True)
class PartTask:
    """One part to run.

    Attributes:
        part: Its number.
        only: The chunk keys to limit it to; None: all.
        turn: The batching class whose turn it is.
        given_up: Chunks that are not asked any more, and why: they get their rows.
    """

    part: int
    only: frozenset[str] | None = None
    turn: ClassTurn = ALL_AT_ONCE
    given_up: tuple[tuple[str, Refusal], ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """Which scheduler was chosen, and why, in one line."""

    name: str
    why: str


class Watch(Protocol):
    """What the client does while parts run."""

    def finished(self, summary: PartSummary) -> None:
        """One part has ended."""

    def tick(self, stats: SessionStats | None) -> None:
        """A moment has passed; `stats` are this process's counters, None when the work is elsewhere."""


class Carries(Protocol):
    """What carries parts: a session."""

    def run_part(
        self, part: int, only: Collection[str] | None, turn: ClassTurn, let_in: Callable[[], None]
    ) -> PartSummary:
        """See `Session.run_part`."""

    def stop(self, *, at_limit: bool = False, in_vain: bool = False) -> None:
        """Take in nothing new; see `Session.stop`."""

    def stats(self) -> SessionStats | None:
        """Return the counters."""


def choose(asked: str, workers: int | None, parts: int, engine: str) -> Choice:
    """Choose a scheduler.

    Args:
        asked: auto, inline, local, slurm, allocation, or the address of a scheduler.
        workers: Worker processes that were asked for.
        parts: Parts that are open.
        engine: Kind of the engine.

    Raises:
        UsageError: The name is unknown, or `workers` does not go with it.
    """
    if engine == "lmdeploy" and (asked in ("local", "allocation") or (asked == "auto" and (workers or 1) > 1)):
        raise UsageError(
            "worker processes would each load the model onto the same GPUs; leave --workers and --scheduler out: "
            "LMDeploy has a process of its own"
        )
    if asked == "auto":
        if workers is not None and workers > 1 and parts > 1:
            return Choice("local", f"{workers} worker processes were asked for")
        why = {
            "reference": "the reference engine uses all cores of one process",
            "replay": "one process suffices",
            "lmdeploy": "LMDeploy is asked by one process, which gives it all that it takes",
        }.get(engine, "waiting for an endpoint needs no worker processes")
        return Choice("inline", why)
    if asked == "inline":
        if workers is not None and workers > 1:
            raise UsageError("--workers has no meaning with --scheduler inline; use --scheduler local")
        return Choice("inline", "asked for")
    if asked in ("local", "slurm", "allocation"):
        return Choice(asked, "asked for")
    if "://" in asked or ":" in asked:
        if workers is not None:
            raise UsageError("--workers has no meaning with a scheduler's address: it has its workers already")
        return Choice(asked, "asked for")
    raise UsageError(
        f"--scheduler {asked}: unknown (valid: auto, inline, local, slurm, allocation, or an address such as "
        "tcp://node0:8786)"
    )


def run_parts(
    choice: Choice,
    setup: SessionSetup,
    tasks: Sequence[PartTask],
    *,
    workers: int | None,
    watch: Watch,
    stop: StopSign,
    say: Callable[[str], None],
) -> None:
    """Run parts to their end, or until `stop` is set.

    Raises:
        Interrupted: `stop` was set before every part had ended.
        S1BatchError: What ended the run: a lock, a dead engine, results that cannot be written.
    """
    if choice.name == "inline":
        _run_inline(setup, tasks, watch, stop, say)
        return
    from s1batch.workers.running import run_on_dask

    run_on_dask(choice, setup, tasks, workers=workers, watch=watch, stop=stop, say=say)


# ------------------------------------------------------------------------------------------------ in this process


def _run_inline(
    setup: SessionSetup, tasks: Sequence[PartTask], watch: Watch, stop: StopSign, say: Callable[[str], None]
) -> None:
    width = most_open_parts(setup.loaded.spec.run.parts_in_flight, requests_in_flight(setup.loaded))
    with ExitStack() as opened:
        with at_once(stop):  # an engine may take half an hour to load
            session = opened.enter_context(Session(setup, say))
        pool = opened.enter_context(ThreadPoolExecutor(width, thread_name_prefix="s1batch-part"))
        try:
            submit_all(session, pool, width, tasks, watch, stop)
        except BaseException:
            session.stop()  # the pool waits for the parts that run; they shall not go on to their end
            raise
    give_back_memory()


_News = tuple[int, Future[PartSummary] | None]
"""A part, and how it ended; None where it was let in."""


def _tell(news: SimpleQueue[_News], part: int, future: Future[PartSummary]) -> None:
    news.put((part, future))


def _heard(news: SimpleQueue[_News]) -> list[_News]:
    """Wait a moment for news; return all there is."""
    heard: list[_News] = []
    try:
        heard.append(news.get(timeout=POLL_S))
        while True:
            heard.append(news.get_nowait())
    except Empty:
        return heard


def submit_all(
    session: Carries,
    pool: ThreadPoolExecutor,
    width: int,
    tasks: Sequence[PartTask],
    watch: Watch,
    stop: StopSign,
) -> None:
    """Run parts in the threads of this process.

    Args:
        session: What carries them; it lets in as many as it has room for.
        pool: Threads.
        width: Most parts that are open at once.
        tasks: The parts, in the order in which they begin.
        watch: Told what happens.
        stop: Ends the work.

    Raises:
        Interrupted: `stop` was set before every part had ended.
        S1BatchError: What ended the work; the parts that were open have ended too.
    """
    waiting = deque(tasks)
    running: set[int] = set()
    at_gate: int | None = None
    news: SimpleQueue[_News] = SimpleQueue()
    error: S1BatchError | None = None
    given_back = time.monotonic()
    while True:
        if stop.is_set() and error is None:
            error = Interrupted("stopped")
        if error is not None:
            ending = stop if isinstance(stop, Ending) else Ending(stop)
            session.stop(at_limit=ending.at_limit, in_vain=ending.engine_gone)
            waiting.clear()
        # One part at a time waits for room. So they are read in the order of the plan, which readers follow fastest,
        # and there are no more threads than open parts: 32 that took turns needed 20 MB more. One turn of a part comes
        # after the other: both write its journal, and the later one needs the rows of the earlier.
        if waiting and len(running) < width and at_gate is None and waiting[0].part not in running:
            task = waiting.popleft()
            at_gate = part = task.part
            let_in = partial(news.put, (part, None))
            future = pool.submit(session.run_part, part, task.only, task.turn, let_in)
            future.add_done_callback(partial(_tell, news, part))
            running.add(part)
        if not running:
            break
        heard = _heard(news)
        watch.tick(session.stats())
        if time.monotonic() - given_back >= GIVE_BACK_EVERY_S:
            give_back_memory()
            given_back = time.monotonic()
        for part, ended in heard:
            if part == at_gate:
                at_gate = None
            if ended is None:
                continue
            running.discard(part)
            try:
                watch.finished(ended.result())
            except Interrupted as interrupted:
                error = error or interrupted
            except S1BatchError as failure:
                error = failure if error is None or isinstance(error, Interrupted) else error
    watch.tick(session.stats())
    if error is not None:
        raise error
