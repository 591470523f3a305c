"""Outcomes as a command line names them."""

from __future__ import annotations

from s1batch.errors import UsageError
from s1batch.records import OUTCOMES, Outcome


def parse_outcomes(option: str, text: str) -> tuple[Outcome, ...]:
    """Return the outcomes of an option, which stand there with commas between them.

    Raises:
        UsageError: One is none.
    """
    found = []
    for name in (each.strip() for each in text.split(",")):
        outcome = next((each for each in OUTCOMES if each == name), None)
        if outcome is None:
            raise UsageError(f"{option} {text}: {name!r} is no outcome (valid: {', '.join(OUTCOMES)})")
        found.append(outcome)
    return tuple(found)
