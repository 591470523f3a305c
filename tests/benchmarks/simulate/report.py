"""What came of simulations, as rows of a table."""

from __future__ import annotations

from tests.benchmarks.simulate.run import Outcome

HEAD = (
    "what",
    "hours",
    "oracle",
    "ratio",
    "blind",
    "slots busy",
    "tail s",
    "not full",
    "failures",
    "asked again",
    "work lost",
    "CPU us",
)

MEANING = """\
hours        makespan
oracle       the bound that no scheduler can pass, in hours (tests/benchmarks/simulate/oracle.py)
blind        the same ratio of an ideal scheduler that knows no times, without any failure (blind_s there)
slots busy   share of the slots of working engines that computed, until the last request had begun
tail s       seconds from then to the end
not full     share of the makespan in which less than nine tenths of those slots computed
failures     engines that went down; clients that were killed or came to their limit (c)
asked again  times that a request was computed beyond once
work lost    computing that came to nothing, as a share of all work
CPU us       processor time of this simulation for each request, all clients and engines together
"""


def row(name: str, outcome: Outcome) -> list[str]:
    """Return one line.

    Raises:
        SystemExit: Shapes met in an engine, or rows failed: then the figures mean nothing.
    """
    if outcome.met:
        raise SystemExit(f"{name}: {outcome.met} requests met another shape at their engine")
    if outcome.failed:
        raise SystemExit(f"{name}: {outcome.failed} requests ended as failed rows")
    ends = sum(lives.begun for lives in outcome.lives) - len(outcome.lives)
    return [
        name,
        f"{outcome.seconds / 3600:.2f}",
        f"{outcome.oracle_s / 3600:.2f}",
        f"{outcome.ratio:.3f}",
        "" if outcome.blind_s is None else f"{outcome.blind_s / outcome.oracle_s:.3f}",
        f"{outcome.utilisation:.1%}",
        f"{outcome.tail_s:.0f}",
        f"{outcome.not_full:.1%}",
        f"{outcome.outages}" + (f" + {ends} c" if ends else ""),
        f"{outcome.again:,}",
        f"{outcome.lost:.2%}",
        f"{outcome.cpu_us:.0f}",
    ]
