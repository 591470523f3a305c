"""A saved folder loads in transformers by `trust_remote_code`, and says how images are processed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.checkpoint import initialise, save_checkpoint
from s1batch.engine.reference.companions import check_image_processing, write_companions
from s1batch.engine.reference.config import ModelConfig
from s1batch.engine.reference.spec import ReferenceEngineSpec, open_reference
from s1batch.errors import UsageError
from s1batch.records import Message, TextPart
from tests.engine.reference.conftest import picture, small_config

LOOK = """
import io, json, sys
from PIL import Image
from transformers import AutoConfig, AutoProcessor, AutoTokenizer
folder = sys.argv[1]
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
config.save_pretrained(folder + "/again")
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
image = Image.open(io.BytesIO(sys.stdin.buffer.read()))
content = [{"type": "image", "image": image}, {"type": "text", "text": "What?"}]
seen = processor.apply_chat_template(
    [{"role": "user", "content": content}],
    tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="np", enable_thinking=False,
)
print(json.dumps({
    "class": type(config).__name__,
    "fope": [config.text_config.rope_scaling["num_inv_freq"], config.text_config.rope_parameters["rope_theta"]],
    "towers": [config.vision_config.depth, config.ts_config.d_model],
    "ids": tokenizer("12 ab").input_ids,
    "end": tokenizer.eos_token,
    "series": [processor.ts_start_token, processor.ts_token, processor.ts_token_id, processor.ts_end_token],
    "prompt": seen["input_ids"][0].tolist(),
    "grid": seen["image_grid_thw"].tolist(),
    "patches": list(seen["pixel_values"].shape),
}))
"""


@pytest.mark.slow
def test_transformers_loads_configuration_tokenizer_and_processor(tmp_path: Path, nano_folder: Path) -> None:
    folder = tmp_path / "model"
    config = ModelConfig.read(nano_folder)
    save_checkpoint(initialise(config, 0), folder, nano_folder)
    part = picture(320, 256)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOOK, folder], input=part.data, env=environment, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    found = json.loads(done.stdout)
    chat = ChatFormat(folder)
    message = Message(role="user", parts=(part, TextPart(text="What?")))
    assert found.pop("prompt") == list(chat.prompt([message], thinking=False).ids)
    assert found == {
        "class": "InternS1ProConfig",
        "fope": [16, 5e6],
        "towers": [2, 128],
        "ids": [32, 33, 448],
        "end": "<|im_end|>",
        "series": ["<|ts|>", "<TS_CONTEXT>", 9, "<|/ts|>"],
        "grid": [[1, 16, 20]],
        "patches": [320, 1536],
    }
    assert ModelConfig.read(folder / "again") == config


def test_the_published_classes_import_nothing_of_this_package() -> None:
    from importlib import resources

    folder = resources.files("s1batch.engine.reference").joinpath("published")
    for name in ("configuration_interns1_pro.py", "processing_interns1_pro.py"):
        lines = folder.joinpath(name).read_text(encoding="utf-8").splitlines()
        imports = [line.split()[1] for line in lines if line.startswith(("from ", "import "))]
        assert set(imports) == {"__future__", "typing", "transformers"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("patch_size", 14),
        ("size", {"shortest_edge": 3136, "longest_edge": 16_777_216}),
        ("image_mean", [0.48, 0.46, 0.41]),
    ],
)
def test_a_folder_whose_images_would_be_processed_otherwise_is_refused(tmp_path: Path, name: str, value: Any) -> None:
    check_image_processing(tmp_path)
    write_companions(small_config(), tmp_path)
    check_image_processing(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(UsageError, match=name):
        open_reference(ReferenceEngineSpec(kind="reference", model=str(tmp_path)), Path())
    path.write_text("[]")
    with pytest.raises(UsageError, match="cannot be read"):
        check_image_processing(tmp_path)
