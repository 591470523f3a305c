"""A bound that no scheduler can pass, even one that knows every time and every failure beforehand.

Two things bound the end of a run, and the larger one counts:

- **Work.** In a second an engine of speed v with n requests does v * n * speed(n) seconds of work, at most v * R where
  R = slots (its throughput is largest with full slots; see `engines`). A request of w seconds alone in an engine needs
  w / (v * B). Where shapes exclude one another an engine belongs to one shape at a time, so a shape of work W and
  longest request L needs engines for at least max(W / R, L / B) seconds of ordinary speed, whether it has one of them
  or many; what all shapes need adds up. Without exclusion everything is one such shape. The run cannot end before
  engines have worked, outages taken off, for that long.
- **The longest request.** It must run in one go on an engine that works: no end comes before the first moment at which
  some engine has worked for L / (v * B) without a break.

Nothing is lost in the oracle's run: it begins nothing that a failure would cut off, it pays no latency, its clients are
never preempted, and they have no limits of their own. It may be that no schedule reaches the bound.

`blind_s` is another measure: what an ideal scheduler would take that does not know the times.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

from tests.benchmarks.simulate.outages import Outages
from tests.benchmarks.simulate.workload import ShapeTotals, Workload


def bound_s(
    shapes: Sequence[ShapeTotals], *, slots: int, batching: float, speeds: Sequence[float], outages: Outages
) -> float:
    """Return the seconds before which no schedule ends.

    Args:
        shapes: What must be done, for each of the shapes that exclude one another (all as one where none do).
        slots: Requests that an engine computes at a time.
        batching: How many times faster a request alone is.
        speeds: How fast each engine is.
        outages: When they are down.
    """
    needed_s = sum(max(shape.work_s / slots, shape.longest_s / batching) for shape in shapes)
    longest_s = max(shape.longest_s for shape in shapes) / batching
    return max(_work_ends(needed_s, speeds, outages), _longest_ends(longest_s, speeds, outages))


def blind_s(workload: Workload, slots: int) -> float:
    """Return the makespan of an ideal scheduler that knows no times: each slot takes the next request of the plan.

    No failures, no latency, engines of ordinary speed whose requests do not slow one another down, and no shapes: what
    remains above the bound is the luck of which requests come last, which only knowledge of the times could avoid.
    """
    free_at = [0.0] * slots
    for number in range(workload.parts):
        for seconds in workload.part(number).seconds.tolist():
            heapq.heapreplace(free_at, free_at[0] + seconds)
    return max(free_at)


def as_one(shapes: Sequence[ShapeTotals]) -> list[ShapeTotals]:
    """Return the shapes added up, for engines that compute them together."""
    return [
        ShapeTotals(work_s=sum(shape.work_s for shape in shapes), longest_s=max(shape.longest_s for shape in shapes))
    ]


def _work_ends(needed_s: float, speeds: Sequence[float], outages: Outages) -> float:
    def done(until_s: float) -> float:
        return sum(speed * outages.live_s(engine, until_s) for engine, speed in enumerate(speeds))

    low, high = 0.0, needed_s / sum(speeds)
    while done(high) < needed_s:
        if high > 1e15:
            return math.inf
        low, high = high, 2 * high
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if done(middle) >= needed_s else (middle, high)
    return high


def _longest_ends(seconds: float, speeds: Sequence[float], outages: Outages) -> float:
    return min(_first_stretch(engine, seconds / speed, outages) for engine, speed in enumerate(speeds))


def _first_stretch(engine: int, seconds: float, outages: Outages) -> float:
    """Return when an engine has first worked for so long without a break."""
    begin = 0.0
    while begin < math.inf:
        down, up = outages.after(engine, begin) if begin else _first_outage(engine, seconds, outages)
        if down - begin >= seconds:
            return begin + seconds
        begin = up
    return math.inf


def _first_outage(engine: int, seconds: float, outages: Outages) -> tuple[float, float]:
    return next(iter(outages.of(engine, seconds)), (math.inf, math.inf))
