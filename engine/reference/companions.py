"""Files beside the weights of a saved checkpoint, with which transformers and LMDeploy load it: their configuration and
processor classes (`published`), and how images are to be processed."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from s1batch.engine.reference.config import ModelConfig
from s1batch.engine.reference.images import DEVIATION, FRAMES, MEAN
from s1batch.engine.tokens import IMAGE_CELL, IMAGE_PATCH, LEAST_IMAGE_PIXELS, MOST_IMAGE_PIXELS
from s1batch.errors import UsageError

PUBLISHED = ("configuration_interns1_pro.py", "processing_interns1_pro.py")
IMAGE_PROCESSING = "preprocessor_config.json"

_AUTO_CONFIG = "configuration_interns1_pro.InternS1ProConfig"
_AUTO_PROCESSOR = "processing_interns1_pro.InternS1ProProcessor"

_COMPUTED: dict[str, Any] = {
    "patch_size": IMAGE_PATCH,
    "temporal_patch_size": FRAMES,
    "merge_size": IMAGE_CELL // IMAGE_PATCH,
    "size": {"shortest_edge": LEAST_IMAGE_PIXELS, "longest_edge": MOST_IMAGE_PIXELS},
    "image_mean": [MEAN] * 3,
    "image_std": [DEVIATION] * 3,
}
"""What `images` does; `size` bounds the area, in spite of its keys' names."""


def write_companions(config: ModelConfig, folder: Path) -> None:
    """Write config.json, the classes that it names, and preprocessor_config.json into a checkpoint folder."""
    auto_map = {"AutoConfig": _AUTO_CONFIG, "AutoProcessor": _AUTO_PROCESSOR}
    processing = {
        "processor_class": _AUTO_PROCESSOR.rpartition(".")[2],
        "auto_map": {"AutoProcessor": _AUTO_PROCESSOR},
        "image_processor_type": "Qwen2VLImageProcessor",
        **_COMPUTED,
    }
    documents = {"config.json": {"auto_map": auto_map, **config.to_document()}, IMAGE_PROCESSING: processing}
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for name in PUBLISHED:
        source = resources.files(__package__).joinpath("published", name)
        (folder / name).write_text(source.read_text(encoding="utf-8"), encoding="utf-8")


def check_image_processing(folder: Path) -> None:
    """Refuse a folder whose preprocessor_config.json asks for other images than this code makes.

    Raises:
        UsageError: A value differs, or the file is damaged; a folder without the file passes.
    """
    path = folder / IMAGE_PROCESSING
    if not path.is_file():
        return
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        asked = {name: document.get(name, value) for name, value in _COMPUTED.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    for name, value in _COMPUTED.items():
        if asked[name] != value:
            raise UsageError(
                f"{path}: {name} is {asked[name]!r}, but the reference model processes images with {value!r}"
            )
