"""The command lines of servers other than LMDeploy. None of them encodes this model's time series.

Options were read from Intern-S1-Pro's user guide (vLLM and SGLang over two nodes), llama.cpp's server README and the
source of `transformers serve` (5.23).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from s1batch.engine.serving.commands import NodePlan, make_command, over_ray, refuse_fields, require_multiple
from s1batch.engine.serving.spec import Server, ServingSpec
from s1batch.errors import UsageError


def plan_other(spec: ServingSpec, nodes: Sequence[str]) -> tuple[NodePlan, ...]:
    """Return what runs on each node for vLLM, SGLang, llama.cpp or transformers.

    Raises:
        UsageError: The server has no such mode.
    """
    return _PLANNERS[spec.server](spec, nodes)


def _vllm(spec: ServingSpec, nodes: Sequence[str]) -> tuple[NodePlan, ...]:
    gpus = spec.tp * spec.dp
    if spec.ep not in (1, gpus):
        raise UsageError(
            f"ep: {spec.ep}: vLLM spreads experts over all tp x dp = {gpus} GPUs: set ep: {gpus} or leave it out"
        )
    require_multiple("tp x dp", gpus, "the number of nodes", len(nodes))
    argv = ["vllm", "serve", spec.model, "--host", "0.0.0.0", "--port", str(spec.port)]
    argv += ["--tensor-parallel-size", str(spec.tp)]
    argv += ["--enable-expert-parallel"] if spec.ep > 1 else []
    argv += _options(spec, name="--served-model-name", length="--max-model-len")
    argv += ["--reasoning-parser", spec.reasoning_parser] if spec.reasoning_parser else []
    argv += ["--enable-auto-tool-choice", "--tool-call-parser", spec.tool_call_parser] if spec.tool_call_parser else []
    patience = [("VLLM_ENGINE_READY_TIMEOUT_S", f"{spec.ready_timeout_s:.0f}")]
    if len(nodes) == 1:
        argv += ["--data-parallel-size", str(spec.dp)] if spec.dp > 1 else []
        return _single(spec, nodes, argv, patience)
    if spec.dp == 1:
        argv += ["--distributed-executor-backend", "ray"]
        return over_ray(spec, nodes, make_command(spec, "server", argv, patience))
    require_multiple("dp", spec.dp, "the number of nodes", len(nodes))
    each = spec.dp // len(nodes)
    argv += ["--data-parallel-size", str(spec.dp), "--data-parallel-size-local", str(each)]
    argv += ["--data-parallel-address", nodes[0], "--data-parallel-rpc-port", str(spec.dist_port)]
    plans = []
    for rank, host in enumerate(nodes):
        worker = ["--data-parallel-start-rank", str(rank * each), "--headless"] if rank else []
        command = make_command(spec, "server", [*argv, *worker], patience)
        plans.append(NodePlan(rank=rank, host=host, commands=(command,), ports=() if rank else (spec.port,)))
    return tuple(plans)


def _sglang(spec: ServingSpec, nodes: Sequence[str]) -> tuple[NodePlan, ...]:
    if len(nodes) > 1 and spec.dp > 1:
        raise UsageError("dp: with SGLang over several nodes only tp and ep are known to work here; leave dp out")
    require_multiple("tp", spec.tp, "the number of nodes", len(nodes))
    argv = ["python3", "-m", "sglang.launch_server", "--model-path", spec.model, "--host", "0.0.0.0"]
    argv += ["--port", str(spec.port), "--tp", str(spec.tp)]
    argv += ["--dp", str(spec.dp)] if spec.dp > 1 else []
    argv += ["--ep", str(spec.ep)] if spec.ep > 1 else []
    argv += _options(spec, name="--served-model-name", length="--context-length")
    argv += ["--reasoning-parser", spec.reasoning_parser] if spec.reasoning_parser else []
    argv += ["--tool-call-parser", spec.tool_call_parser] if spec.tool_call_parser else []
    if len(nodes) == 1:
        return _single(spec, nodes, argv)
    argv += ["--dist-init-addr", f"{nodes[0]}:{spec.dist_port}", "--nnodes", str(len(nodes))]
    plans = []
    for rank, host in enumerate(nodes):
        command = make_command(spec, "server", [*argv, "--node-rank", str(rank)])
        plans.append(NodePlan(rank=rank, host=host, commands=(command,), ports=() if rank else (spec.port,)))
    return tuple(plans)


def _llama_cpp(spec: ServingSpec, nodes: Sequence[str]) -> tuple[NodePlan, ...]:
    parallel = ("tp", "dp", "ep")
    refuse_fields("llama_cpp", spec, parallel, "spreads layers over the GPUs of one node by itself (flags: split-mode)")
    refuse_fields("llama_cpp", spec, ("reasoning_parser", "tool_call_parser"), "reads reasoning and tool calls itself")
    refuse_fields("llama_cpp", spec, ("trust_remote_code",), "runs no code of a checkpoint")
    _one_node(spec.server, nodes)
    argv = ["llama-server", "--model", spec.model, "--host", "0.0.0.0", "--port", str(spec.port), "--jinja"]
    # Without an alias the server names the model after its file, in ways that differ between builds.
    argv += ["--alias", spec.served_name]
    argv += ["--ctx-size", str(spec.session_len)] if spec.session_len else []
    argv += ["--offline"] if spec.offline else []
    return _single(spec, nodes, argv)


def _transformers(spec: ServingSpec, nodes: Sequence[str]) -> tuple[NodePlan, ...]:
    refuse_fields(
        "transformers", spec, ("tp", "dp", "ep"), "serve places a model on its GPUs by itself (flags: device)"
    )
    fields = ("name", "session_len", "reasoning_parser", "tool_call_parser")
    refuse_fields("transformers", spec, fields, "serve has no such option")
    _one_node(spec.server, nodes)
    argv = ["transformers", "serve", spec.model, "--host", "0.0.0.0", "--port", str(spec.port)]
    argv += ["--trust-remote-code"] if spec.trust_remote_code else []
    return _single(spec, nodes, argv)


_PLANNERS: Mapping[Server, Callable[[ServingSpec, Sequence[str]], tuple[NodePlan, ...]]] = MappingProxyType(
    {"vllm": _vllm, "sglang": _sglang, "llama_cpp": _llama_cpp, "transformers": _transformers}
)


def _options(spec: ServingSpec, *, name: str, length: str) -> list[str]:
    words = [name, spec.name] if spec.name else []
    words += [length, str(spec.session_len)] if spec.session_len else []
    return [*words, "--trust-remote-code"] if spec.trust_remote_code else words


def _single(
    spec: ServingSpec, nodes: Sequence[str], argv: Sequence[str], env: Sequence[tuple[str, str]] = ()
) -> tuple[NodePlan, ...]:
    command = make_command(spec, "server", argv, env)
    return (NodePlan(rank=0, host=nodes[0], commands=(command,), ports=(spec.port,)),)


def _one_node(server: Server, nodes: Sequence[str]) -> None:
    if len(nodes) > 1:
        raise UsageError(f"nodes: {server} serves from one node; start it on each with a description of its own")
