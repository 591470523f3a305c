"""From a description of servers to the exact command lines of every node; nothing is started here.

What LMDeploy's options mean was read from LMDeploy 0.18.0 (`lmdeploy/cli/serve.py`, `serve/openai/launch_server.py`,
`pytorch/ray.py`, `turbomind/turbomind.py`), the ways over two nodes also from Intern-S1-Pro's user guide.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from s1batch.engine.serving.backends import ChosenBackend
from s1batch.engine.serving.spec import FlagValue, Server, ServingSpec, plain_flag
from s1batch.errors import UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One process to start.

    Attributes:
        role: `server` or `ray`; names its log.
        argv: The program and its arguments.
        env: Environment variables to add.
        after: `HOST:PORT` that must accept connections before this is started; empty when it may start at once.
    """

    role: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = ()
    after: str = ""

    def shell(self) -> str:
        """Return the command as one line for a POSIX shell."""
        return " ".join([*(f"{name}={shlex.quote(value)}" for name, value in self.env), shlex.join(self.argv)])


@dataclass(frozen=True, slots=True, kw_only=True)
class NodePlan:
    """What runs on one node.

    Attributes:
        rank: Its place among the nodes, from 0.
        host: Its name.
        commands: In the order in which they are started.
        ports: Where its servers listen for requests; empty on a node that only computes.
        finds_own_address: The servers listen on the address that the host's default route has, and on no other
            (LMDeploy with data parallelism).
    """

    rank: int
    host: str
    commands: tuple[Command, ...]
    ports: tuple[int, ...]
    finds_own_address: bool = False

    def urls(self, host: str | None = None) -> tuple[str, ...]:
        """Return the endpoints of the node, under its own name or another one."""
        name = host or self.host
        shown = f"[{name}]" if ":" in name else name
        return tuple(f"http://{shown}:{port}" for port in self.ports)


def plan_nodes(spec: ServingSpec, backend: ChosenBackend, nodes: Sequence[str]) -> tuple[NodePlan, ...]:
    """Return what runs on each node.

    Args:
        spec: The description.
        backend: LMDeploy's engine, from `choose_backend`.
        nodes: The hosts, in the order of their ranks; what `spec.nodes` names, or this host.

    Raises:
        UsageError: The server cannot be started so; says what to change.
    """
    if not nodes:
        raise UsageError("nodes: name at least one")
    if backend.name == "pytorch":
        plans = _pytorch(spec, nodes)
    elif backend.name == "turbomind":
        plans = _turbomind(spec, nodes)
    else:
        from s1batch.engine.serving.other_servers import plan_other

        plans = plan_other(spec, nodes)
    return plans


def script_lines(plan: NodePlan) -> Iterator[str]:
    """Yield the commands of a node as lines that can be pasted into a shell one after the other."""
    yield f"# node {plan.rank}: {plan.host}" + (f", serves {' '.join(plan.urls())}" if plan.ports else "")
    last = len(plan.commands) - 1
    for number, command in enumerate(plan.commands):
        if command.after:
            yield f"# when {command.after} accepts connections:"
        yield command.shell() + (" &" if number < last else "")


# ------------------------------------------------------------------------------------------------ LMDeploy


def _pytorch(spec: ServingSpec, nodes: Sequence[str]) -> tuple[NodePlan, ...]:
    gpus = max(spec.tp, spec.dp, spec.ep)
    if spec.ep > 1 and spec.dp == 1:
        raise UsageError(f"ep: {spec.ep}: LMDeploy's PyTorch engine spreads experts only with dp > 1: set dp too")
    if spec.dp > 1 and spec.tp == 1 and spec.ep == 1:
        raise UsageError(
            f"dp: {spec.dp}: LMDeploy's PyTorch engine needs ep > 1 or tp > 1 beside dp: set ep: {spec.dp}"
        )
    require_multiple("the GPUs (the largest of tp, dp and ep)", gpus, "dp", spec.dp)
    require_multiple("the GPUs (the largest of tp, dp and ep)", gpus, "the number of nodes", len(nodes))
    if spec.dp > 1:
        return _ranks(spec, nodes)
    argv = _lmdeploy(spec, "pytorch", "--tp", spec.tp)
    if len(nodes) == 1:
        server = make_command(spec, "server", argv)
        return (NodePlan(rank=0, host=nodes[0], commands=(server,), ports=(spec.port,)),)
    return over_ray(spec, nodes, make_command(spec, "server", argv))


def _ranks(spec: ServingSpec, nodes: Sequence[str]) -> tuple[NodePlan, ...]:
    """Data parallelism: one server per rank, each of them an endpoint."""
    require_multiple("dp", spec.dp, "the number of nodes", len(nodes))
    each = spec.dp // len(nodes)
    if spec.port + each - 1 > 65535:
        raise UsageError(
            f"port: {spec.port}: {each} servers on each node need the ports from there on; choose a lower one"
        )
    meeting = (("LMDEPLOY_DP_MASTER_ADDR", nodes[0]), ("LMDEPLOY_DP_MASTER_PORT", str(spec.dist_port)))
    plans = []
    for rank, host in enumerate(nodes):
        sizes = ["--tp", spec.tp, "--dp", spec.dp, "--ep", spec.ep, "--nnodes", len(nodes), "--node-rank", rank]
        command = make_command(spec, "server", _lmdeploy(spec, "pytorch", *sizes), meeting)
        ports = tuple(range(spec.port, spec.port + each))
        plans.append(NodePlan(rank=rank, host=host, commands=(command,), ports=ports, finds_own_address=True))
    return tuple(plans)


