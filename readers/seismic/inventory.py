"""What a file contributes: selected stretches to the catalogue, and inventory items for every sample and byte of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence

from s1batch.errors import SourceError
from s1batch.grid import time_of
from s1batch.readers.failures import as_source_error
from s1batch.readers.seismic.catalogue import Catalogue, CatalogueFile, Stretches
from s1batch.readers.seismic.components import role_of
from s1batch.readers.seismic.locate import ROOT_NAME, SourceFile
from s1batch.readers.seismic.scan import FileScan, HeaderSegment, scan_file
from s1batch.readers.seismic.selection import cut_to_range, is_selected
from s1batch.readers.seismic.spec import SeismicSource
from s1batch.readers.seismic.timeline import Claim
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
        first, stop = cut_to_range(segment.start_ns, segment.rate_hz, segment.samples, time_range)
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
        raise as_source_error(error, f"{file.name} cannot be opened: ") from error
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


def claimed_item(claim: Claim, files: Sequence[CatalogueFile]) -> InventoryItem:
    """Return the item of samples that found a place, or found it taken."""
    piece = claim.piece
    segment = HeaderSegment(
        channel=piece.channel, start_ns=piece.start_ns, rate_hz=piece.rate_hz, samples=piece.samples
    )
    status: InventoryStatus = "duplicate" if claim.reason else "selected"
    return _item(files[piece.file], segment, claim.first, claim.stop, status, claim.reason)


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
