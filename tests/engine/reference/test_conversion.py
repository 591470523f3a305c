"""Checkpoints made and rewritten tensor by tensor are those that the whole model would give."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from s1batch.engine.reference.checkpoint import initialise, load_model, public_tensors, save_checkpoint
from s1batch.engine.reference.config import ModelConfig
from s1batch.engine.reference.conversion import convert, write_initial
from s1batch.engine.reference.shards import INDEX, WEIGHTS
from s1batch.errors import UsageError
from tests.engine.reference.conftest import small_config

CONFIG = replace(small_config(vocab_size=1024), ts_token_id=9, image_token_id=5)


@pytest.fixture
def made(tmp_path: Path, nano_folder: Path) -> Path:
    write_initial(CONFIG, 3, tmp_path / "made", nano_folder)
    return tmp_path / "made"


def same(folder: Path, other: dict[str, Any]) -> bool:
    held = public_tensors(load_model(folder))
    return held.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in held.items())


def test_weights_from_a_seed_are_the_same_written_at_once_or_one_by_one(made: Path) -> None:
    assert same(made, public_tensors(initialise(CONFIG, 3)))
    assert not (made / INDEX).exists()
    assert ModelConfig.read(made) == CONFIG


def test_a_checkpoint_in_many_files_has_an_index_and_the_same_weights(made: Path, tmp_path: Path) -> None:
    convert(made, tmp_path / "split", shard_bytes=1_000_000)
    files = sorted(path.name for path in (tmp_path / "split").glob("*.safetensors"))
    assert len(files) > 3
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    index = json.loads((tmp_path / "split" / INDEX).read_text())
    tensors = {name: path for path in files for name in load_file(tmp_path / "split" / path)}
    assert index["weight_map"] == dict(sorted(tensors.items()))
    held = public_tensors(initialise(CONFIG, 3))
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in held.values())
    assert same(tmp_path / "split", held)
    convert(tmp_path / "split", tmp_path / "joined")
    assert (tmp_path / "joined" / WEIGHTS).read_bytes() == (made / WEIGHTS).read_bytes()


def test_bfloat16_rounds_once_and_comes_back_as_it_is(made: Path, tmp_path: Path) -> None:
    convert(made, tmp_path / "half", "bfloat16")
    assert ModelConfig.read(tmp_path / "half").dtype == "bfloat16"
    stored = load_file(tmp_path / "half" / WEIGHTS)
    assert {value.dtype for value in stored.values()} == {torch.bfloat16}
    rounded = {name: value.bfloat16().float() for name, value in public_tensors(initialise(CONFIG, 3)).items()}
    assert same(tmp_path / "half", rounded)
    convert(tmp_path / "half", tmp_path / "whole", "float32")
    assert {value.dtype for value in load_file(tmp_path / "whole" / WEIGHTS).values()} == {torch.float32}
    assert same(tmp_path / "whole", rounded)
    convert(tmp_path / "half", tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "half" / WEIGHTS).read_bytes()


def test_a_configuration_may_ask_for_bfloat16_at_once(tmp_path: Path, nano_folder: Path) -> None:
    write_initial(replace(CONFIG, dtype="bfloat16"), 3, tmp_path / "half", nano_folder)
    rounded = {name: value.bfloat16().float() for name, value in public_tensors(initialise(CONFIG, 3)).items()}
    assert same(tmp_path / "half", rounded)


def test_what_colleagues_may_read_of_the_folder_they_may_read_of_the_weights(made: Path) -> None:
    assert (made / WEIGHTS).stat().st_mode & 0o666 == made.stat().st_mode & 0o666


def test_a_saved_model_converts_too(tmp_path: Path, nano_folder: Path) -> None:
    save_checkpoint(initialise(CONFIG, 8), tmp_path / "saved", nano_folder)
    convert(tmp_path / "saved", tmp_path / "copy")
    assert same(tmp_path / "copy", public_tensors(initialise(CONFIG, 8)))


def test_nothing_is_overwritten_and_nothing_half_written_stays(made: Path, tmp_path: Path, nano_folder: Path) -> None:
    with pytest.raises(UsageError, match="exists already"):
        convert(made, made)
    with pytest.raises(UsageError, match="exists already"):
        write_initial(CONFIG, 0, made, nano_folder)
    aside = (made / WEIGHTS).rename(made / "aside")
    with pytest.raises(UsageError, match="no weights"):
        convert(made, tmp_path / "none")
    aside.rename(made / WEIGHTS)
    (made / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="cannot be written"):
        convert(made, tmp_path / "none")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]


def test_weights_that_are_not_the_configurations_are_refused_by_name(made: Path, tmp_path: Path) -> None:
    tensors = load_file(made / WEIGHTS)
    key = "model.language_model.layers.0.mlp.experts.3.up_proj.weight"
    for change, complaint in (
        ({key: None}, f"1 keys differ, such as {key}, whose shape is missing"),
        ({"extra": torch.zeros(1)}, "such as extra, whose shape is .1,. and should be absent"),
        ({key: torch.zeros(2, 2)}, "2, 2"),
    ):
        kept = {name: value for name, value in (tensors | change).items() if value is not None}
        save_file(kept, made / WEIGHTS)
        with pytest.raises(UsageError, match=complaint):
            convert(made, tmp_path / "out")
    (made / WEIGHTS).write_bytes(b"0" * 100)
    with pytest.raises(UsageError, match="cannot be read"):
        convert(made, tmp_path / "out")


def test_the_same_tensor_in_two_files_is_refused(made: Path, tmp_path: Path) -> None:
    shutil.copyfile(made / WEIGHTS, made / "again.safetensors")
    with pytest.raises(UsageError, match="repeats"):
        convert(made, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"ts_token_id": 8}, "disagree about <TS_CONTEXT>"),
        ({"image_token_id": 6}, "<|image_pad|>"),
        ({"dtype": "float16"}, "'float16' cannot be written"),
    ],
)
def test_a_configuration_for_another_tokenizer_or_number_type_is_refused(
    tmp_path: Path, nano_folder: Path, change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        write_initial(replace(CONFIG, **change), 0, tmp_path / "out", nano_folder)
    assert complaint in str(caught.value)
    with pytest.raises(UsageError, match="vocabulary"):
        write_initial(replace(small_config(), ts_token_id=9, image_token_id=5), 0, tmp_path / "out", nano_folder)


def test_a_model_larger_than_the_disk_is_refused_before_anything_is_written(tmp_path: Path, nano_folder: Path) -> None:
    """The real model's decoder, told from shapes alone: 917 B weights."""
    huge = small_config(
        vocab_size=155_008,
        hidden_size=24,
        num_hidden_layers=94,
        num_experts=512,
        num_experts_per_tok=8,
        router_n_groups=8,
        moe_intermediate_size=10**9,
    )
    with pytest.raises(UsageError, match="do not fit"):
        write_initial(replace(huge, ts_token_id=9, image_token_id=5), 0, tmp_path / "out", nano_folder)
    assert not list(tmp_path.iterdir())
