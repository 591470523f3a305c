"""What a node must have before its servers are started: programs, free ports, and an address that clients reach."""

from __future__ import annotations

import contextlib
import shutil
import socket
from collections.abc import Callable

from s1batch.engine.serving.commands import NodePlan
from s1batch.engine.serving.spec import ServingSpec
from s1batch.errors import UsageError


def require_surroundings(spec: ServingSpec, plan: NodePlan) -> None:
    """Make sure that the programs of a node are there and its ports free.

    Raises:
        UsageError: They are not.
    """
    for command in plan.commands:
        path = dict(command.env).get("PATH")
        if shutil.which(command.argv[0], path=path) is None:
            raise UsageError(f"{command.argv[0]} is not on the PATH of this node: install or load it, or set prefix")
    ports = [*plan.ports]
    ports += [spec.ray_port] if any("--head" in command.argv for command in plan.commands) else []
    for port in ports:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise UsageError(
                    f"port {port} of this node is taken ({error.strerror}): end what listens there"
                ) from error


def own_address(plan: NodePlan, say: Callable[[str], None]) -> str | None:
    """Return the address that clients of a node must use, where it is not the node's own name.

    Args:
        plan: What runs on the node.
        say: Called with each line for the user.
    """
    if not plan.finds_own_address:
        return None
    address = default_route_address()
    if address is None:
        say(
            "warning: this node has no route to other networks; LMDeploy 0.18.0 looks for its own address that way "
            "and will end with 'Network is unreachable': have a default route added, or use tp instead of dp"
        )
        return None
    with contextlib.suppress(OSError):
        if address in socket.gethostbyname_ex(plan.host)[2]:
            return None
    say(f"{plan.host} serves on {address}, the address of its default route")
    return address


def default_route_address() -> str | None:
    """Return this host's address on the default route, as LMDeploy finds its own; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("8.8.8.8", 0))
        except OSError:
            return None
        return str(probe.getsockname()[0])
