"""What this model shares with Qwen3-VL-MoE, against transformers' own code with the same weights, in float32 to 1e-5.

Attention, experts, router without groups, vision tower and the splice of images, in one forward pass: grouping and FoPE
are set to what they become without them (one group; coefficients that mix nothing), and positions are given as plain
numbers, where Qwen3-VL-MoE would count images in three dimensions.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from s1batch.engine.reference.cache import KVCache
from s1batch.engine.reference.checkpoint import initialise
from s1batch.engine.reference.config import FopeConfig
from s1batch.engine.reference.images import ImagePatches, cut, normalised
from s1batch.engine.reference.kv_pool import KVPool, Step
from s1batch.engine.reference.model import InternS1Pro
from tests.engine.reference.conftest import picture, small_config
from tests.engine.reference.test_decoder import roughened

SHAPES: list[dict[str, int]] = [{"num_experts_per_tok": 5}, {"num_experts": 36, "num_experts_per_tok": 5}]


def plain_model(shape: dict[str, int]) -> InternS1Pro:
    fope = FopeConfig(num_inv_freq=8, init_factor=0.0)
    return roughened(initialise(small_config(router_n_groups=1, rope_theta=1000.0, fope=fope, **shape), 2))[0]


def theirs(model: InternS1Pro) -> Any:
    """Qwen3-VL-MoE with the weights of a model."""
    from transformers.models.qwen3_vl_moe.configuration_qwen3_vl_moe import Qwen3VLMoeConfig
    from transformers.models.qwen3_vl_moe.modeling_qwen3_vl_moe import Qwen3VLMoeForConditionalGeneration

    document = model.config.to_document()
    text = {**document["text_config"], "model_type": "qwen3_vl_moe_text", "rope_scaling": None}
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [4, 2, 2]}
    vision = {**document["vision_config"], "model_type": "qwen3_vl_moe_vision"}
    ids = {name: document[name] for name in document if name.endswith("_token_id") and name != "ts_token_id"}
    other: Any = Qwen3VLMoeForConditionalGeneration(Qwen3VLMoeConfig(text_config=text, vision_config=vision, **ids))
    state = {}
    for name, tensor in model.state_dict().items():
        if not any(part in name for part in (".time_series.", "rotary", ".experts.")):
            state[name] = tensor
    for number in range(model.config.text.num_hidden_layers):
        name = f"model.language_model.layers.{number}.mlp.experts"
        ours: Any = model.get_submodule(name)
        state[f"{name}.gate_up_proj"] = torch.cat((ours.gate_proj, ours.up_proj), dim=1).detach()
        state[f"{name}.down_proj"] = ours.down_proj.transpose(1, 2).detach()
    other.load_state_dict(state)
    return other.eval()


def their_logits(other: Any, ids_T: Tensor, images: list[ImagePatches]) -> Tensor:
    media: dict[str, Tensor] = {}
    if images:
        media["pixel_values"] = torch.cat([torch.from_numpy(normalised(each.pixels_PV)) for each in images])
        media["image_grid_thw"] = torch.tensor([[1, each.rows, each.columns] for each in images])
    positions = torch.arange(len(ids_T)).expand(3, 1, -1)
    found: Tensor = other(input_ids=ids_T[None], position_ids=positions, **media).logits[0]
    return found


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_of_text_and_images_are_those_of_qwen3_vl_moe(shape: dict[str, int]) -> None:
    """As a whole, prefilled as generation does it, and decoded token by token among others."""
    model = plain_model(shape)
    other = theirs(model)
    images = [cut(picture(256, 256, seed=1)), cut(picture(40, 30, seed=2))]
    rest = torch.randint(0, 56, (40,), generator=torch.Generator().manual_seed(0)).tolist()
    spliced = torch.tensor([7, 57, *[59] * 64, 56, 3, 57, *[59] * 70, 56, *rest])
    prompts = [torch.tensor(rest), spliced]
    with torch.inference_mode():
        tower: Any = model.model.visual
        seen = [[], [tower(each) for each in images]]
        wanted = [their_logits(other, ids, images[: len(each)]) for ids, each in zip(prompts, seen, strict=True)]
        for ids, each, logits in zip(prompts, seen, wanted, strict=True):
            assert float(logits.abs().max()) > 1
            torch.testing.assert_close(model(ids, images=each), logits, atol=1e-5, rtol=0)
        model.lay_out()
        pool = KVPool(model.config.text, 1 << 24)
        rows = []
        for ids, each, logits in zip(prompts, seen, wanted, strict=True):
            embedded = model.embed(ids, images=each)
            made = model.lm_head(model.states(embedded, KVCache(model.config.text)))
            torch.testing.assert_close(made, logits, atol=1e-5, rtol=0)
            row = pool.take(len(ids))
            assert row is not None
            model.states(embedded[:-30], row)
            rows.append(row)
        for _ in range(30):
            step = Step(rows, 4)
            places = [row.length for row in rows]
            next_ids = torch.tensor([int(ids[at]) for ids, at in zip(prompts, places, strict=True)] + [0, 0])
            made = model.lm_head(model.states(model.embed(next_ids), step))
            for place, logits in enumerate(wanted):
                torch.testing.assert_close(made[place], logits[places[place]], atol=1e-5, rtol=0)
