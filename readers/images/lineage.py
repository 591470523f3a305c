"""The lineage columns of the reader of images: which pixels a row is about, and what was done to them."""

from __future__ import annotations

from typing import Any

from s1batch.columns import Column


def lineage_columns() -> tuple[Column, ...]:
    """Return the columns that every record of the reader fills."""
    import pyarrow as pa

    text, number, real = pa.string(), pa.int64(), pa.float64()
    texts, numbers, reals = pa.list_(text), pa.list_(number), pa.list_(real)
    return (
        Column(name="source_file", type=text, doc="file of the image, below the root"),
        Column(name="page", type=number, doc="page, frame or plane in the file, from 0"),
        Column(name="image_format", type=text, doc="jpeg, png, webp, tiff, fits or dicom"),
        Column(name="image_width", type=number, doc="columns of the original, upright"),
        Column(name="image_height", type=number, doc="rows of the original, upright"),
        Column(name="tile_x", type=number, doc="first column of what was sent, in pixels of the original"),
        Column(name="tile_y", type=number, doc="first row of what was sent, in pixels of the original"),
        Column(name="tile_width", type=number, doc="columns that were sent, in pixels of the original; with padding"),
        Column(name="tile_height", type=number, doc="rows that were sent, in pixels of the original; with padding"),
        Column(name="sent_width", type=number, doc="columns of the image as sent"),
        Column(name="sent_height", type=number, doc="rows of the image as sent"),
        Column(name="overview", type=pa.bool_(), doc="whether it is the whole of an image that is also sent in tiles"),
        Column(name="converted", type=text, doc="what was done to the pixels; empty: the bytes of the file were sent"),
        Column(name="scaling", type=text, doc="rule by which values became grey levels; empty for 8-bit pixels"),
        Column(name="value_low", type=real, doc="value that became black"),
        Column(name="value_high", type=real, doc="value that became white"),
        Column(name="crs", type=text, doc="coordinate system of the original, such as EPSG:32633"),
        Column(
            name="transform",
            type=reals,
            doc="from pixels as sent to coordinates, in GDAL's order: X = t0 + x t1 + y t2, Y = t3 + x t4 + y t5",
        ),
        Column(name="pixel_size", type=reals, doc="size of a pixel of the original along x and y"),
        Column(name="pixel_unit", type=text, doc="its unit; empty: that of the coordinate system"),
        Column(name="source_files", type=texts, doc="files that were read, below the root: the image and its sidecars"),
        Column(name="source_sizes", type=numbers, doc="their sizes in bytes"),
        Column(name="source_mtimes_ns", type=numbers, doc="their times of modification, ns since 1970"),
    )


def empty_lineage() -> dict[str, Any]:
    """Return the values for a chunk of which nothing was read."""
    return {
        "source_file": "",
        "page": None,
        "image_format": "",
        "image_width": None,
        "image_height": None,
        "tile_x": None,
        "tile_y": None,
        "tile_width": None,
        "tile_height": None,
        "sent_width": None,
        "sent_height": None,
        "overview": None,
        "converted": "",
        "scaling": "",
        "value_low": None,
        "value_high": None,
        "crs": "",
        "transform": None,
        "pixel_size": None,
        "pixel_unit": "",
        "source_files": [],
        "source_sizes": [],
        "source_mtimes_ns": [],
    }
