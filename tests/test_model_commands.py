"""`s1batch model`: what it writes, what it counts, and what it says when something is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from s1batch.cli import main
from s1batch.engine.reference.checkpoint import initialise, load_model
from s1batch.engine.reference.identity import NANO, model_folder
from s1batch.engine.reference.vocabulary import nano_config
from s1batch.model_info import model_info

REAL: dict[str, Any] = {
    "model_type": "interns1_pro",
    "dtype": "bfloat16",
    "text_config": {
        "vocab_size": 155008,
        "hidden_size": 4096,
        "num_hidden_layers": 94,
        "num_attention_heads": 64,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 512,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 1536,
    },
    "quantization_config": {"quant_method": "fp8"},
}


def call(*arguments: Any, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["model", *map(str, arguments)])
    assert result.exit_code == code, result.output
    return result.output


def test_a_fresh_checkpoint_is_nano_from_a_seed_and_answers(tmp_path: Path) -> None:
    assert "3.87 M parameters, 1.12 M active" in call("init", tmp_path / "mine", "--seed", 7)
    made, wanted = load_model(tmp_path / "mine"), initialise(nano_config(), 7)
    assert made.lm_head.weight.equal(wanted.lm_head.weight)
    assert "exists already" in call("init", tmp_path / "mine", code=2)


def test_a_checkpoint_of_another_size_follows_from_its_configuration(tmp_path: Path) -> None:
    document = nano_config().to_document()
    document["text_config"] |= {"num_hidden_layers": 1, "num_experts": 32, "moe_intermediate_size": 64}
    (tmp_path / "small.json").write_text(json.dumps(document))
    call("init", tmp_path / "small", "--config", tmp_path / "small.json")
    assert load_model(tmp_path / "small").config.text.num_experts == 32
    found = model_info(str(tmp_path / "small"))
    assert found == {**model_info(str(tmp_path / "small.json")), "model": str(tmp_path / "small")}
    document["text_config"]["num_experts"] = 33
    (tmp_path / "odd.json").write_text(json.dumps(document))
    assert "33 experts" in call("init", tmp_path / "odd", "--config", tmp_path / "odd.json", code=2)


def test_a_checkpoint_is_rewritten(tmp_path: Path) -> None:
    call("init", tmp_path / "mine")
    assert "7.7 MB as bfloat16" in call("convert", tmp_path / "mine", tmp_path / "half", "--dtype", "bfloat16")
    assert "15.5 MB as float32" in call("convert", tmp_path / "half", tmp_path / "whole", "--dtype", "float32")
    assert "no config.json" in call("convert", tmp_path / "nowhere", tmp_path / "x", code=2)


def test_the_real_model_has_its_published_size_by_name_and_from_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(REAL))
    for name in ("intern-s1-pro", "internlm/Intern-S1-Pro", str(tmp_path), str(tmp_path / "config.json")):
        found = json.loads(call("info", name, "--json"))
        assert found["parameters"]["text"] / 1e9 == pytest.approx(916.6, abs=0.05)
        assert round(found["parameters"]["text"] / 1e6) == 916_556
        assert found["parameters"]["active"] / 1e9 == pytest.approx(21.7, abs=0.05)
        assert found["weight_bytes"] / 1e9 == pytest.approx(919, abs=1.0)
        assert found["kv_bytes_per_token"] == 192_512
        assert found["flops_per_token"] / 1e9 == pytest.approx(43.46, abs=0.005)
        assert found["flops_per_token_and_context_token"] / 1e6 == pytest.approx(3.08, abs=0.005)
        assert found["dtype"] == "float8"
    lines = call("info", "intern-s1-pro")
    assert "916.56 B" in lines
    assert "43.46 GFLOP per token + 3.08 MFLOP x tokens of context" in lines
    assert "vision tower          none" in call("info", tmp_path)


def test_the_formulas_count_what_the_modules_hold() -> None:
    """Every parameter of an initialised nano, by part; buffers (FoPE's coefficients, sinusoids) are none."""
    model = load_model(model_folder(NANO, Path()))
    counted = {"text": 0, "vision": 0, "series": 0}
    for name, value in model.named_parameters():
        part = "vision" if ".visual." in name else "series" if ".time_series." in name else "text"
        counted[part] += value.numel()
    found = model_info(NANO)["parameters"]
    assert {name: found[name] for name in counted} == counted
    assert found["total"] == sum(counted.values())
    assert found["active"] == counted["text"] - model.model.language_model.embed_tokens.weight.numel() - sum(
        value.numel() // 2 for name, value in model.named_parameters() if ".experts." in name
    )
    assert model_info(NANO)["weight_bytes"] == 4 * found["total"]


@pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "qwen3"}'])
def test_what_is_no_model_of_this_kind_is_said_in_one_line(tmp_path: Path, content: str) -> None:
    assert "no folder with a config.json" in call("info", tmp_path / "nothing", code=2)
    (tmp_path / "config.json").write_text(content)
    assert call("info", tmp_path, code=2).count("\n") == 1
    assert call("init", tmp_path / "x", "--config", tmp_path / "config.json", code=2).count("\n") == 1
