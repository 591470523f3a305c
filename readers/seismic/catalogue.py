"""The selected stretches of an archive, by channel, small enough to hold for all of it; and which belong together."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from s1batch.readers.seismic.components import ChannelRole, channel_code, same_rate
from s1batch.readers.seismic.coverage import Piece


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueFile:
    """What is known of a file besides its stretches.

    Attributes:
        name: Below the root, encoded.
        size: In bytes.
        mtime_ns: Time of its modification.
        sha256: Hash of its content, or empty.
        bytes_per_sample: Share of the file that one sample takes.
    """

    name: str
    size: int
    mtime_ns: int
    sha256: str
    bytes_per_sample: float


class Stretches:
    """The stretches of one channel, in the order of the files: 28 bytes each."""

    __slots__ = ("files", "rates_hz", "role", "samples", "starts_ns")

    def __init__(self, role: ChannelRole) -> None:
        self.role = role
        self.files = array("I")
        self.starts_ns = array("q")
        self.samples = array("q")
        self.rates_hz = array("d")

    def add(self, file: int, start_ns: int, samples: int, rate_hz: float) -> None:
        """Append a stretch."""
        self.files.append(file)
        self.starts_ns.append(start_ns)
        self.samples.append(samples)
        self.rates_hz.append(rate_hz)

    def at_rate(self, channel: str, rate_hz: float, rates_hz: Mapping[float, float]) -> Iterator[Piece]:
        """Yield the stretches that belong to a common rate, as pieces of the channel."""
        rows = zip(self.starts_ns, self.samples, self.rates_hz, self.files, strict=True)
        for order, (start_ns, samples, own_rate_hz, file) in enumerate(rows):
            if rates_hz[own_rate_hz] == rate_hz:
                yield Piece(start_ns, samples, own_rate_hz, file, channel, order)


@dataclass(slots=True)
class Catalogue:
    """Files and the selected stretches in them."""

    files: list[CatalogueFile] = field(default_factory=list)
    channels: dict[str, Stretches] = field(default_factory=dict)

    def instruments(self) -> Iterator[tuple[str, dict[str, Stretches]]]:
        """Yield each group (`NET.STA.LOC.BI`) with its channels, by the first file that holds any of it."""
        groups: dict[str, dict[str, Stretches]] = {}
        for channel in sorted(self.channels):
            groups.setdefault(self.channels[channel].role.group, {})[channel] = self.channels[channel]
        order = {name: min(item.files[0] for item in channels.values()) for name, channels in groups.items()}
        for name in sorted(groups, key=lambda group: (order[group], group)):
            yield name, groups[name]


def common_rates(channels: Mapping[str, Stretches]) -> dict[float, float]:
    """Return for each rate of an instrument the rate of its group: the commonest of those that differ by jitter."""
    samples: dict[float, int] = {}
    for stretches in channels.values():
        for rate_hz, count in zip(stretches.rates_hz, stretches.samples, strict=True):
            samples[rate_hz] = samples.get(rate_hz, 0) + count
    common: dict[float, float] = {}
    leaders: list[float] = []
    for rate_hz in sorted(samples, key=lambda rate: (-samples[rate], rate)):
        leader = next((known for known in leaders if same_rate(rate_hz, known)), None)
        if leader is None:
            leaders.append(rate_hz)
        common[rate_hz] = rate_hz if leader is None else leader
    return common


Lane = dict[str, list[Piece]]
"""Pieces by component, each list by start."""


def separate(
    group: str, pieces: Mapping[str, Sequence[Piece]], roles: Mapping[str, ChannelRole]
) -> list[tuple[str, Lane]]:
    """Part channels that record one component at one time (N and 1 of one station), and name what they make.

    Spellings that follow one another, because a station was renamed, stay together.

    Args:
        group: Name of the group.
        pieces: By channel.
        roles: By channel.

    Returns:
        Lanes with their labels, the one with the plain spelling first.
    """
    spellings: list[tuple[int, Lane, list[str]]] = []
    for channel in sorted(pieces, key=lambda name: (roles[name].family, name)):
        role, own = roles[channel], sorted(pieces[channel])
        for family, lane, members in spellings:
            if family == role.family and role.component not in lane:
                lane[role.component] = own
                members.append(channel)
                break
        else:
            spellings.append((role.family, {role.component: own}, [channel]))
    lanes: list[tuple[Lane, list[str]]] = []
    for _, lane, members in spellings:
        for joined, joined_members in lanes:
            if not any(_overlap(joined.get(component, []), own) for component, own in lane.items()):
                for component, own in lane.items():
                    joined[component] = sorted(joined.get(component, []) + own)
                joined_members += members
                break
        else:
            lanes.append((lane, members))
    labels = [f"{group}?"] + [
        f"{group}[{''.join(channel_code(channel)[-1:] for channel in members)}]" for _, members in lanes[1:]
    ]
    return [(label, lane) for label, (lane, _) in zip(labels, lanes, strict=False)]


def _overlap(first: Sequence[Piece], second: Sequence[Piece]) -> bool:
    """Return whether any piece of one list shares time with one of the other; both are by start."""
    for pieces, others in ((first, second), (second, first)):
        # What begins within another piece shares time with the one of the earlier ones that reaches furthest.
        reach_ns, j = None, 0
        for piece in pieces:
            while j < len(others) and others[j].start_ns <= piece.start_ns:
                stop_ns = others[j].stop_ns
                reach_ns = stop_ns if reach_ns is None else max(reach_ns, stop_ns)
                j += 1
            if reach_ns is not None and reach_ns > piece.start_ns:
                return True
    return False
