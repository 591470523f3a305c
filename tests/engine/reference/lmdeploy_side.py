"""Runs in an environment of its own: what LMDeploy makes of a checkpoint folder, for `test_lmdeploy`.

python lmdeploy_side.py CHECKPOINT CASES.npz ANSWERS.npz
"""

from __future__ import annotations

import asyncio
import json
import sys
from io import BytesIO
from typing import Any

import lmdeploy.vl.engine
import numpy as np
import pybase64
import torch
from lmdeploy.messages import PytorchEngineConfig
from lmdeploy.model import get_chat_template
from lmdeploy.pytorch.models.interns1_pro_time_series import InternS1ProTimeSeriesModel
from lmdeploy.pytorch.nn.rotary_embedding import build_rotary_params
from lmdeploy.serve.processors import MultimodalProcessor
from lmdeploy.tokenizer import Tokenizer
from lmdeploy.vl.engine import ImageEncoder
from lmdeploy.vl.model.builder import load_vl_model
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoConfig

PREFIX = "model.time_series."


def encoder(folder: str, config: Any) -> Any:
    """LMDeploy's module with the checkpoint's weights in float32; it fuses queries, keys and values."""
    model = InternS1ProTimeSeriesModel(config.ts_config, dtype=torch.float32, device="cpu").eval()
    weights = load_file(f"{folder}/model.safetensors")
    mine = {name.removeprefix(PREFIX): value for name, value in weights.items() if name.startswith(PREFIX)}
    state = {}
    for name, wanted in model.state_dict().items():
        if ".qkv_proj." in name:
            parts = [mine.pop(name.replace("qkv_proj", f"{which}_proj"), None) for which in "qkv"]
            width = wanted.shape[0] // 3
            state[name] = torch.cat([torch.zeros(width) if part is None else part for part in parts])
        else:
            state[name] = mine.pop(name)
    if mine:
        raise SystemExit(f"LMDeploy has no place for {sorted(mine)}")
    model.load_state_dict(state)
    for name, module in model.named_modules():
        # LMDeploy takes 1e-6 here, where Whisper and the model's training code have 1e-5.
        if ".layers." in name and name.endswith(("self_attn_layer_norm", "final_layer_norm")):
            module.impl.eps = 1e-5
    return model


def url(array: Any) -> str:
    file = BytesIO()
    np.save(file, array)
    return "data:application/octet-stream;base64," + pybase64.b64encode(file.getvalue()).decode()


def part_of(part: dict[str, Any], series: Any) -> dict[str, Any]:
    if part["type"] == "series":
        told = {"url": url(series[part["key"]]), "sampling_rate": part["rate_hz"]}
        return {"type": "time_series_url", "time_series_url": told}
    if part["type"] == "image":
        return {"type": "image", "image": Image.open(BytesIO(series[part["key"]].tobytes())).convert("RGB")}
    return {"type": "text", "text": part["text"]}


def main(folder: str, cases_path: str, answers_path: str) -> None:
    """Answer all cases."""
    torch.set_num_threads(1)
    lmdeploy.vl.engine.is_bf16_supported = lambda *_: True  # asks CUDA otherwise
    cases = np.load(cases_path)
    told = json.loads(str(cases["told"]))
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    model = encoder(folder, config)
    seen = load_vl_model(folder, "pytorch", backend_config=PytorchEngineConfig(), trust_remote_code=True)
    seen.tokenizer = seen.processor.tokenizer  # as its `preprocess` does first
    answers: dict[str, Any] = {}

    placeholders = []
    for steps, rate_hz in told["counts"]:
        out = seen.time_series_processor(["<|ts|><TS_CONTEXT><|/ts|>"], [np.ones((steps, 1))], [rate_hz])
        placeholders.append(out["input_ids"][0].count(seen.ts_token_id))
    answers["placeholders"] = np.array(placeholders)

    for case in told["encoded"]:
        scored = cases[case["key"]].astype(np.float64)
        scored = (scored - scored.mean(axis=0, keepdims=True)) / (scored.std(axis=0, keepdims=True) + 1e-8)
        values = torch.from_numpy(scored.astype(np.float32))[None]
        with torch.inference_mode():
            made = model(values, torch.tensor([len(scored)]), torch.tensor([case["rate_hz"]]))
        answers[case["key"]] = made[0].numpy()

    encoder_of_media = ImageEncoder(folder, "pytorch", backend_config=PytorchEngineConfig(), trust_remote_code=True)
    prompts = MultimodalProcessor(
        Tokenizer(folder, trust_remote_code=True),
        get_chat_template(folder, trust_remote_code=True),
        vl_encoder=encoder_of_media,
        backend="pytorch",
    )
    for number, prompt in enumerate(told["prompts"]):
        messages = [
            {"role": message["role"], "content": [part_of(part, cases) for part in message["parts"]]}
            for message in prompt["messages"]
        ]
        found = asyncio.run(
            prompts.get_prompt_input(
                messages, do_preprocess=True, chat_template_kwargs={"enable_thinking": prompt["thinking"]}
            )
        )
        answers[f"ids{number}"] = np.array(found["input_ids"])
        for item in found.get("multimodal") or []:
            if "pixel_values" in item:
                answers[f"pixels{number}"] = item["pixel_values"].float().numpy()

    for number, body in enumerate(told["bodies"]):
        found = asyncio.run(
            prompts.get_prompt_input(
                body["messages"],
                do_preprocess=True,
                tools=body.get("tools"),
                chat_template_kwargs=body["chat_template_kwargs"],
            )
        )
        answers[f"sent{number}"] = np.array(found["input_ids"])

    fope = build_rotary_params(config.text_config)["fope_params"]
    answers["fope"] = np.array([fope.num_inv_freq, fope.num_key_value_heads, int(fope.fope_sep_head)])
    np.savez(answers_path, **answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
