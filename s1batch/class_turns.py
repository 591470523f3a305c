"""The order of the work where an engine must not meet series of different shapes: one batching class after the other.

Each change of class costs such an engine a pause: what runs must end before the next may begin. So the parts of a plan
are gone through once for each class, and the engine changes class as often as there are classes, not as often as shapes
alternate in the archive. Windows that depend on scans come after all scans. A part that has several classes is opened
several times; its journal keeps what is answered meanwhile.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass

from s1batch.engine.prompt_shape import PromptShape
from s1batch.engine.rules import Rules
from s1batch.plan_store import PlanStore
from s1batch.records import PlanEntry, SeriesShape

_Kind = tuple[bool, Hashable]
"""Whether it depends on a scan, and the batching class."""


@dataclass(frozen=True, slots=True)
class ClassTurn:
    """Which entries of a part are carried at one time.

    Attributes:
        number: Its place in the order of all turns.
        kind: Entries of this kind; None means all that the part has.
        is_first: Whether it is the part's first turn, which takes entries without a class too.
    """

    number: int = 0
    kind: _Kind | None = None
    is_first: bool = True

    def takes(self, entry: PlanEntry, rules: Rules) -> bool:
        """Return whether an entry is carried in this turn."""
        if self.kind is None:
            return True
        kind = _kind(rules, entry.series, entry.images, is_conditional=entry.condition is not None)
        return self.is_first if kind is None else kind == self.kind


ALL_AT_ONCE = ClassTurn()
"""The turn of parts whose entries may all be carried together."""


@dataclass(frozen=True, slots=True)
class TurnOrder:
    """The order in which parts are carried.

    Attributes:
        units: Parts, each as often as it has classes, with the turns.
        sizes: How many chunks each turn asks about, by its number.
    """

    units: list[tuple[int, ClassTurn]]
    sizes: tuple[int, ...]


class Outlook:
    """Counts how much is left of the turn that runs; on one event loop.

    Args:
        sizes: How many chunks each turn asks about; empty when that is not known.
    """

    def __init__(self, sizes: Iterable[int] = ()) -> None:
        self._left = list(sizes)
        self._now = 0

    def passed(self, turn: int, chunks: int = 1) -> None:
        """Take off chunks that have their row."""
        if turn < len(self._left):
            self._left[turn] -= chunks
            while self._now + 1 < len(self._left) and self._left[self._now] <= 0:
                self._now += 1

    def left(self) -> int | None:
        """Return about how many chunks the turn that runs has left; None when that is not known."""
        return max(self._left[self._now], 0) if self._left else None


def class_turns(plan: PlanStore, parts: Iterable[int], rules: Rules) -> TurnOrder:
    """Return the order in which parts are carried, each as often as it has classes.

    The class with the most chunks comes first. Where nothing has to be kept apart, that is every part once, in order.

    Args:
        plan: The plan.
        parts: The parts that are open.
        rules: What the engine takes.
    """
    wanted = dict.fromkeys(parts)
    kinds: dict[int, int] = dict.fromkeys(wanted, 0)
    parts_of: dict[_Kind, dict[int, None]] = {}
    sizes: Counter[_Kind] = Counter()
    asked = 0
    for part, kind, count in _counts(plan, rules):
        if part in wanted:
            asked += count
            if kind is not None:
                here = parts_of.setdefault(kind, {})
                kinds[part] += part not in here
                here[part] = None
                sizes[kind] += count
    if len(sizes) < 2:
        return TurnOrder([(part, ALL_AT_ONCE) for part in wanted], (asked,))
    units: list[tuple[int, ClassTurn]] = [(part, ALL_AT_ONCE) for part in wanted if not kinds[part]]
    begun: set[int] = set()
    order = _in_order(sizes)
    for number, kind in enumerate(order):
        for part in parts_of[kind]:
            only = kind if kinds[part] > 1 else None
            units.append((part, ClassTurn(number, only, part not in begun)))
            begun.add(part)
    return TurnOrder(units, tuple(sizes[kind] for kind in order))


def _counts(plan: PlanStore, rules: Rules) -> Iterator[tuple[int, _Kind | None, int]]:
    """Yield how many chunks of each kind a part asks about."""
    if not rules.exclusive_series:
        for part, count in enumerate(plan.asked()):
            yield part, None, int(count)
        return
    import polars as pl

    asked = plan.scan().filter(pl.col("admission").is_null())
    columns = {
        "part": pl.col("part"),
        "steps": pl.col("steps"),
        "channels": pl.col("channels"),
        "rate_hz": pl.col("rate_hz"),
        "images": pl.col("images").clip(upper_bound=1),
        "is_conditional": pl.col("condition").is_not_null(),
    }
    for part, steps, channels, rate_hz, images, is_conditional, count in (
        asked.select(**columns).group_by(list(columns)).agg(pl.len()).sort(list(columns)).collect().iter_rows()
    ):
        series = None if steps is None else SeriesShape(steps=steps, channels=channels, rate_hz=rate_hz)
        yield part, _kind(rules, series, images or 0, is_conditional=is_conditional), count


def _kind(rules: Rules, series: SeriesShape | None, images: int, *, is_conditional: bool) -> _Kind | None:
    found = rules.shape_class(PromptShape(series=() if series is None else (series,), images=images))
    if found is None and not is_conditional:
        return None
    return is_conditional, found


def _in_order(sizes: Counter[_Kind]) -> list[_Kind]:
    """Return scans and what depends on none by size, then what depends on scans; no change of class between the two
    where one can be spared."""
    first = [kind for kind, _ in sizes.most_common() if not kind[0]]
    later = [kind for kind, _ in sizes.most_common() if kind[0]]
    shared = {kind[1] for kind in first} & {kind[1] for kind in later}
    if shared:
        last = next(kind for kind in reversed(first) if kind[1] in shared)
        first.remove(last)
        first.append(last)
        later.sort(key=lambda kind: kind[1] != last[1])
    return first + later
