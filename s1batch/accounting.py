"""The account: every sample of the archive, in the archive's own units, with what became of it.

    archive = planned + refused + unreadable + duplicate + not selected

The inventory says for every stretch of the archive whether it was selected. What was selected is split by the plan: a
sample in at least one chunk that will be asked is planned, else one in a refused chunk is refused, else it is missing,
and that is an error of the program which `verify` reports. Overlap, halo and fill are never counted, because samples
are counted and not windows. A scan counts for nothing: the windows at the full rate that it decides about cover its
samples, and say whether they were asked or skipped.

`account_windows` has what is planned, `account_boxes` what is planned of images, `account_items` what there is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import polars as pl

from s1batch.account_boxes import BOXES_AT_ONCE, PAGE_KEY, PlannedBoxes, is_box, page_key
from s1batch.account_items import STATUSES, count_items
from s1batch.account_windows import Streams, planned_addresses, planned_windows
from s1batch.outcome_ranks import BEST_FIRST, REFUSED, UNFINISHED, OutcomeRanks
from s1batch.plan_store import PlanStore

_ITEMS_AT_ONCE = 50_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The account of one stream in one unit, or a sum of such.

    Attributes:
        source: The stream; empty for data without one, and in sums.
        unit: What is counted.
        archive: All there is.
        planned: In at least one chunk that is asked.
        refused: Only in chunks that the plan refuses.
        unreadable: Cannot be read.
        duplicate: Held by another file too, and taken from there.
        not_selected: The job does not ask for it.
        missing: Selected but in no chunk: always 0, or the account is wrong.
        outcomes: `planned`, by the best outcome of the chunks that hold a sample, `unfinished` where there is none yet;
            empty when no rows were given.
    """

    source: str = ""
    unit: str
    archive: int
    planned: int
    refused: int
    unreadable: int
    duplicate: int
    not_selected: int
    missing: int
    outcomes: tuple[tuple[str, int], ...] = ()

    @property
    def balanced(self) -> bool:
        """Whether the parts add up to the archive."""
        parts = self.planned + self.refused + self.unreadable + self.duplicate + self.not_selected
        return parts == self.archive and self.missing == 0


@dataclass(frozen=True)
class Account:
    """The account of a whole archive.

    Attributes:
        tallies: One for each stream and unit, sorted.
    """

    tallies: tuple[Tally, ...]

    @cached_property
    def totals(self) -> tuple[Tally, ...]:
        """The sums, one for each unit."""
        return tuple(
            _sum(unit, [tally for tally in self.tallies if tally.unit == unit])
            for unit in sorted({tally.unit for tally in self.tallies})
        )

    @property
    def balanced(self) -> bool:
        """Whether every sample is accounted for."""
        return all(tally.balanced for tally in self.tallies)

    @property
    def missing(self) -> int:
        """How many selected samples are in no chunk."""
        return sum(tally.missing for tally in self.tallies)

    def lines(self) -> list[str]:
        """Return the totals as lines of text for people."""
        lines: list[str] = []
        for tally in self.totals:
            lines.append(f"archive        {tally.archive:>18,} {tally.unit}")
            for name in ("planned", "refused", "unreadable", "duplicate", "not_selected", "missing"):
                value = getattr(tally, name)
                if name != "missing" or value:
                    share = value / tally.archive if tally.archive else 0.0
                    lines.append(f"  {name.replace('_', ' '):<13}{value:>18,} {share:>8.2%}")
                if name == "planned":
                    lines += [f"    {outcome:<11}{count:>18,}" for outcome, count in tally.outcomes if count]
        return lines

    def plain(self) -> dict[str, Any]:
        """Return the account as plain data for JSON."""

        def one(tally: Tally) -> dict[str, Any]:
            return {**asdict(tally), "outcomes": dict(tally.outcomes), "balanced": tally.balanced}

        return {
            "balanced": self.balanced,
            "totals": [one(tally) for tally in self.totals],
            "sources": [one(tally) for tally in self.tallies],
        }


