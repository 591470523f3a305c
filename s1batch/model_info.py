"""How large a model is and what a token of it costs, from its configuration alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from s1batch.engine.costs import attention_flops, token_flops
from s1batch.engine.sizes import ModelSizes, model_sizes, sizes_of
from s1batch.errors import UsageError

STORED_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes of a weight that is not quantised."""


def model_info(model: str) -> dict[str, Any]:
    """Return parameters, bytes and operations of a model.

    Args:
        model: `nano`, a checkpoint folder, a `config.json`, or `intern-s1-pro` for the real one.

    Raises:
        UsageError: There is no such model, or it is of another architecture.
    """
    sizes, dtype = _sizes(model)
    towers = {"vision": sizes.vision, "series": sizes.series}
    parameters = {"text": sizes.text.parameters}
    parameters |= {name: tower.parameters for name, tower in towers.items() if tower is not None}
    bytes_per_value = STORED_BYTES.get(dtype, 2)
    return {
        "model": model,
        "dtype": "float8" if sizes.fp8 else dtype,
        "parameters": {**parameters, "total": sum(parameters.values()), "active": sizes.text.active_parameters},
        # The sizes count two bytes for what is not quantised.
        "weight_bytes": round(sizes.weight_bytes if sizes.fp8 else sizes.weight_bytes * bytes_per_value / 2),
        "kv_bytes_per_token": sizes.text.kv_bytes_per_token * bytes_per_value // 2,
        "flops_per_token": token_flops(sizes, 0),
        "flops_per_token_and_context_token": attention_flops(sizes, 1),
    }


def info_lines(info: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that people read."""
    parameters = info["parameters"]
    yield f"{info['model']}: {_count(parameters['total'])} parameters, {_count(parameters['active'])} active per token"
    for name, label in (("text", "decoder"), ("vision", "vision tower"), ("series", "time-series encoder")):
        yield f"  {label:<22}{_count(parameters[name]) if name in parameters else 'none'}"
    yield f"  {'weights':<22}{_bytes(info['weight_bytes'])} as {info['dtype']}"
    yield f"  {'cache':<22}{_bytes(info['kv_bytes_per_token'])} per token"
    context = _flops(info["flops_per_token_and_context_token"])
    yield f"  {'operations':<22}{_flops(info['flops_per_token'])} per token + {context} x tokens of context"


def _sizes(model: str) -> tuple[ModelSizes, str]:
    from s1batch.engine.reference.identity import model_folder

    folder = model_folder(model, Path())
    path = folder / "config.json" if folder.is_dir() else folder
    if not path.is_file():
        known = sizes_of(model)
        if known is None:
            raise UsageError(f"{model} is no folder with a config.json, no such file, and not nano or intern-s1-pro")
        return known, "bfloat16"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    sizes = model_sizes(document) if isinstance(document, dict) else None
    if sizes is None:
        raise UsageError(f"{path} describes another architecture than Intern-S1-Pro's, or lacks one of its sizes")
    return sizes, str(document.get("dtype") or document.get("torch_dtype") or "bfloat16")


def _count(number: float) -> str:
    return _scaled(number, ((1e9, " B"), (1e6, " M"), (1e3, " k"), (1, "")), 2)


def _flops(number: float) -> str:
    return _scaled(number, ((1e12, " TFLOP"), (1e9, " GFLOP"), (1e6, " MFLOP"), (1e3, " kFLOP"), (1, " FLOP")), 2)


def _bytes(number: float) -> str:
    return _scaled(number, ((1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B")), 1)


def _scaled(number: float, units: tuple[tuple[float, str], ...], digits: int) -> str:
    size, unit = next((pair for pair in units if number >= pair[0]), units[-1])
    return f"{number / size:,.{digits}f}{unit}"
