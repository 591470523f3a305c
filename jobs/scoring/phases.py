"""Which names of seismic phases stand for the P or the S onset that a window is asked about."""

from __future__ import annotations

import re
from typing import Literal

Phase = Literal["P", "S"]

PHASES: tuple[Phase, Phase] = ("P", "S")
"""In tables of numbers, 0 stands for P and 1 for S."""

# Optional onset quality (i, e), the wave, then crustal variants (Pg, Pn, Pb, P*, P1) or diffracted and core P and S.
_DIRECT = re.compile(
    r"[ie]?(?:([PS])(?:g|n|b|\*|1|diff)?|(P)K(?:I?K)?P(?:df|ab|bc)?|(S)K(?:I?K)?S(?:df|ac)?)", re.IGNORECASE
)


def onset_phase(name: str) -> Phase | None:
    """Return the onset that a phase name stands for.

    Direct waves count: P, Pg, Pn, Pb, P*, P1, Pdiff and the core phases PKP and PKIKP; the same for S; `i` and `e` for
    the onset's quality may stand before. Reflected and depth phases (PmP, PcP, pP, sS, ...) are none.
    """
    match = _DIRECT.fullmatch(name.strip())
    if match is None:
        return None
    return "P" if (match[1] or match[2] or match[3]).upper() == "P" else "S"
