"""What a file contributes: selected stretches to the catalogue, and inventory items for every sample and byte of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence

from s1batch.errors import SourceError
from s1batch.grid import first_index_from, time_of
from s1batch.readers.seismic.catalogue import Catalogue, CatalogueFile, Stretches
from s1batch.readers.seismic.components import role_of
from s1batch.readers.seismic.coverage import Coverage, Piece
from s1batch.readers.seismic.locate import ROOT_NAME, SourceFile
from s1batch.readers.seismic.scan import FileScan, HeaderSegment, scan_file
from s1batch.readers.seismic.selection import is_selected
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.records import Address, Chunk, InventoryItem, InventoryStatus, PlanEntry, Reason, Refusal, Slice


def take_file(
    file: SourceFile,
    spec: SeismicSource,
    components: frozenset[str],
    time_range: tuple[int | None, int | None],
    catalogue: Catalogue,
) -> Iterator[InventoryItem | PlanEntry]:
    """Scan a file, put what is selected into the catalogue, and yield the rest.

    Args:
        file: The file.
        spec: The source.
        components: The components that are asked for.
        time_range: First selected nanosecond and first behind the selection; None where it is open.
        catalogue: Where the selected stretches go.
    """
    facts = CatalogueFile(name=file.name, size=0, mtime_ns=0, sha256="", bytes_per_sample=0.0)
    try:
        facts = _identify(file, spec.hash)
        scan = scan_file(file.path, file.name)
    except SourceError as error:
        yield from _unreadable(facts, (0, facts.size), error.reason, error.detail)
        return
    samples = sum(segment.samples for segment in scan.segments)
    number = len(catalogue.files)
    catalogue.files.append(
        CatalogueFile(
            name=facts.name,
            size=facts.size,
            mtime_ns=facts.mtime_ns,
            sha256=facts.sha256,
            bytes_per_sample=facts.size / samples if samples else 0.0,
        )
    )
    yield from _beside_samples(facts, scan)
    for segment in scan.segments:
        reason = _why_not(segment, spec, components)
        if reason:
            yield _item(facts, segment, 0, segment.samples, "not_selected", reason)
            continue
        first, stop = _cut_to_range(segment, time_range)
        if first > 0:
            yield _item(facts, segment, 0, first, "not_selected", "time_range")
        if stop < segment.samples:
            yield _item(facts, segment, stop, segment.samples, "not_selected", "time_range")
        role = role_of(segment.channel, spec.aliases)
        if first < stop and role is not None:
            stretches = catalogue.channels.setdefault(segment.channel, Stretches(role))
            start_ns = time_of(first, segment.start_ns, segment.rate_hz)
            stretches.add(number, start_ns, stop - first, segment.rate_hz)


def _identify(file: SourceFile, with_hash: bool) -> CatalogueFile:
    try:
        facts = os.stat(file.path)
        sha256 = ""
        if with_hash:
            with open(file.path, "rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        gone = isinstance(error, (FileNotFoundError, NotADirectoryError))
        raise SourceError(
            "source_missing" if gone else "not_readable", f"{file.name} cannot be opened: {error.strerror or error}"
        ) from error
    return CatalogueFile(
        name=file.name, size=facts.st_size, mtime_ns=facts.st_mtime_ns, sha256=sha256, bytes_per_sample=0.0
    )


def _beside_samples(facts: CatalogueFile, scan: FileScan) -> Iterator[InventoryItem | PlanEntry]:
    """Yield what a file holds besides samples that can be read."""
    for start, stop in scan.unreadable:
        detail = f"bytes {start} to {stop} of {facts.name} hold no record that can be read"
        yield from _unreadable(facts, (start, stop), "not_readable", detail)
    if scan.metadata_bytes:
        yield _plain_item(facts, "not_selected", "control_headers", "bytes", scan.metadata_bytes)
    if not scan.segments and not scan.unreadable:
        yield _plain_item(facts, "not_selected", "no_samples", "samples", 0)


def _unreadable(
    facts: CatalogueFile, part: tuple[int, int], reason: Reason, detail: str
) -> Iterator[InventoryItem | PlanEntry]:
    start, stop = part
    yield _plain_item(facts, "unreadable", reason, "bytes", stop - start)
    address = Address(root=ROOT_NAME, path=facts.name, slices=(Slice(dim="bytes", start=start, stop=stop),))
    yield PlanEntry(
        chunk=Chunk((address,)),
        label=facts.name,
        refusal=Refusal(outcome="unreadable", reason=reason, detail=detail),
    )


def _why_not(segment: HeaderSegment, spec: SeismicSource, components: frozenset[str]) -> str:
    """Return why a segment is not selected, in a word, or nothing."""
    if not is_selected(segment.channel, spec):
        return "channel"
    if segment.rate_hz <= 0:
        return "zero_rate"
    role = role_of(segment.channel, spec.aliases)
    return "" if role is not None and role.component in components else "component"


def _cut_to_range(segment: HeaderSegment, time_range: tuple[int | None, int | None]) -> tuple[int, int]:
    """Return the first sample of a segment within the range, and the first behind it."""
    start_ns, stop_ns = time_range
    first, stop = 0, segment.samples
    if start_ns is not None:
        first = min(max(0, first_index_from(start_ns, segment.start_ns, segment.rate_hz)), stop)
    if stop_ns is not None:
        stop = min(max(first, first_index_from(stop_ns, segment.start_ns, segment.rate_hz)), stop)
    return first, stop


def share_out(
    channel: str,
    stretches: Stretches,
    rate_hz: float,
    rates: Mapping[float, float],
    files: Sequence[CatalogueFile],
    pieces: list[Piece],
) -> Iterator[InventoryItem]:
    """Yield a channel's stretches as selected or duplicate, and append the selected ones to `pieces`.

    Args:
        channel: The channel.
        stretches: All its stretches, in the order of the files: the first that has a sample keeps it.
        rate_hz: Common rate of the stretches that are meant.
        rates: Common rate of each rate.
        files: The catalogue's files.
        pieces: What is selected is added here.
    """
    coverage = Coverage()
    for file, start_ns, samples, own_rate_hz in stretches.at_rate(rate_hz, rates):
        segment = HeaderSegment(channel=channel, start_ns=start_ns, rate_hz=own_rate_hz, samples=samples)
        for first, stop, is_new in coverage.claim(start_ns, samples, own_rate_hz):
            if is_new:
                piece_ns = time_of(first, start_ns, own_rate_hz)
                pieces.append(Piece(piece_ns, stop - first, own_rate_hz, file, channel))
            status: InventoryStatus = "selected" if is_new else "duplicate"
            yield _item(files[file], segment, first, stop, status, "" if is_new else "overlap")


def _item(
    facts: CatalogueFile, segment: HeaderSegment, first: int, stop: int, status: InventoryStatus, reason: str
) -> InventoryItem:
    """Describe samples first to stop of a segment."""
    is_series = segment.rate_hz > 0
    return InventoryItem(
        root=ROOT_NAME,
        path=facts.name,
        source=segment.channel,
        status=status,
        reason=reason,
        unit="samples",
        count=stop - first,
        start=time_of(first, segment.start_ns, segment.rate_hz) if is_series else segment.start_ns,
        stop=time_of(stop, segment.start_ns, segment.rate_hz) if is_series else None,
        rate_hz=segment.rate_hz if is_series else None,
        size=facts.size,
        mtime_ns=facts.mtime_ns,
        sha256=facts.sha256,
    )


def _plain_item(facts: CatalogueFile, status: InventoryStatus, reason: str, unit: str, count: int) -> InventoryItem:
    return InventoryItem(
        root=ROOT_NAME,
        path=facts.name,
        status=status,
        reason=reason,
        unit=unit,
        count=count,
        size=facts.size,
        mtime_ns=facts.mtime_ns,
        sha256=facts.sha256,
    )