def take_account(plan: PlanStore, rows: pl.LazyFrame | OutcomeRanks | None = None) -> Account:
    """Account for every sample of the archive.

    Memory holds the unions of the planned windows, not the windows, the boxes of about a million chunks of images, and
    a bounded number of inventory items. The pages of larger archives of images are gone through in shares.

    Args:
        plan: The plan and its inventory.
        rows: Rows with `chunk_key` and `outcome`, or what was taken of them; when given, planned samples are told
            apart by outcome.

    Raises:
        ResultsError: The plan is damaged.
    """
    ranks = (UNFINISHED, REFUSED) if rows is None else BEST_FIRST
    outcomes = OutcomeRanks.of(rows) if isinstance(rows, pl.LazyFrame) else rows
    shares = max(-(-plan.chunks() // BOXES_AT_ONCE), 1)
    boxes = PlannedBoxes(len(ranks), 0, shares)
    streams = Streams(planned_windows(plan, outcomes, ranks, boxes), len(ranks))
    if not boxes.seen:
        shares = 1
    areas = boxes.areas()
    parts = [count_items(items, streams, areas) for items in _item_batches(plan, 0, shares)]
    for share in range(1, shares):
        boxes = PlannedBoxes(len(ranks), share, shares)
        for unfolded in planned_addresses(plan, outcomes, ranks):
            boxes.add(unfolded.filter(is_box(unfolded)))
        areas = boxes.areas()
        parts += [count_items(items, streams, areas) for items in _item_batches(plan, share, shares)]
    if not parts:
        return Account(tallies=())
    names = [f"rank{number}" for number in range(len(ranks))]
    summed = (
        pl.concat(parts)
        .group_by("source", "unit")
        .agg(pl.sum(*STATUSES, "archive", *names))
        .sort("source", "unit")
        .iter_rows(named=True)
    )
    return Account(tallies=tuple(_tally(line, ranks, with_outcomes=rows is not None) for line in summed))


def _tally(line: dict[str, Any], ranks: tuple[str, ...], *, with_outcomes: bool) -> Tally:
    counts = [int(line[f"rank{number}"]) for number in range(len(ranks))]
    return Tally(
        source=line["source"],
        unit=line["unit"],
        archive=line["archive"],
        planned=sum(counts[:-1]),
        refused=counts[-1],
        unreadable=line["unreadable"],
        duplicate=line["duplicate"],
        not_selected=line["not_selected"],
        missing=line["selected"] - sum(counts),
        outcomes=tuple(zip(ranks[:-1], counts[:-1], strict=True)) if with_outcomes else (),
    )


def _sum(unit: str, tallies: list[Tally]) -> Tally:
    def total(name: str) -> int:
        return sum(getattr(tally, name) for tally in tallies)

    outcomes: dict[str, int] = {}
    for tally in tallies:
        for outcome, count in tally.outcomes:
            outcomes[outcome] = outcomes.get(outcome, 0) + count
    return Tally(
        unit=unit,
        archive=total("archive"),
        planned=total("planned"),
        refused=total("refused"),
        unreadable=total("unreadable"),
        duplicate=total("duplicate"),
        not_selected=total("not_selected"),
        missing=total("missing"),
        outcomes=tuple(outcomes.items()),
    )


def _item_batches(plan: PlanStore, share: int, shares: int) -> Iterator[pl.DataFrame]:
    """Yield the items of a share: pages by their hash, and everything else with the first one."""
    inventory = plan.inventory().drop("sha256", "reason", "size", "mtime_ns")
    total = inventory.select(pl.len()).collect().item()
    for offset in range(0, total, _ITEMS_AT_ONCE):
        items = inventory.slice(offset, _ITEMS_AT_ONCE).collect()
        if shares > 1:
            mine = pl.when(pl.col("unit") == "pixels").then(pl.col(PAGE_KEY) % shares == share).otherwise(share == 0)
            items = items.with_columns(page_key()).filter(mine).drop(PAGE_KEY)
        yield items
