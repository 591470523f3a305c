"""Checkpoints in the public layout, and weights that follow from a seed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s1batch.engine.reference.checkpoint import initialise, load_model, public_tensors, save_checkpoint
from s1batch.engine.reference.config import ModelConfig
from s1batch.engine.reference.identity import read_identity
from s1batch.engine.reference.vocabulary import nano_config
from s1batch.errors import UsageError
from tests.engine.reference.conftest import small_config

KNOWN_HEAD = [-0.03664552420377731, -0.053581662476062775, 0.1442366987466812]
"""First weights of the head of nano at seed 0; they change only together with `identity.INITIALISATION`."""

KNOWN_SUMS = {"language_model": 157604.17405837032, "time_series": 1710200.9654129536}
"""Sums of the absolute weights of nano's parts at seed 0, which further parts must leave as they are."""

TIME_SERIES_LAYER = "model.time_series.encoder.layers.1"


@pytest.fixture
def saved(tmp_path: Path, nano_folder: Path) -> Path:
    save_checkpoint(initialise(small_config(), 4), tmp_path / "model", nano_folder)
    return tmp_path / "model"


def test_a_checkpoint_survives_saving_and_loading(saved: Path) -> None:
    model, again = initialise(small_config(), 4), load_model(saved)
    assert again.config == model.config
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in model.state_dict().items())
    ids = torch.arange(30)
    with torch.inference_mode():
        assert torch.equal(model(ids), again(ids))


def test_the_keys_and_shapes_are_the_public_ones(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    wanted = {
        "lm_head.weight": (61, 24),
        "model.language_model.embed_tokens.weight": (61, 24),
        "model.language_model.norm.weight": (24,),
        "model.language_model.rotary_emb.sin_coef": (3, 3, 3),
        "model.language_model.rotary_emb.cos_coef": (3, 3, 3),
        "model.language_model.layers.1.input_layernorm.weight": (24,),
        "model.language_model.layers.1.post_attention_layernorm.weight": (24,),
        "model.language_model.layers.1.self_attn.q_proj.weight": (96, 24),
        "model.language_model.layers.1.self_attn.k_proj.weight": (48, 24),
        "model.language_model.layers.1.self_attn.v_proj.weight": (48, 24),
        "model.language_model.layers.1.self_attn.o_proj.weight": (24, 96),
        "model.language_model.layers.1.self_attn.q_norm.weight": (16,),
        "model.language_model.layers.1.self_attn.k_norm.weight": (16,),
        "model.language_model.layers.1.mlp.gate.weight": (12, 24),
        "model.language_model.layers.1.mlp.experts.11.gate_proj.weight": (12, 24),
        "model.language_model.layers.1.mlp.experts.11.up_proj.weight": (12, 24),
        "model.language_model.layers.1.mlp.experts.11.down_proj.weight": (24, 12),
        "model.time_series.encoder_embed.conv.weight": (128, 1, 5),
        "model.time_series.encoder_embed.pos_encoder.pe": (20000, 1, 128),
        "model.time_series.encoder_embed.transformer_encoder.layers.0.self_attn.in_proj_weight": (384, 128),
        "model.time_series.encoder_embed.transformer_encoder.layers.0.self_attn.out_proj.bias": (128,),
        "model.time_series.encoder_embed.transformer_encoder.layers.0.linear1.weight": (2048, 128),
        "model.time_series.encoder_embed.transformer_encoder.layers.0.norm2.weight": (128,),
        "model.time_series.encoder.adapt_in.weight": (9, 256),
        "model.time_series.encoder.conv1.weight": (12, 9, 3),
        "model.time_series.encoder.conv2.weight": (12, 12, 3),
        "model.time_series.encoder.embed_positions.weight": (16, 12),
        f"{TIME_SERIES_LAYER}.self_attn.q_proj.bias": (12,),
        f"{TIME_SERIES_LAYER}.self_attn.k_proj.weight": (12, 12),
        f"{TIME_SERIES_LAYER}.self_attn.out_proj.weight": (12, 12),
        f"{TIME_SERIES_LAYER}.self_attn_layer_norm.weight": (12,),
        f"{TIME_SERIES_LAYER}.fc1.weight": (20, 12),
        f"{TIME_SERIES_LAYER}.fc2.weight": (12, 20),
        f"{TIME_SERIES_LAYER}.final_layer_norm.bias": (12,),
        "model.time_series.encoder.layer_norm.weight": (12,),
        "model.time_series.encoder.adapt_out.weight": (14, 12),
        "model.time_series.projector.layer_norm.weight": (14,),
        "model.time_series.projector.linear_1.weight": (24, 14),
        "model.time_series.projector.linear_2.weight": (24, 24),
        "model.visual.patch_embed.proj.weight": (24, 3, 2, 16, 16),
        "model.visual.patch_embed.proj.bias": (24,),
        "model.visual.pos_embed.weight": (25, 24),
        "model.visual.blocks.1.norm1.weight": (24,),
        "model.visual.blocks.1.norm2.bias": (24,),
        "model.visual.blocks.1.attn.qkv.weight": (72, 24),
        "model.visual.blocks.1.attn.qkv.bias": (72,),
        "model.visual.blocks.1.attn.proj.weight": (24, 24),
        "model.visual.blocks.1.mlp.linear_fc1.weight": (20, 24),
        "model.visual.blocks.1.mlp.linear_fc2.weight": (24, 20),
        "model.visual.merger.norm.weight": (24,),
        "model.visual.merger.linear_fc1.weight": (96, 96),
        "model.visual.merger.linear_fc2.weight": (24, 96),
    }
    assert {name: tuple(tensors[name].shape) for name in wanted if name in tensors} == wanted
    assert f"{TIME_SERIES_LAYER}.self_attn.k_proj.bias" not in tensors
    numbered = {re.sub(r"\.\d+\.", ".#.", name) for name in tensors}
    assert len([name for name in numbered if ".experts." in name]) == 3


def test_missing_unknown_and_misshapen_keys_are_named(saved: Path) -> None:
    path = saved / "model.safetensors"
    tensors = load_file(path)
    key = "model.language_model.layers.0.mlp.experts.3.up_proj.weight"
    for change, complaint in (
        ({key: None}, f"missing 1 keys: {key}"),
        ({"model.visual.cls_token": torch.zeros(3)}, "unknown 1 keys: model.visual.cls_token"),
        ({key: torch.zeros(2, 2)}, re.escape(f"{key} has shape (2, 2), not (12, 24)")),
    ):
        save_file({name: value for name, value in (tensors | change).items() if value is not None}, path)
        with pytest.raises(UsageError, match=complaint):
            load_model(saved)


def test_weights_may_be_split_over_files_and_be_bfloat16_but_not_stand_twice(saved: Path) -> None:
    path = saved / "model.safetensors"
    tensors = load_file(path)
    halves = {name: value.bfloat16() for name, value in tensors.items()}
    path.unlink()
    names = sorted(halves)
    save_file({name: halves[name] for name in names[:20]}, saved / "model-00001-of-00002.safetensors")
    save_file({name: halves[name] for name in names[20:]}, saved / "model-00002-of-00002.safetensors")
    loaded = public_tensors(load_model(saved))
    assert all(torch.equal(loaded[name], halves[name].float()) for name in names)
    save_file({names[0]: halves[names[0]]}, saved / "again.safetensors")
    with pytest.raises(UsageError, match="repeats"):
        load_model(saved)


def test_a_damaged_file_is_an_error_of_the_user(saved: Path) -> None:
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UsageError, match="cannot be read"):
        load_model(saved)


