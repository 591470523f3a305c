"""The folder in which nodes register what they serve: one file per `engine up`, so that no lock is needed.

Any number of nodes may register at once on a shared file system: each writes only its own file, as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from s1batch.errors import UsageError
from s1batch.results.atomic import write_atomic
from s1batch.results.process import ProcessIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisteredEndpoint:
    """One endpoint.

    Attributes:
        url: Its base.
        model: As the server names it.
        single_prefill: Whether the server never prefills two prompts together.
    """

    url: str
    model: str
    single_prefill: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What one `engine up` has started on one node.

    Attributes:
        host: The node.
        node_rank: Its place among the nodes.
        server: Which program serves.
        started: When, in UTC.
        ready: Whether all of its endpoints have answered.
        process: The supervisor.
        endpoints: What the node serves; empty on nodes that only compute.
        logs: The servers' output.
        staging_s: How long it took to bring the checkpoint to the node's own disk, or to prove the copy there.
        copied_bytes: What was copied for that.
    """

    host: str
    node_rank: int
    server: str
    started: str
    ready: bool
    process: ProcessIdentity
    endpoints: tuple[RegisteredEndpoint, ...] = ()
    logs: tuple[str, ...] = field(default=())
    staging_s: float = 0.0
    copied_bytes: int = 0

    @property
    def file_name(self) -> str:
        """The name of its file: one for each process of each host."""
        return registration_name(self.process)

    def plain(self) -> dict[str, Any]:
        """Return the fields as plain data."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Registration:
        """Return what `plain()` gave, read back.

        Raises:
            ValueError: It is something else.
        """
        process = ProcessIdentity.from_plain(plain.get("process"))
        if process is None:
            raise ValueError("it names no process")
        texts = {name: plain.get(name) for name in ("host", "server", "started")}
        if not all(isinstance(value, str) for value in texts.values()):
            raise ValueError("host, server or started is missing")
        return cls(
            host=str(texts["host"]),
            server=str(texts["server"]),
            started=str(texts["started"]),
            node_rank=int(plain.get("node_rank", 0)),
            ready=plain.get("ready") is True,
            process=process,
            endpoints=tuple(_endpoint(each) for each in plain.get("endpoints", ())),
            logs=tuple(str(each) for each in plain.get("logs", ())),
            staging_s=float(plain.get("staging_s", 0.0)),
            copied_bytes=int(plain.get("copied_bytes", 0)),
        )


def registration_name(process: ProcessIdentity) -> str:
    """Return the name of the file in which a supervisor registers."""
    return f"{process.machine_slug}_{process.pid}.json"


def register(folder: Path, registration: Registration) -> Path:
    """Write or replace a node's file, and return its path.

    Raises:
        ResultsError: It cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / registration.file_name
    write_atomic(path, json.dumps(registration.plain(), indent=2).encode() + b"\n")
    return path


def read_registry(folder: Path) -> list[tuple[Path, Registration]]:
    """Return every registration in a folder, by node rank, host and start.

    Raises:
        UsageError: There is no such folder, or a file in it is no registration.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of endpoints; `s1batch engine up` makes it")
    found = []
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):
            continue  # being written
        try:
            plain = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(plain, dict):
                raise ValueError("it holds no mapping")
            found.append((path, Registration.from_plain(plain)))
        except FileNotFoundError:
            continue  # ended since the folder was listed
        except (OSError, ValueError, TypeError) as error:
            raise UsageError(f"{path}: no registration of endpoints ({error}); remove it") from error
    return sorted(found, key=lambda item: (item[1].node_rank, item[1].host, item[1].started, item[0].name))


def forget_dead(folder: Path) -> None:
    """Remove the registrations of this host's dead supervisors, such as those of an earlier allocation.

    Raises:
        UsageError: A file in the folder is no registration.
    """
    here = ProcessIdentity.current()
    for path, registration in read_registry(folder) if folder.is_dir() else ():
        if here.knows_dead(registration.process):
            path.unlink(missing_ok=True)


def ready_endpoints(registrations: Sequence[Registration]) -> list[RegisteredEndpoint]:
    """Return the endpoints of nodes that were ready, each once."""
    endpoints = {each.url: each for one in registrations if one.ready for each in one.endpoints}
    return list(endpoints.values())


def _endpoint(plain: Any) -> RegisteredEndpoint:
    if not isinstance(plain, dict) or not isinstance(plain.get("url"), str) or not isinstance(plain.get("model"), str):
        raise ValueError("an endpoint without url or model")
    return RegisteredEndpoint(
        url=plain["url"], model=plain["model"], single_prefill=plain.get("single_prefill") is True
    )
