"""The middle of a run: parts that are open, on a scheduler, with the engine that the job names."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from s1batch.assembly import EngineFacts
from s1batch.budget import Allowance
from s1batch.class_turns import class_turns
from s1batch.deadline import Deadline
from s1batch.engine.lmdeploy.spec import LmdeployEngineSpec
from s1batch.engine.serving.engine_spec import ServedEngineSpec
from s1batch.errors import BudgetSpent, Interrupted, OutOfTime
from s1batch.jobfile import LoadedJob
from s1batch.plan_store import PlanStore
from s1batch.planning import check_shared_endpoints
from s1batch.progress import ProgressWatch
from s1batch.records import Outcome
from s1batch.results.layout import Layout
from s1batch.scheduler import Choice, PartTask, choose, run_parts
from s1batch.session import SessionSetup, SessionStats
from s1batch.stopping import Ending, StopSign
from s1batch.subset import Shard

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one run has to do.

    Attributes:
        loaded: The job.
        facts: What is known of its engine.
        path: The results folder.
        plan: The plan.
        tasks: The parts that are open.
        chunks: Chunks of the run's subset.
        done: How many of them have a row already.
        run: Name of the run's lease.
        shard: Which parts the run is about; None: all.
        retried: Outcomes that are asked again.
        allowance: What it may spend.
        scheduler: Who runs the parts.
        workers: Worker processes that were asked for.
        patience_s: How long to wait for a part that another run holds.
        deadline: By when the run must be over; None: there is no limit.
    """

    loaded: LoadedJob
    facts: EngineFacts
    path: Path
    plan: PlanStore
    tasks: Sequence[PartTask]
    chunks: int
    done: int
    run: str
    shard: Shard | None
    retried: tuple[Outcome, ...]
    allowance: Allowance
    scheduler: str
    workers: int | None
    patience_s: float = 0.0
    deadline: Deadline | None = None


def carry_out(
    work: Work, *, left: Callable[[], bool], say: Say, stop: StopSign, terminal: bool | None
) -> SessionStats | None:
    """Run the parts of a run to their end, and return its counters.

    Args:
        work: What to do.
        left: Whether a part is not finished yet: what stops a run after its last answer has nothing to stop.
        say: Receives plain lines for the user.
        stop: Set to end in good order.
        terminal: Whether to draw a progress bar; None finds out.

    Raises:
        Interrupted: `stop` was set.
        BudgetSpent: The run came to the end of what it may spend.
        OutOfTime: The allocation ends.
        S1BatchError: What else ended the run.
    """
    engine = work.loaded.spec.engine
    kind = "http" if isinstance(engine, ServedEngineSpec) else engine.kind
    choice = choose(work.scheduler, work.workers, len(work.tasks), kind)
    say(f"scheduler: {choice.name} ({choice.why})")
    if _shares_endpoints(work, choice):
        check_shared_endpoints(work.facts.rules, work.plan)
    only = {task.part: task.only for task in work.tasks}
    order = class_turns(work.plan, only, work.facts.rules)
    tasks = work.tasks
    if choice.name == "inline":
        tasks = [PartTask(part, only[part], turn) for part, turn in order.units]
    work.allowance.check()
    ending = work.allowance.ending(stop)
    if work.deadline is not None:
        ending.before(work.deadline, OutOfTime())
    samples = Layout(work.path).throughput
    terminal = sys.stderr.isatty() if terminal is None else terminal
    with ProgressWatch(work.chunks, work.done, samples, say, terminal=terminal, run=work.run) as watch:
        try:
            with _engine(work, choice, ending, watch, say) as loaded:
                setup = SessionSetup(
                    loaded=loaded,
                    facts=work.facts,
                    results=work.path,
                    run=work.run,
                    retried=work.retried,
                    sizes=order.sizes if choice.name == "inline" else (),
                    tokens=work.allowance.tokens,
                    lease_patience_s=work.patience_s,
                    deadline=work.deadline,
                )
                watch.begin()
                run_parts(choice, setup, tasks, workers=work.workers, watch=watch, stop=ending, say=say)
        except Interrupted as interrupted:
            if not left():
                return watch.stats
            if isinstance(interrupted, BudgetSpent):
                raise work.allowance.tokens_spent() from None
            if ending.error is not None:
                raise ending.error from None
            raise
    return watch.stats


def _shares_endpoints(work: Work, choice: Choice) -> bool:
    """Whether others may ask the same endpoints: worker processes, or other shards where the run starts no servers."""
    engine = work.loaded.spec.engine
    if isinstance(engine, LmdeployEngineSpec):
        return False  # every session has an engine of its own
    sharded = work.shard is not None and work.shard.count > 1
    return choice.name != "inline" or (sharded and not isinstance(engine, ServedEngineSpec))


@contextmanager
def _engine(work: Work, choice: Choice, ending: Ending, watch: ProgressWatch, say: Say) -> Iterator[LoadedJob]:
    """Start the servers that the job describes, if any, for the length of a block; yield the job to be asked with."""
    spec = work.loaded.spec.engine
    if not isinstance(spec, ServedEngineSpec):
        yield work.loaded
        return
    from s1batch.launching.loading import LoadingFile
    from s1batch.launching.own_servers import OwnServers, host_for, run_folder

    layout = Layout(work.path)
    servers = OwnServers(
        spec,
        work.loaded.base_dir,
        run_folder(layout.servers),
        host=host_for(remote=choice.name not in ("inline", "local")),
        loading=LoadingFile(layout.servers / "loading.json", work.deadline),
        deadline=work.deadline,
        stop=ending,
        say=say,
        answers=lambda: watch.added,
        failed=ending.end_without_engine,
    )
    with servers:
        client = spec.client(servers.urls, work.loaded.base_dir)
        yield replace(work.loaded, spec=work.loaded.spec.model_copy(update={"engine": client}))
