"""A node's `engine up` as part of a run: ports that nobody named, and how it ended, in files of the run's folder.

Ports must be free on the node where they are used, so each node finds its own, below those that the system gives to
connections, and keeps them when it is started again. Where ranks meet is found by the first node; the others read it.
"""

from __future__ import annotations

import json
import random
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from s1batch.engine.serving.spec import ServingSpec
from s1batch.errors import EngineUnavailable, S1BatchError, UsageError
from s1batch.launching.registry import registration_name
from s1batch.results.atomic import write_atomic
from s1batch.results.process import ProcessIdentity

FIRST_PORT, LAST_PORT = 20000, 32768
"""Where free ports are looked for; Linux gives those from 32768 on to connections."""

ATTEMPTS = 500

MEETING_S = 120.0
"""How long a node waits for what the first node has found; network file systems show new files late."""


def settle_ports(
    spec: ServingSpec, rank: int, servers: int, free: Sequence[str], folder: Path, *, patience_s: float = MEETING_S
) -> ServingSpec:
    """Return the description with ports that are free on this node, the same ones as in an earlier start.

    Args:
        spec: The description.
        rank: Which node this is.
        servers: Servers of this node that listen, at as many ports in a row.
        free: Fields of ports that nobody has named.
        folder: The run's folder of ports.
        patience_s: How long to wait for the first node's.

    Raises:
        UsageError: There are no free ports.
        EngineUnavailable: The first node does not say where ranks meet.
    """
    if not free:
        return spec
    mine = folder / f"node{rank}.json"
    found = _read(mine)
    if found is None:
        found = (
            {} if rank == 0 else {field: port for field, port in _first(folder, patience_s).items() if field in free}
        )
        if rank == 0 or servers:
            own = [field for field in free if rank == 0 or field == "port"]
            first = free_ports(servers + len(own))
            meeting = [field for field in own if field != "port"]
            found |= {field: first + servers + number for number, field in enumerate(meeting)}
            found |= {"port": first} if "port" in own else {}
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(mine, json.dumps(found).encode() + b"\n")
    return spec.model_copy(update={field: found[field] for field in free})


def free_ports(count: int) -> int:
    """Return a port of this host that is free, and so are the next ones.

    They lie below those that the system gives to connections: one that is made to a dead server could get that very
    port, and hold it when the server is started again.

    Raises:
        UsageError: There are none.
    """
    for _ in range(ATTEMPTS):
        first = random.randrange(FIRST_PORT, LAST_PORT - count)
        with ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)).bind(("", port))
            except OSError:
                continue
            return first
    raise UsageError(f"engine.port: no {count} free ports in a row were found; name the first one")


@contextmanager
def noted_end(folder: Path) -> Iterator[None]:
    """Note for the run how this node's part ended, if by an error."""
    try:
        yield
    except S1BatchError as error:
        folder.mkdir(parents=True, exist_ok=True)
        note = {"exit_code": error.exit_code, "said": str(error), "at": time.time()}
        write_atomic(folder / registration_name(ProcessIdentity.current()), json.dumps(note).encode() + b"\n")
        raise


def read_ends(folder: Path) -> list[tuple[int, str]]:
    """Return how nodes ended, the first one first: exit code, and what was said."""
    found = [note for path in folder.glob("*.json") if (note := _read(path)) is not None]
    return [(int(note["exit_code"]), str(note["said"])) for note in sorted(found, key=lambda note: note["at"])]


def _first(folder: Path, patience_s: float) -> dict[str, Any]:
    give_up = time.monotonic() + patience_s
    while (found := _read(folder / "node0.json")) is None:
        if time.monotonic() > give_up:
            raise EngineUnavailable(
                "engine_unavailable",
                f"the first node has not said within {patience_s:g} s where its servers meet: see {folder}, which all "
                "nodes must see",
            )
        time.sleep(0.1)
    return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
