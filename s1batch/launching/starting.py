"""What `engine up` does: from a description on disk to running servers."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from s1batch.engine.serving.backends import ChosenBackend, choose_backend
from s1batch.engine.serving.commands import NodePlan, plan_nodes, script_lines
from s1batch.engine.serving.spec import ServingSpec, load_spec
from s1batch.errors import EngineUnavailable, Interrupted, UsageError
from s1batch.launching.log_tail import tail
from s1batch.launching.member import noted_end, settle_ports
from s1batch.launching.registry import read_registry
from s1batch.launching.staging import Staging, find_staging, staged_spec
from s1batch.launching.supervisor import Supervisor

Say = Callable[[str], None]

PORTS, ENDS = "ports", "ends"
"""Folders beside the description of a run's servers, in which nodes note their ports and how they ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """Servers that could be started.

    Attributes:
        path: The file of the description.
        spec: The description, as the servers are started: from the copy of the checkpoint, if it is staged.
        backend: LMDeploy's engine.
        plans: What runs on each node.
        staging: What is copied to the node's own disk first; None: nothing.
        registry: Folder in which the nodes register.
        logs: Folder for the servers' output.
    """

    path: Path
    spec: ServingSpec
    backend: ChosenBackend
    plans: tuple[NodePlan, ...]
    staging: Staging | None
    registry: Path
    logs: Path


def prepare(path: Path, *, nodes: Sequence[str] | None = None, endpoints: Path | None = None) -> Prepared:
    """Read a description and plan every node; starts nothing.

    Args:
        path: The description; relative paths in it are relative to its folder.
        nodes: Hosts instead of those in the description.
        endpoints: Folder to register in instead of the one in the description.

    Raises:
        UsageError: The description is wrong, or cannot be served so.
    """
    spec = load_spec(path, {"nodes": [node.strip() for node in nodes]} if nodes else None)
    backend = choose_backend(spec)
    base = path.resolve().parent
    staging = find_staging(spec, base)
    served = staged_spec(spec, staging)
    plans = plan_nodes(served, backend, spec.nodes or (socket.gethostname(),))
    return Prepared(
        path=path.resolve(),
        spec=served,
        backend=backend,
        plans=plans,
        staging=staging,
        registry=endpoints.resolve() if endpoints is not None else base / spec.endpoints,
        logs=base / spec.logs,
    )


def dry_run_lines(prepared: Prepared) -> Iterator[str]:
    """Yield the commands of every node."""
    if prepared.staging is not None:
        yield f"# on every node first: {prepared.staging.source} is copied to {prepared.staging.copy}"
    for plan in prepared.plans:
        yield from script_lines(plan)


def this_node(prepared: Prepared, node_rank: int | None) -> NodePlan:
    """Return the plan of this node.

    Raises:
        UsageError: It cannot be told which of the nodes this is.
    """
    plans = prepared.plans
    if node_rank is None:
        node_rank = _found_rank([plan.host for plan in plans])
    if node_rank >= len(plans):
        raise UsageError(f"--node-rank {node_rank}: there are {len(plans)} nodes, counted from 0")
    return plans[node_rank]


def serve_node(prepared: Prepared, node_rank: int | None, say: Say) -> None:
    """Serve in the foreground until a signal comes.

    Raises:
        UsageError: Something that is needed is missing.
        EngineUnavailable: A server ended or is not healthy.
        Interrupted: A signal came before all servers were healthy.
    """
    _serve(prepared, this_node(prepared, node_rank), say)


def serve_for_run(path: Path, free_ports: Sequence[str], say: Say) -> None:
    """Serve one node of the servers that a run has started, until standard input ends.

    Args:
        path: The description, in the run's folder, where this node also notes its ports and how it ended.
        free_ports: Ports that nobody has named.
        say: Called with each line for the user.

    Raises:
        S1BatchError: As `prepare` and `serve_node`.
    """
    folder = path.resolve().parent
    with noted_end(folder / ENDS):
        prepared = prepare(path)
        plan = this_node(prepared, None)
        if plan.rank == 0 and prepared.backend.told:
            say(prepared.backend.told)
        spec = settle_ports(prepared.spec, plan.rank, len(plan.ports), free_ports, folder / PORTS)
        plans = plan_nodes(spec, prepared.backend, [each.host for each in prepared.plans])
        _serve(replace(prepared, spec=spec, plans=plans), plans[plan.rank], say, of_run=True)


def _serve(prepared: Prepared, plan: NodePlan, say: Say, *, of_run: bool = False) -> None:
    supervisor = Supervisor(
        prepared.spec,
        plan,
        registry=prepared.registry,
        logs=prepared.logs,
        say=say,
        staging=prepared.staging,
        of_run=of_run,
    )
    asyncio.run(supervisor.run())


def start_detached(prepared: Prepared, node_rank: int | None, say: Say) -> None:
    """Start a supervisor that stays when this process ends, and return when its servers are ready.

    Raises:
        EngineUnavailable: They did not become ready.
        Interrupted: Stopped before.
    """
    plan = this_node(prepared, node_rank)
    prepared.logs.mkdir(parents=True, exist_ok=True)
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    log = prepared.logs / f"node{plan.rank}-up-{stamp}-{os.getpid()}.log"
    nodes = ",".join(each.host for each in prepared.plans)
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            [
                *(sys.executable, "-m", "s1batch", "engine", "up", str(prepared.path)),
                *("--nodes", nodes, "--node-rank", str(plan.rank), "--endpoints", str(prepared.registry)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        while supervisor.poll() is None and not _is_ready(prepared.registry, supervisor.pid):
            time.sleep(0.2)
    except (KeyboardInterrupt, Interrupted):
        supervisor.send_signal(signal.SIGTERM)
        supervisor.wait()
        raise Interrupted("stopped before the servers were ready") from None
    if supervisor.poll() is not None:
        for line in tail(log, 40):
            say(f"  {line}")
        raise EngineUnavailable("engine_unavailable", f"the servers did not start: see {log}")
    for line in tail(log, 1):
        say(line)
    say(f"process {supervisor.pid} watches them, its output is in {log}")
    say(f"end them with: s1batch engine down {prepared.registry}")


def _interrupt(*_: object) -> None:
    raise Interrupted("stopped before the servers were ready")


def _is_ready(registry: Path, pid: int) -> bool:
    if not registry.is_dir():
        return False
    here = socket.gethostname()
    return any(one.ready and (one.process.host, one.process.pid) == (here, pid) for _, one in read_registry(registry))


def _found_rank(hosts: Sequence[str]) -> int:
    """Return which of the hosts this one is: by its name or address, else by Slurm's number of the node."""
    if len(hosts) == 1:
        return 0
    name = socket.gethostname()
    mine = {name, name.partition(".")[0], socket.getfqdn()}
    by_name = [rank for rank, host in enumerate(hosts) if host in mine or host.partition(".")[0] == name]
    if len(by_name) == 1:
        return by_name[0]
    number, count = os.environ.get("SLURM_NODEID", ""), os.environ.get("SLURM_NNODES", "")
    if number.isdecimal() and count == str(len(hosts)):
        return int(number)
    raise UsageError(f"this host is {name}, and the nodes are {', '.join(hosts)}: say which it is with --node-rank")
