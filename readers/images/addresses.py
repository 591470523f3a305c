"""How a page and a box become an address, and back."""

from __future__ import annotations

from s1batch.readers.images.tiles import Box
from s1batch.records import Address, Slice

OVERVIEW = "overview"
"""Third dimension of an image that is sent scaled down besides its tiles; the account leaves such chunks out."""


def address_of(root: str, path: str, page: str, box: Box, *, overview: bool = False) -> Address:
    """Return the address of a box; `page` is empty in files of one page."""
    slices: tuple[Slice, ...] = (
        Slice(dim="y", start=box.y, stop=box.y + box.height),
        Slice(dim="x", start=box.x, stop=box.x + box.width),
    )
    if overview:
        slices = (*slices, Slice(dim=OVERVIEW, start=0, stop=1))
    return Address(source=f"page {page}" if page else "", root=root, path=path, slices=slices)


def page_of(address: Address) -> int:
    """Return the number of an address's page."""
    return int(address.source.removeprefix("page ")) if address.source else 0


def box_of(address: Address) -> Box | None:
    """Return an address's box; None where it has none."""
    if len(address.slices) < 2 or (address.slices[0].dim, address.slices[1].dim) != ("y", "x"):
        return None
    y, x = address.slices[:2]
    return Box(x.start, y.start, x.stop - x.start, y.stop - y.start)


def is_overview(address: Address) -> bool:
    """Return whether an address is that of an image that is sent besides its tiles."""
    return len(address.slices) > 2 and address.slices[2].dim == OVERVIEW
