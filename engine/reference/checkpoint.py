"""Reading, writing and initialising the model in the public Hugging Face layout.

A folder holds config.json, tokenizer.json, tokenizer_config.json, chat_template.jinja, generation_config.json and,
where the weights do not come from a seed, *.safetensors with one tensor per expert and matrix. Saved ones hold the
files of `companions` too, so that transformers and LMDeploy load them.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from s1batch.engine.reference.companions import write_companions
from s1batch.engine.reference.config import ModelConfig
from s1batch.engine.reference.identity import weight_files
from s1batch.engine.reference.model import InternS1Pro
from s1batch.engine.reference.shards import WEIGHTS, write_safetensors
from s1batch.errors import UsageError

TEXT_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")

_STACKED = re.compile(r"(.*\.mlp\.experts)\.(gate|up|down)_proj")
_SINGLE = re.compile(r"(.*\.mlp\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")


def initialise(config: ModelConfig, seed: int) -> InternS1Pro:
    """Return a model whose weights follow from the seed alone, whatever the machine's threads.

    Each tensor has a Philox stream of its own, keyed by seed and name. Matrices get a deviation of 1 / sqrt(inputs);
    what writes into the residual stream is divided by sqrt(2 layers), so that logits have a deviation near one.
    FoPE's coefficients are xavier normal (gain = init_factor, fans by torch's rule for their shape) plus the identity.
    A change of this rule raises `identity.INITIALISATION`.
    """
    model = _blank(config)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            fill_initial(name, tensor, config, seed)
    return model


def load_model(folder: Path, seed: int = 0) -> InternS1Pro:
    """Return the model of a checkpoint folder; without safetensors files its weights come from the seed.

    Weights of any float type are taken as float32.

    Raises:
        UsageError: The configuration is not this model's, a file is damaged, or keys are missing or unknown.
    """
    config = ModelConfig.read(folder)
    files = weight_files(folder)
    if not files:
        return initialise(config, seed)
    tensors: dict[str, Tensor] = {}
    for path in files:
        try:
            part = load_file(path)
        except (OSError, SafetensorError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        if twice := tensors.keys() & part.keys():
            raise UsageError(f"{path} repeats {_some(twice)} of another file in {folder}")
        tensors.update(part)
    model = _blank(config)
    try:
        _take(model, tensors)
    except UsageError as error:
        raise UsageError(f"the weights in {folder} do not fit its config.json: {error}") from error
    return model


def save_checkpoint(model: InternS1Pro, folder: Path, text_files: Path) -> None:
    """Write a checkpoint folder.

    Args:
        model: What is saved.
        folder: Where to; made when it does not exist.
        text_files: The folder whose tokenizer, chat template and generation configuration belong to the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in TEXT_FILES:
        if folder.resolve() != text_files.resolve():
            shutil.copyfile(text_files / name, folder / name)
    write_companions(model.config, folder)
    unfinished = folder / f"{WEIGHTS}.{os.getpid()}.tmp"
    write_safetensors(public_tensors(model), unfinished)
    unfinished.replace(folder / WEIGHTS)


def public_tensors(model: InternS1Pro) -> dict[str, Tensor]:
    """Return all weights under the public key names, one tensor per expert and matrix."""
    named = (pair for name, tensor in model.state_dict().items() for pair in public_names(name, tensor))
    return {key: part.contiguous() for key, part in named}


def public_names(name: str, tensor: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield what one entry of the model's state becomes under the public keys: a stack of experts falls apart."""
    match = _STACKED.fullmatch(name)
    if match is None:
        yield name, tensor
        return
    for expert, matrix in enumerate(tensor):
        yield f"{match[1]}.{expert}.{match[2]}_proj.weight", matrix.T if match[2] == "down" else matrix


def _blank(config: ModelConfig) -> InternS1Pro:
    with torch.random.fork_rng(devices=[]):  # torch's own initialisation must not disturb the caller's random numbers
        return InternS1Pro(config).eval()


def _take(model: InternS1Pro, tensors: dict[str, Tensor]) -> None:
    wanted = model.state_dict()
    expected = {name: tensor.shape for name, tensor in public_tensors(model).items()}
    if missing := expected.keys() - tensors.keys():
        raise UsageError(f"missing {_some(missing)}")
    if unknown := tensors.keys() - expected.keys():
        raise UsageError(f"unknown {_some(unknown)}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name]:
            raise UsageError(f"{name} has shape {tuple(tensor.shape)}, not {tuple(expected[name])}")
        if match := _SINGLE.fullmatch(name):
            stack = wanted[f"{match[1]}.{match[3]}_proj"]
            stack[int(match[2])].copy_(tensor.T if match[3] == "down" else tensor)
        else:
            wanted[name].copy_(tensor)


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    shown = ", ".join(ordered[:5])
    return f"{len(ordered)} keys: {shown}" + (", ..." if len(ordered) > 5 else "")


_RESIDUAL = (
    "o_proj.weight",
    "experts.down_proj",
    "self_attn.out_proj.weight",
    ".fc2.weight",
    "attn.proj.weight",
    "mlp.linear_fc2.weight",
)


def fill_initial(name: str, tensor: Tensor, config: ModelConfig, seed: int) -> None:
    """Fill one entry of the model's state with its initial values."""
    if name.endswith("pos_encoder.pe"):
        return
    if tensor.ndim == 1:
        tensor.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        return
    key = int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:16], "little")
    drawn = np.random.Generator(np.random.Philox(key=key)).standard_normal(tuple(tensor.shape), dtype=np.float32)
    tensor.copy_(torch.from_numpy(drawn) * _deviation(name, tensor.shape, config))
    if name.endswith("_coef"):
        tensor += torch.eye(tensor.shape[-1])


def _deviation(name: str, shape: torch.Size, config: ModelConfig) -> float:
    if name.endswith("_coef"):
        # torch's fans: the first axis counts outputs, the second inputs, and the rest multiplies both.
        field = math.prod(shape[2:])
        return config.text.fope.init_factor * math.sqrt(2 / (shape[0] * field + shape[1] * field))
    if name.endswith("embed_tokens.weight"):
        return 0.5
    if name.endswith(("embed_positions.weight", "visual.pos_embed.weight")):
        return 0.1
    inputs = shape[1] if ".experts.down_proj" in name else math.prod(shape[1:])
    if name.endswith((".experts.gate_proj", ".experts.up_proj")):
        inputs = shape[2]
    layers = config.text.num_hidden_layers
    if ".time_series." in name:
        layers = config.series.encoder_layers
    elif ".visual." in name and config.vision is not None:
        layers = config.vision.depth
    return 1 / math.sqrt(inputs * (2 * layers if name.endswith(_RESIDUAL) else 1))
