"""Images for tests, and what the reader makes of them."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from s1batch.readers.images.reader import ImageReader
from s1batch.readers.images.spec import ImageSource
from s1batch.records import Fields, InventoryItem, PlanEntry, Record

DATA = Path(__file__).parent / "data"


def colours(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours with some noise: (H, W, 3)."""
    y, x = np.mgrid[0:height, 0:width]
    noise = np.random.default_rng(seed).integers(0, 9, (height, width, 3))
    return (np.stack([x * 200 // width, y * 200 // height, (x + y) % 200], axis=-1) + noise).astype(np.uint8)


def saved(pixels: Any, kind: str, **options: Any) -> bytes:
    """Encode an array or image by Pillow."""
    file = BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **options)
    return file.getvalue()


def reader_of(folder: Path | str, **source: Any) -> ImageReader:
    """Return a reader of a folder or file."""
    where = {} if "manifest" in source else {"paths": str(folder)}
    return ImageReader(ImageSource.model_validate({"kind": "images", **where, **source}), Path(folder))


def planned(reader: ImageReader) -> tuple[list[PlanEntry], list[InventoryItem]]:
    """Return a plan's entries and items."""
    lines = list(reader.plan())
    entries = [line for line in lines if isinstance(line, PlanEntry)]
    return entries, [line for line in lines if isinstance(line, InventoryItem)]


def records(folder: Path | str, **source: Any) -> list[Record]:
    """Plan and read everything; what the plan refuses stands as such a record."""
    reader = reader_of(folder, **source)
    entries, _ = planned(reader)
    names = {column.name for column in reader.lineage}
    found = []
    for entry in entries:
        if entry.refusal is not None:
            found.append(Record(chunk=entry.chunk, refusal=entry.refusal))
            continue
        (record,) = reader.read([entry.chunk])
        assert record.lineage.keys() == names
        if record.refusal is None:
            assert entry.image_sizes == (sent(record).size,)
            assert (record.lineage["sent_width"], record.lineage["sent_height"]) == sent(record).size
        found.append(record)
    return found


def record_of(path: Path | str, **source: Any) -> Record:
    """Read a file of one chunk."""
    (record,) = records(path, **source)
    assert record.refusal is None, record.refusal
    return record


def sent_bytes(record: Record) -> bytes:
    """Return the encoded image of a record."""
    assert isinstance(record.payload, Fields), record.refusal
    (part,) = record.payload.images
    return part.data


def sent(record: Record) -> Image.Image:
    """Return what the model would see."""
    image = Image.open(BytesIO(sent_bytes(record)))
    image.load()
    assert image.mode in ("L", "RGB")
    return image


def seen(path: Path | str, **source: Any) -> NDArray[np.uint8]:
    """Return the pixels that are sent of a file of one chunk."""
    return np.asarray(sent(record_of(path, **source)))


def levels(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """The rule of scaling once more, in float64."""
    return np.rint(np.clip((values.astype(np.float64) - low) / (high - low) * 255, 0, 255)).astype(np.uint8)
