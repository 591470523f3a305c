"""Which of LMDeploy's engines serves a model, read from its config.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s1batch.engine.serving.backends import TURBOMIND_ARCHITECTURES, choose_backend
from s1batch.engine.serving.spec import ServingSpec
from s1batch.errors import UsageError


def chosen(folder: Path, config: Any, **fields: Any) -> tuple[str | None, str]:
    (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    backend = choose_backend(ServingSpec(model=str(folder), **fields))
    return backend.name, backend.told


@pytest.mark.parametrize("architecture", sorted(TURBOMIND_ARCHITECTURES))
def test_turbomind_serves_its_architectures(tmp_path: Path, architecture: str) -> None:
    name, told = chosen(tmp_path, {"architectures": [architecture]})
    assert (name, told) == ("turbomind", f"{architecture}: LMDeploy's TurboMind engine serves it")


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["InternS1ProForConditionalGeneration"]},
        {"architectures": ["Glm4MoeLiteForCausalLM"], "vision_config": {}},
        {"architectures": ["LlamaForCausalLM"], "quantization_config": {"quant_method": "smooth_quant"}},
        {"auto_map": {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}},
        {"language_config": {"auto_map": {"AutoModelForCausalLM": "modeling_x.XForCausalLM"}}},
    ],
)
def test_the_rest_goes_to_the_pytorch_engine_or_is_an_error_when_turbomind_is_asked_for(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    name, told = chosen(tmp_path, config)
    assert name == "pytorch"
    assert told.endswith("using LMDeploy's PyTorch engine")
    with pytest.raises(UsageError, match=r"backend: turbomind: .*TurboMind does not serve it"):
        chosen(tmp_path, config, backend="turbomind")


def test_the_pytorch_engine_can_be_asked_for_without_looking(tmp_path: Path) -> None:
    assert chosen(tmp_path, "{", backend="pytorch")[0] == "pytorch"


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_configuration_is_named(tmp_path: Path, content: str) -> None:
    with pytest.raises(UsageError, match=str(tmp_path)):
        chosen(tmp_path, content)


def test_a_model_in_the_hub_cache_is_found_without_the_network(tmp_path: Path, monkeypatch: Any) -> None:
    commit = "0" * 40
    folder = tmp_path / "models--internlm--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    (folder / "snapshots" / commit).mkdir(parents=True)
    (folder / "snapshots" / commit / "config.json").write_text('{"architectures": ["Qwen3ForCausalLM"]}')
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    assert choose_backend(ServingSpec(model="internlm/tiny")).name == "turbomind"
