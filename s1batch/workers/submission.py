"""The parts of one run on their way through a client: a bounded number submitted, those that lose workers run alone."""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice
from typing import Any

from distributed import Client, wait
from distributed.scheduler import KilledWorker

from s1batch.errors import BudgetSpent, Interrupted, S1BatchError
from s1batch.part_runner import PartSummary
from s1batch.plan_store import PlanStore
from s1batch.results.layout import Layout
from s1batch.results.store import ResultsStore
from s1batch.scheduler import POLL_S, PartTask, Watch
from s1batch.session import SessionSetup, SessionStats
from s1batch.stopping import Ending, StopSign
from s1batch.workers.calls import Died, read_mark, run_alone, run_one, stop_worker, tell_worker, worker_stats
from s1batch.workers.crew import Crew, parts_at_once
from s1batch.workers.keys import Keys
from s1batch.workers.plugin import Leaves
from s1batch.workers.suspects import GIVEN_UP_IN_A_ROW, TRIES, Suspect

LOOK_EVERY_S = 2.0
"""How often workers are asked for their counters; where there is a budget, whenever a result may have come."""


@dataclass(slots=True)
class Counters:
    """The counters of all workers that there were, of those that have gone as they were last seen."""

    known: dict[str, SessionStats] = field(default_factory=dict)
    alive: frozenset[str] = frozenset()

    def take(self, told: dict[str, SessionStats | None]) -> None:
        """Take in what the living workers say, by address."""
        self.alive = frozenset(told)
        self.known.update({worker: stats for worker, stats in told.items() if stats is not None})

    @property
    def total(self) -> SessionStats | None:
        """All of them together; None before a worker has opened its session."""
        if not self.known:
            return None
        return SessionStats.total(
            [each if worker in self.alive else _gone(each) for worker, each in self.known.items()]
        )


def _gone(stats: SessionStats) -> SessionStats:
    return replace(stats, workers=0, feeder=replace(stats.feeder, in_flight=0, waiting=0))


def _taken(tasks: deque[PartTask]) -> Iterator[PartTask]:
    while tasks:
        yield tasks.popleft()


