"""What truth that counts samples of a file needs to know of the archive: each file's streams, start and rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from s1batch.errors import UsageError
from s1batch.paths import encode_path


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One channel in one file.

    Attributes:
        path: The file below the archive's root, as `s1batch.paths` encodes it.
        source: The channel, NET.STA.LOC.CHA.
        start_ns: Its first sample.
        rate_hz: Its sampling rate.
    """

    path: str
    source: str
    start_ns: int
    rate_hz: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What is known of a file as a whole.

    Attributes:
        source: One of its channels, NET.STA.LOC.CHA; all of them belong to one station.
        start_ns: The first sample of any of its channels.
        rate_hz: The rate of all of them.
    """

    source: str
    start_ns: int
    rate_hz: float


@dataclass(frozen=True)
class ArchiveFiles:
    """The files of an archive, found by path, by name, or by name without its suffix.

    Attributes:
        streams: All streams, by each name that a file is known by.
    """

    streams: Mapping[str, tuple[Stream, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, streams: Iterable[Stream]) -> ArchiveFiles:
        """Index streams by the names of their files."""
        found: dict[str, list[Stream]] = {}
        for stream in streams:
            path = PurePosixPath(stream.path)
            for name in {stream.path, path.name, path.stem}:
                found.setdefault(name, []).append(stream)
        return cls({name: tuple(items) for name, items in found.items()})

    def find(self, name: str) -> FileFacts | None:
        """Return what is known of a file; None when the archive has none of that name.

        Raises:
            UsageError: The name stands for several files, or for a file with several stations or rates.
        """
        name = encode_path(name)
        streams = self.streams.get(name) or self.streams.get(PurePosixPath(name).name)
        if not streams:
            return None
        for what, values in (
            ("files", {stream.path for stream in streams}),
            ("stations", {tuple(stream.source.split(".")[:2]) for stream in streams}),
            ("sampling rates", {stream.rate_hz for stream in streams}),
        ):
            if len(values) > 1:
                raise UsageError(
                    f"truth for file {name}: the archive has {len(values)} {what} by that name; give station and time "
                    "instead of the file and a sample"
                )
        first = min(streams, key=lambda stream: stream.start_ns)
        return FileFacts(source=first.source, start_ns=first.start_ns, rate_hz=first.rate_hz)
