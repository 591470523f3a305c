"""Which component a channel records, and which channels belong together."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from s1batch.errors import UsageError

RATE_TOLERANCE = 1e-4
"""Relative difference up to which two rates are one.

This is libmseed's own tolerance, so that what it joins to one trace is one group here. It loses no sample: stretches
are placed by their times, and windows tile time, whatever the rate. Within a window of 6,000 samples it moves a sample
by less than one place.
"""

_ORIENTATION = {"1": "N", "2": "E", "3": "Z"}
_KNET = re.compile(r"(EW|NS|UD)([0-9]?)")
_KNET_COMPONENT = {"EW": "E", "NS": "N", "UD": "Z"}


@dataclass(frozen=True, slots=True, order=True)
class ChannelRole:
    """Where a channel stands in its instrument.

    Attributes:
        group: `NET.STA.LOC` and band + instrument code, such as `BW.RJOB..EH`.
        component: One letter: Z, N, E, or whatever else the instrument has.
        family: 0 where the code names the component itself (Z, N, E), larger for other spellings: two spellings of
            one component at the same time are two instruments.
    """

    group: str
    component: str
    family: int


def channel_id(network: str, station: str, location: str, channel: str) -> str:
    """Return `NET.STA.LOC.CHA`, always with three dots and always text."""
    parts = (network, station, "" if location == "--" else location, channel)
    return ".".join(part.strip().replace(".", "_").encode("utf-8", "replace").decode("utf-8") for part in parts)


def channel_code(channel: str) -> str:
    """Return the last part of a channel id."""
    return channel.rpartition(".")[2]


def same_rate(first_hz: float, second_hz: float) -> bool:
    """Return whether two sampling rates differ by jitter only."""
    return abs(first_hz - second_hz) <= RATE_TOLERANCE * max(first_hz, second_hz)


def requested_components(components: str) -> tuple[str, ...]:
    """Return the components of a job file in order; 1, 2, 3 stand for N, E, Z, and case does not count.

    Raises:
        UsageError: Two of them are the same one.
    """
    order = tuple(_ORIENTATION.get(letter, letter.upper()) for letter in components)
    if len(set(order)) != len(order):
        raise UsageError(f"source.components: {components} names a component twice (1, 2, 3 stand for N, E, Z)")
    return order


def role_of(channel: str, aliases: Mapping[str, str]) -> ChannelRole | None:
    """Return what a channel records, or None when its code does not tell.

    Args:
        channel: `NET.STA.LOC.CHA`.
        aliases: From the job file: a whole channel code, or a last letter, to a component.
    """
    prefix, _, code = channel.rpartition(".")
    if code in aliases:
        return _role(prefix, code[:-1], aliases[code], 3)
    knet = _KNET.fullmatch(code.upper())
    if knet is not None:
        # KiK-net has a sensor in the borehole (1) and one at the surface (2).
        return _role(prefix, knet.group(2), _KNET_COMPONENT[knet.group(1)], 0)
    if not code:
        return None
    letter, band = code[-1], code[:-1]
    if letter in aliases:
        return _role(prefix, band, aliases[letter], 3)
    if letter in _ORIENTATION:
        return _role(prefix, band, _ORIENTATION[letter], 1)
    return _role(prefix, band, letter, 0 if letter.isupper() else 2)


def _role(prefix: str, band: str, component: str, family: int) -> ChannelRole:
    component = _ORIENTATION.get(component, component.upper())
    return ChannelRole(group=f"{prefix}.{band.upper().rstrip('_')}", component=component, family=family)
