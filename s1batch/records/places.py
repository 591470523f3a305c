"""Where the data is: addresses, and the chunks that are made of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from s1batch.canonical import plain_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A half-open range of one named dimension.

    Attributes:
        dim: `time_ns` (UTC nanoseconds), `bytes`, `rows`, `chars`, `x`, `y`, or an array's own dimension (indices).
        start: First value inside.
        stop: First value outside.
    """

    dim: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where one input is, independent of machine, engine and time of modification.

    Attributes:
        source: The stream that the data belong to, such as the channel `BW.RJOB..EHZ`; empty where there is none.
        root: The name of the root folder (not its path) below which `path` lies.
        path: The file, relative to the root, encoded by `s1batch.paths`.
        slices: The selected ranges; of waveforms the first is the window in `time_ns`, of arrays it counts entries of
            the array's own dimension, and one in `time_ns` behind it says when that is.
        rate_hz: Recorded sampling rate of the stream (of its grid, where it jitters); None outside time series.
    """

    source: str = ""
    root: str
    path: str
    slices: tuple[Slice, ...] = ()
    rate_hz: float | None = None


@dataclass(frozen=True)
class Chunk:
    """One piece of the archive that becomes one row.

    Attributes:
        inputs: The addresses that are read, in a stated order.
        core: The part of the chunk that it alone answers for, as a half-open range in the units of the addresses'
            first slice; None means all of it. What lies outside is halo (overlap, blinded edges).
    """

    inputs: tuple[Address, ...]
    core: tuple[int, int] | None = None

    @classmethod
    def planned(cls, key: str, inputs: tuple[Address, ...], core: tuple[int, int] | None) -> Chunk:
        """Return a chunk whose key was computed before, when it was planned."""
        chunk = cls(inputs=inputs, core=core)
        chunk.__dict__["key"] = key
        return chunk

    @cached_property
    def key(self) -> str:
        """The identity: a hash of the addresses alone, equal in every process and for every engine."""
        return plain_digest([_address_identity(address) for address in self.inputs])

    @property
    def start(self) -> int | None:
        """First value of the first slice of the first address; None when there is none."""
        slices = self.inputs[0].slices if self.inputs else ()
        return slices[0].start if slices else None

    @property
    def stop(self) -> int | None:
        """First value behind the first slice of the first address; None when there is none."""
        slices = self.inputs[0].slices if self.inputs else ()
        return slices[0].stop if slices else None

    @property
    def extent(self) -> tuple[int | None, int | None, int | None, int | None]:
        """First index and the first behind, first UTC nanosecond and the first behind; None for what there is not.

        The indices are those of the first slice of the first address unless that is a time, the times those of its
        slice `time_ns`, wherever it stands.
        """
        slices = self.inputs[0].slices if self.inputs else ()
        if not slices:
            return None, None, None, None
        first = slices[0]
        if first.dim == "time_ns":
            return None, None, first.start, first.stop
        for part in slices:
            if part.dim == "time_ns":
                return first.start, first.stop, part.start, part.stop
        return first.start, first.stop, None, None

    @property
    def times_ns(self) -> tuple[int, int] | None:
        """First UTC nanosecond and the first behind; None where the chunk has no times."""
        _, _, start_ns, stop_ns = self.extent
        return None if start_ns is None or stop_ns is None else (start_ns, stop_ns)

    @property
    def dim(self) -> str | None:
        """The dimension of the first slice of the first address; None when there is none."""
        slices = self.inputs[0].slices if self.inputs else ()
        return slices[0].dim if slices else None


def _address_identity(address: Address) -> dict[str, object]:
    """What `s1batch.canonical` makes of an address, written out: every chunk of a plan is keyed."""
    identity: dict[str, object] = {}
    if address.path:
        identity["path"] = address.path
    if address.rate_hz is not None:
        identity["rate_hz"] = address.rate_hz
    if address.root:
        identity["root"] = address.root
    if address.slices:
        identity["slices"] = [
            {"dim": part.dim, "start": part.start, "stop": part.stop}
            if part.dim
            else {"start": part.start, "stop": part.stop}
            for part in address.slices
        ]
    if address.source:
        identity["source"] = address.source
    return identity
