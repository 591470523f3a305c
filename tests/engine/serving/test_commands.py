"""The exact command lines of every mode, compared with golden files; and the modes that cannot be."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

import pytest

from s1batch.engine.serving.backends import choose_backend
from s1batch.engine.serving.commands import plan_nodes, script_lines
from s1batch.engine.serving.spec import ServingSpec
from s1batch.errors import UsageError

GOLDEN = Path(__file__).with_name("golden")
PRO = "InternS1ProForConditionalGeneration"
TWO = ("node0", "node1")
MODEL = "/scratch/models/Intern-S1-Pro"
GUIDE = {"model": MODEL, "session_len": 65536, "trust_remote_code": True}

MODES: dict[str, dict[str, Any]] = {
    "lmdeploy_one_gpu": {"model": "/models/Qwen3-8B", "architecture": "Qwen3ForCausalLM"},
    "lmdeploy_one_node": {"model": "/models/Intern-S1", "architecture": PRO, "tp": 8, "name": "s1", "offline": False},
    "lmdeploy_tp_over_nodes": {
        **GUIDE,
        "architecture": PRO,
        "nodes": TWO,
        "tp": 16,
        "reasoning_parser": "default",
        "tool_call_parser": "qwen3",
    },
    "lmdeploy_dp_ep_over_nodes": {
        **GUIDE,
        "backend": "pytorch",
        "nodes": TWO,
        "dp": 16,
        "ep": 16,
        "smallest_prompt_tokens": 250,
        "longest_prompt_tokens": 499,
        "flags": {"max_batch_size": 128, "enable-eplb": True, "disable-metrics": False},
        "env": {"NCCL_SOCKET_IFNAME": "ib0"},
        "prefix": ("apptainer", "exec", "--nv", "lm deploy.sif"),
    },
    "lmdeploy_turbomind_over_nodes": {
        "model": "/models/Qwen3-235B",
        "architecture": "Qwen3MoeForCausalLM",
        "nodes": TWO,
        "tp": 16,
        "flags": {"hf-overrides": {"a": 1}, "allowed-media-domains": ["x.org", "y.org"]},
    },
    "vllm_tp_over_nodes": {
        **GUIDE,
        "server": "vllm",
        "nodes": TWO,
        "tp": 16,
        "ep": 16,
        "reasoning_parser": "deepseek_r1",
        "tool_call_parser": "hermes",
        "ready_timeout_s": 10000,
    },
    "vllm_dp_over_nodes": {**GUIDE, "server": "vllm", "nodes": TWO, "dp": 16, "ep": 16, "dist_port": 13345},
    "vllm_one_node": {"server": "vllm", "model": "m", "tp": 2, "dp": 2, "name": "q"},
    "sglang_tp_over_nodes": {
        **GUIDE,
        "server": "sglang",
        "nodes": TWO,
        "tp": 16,
        "ep": 16,
        "reasoning_parser": "qwen3",
        "tool_call_parser": "qwen",
        "flags": {"mem-fraction-static": 0.85, "attention-backend": "fa3"},
    },
    "sglang_one_node": {"server": "sglang", "model": "m", "tp": 2, "dp": 2, "port": 30000},
    "llama_cpp": {"server": "llama_cpp", "model": "/models/q.gguf", "session_len": 8192, "port": 8080},
    "transformers": {"server": "transformers", "model": "/models/q", "trust_remote_code": True, "port": 8000},
}


def script(fields: dict[str, Any]) -> str:
    spec = ServingSpec.model_validate(fields)
    backend = choose_backend(spec)
    lines = [f"# {backend.told}"] if backend.told else []
    for plan in plan_nodes(spec, backend, spec.nodes or ("node0",)):
        lines += script_lines(plan)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("mode", MODES)
def test_command_lines_are_those_of_the_golden_file(mode: str) -> None:
    wanted, made = (GOLDEN / f"{mode}.sh").read_text(), script(MODES[mode])
    assert made == wanted, "\n".join(difflib.unified_diff(wanted.splitlines(), made.splitlines(), lineterm=""))


def test_every_golden_file_has_its_mode() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(MODES)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"backend": "turbomind", "architecture": PRO}, f"{PRO}: TurboMind does not serve it"),
        ({"ep": 8, "backend": "pytorch"}, "only with dp > 1"),
        ({"dp": 8, "backend": "pytorch"}, "needs ep > 1 or tp > 1"),
        ({"dp": 3, "ep": 16, "backend": "pytorch"}, "16 is no multiple of dp, 3"),
        ({"tp": 15, "nodes": TWO, "backend": "pytorch"}, "no multiple of the number of nodes, 2"),
        ({"nodes": TWO, "backend": "pytorch"}, "no multiple of the number of nodes, 2"),
        ({"dp": 16, "ep": 16, "port": 65530, "backend": "pytorch"}, "choose a lower one"),
        ({"architecture": "Qwen3ForCausalLM", "smallest_prompt_tokens": 62}, "PyTorch engine"),
        ({"backend": "pytorch", "flags": {"server_port": 1}}, "flags.server_port"),
        ({"backend": "pytorch", "flags": {"tp": 1}}, "flags.tp"),
        ({"server": "vllm", "tp": 8, "ep": 4}, "tp x dp = 8"),
        ({"server": "vllm", "tp": 3, "nodes": TWO}, "no multiple of the number of nodes"),
        ({"server": "sglang", "tp": 2, "dp": 2, "nodes": TWO}, "leave dp out"),
        ({"server": "llama_cpp", "tp": 2}, "tp: llama_cpp"),
        ({"server": "llama_cpp", "nodes": TWO}, "serves from one node"),
        ({"server": "transformers", "session_len": 1}, "session_len: transformers"),
        ({"model": "/nowhere/at/all"}, "no config.json there or in the Hugging Face cache"),
    ],
)
def test_what_cannot_be_started_is_said_before_anything_starts(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text.replace("+", r"\+").replace("(", r"\(")):
        script({"model": "m", **fields})