class Submission:
    """Runs parts on the workers of a client.

    Args:
        crew: The workers.
        setup: What their sessions begin with.
        plugin: Name of the plugin that holds them.
        watch: Told what happens.
        stop: Ends the work.
    """

    def __init__(self, crew: Crew, setup: SessionSetup, plugin: str, watch: Watch, stop: StopSign) -> None:
        self._crew = crew
        self._client: Client = crew.client
        self._setup = setup
        self._plugin = plugin
        self._run_one = partial(run_one, plugin)
        self._watch = watch
        self._stop = stop
        self._counters = Counters()
        self._told: tuple[frozenset[str], float | None] | None = None
        self._error: S1BatchError | None = None
        self._next_look = 0.0
        self._left = 0
        self.most_submitted = 0

    def run(self, tasks: Sequence[PartTask]) -> None:
        """Run all parts; those that lost worker after worker once more, each alone on its worker.

        Raises:
            S1BatchError: What ended the run.
        """
        self._left = len(tasks)
        self._look(now=True)
        suspects = self._together(tasks)
        if suspects and self._error is None:
            self._alone(suspects)
        self._look(now=True)
        if self._error is not None:
            raise self._error

    # ------------------------------------------------------------------------------------ both rounds

    @property
    def _sessions(self) -> int:
        """Workers that are there; before any is, those to reckon with."""
        return max(1, len(self._counters.alive) or self._crew.at_start)

    def _look(self, *, now: bool = False) -> None:
        """Hear from the workers, every few seconds, and let the crew follow what is left."""
        if time.monotonic() < self._next_look and not now:
            return
        self._counters.take(self._client.run(worker_stats, self._plugin, on_error="ignore"))
        alive = self._counters.alive
        deadline = self._setup.deadline
        tell = (alive, None if deadline is None else deadline.at)
        if alive and tell != self._told:
            self._client.run(tell_worker, self._plugin, len(alive), tell[1], on_error="ignore")
            self._told = tell
        total = self._counters.total
        self._watch.tick(total)
        budget = self._setup.tokens
        # Each session has its share of the budget; workers that came in place of others had one more.
        spent = 0 if total is None else total.feeder.prompt_tokens + total.feeder.output_tokens
        if budget is not None and spent >= budget and self._error is None and self._left:
            self._error = BudgetSpent("the tokens of this run are spent")
        if self._error is None and self._left:
            self._crew.want(self._left)
            self._crew.look(len(alive), self._left)
        self._next_look = time.monotonic() + (LOOK_EVERY_S if budget is None else POLL_S)

    def _check_stop(self) -> None:
        if self._stop.is_set() and self._error is None:
            self._error = Interrupted("stopped")
        if self._error is not None:
            ending = self._stop if isinstance(self._stop, Ending) else Ending(self._stop)
            # Also for workers that begin only now: the parts of a dead one are given to them.
            self._client.run(stop_worker, self._plugin, ending.at_limit, ending.engine_gone, on_error="ignore")

    def _failed(self, error: S1BatchError) -> None:
        if self._error is None or (isinstance(self._error, Interrupted) and not isinstance(error, Interrupted)):
            self._error = error

    def _ended(self, running: dict[Any, Any]) -> list[Any]:
        """Wait a moment; return the futures that have ended."""
        with suppress(TimeoutError):
            wait(list(running), timeout=POLL_S, return_when="FIRST_COMPLETED")
        try:
            self._look()
        except S1BatchError as error:
            self._failed(error)
        if self._error is not None and not self._counters.alive:
            # Parts that wait for workers which nobody needs any more.
            for future in running:
                future.release()
            running.clear()
        return [future for future in running if future.done()]

    # --------------------------------------------------------------------------------- many at a time

    def _together(self, tasks: Sequence[PartTask]) -> list[PartTask]:
        """Run parts, at most two for each place that workers have, and return those that lost worker after worker."""
        keys = Keys()
        waiting, given_back = iter(tasks), deque[PartTask]()
        running: dict[Any, PartTask] = {}
        lost: list[PartTask] = []
        while True:
            self._check_stop()
            if self._error is not None:
                waiting, given_back = iter(()), deque()
            width = parts_at_once(self._setup.loaded, self._sessions)
            room = 2 * self._sessions * min(width, self._crew.threads or width)
            batch = list(islice(chain(_taken(given_back), waiting), max(room - len(running), 0)))
            if batch:
                # One message for all of them: a `submit` for each took twice the CPU.
                own = [keys.take() for _ in batch]
                running.update(zip(self._client.map(self._run_one, batch, key=own, pure=False), batch, strict=True))
            self.most_submitted = max(self.most_submitted, len(running))
            if not running:
                return lost
            for future, ended in self._results(self._ended(running)):
                task = running.pop(future)
                future.release()
                keys.give_back(future.key)
                if isinstance(ended, KilledWorker):
                    lost.append(task)
                elif isinstance(ended, PartSummary):
                    self._watch.finished(ended)
                    self._left -= 1
                elif isinstance(ended, Leaves):
                    given_back.append(task)
                else:
                    self._failed(ended)

    def _results(self, futures: list[Any]) -> list[tuple[Any, Any]]:
        """Return how parts ended, in one message too; what a mistake in the program has raised is raised here."""
        good = [future for future in futures if future.status == "finished"]
        answered = set(good)
        found = list(zip(good, self._client.gather(good), strict=True))
        for future in futures:
            if future not in answered:
                error = future.exception()
                if not isinstance(error, KilledWorker):
                    raise error
                found.append((future, error))
        return found

    # ------------------------------------------------------------------------------------------ alone

    @contextmanager
    def _suspects(self, tasks: Sequence[PartTask]) -> Iterator[deque[Suspect]]:
        layout, token = Layout(self._setup.results), secrets.token_hex(4)
        plan = PlanStore(self._setup.results)
        with ResultsStore(self._setup.results, None) as store, ExitStack() as opened:
            found: deque[Suspect] = deque()
            for task in tasks:

                def mark(attempt: int, part: int = task.part) -> Any:
                    return layout.alone(part, f"{token}{attempt}")

                suspect = Suspect(task, plan, store, mark)
                opened.callback(suspect.close)
                found.append(suspect)
            yield found

    def _alone(self, tasks: Sequence[PartTask]) -> None:
        """Run parts with nothing beside them on their workers, as many at a time as there are workers."""
        with self._suspects(tasks) as waiting:
            running: dict[Any, tuple[Suspect, list[str]]] = {}
            in_a_row = 0
            while True:
                self._check_stop()
                if self._error is not None:
                    waiting.clear()
                while waiting and len(running) < self._sessions:
                    suspect = waiting.popleft()
                    task = suspect.next()
                    running[self._submit_alone(suspect, task)] = (suspect, suspect.halving.group())
                if not running:
                    return
                for future in self._ended(running):
                    suspect, asked = running.pop(future)
                    ended = self._result_alone(future, suspect)
                    future.release()
                    if isinstance(ended, Died):
                        in_a_row += suspect.halving.died(ended, asked) is not None
                        self._check_data(suspect, in_a_row)
                        waiting.appendleft(suspect)
                    elif isinstance(ended, PartSummary):
                        in_a_row = 0 if asked else in_a_row
                        if ended.finished or not asked:
                            self._watch.finished(ended)
                            self._left -= 1
                        else:
                            waiting.appendleft(suspect)
                    elif isinstance(ended, S1BatchError):
                        self._failed(ended)
                    else:
                        waiting.append(suspect)

    def _submit_alone(self, suspect: Suspect, task: PartTask) -> Any:
        avoided = suspect.avoided()
        others = None
        if avoided:
            addresses = self._client.scheduler_info(n_workers=-1)["workers"]
            others = [each for each, about in addresses.items() if about["host"] not in avoided] or None
        return self._client.submit(
            run_alone,
            self._plugin,
            task,
            suspect.mark,
            key=f"s1batch-alone-{task.part}-{secrets.token_hex(4)}",
            pure=False,
            workers=others,
            allow_other_workers=others is not None,
        )

    def _result_alone(self, future: Any, suspect: Suspect) -> Any:
        try:
            return future.result()
        except KilledWorker:
            # Only who has begun it counts: a worker may also have died before, of another part.
            return read_mark(suspect.mark) or Leaves(part=suspect.task.part)

    def _check_data(self, suspect: Suspect, in_a_row: int) -> None:
        part = suspect.task.part
        if suspect.halving.idle_deaths >= TRIES:
            text = f"part {part}: every worker that finishes it dies, although all of its chunks have a row"
        elif in_a_row >= GIVEN_UP_IN_A_ROW:
            text = f"part {part}: {in_a_row} chunks in a row ended every worker that asked them alone"
        else:
            return
        self._failed(
            S1BatchError(f"{text}; look at the workers' logs (memory, the engine), mend it and run again to go on")
        )
