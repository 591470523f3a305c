"""Images of seven kinds -> captions and objects, large ones in tiles -> Parquet -> proof.

Gathers images that ship with the installed libraries, makes a large one, and runs the commands that a user would type.
Needs no network and no GPU.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import astropy
import matplotlib
import numpy as np
import polars as pl
import pydicom
import tifffile

from examples.commands import folder_asked, show
from s1batch.geometry import SentImage

HERE = Path(__file__).resolve().parent
SHIPPED = (
    (Path(matplotlib.get_data_path()), "sample_data/grace_hopper.jpg"),
    (Path(matplotlib.get_data_path()), "sample_data/Minduka_Present_Blue_Pack.png"),
    (Path(pydicom.__file__).parent, "data/test_files/CT_small.dcm"),
    (Path(pydicom.__file__).parent, "data/test_files/MR_small_RLE.dcm"),
    (Path(astropy.__file__).parent, "io/fits/hdu/compressed/tests/data/m13_rice.fits"),
)
SIDE = 1200


def gather(folder: Path) -> None:
    """Fill the folder; files that are there already stay, so that a second run resumes the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for root, name in SHIPPED:
        if not (folder / Path(name).name).exists():
            shutil.copyfile(root / name, folder / Path(name).name)
    if not (folder / "terrain.tif").exists():
        y, x = np.mgrid[0:SIDE, 0:SIDE]
        heights = 800 + 300 * np.sin(x / 90) * np.cos(y / 130) + 40 * np.sin(x / 11 + y / 17)
        # A GeoTIFF: 30 m pixels in UTM zone 33 north.
        place = [(33550, "d", 3, (30.0, 30.0, 0.0)), (33922, "d", 6, (0.0, 0.0, 0.0, 500_000.0, 5_200_000.0, 0.0))]
        keys = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32633)
        tifffile.imwrite(
            folder / "terrain.tif",
            heights.astype(np.float32),
            tile=(256, 256),
            compression="zlib",
            extratags=[
                *((code, kind, count, value, True) for code, kind, count, value in place),
                (34735, "H", len(keys), keys, True),
            ],
        )
    if not (folder / "grace_hopper.txt").exists():
        (folder / "grace_hopper.txt").write_text("Rear Admiral Grace Hopper.\n")
    if not (folder / "broken.jpg").exists():
        (folder / "broken.jpg").write_bytes(b"This is no image.\n")


def tell(results: Path) -> None:
    """Print what became of each file, and where the tiles of the terrain lie on the map."""
    rows = pl.read_parquet(results / "rows" / "*.parquet")
    columns = ["source_file", "image_format", "converted", "value_low", "value_high"]
    seen = rows.drop_nulls("source_file").group_by(columns, maintain_order=True).len("rows")
    with pl.Config(tbl_rows=-1, tbl_width_chars=150, tbl_hide_dataframe_shape=True, tbl_hide_column_data_types=True):
        print(seen)
    tiles = rows.filter((pl.col("source_file") == "terrain.tif") & ~pl.col("overview"))
    for row in tiles.sort("tile_y", "tile_x").head(2).iter_rows(named=True):
        place = SentImage.of(row)
        if place is not None:
            middle = (place.sent_width / 2, place.sent_height / 2)
            print(
                f"terrain.tif: the middle of tile {row['tile_x']},{row['tile_y']} is pixel "
                f"{place.original_point(middle)}, at {place.crs_point(middle)} in {row['crs']}"
            )


def main() -> None:
    """Run the example in the folder given on the command line, or in ./images."""
    folder = folder_asked("images")
    gather(folder / "pictures")
    job = folder / "job.yaml"
    shutil.copyfile(HERE / "job.yaml", job)
    results = folder / "results"
    show("plan", str(job))
    show("run", str(job))
    show("show", str(results))
    show("show", str(results), "--merged")
    show("verify", str(results), "--sources")
    tell(results)


if __name__ == "__main__":
    main()