def test_the_same_seed_gives_the_same_weights_on_any_number_of_threads_and_leaves_torch_alone() -> None:
    torch.manual_seed(11)
    wanted = torch.rand(3)
    torch.manual_seed(11)
    first = initialise(small_config(), 7).state_dict()
    assert torch.equal(torch.rand(3), wanted)
    torch.set_num_threads(2)
    torch.manual_seed(99)
    second = initialise(small_config(), 7).state_dict()
    other = initialise(small_config(), 8).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_initial_weights_of_nanos_shape_are_known_numbers() -> None:
    """The identity of seeded weights is a hash of configuration and seed, so the rule must not drift unnoticed."""
    model = initialise(nano_config(), 0)
    head = model.lm_head.weight[0, :3].tolist()
    assert head == pytest.approx(KNOWN_HEAD, abs=1e-7)
    for name, known in KNOWN_SUMS.items():
        held = [value.double().abs().sum() for key, value in model.state_dict().items() if f".{name}." in key]
        assert float(sum(held)) == pytest.approx(known, rel=1e-6), name


def test_a_fresh_model_of_nanos_shape_has_sane_logits_and_the_documented_size() -> None:
    model = initialise(nano_config(), 0)
    sizes = dict.fromkeys(("time_series", "visual", "text"), 0)
    for name, value in model.named_parameters():
        sizes[next((part for part in sizes if f".{part}." in name), "text")] += value.numel()
    assert sizes == {"text": 2_041_216, "time_series": 1_530_960, "visual": 300_992}
    with torch.inference_mode():
        logits = model(torch.arange(20, 220))
    assert 0.8 < float(logits.std()) < 1.3
    assert float(logits.softmax(-1).max()) < 0.1


def test_the_identity_tells_weights_apart(saved: Path, nano_folder: Path, tmp_path: Path) -> None:
    nano = read_identity(nano_folder)
    assert (nano.name, nano.dtype, nano.quantisation) == ("nano", "float32", "")
    bare = tmp_path / "bare"
    shutil.copytree(nano_folder, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    seeded = read_identity(bare, 0)
    assert seeded == read_identity(bare, 0)
    assert seeded.revision not in (read_identity(bare, 1).revision, nano.revision)
    from_files = read_identity(saved, 0)
    assert from_files == read_identity(saved, 1), "the seed does not matter where there are weights"
    tensors = load_file(saved / "model.safetensors")
    tensors["lm_head.weight"][0, 0] += 1
    save_file(tensors, saved / "model.safetensors")
    assert read_identity(saved).revision != from_files.revision
    (saved / "chat_template.jinja").write_text("hello")
    assert read_identity(saved, 0).name == "model"


def test_the_shipped_configuration_is_the_one_in_the_code(nano_folder: Path) -> None:
    assert ModelConfig.read(nano_folder) == nano_config()