def _turbomind(spec: ServingSpec, nodes: Sequence[str]) -> tuple[NodePlan, ...]:
    if spec.single_prefill:
        raise UsageError("smallest_prompt_tokens is a setting for LMDeploy's PyTorch engine: leave it out")
    sizes: list[object] = ["--tp", spec.tp]
    sizes += ["--dp", spec.dp] if spec.dp > 1 else []
    sizes += ["--ep", spec.ep] if spec.ep > 1 else []
    require_multiple("the GPUs (the largest of tp, dp and ep)", max(spec.tp, spec.dp, spec.ep), "nodes", len(nodes))
    plans = []
    for rank, host in enumerate(nodes):
        over: list[object] = []
        if len(nodes) > 1:
            over = ["--nnodes", len(nodes), "--node-rank", rank, "--dist-init-addr", f"{nodes[0]}:{spec.dist_port}"]
        command = make_command(spec, "server", _lmdeploy(spec, "turbomind", *sizes, *over))
        # The other nodes compute; requests go to the first one.
        plans.append(NodePlan(rank=rank, host=host, commands=(command,), ports=(spec.port,) if rank == 0 else ()))
    return tuple(plans)


def _lmdeploy(spec: ServingSpec, backend: str, *sizes: object) -> list[str]:
    argv: list[object] = ["lmdeploy", "serve", "api_server", spec.model, "--backend", backend, *sizes]
    argv += ["--server-port", spec.port]
    argv += ["--model-name", spec.name] if spec.name else []
    argv += ["--session-len", spec.session_len] if spec.session_len else []
    argv += ["--max-prefill-token-num", spec.prefill_budget_tokens] if spec.prefill_budget_tokens else []
    argv += ["--trust-remote-code"] if spec.trust_remote_code else []
    argv += ["--reasoning-parser", spec.reasoning_parser] if spec.reasoning_parser else []
    argv += ["--tool-call-parser", spec.tool_call_parser] if spec.tool_call_parser else []
    return [str(word) for word in argv]


# ------------------------------------------------------------------------------------ shared by all servers


def over_ray(spec: ServingSpec, nodes: Sequence[str], server: Command) -> tuple[NodePlan, ...]:
    """Return a Ray cluster over the nodes with one server on the first of them."""
    head = f"{nodes[0]}:{spec.ray_port}"
    leader = make_command(spec, "ray", ["ray", "start", "--head", f"--port={spec.ray_port}", "--block"], flags=False)
    serving = Command(role=server.role, argv=server.argv, env=(*server.env, ("RAY_ADDRESS", head)), after=head)
    plans = [NodePlan(rank=0, host=nodes[0], commands=(leader, serving), ports=(spec.port,))]
    for rank, host in enumerate(nodes[1:], start=1):
        joining = make_command(spec, "ray", ["ray", "start", f"--address={head}", "--block"], flags=False, after=head)
        plans.append(NodePlan(rank=rank, host=host, commands=(joining,), ports=()))
    return tuple(plans)


def make_command(
    spec: ServingSpec,
    role: str,
    argv: Sequence[str],
    env: Sequence[tuple[str, str]] = (),
    *,
    flags: bool = True,
    after: str = "",
) -> Command:
    """Return a command with what the description adds: prefix, further options, environment.

    Raises:
        UsageError: A further option is one that a field sets already.
    """
    words = [*spec.prefix, *argv]
    if flags:
        given = {plain_flag(word.removeprefix("--").partition("=")[0]) for word in argv if word.startswith("--")}
        for name, value in spec.flags.items():
            if plain_flag(name) in given:
                raise UsageError(
                    f"flags.{name}: a field of the description sets this option already; remove one of them"
                )
            words += _flag_words(name, value)
    variables: list[tuple[str, str]] = []
    if spec.offline:
        variables += [("HF_HUB_OFFLINE", "1"), ("TRANSFORMERS_OFFLINE", "1")]
        variables += [("RAY_USAGE_STATS_ENABLED", "0")] if "ray" in (role, argv[0]) else []
    variables += [*env, *spec.env.items()]
    return Command(role=role, argv=tuple(words), env=tuple(dict(variables).items()), after=after)


def require_multiple(what: str, number: int, of: str, divisor: int) -> None:
    """Raise a UsageError unless a number is a multiple of another one."""
    if number % divisor:
        raise UsageError(f"{what}: {number} is no multiple of {of}, {divisor}")


def refuse_fields(server: Server, spec: ServingSpec, fields: Sequence[str], why: str) -> None:
    """Raise a UsageError that names those of the fields that are set, as not applicable to a server."""
    defaults = type(spec).model_fields
    given = [field for field in fields if getattr(spec, field) != defaults[field].default]
    if given:
        raise UsageError(f"{', '.join(given)}: {server} {why}; leave out what it cannot do")


def _flag_words(name: str, value: FlagValue) -> list[str]:
    if value is False:
        return []
    if value is True:
        return [f"--{name}"]
    if isinstance(value, list):
        return [f"--{name}", *map(str, value)]
    return [f"--{name}", json.dumps(value) if isinstance(value, dict) else str(value)]
