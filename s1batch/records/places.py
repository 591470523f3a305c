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
        slices: The selected ranges; for time series the first is the window in `time_ns`.
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
