"""Which part of the plan a run is about: all of it, a shard, its first chunks, or a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from s1batch.errors import UsageError
from s1batch.plan_store import PlanStore
from s1batch.results.rows_file import naming_damage
from s1batch.results.store import ResultsStore
from s1batch.scheduler import PartTask

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

FEW_PARTS = 256
"""Rows of so many parts are counted without polars: importing it takes as long as that, and 25 MB."""

_TOKENS = ("prompt_tokens", "cached_tokens")
_Counted = tuple[str, str | None, int, *tuple[int, ...]]
"""Outcome, reason, and of their rows the number and the tokens."""


@dataclass(frozen=True, slots=True)
class Shard:
    """The parts with `part % count == index`."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Parse `i/N`.

        Raises:
            UsageError: It is not a shard.
        """
        index, slash, count = text.partition("/")
        try:
            shard = cls(int(index), int(count))
        except ValueError:
            shard = cls(-1, 0)
        if not slash or not 0 <= shard.index < shard.count:
            raise UsageError(f"--shard {text}: write it as i/N with 0 <= i < N, for example 0/8")
        return shard


@dataclass(frozen=True, slots=True, kw_only=True)
class Subset:
    """Parts of a plan, some of them perhaps with some of their chunks only.

    Attributes:
        parts: Chunks of each part that belong to the subset, by its number, in order.
        limited: The keys of those chunks, of parts that do not belong to it as a whole.
    """

    parts: Mapping[int, int]
    limited: Mapping[int, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: PlanStore, shard: Shard | None = None, limit: int | None = None) -> Subset:
        """Select from a plan.

        Args:
            plan: The plan.
            shard: Only its parts.
            limit: Only the first chunks of what is left.
        """
        if limit is not None and limit < 1:
            raise UsageError(f"--limit {limit}: give a number of chunks, 1 or more")
        sizes = {
            part: count
            for part, count in enumerate(plan.sizes().tolist())
            if count and (shard is None or part % shard.count == shard.index)
        }
        if limit is None:
            return cls(parts=sizes)
        kept: dict[int, int] = {}
        for part, count in sizes.items():
            if limit < count:
                keys = frozenset(plan.keys(part)[:limit])
                return cls(parts={**kept, part: limit}, limited={part: keys}) if limit else cls(parts=kept)
            kept[part] = count
            limit -= count
        return cls(parts=kept)

    @classmethod
    def sample(cls, plan: PlanStore, shard: Shard | None, size: int) -> Subset:
        """Select chunks that are asked, spread evenly over a plan; those that depend on a sampled scan come with it.

        The same plan gives the same sample.

        Args:
            plan: The plan.
            shard: Only its parts.
            size: How many, not counting those that depend on a scan.
        """
        total = sum(len(lines) for lines in _askable(plan, shard))
        size = min(size, total)
        places = iter([(2 * number + 1) * total // (2 * size) for number in range(size)])
        wanted, seen = next(places, None), 0
        chosen: dict[int, set[str]] = {}
        for lines in _askable(plan, shard):
            while wanted is not None and wanted < seen + len(lines):
                (line,) = lines.slice(wanted - seen, 1).to_pylist()
                chosen.setdefault(line["part"], set()).add(line["chunk_key"])
                wanted = next(places, None)
            seen += len(lines)
        for part, keys_of_part in chosen.items():
            keys_of_part.update(key for key, scan in plan.conditions(part).items() if scan in keys_of_part)
        limited = {part: frozenset(chosen[part]) for part in sorted(chosen)}
        return cls(parts={part: len(keys) for part, keys in limited.items()}, limited=limited)

    @property
    def chunks(self) -> int:
        """Chunks of the subset."""
        return sum(self.parts.values())

    def open_tasks(self, store: ResultsStore) -> list[PartTask]:
        """Return the parts that are not finished, in order."""
        finished = store.finished()
        _, journals = store.answered(self.limited.keys() - finished)
        done = {part for part, keys in self.limited.items() if keys <= journals.get(part, frozenset())}
        return [PartTask(part, self.limited.get(part)) for part in self.parts if part not in finished | done]

    def answered(self, store: ResultsStore) -> int:
        """Count the chunks of the subset that have a row; opens no file of rows."""
        finished, unfinished = store.answered(self.parts.keys())
        whole = sum(self.parts[part] for part in finished)
        return whole + sum(len(keys & self.limited.get(part, keys)) for part, keys in unfinished.items())

    def answered_keys(self, store: ResultsStore) -> frozenset[str]:
        """Return those chunks of the limited parts that have a row; opens no file of rows."""
        finished, unfinished = store.answered(self.limited.keys())
        found = [
            keys if part in finished else keys & unfinished.get(part, frozenset())
            for part, keys in self.limited.items()
        ]
        return frozenset().union(*found)

    def tally(self, store: ResultsStore) -> tuple[Counter[str], Counter[tuple[str, str]], Counter[str]]:
        """Count the rows of the subset by outcome, and those that are not ok by (outcome, reason); and their tokens.

        Tokens are those of the columns `prompt_tokens` and `cached_tokens`.
        """
        outcomes: Counter[str] = Counter()
        reasons: Counter[tuple[str, str]] = Counter()
        tokens: Counter[str] = Counter(dict.fromkeys(_TOKENS, 0))
        counted = self._few_counted(store) if len(self.parts) <= FEW_PARTS else self._many_counted(store)
        for outcome, reason, count, *spent in counted:
            outcomes[outcome] += count
            if outcome != "ok":
                reasons[outcome, reason or ""] += count
            tokens.update(dict(zip(_TOKENS, spent, strict=True)))
        return outcomes, reasons, tokens

    def _few_counted(self, store: ResultsStore) -> Iterator[_Counted]:
        for part, table in store.tables(self.parts.keys(), ["chunk_key", "outcome", "reason", *_TOKENS]):
            only = self.limited.get(part)
            for key, outcome, reason, *spent in zip(*(column.to_pylist() for column in table.columns), strict=True):
                if only is None or key in only:
                    yield outcome, reason, 1, *(tokens or 0 for tokens in spent)

    def _many_counted(self, store: ResultsStore) -> Iterator[_Counted]:
        import polars as pl

        with naming_damage(store.layout.root):
            counted = (pl.len(), *(pl.col(name).sum() for name in _TOKENS))
            yield from self.rows(store).group_by("outcome", "reason").agg(*counted).collect().iter_rows()

    def rows(self, store: ResultsStore) -> pl.LazyFrame:
        """Return the rows of the subset."""
        import polars as pl

        rows = store.scan_all(self.parts.keys())
        if not self.limited:
            return rows
        keys = [key for keys in self.limited.values() for key in keys]
        return rows.filter(~pl.col("part").is_in(list(self.limited)) | pl.col("chunk_key").is_in(keys))


def _askable(plan: PlanStore, shard: Shard | None) -> Iterator[pa.Table]:
    """Yield `chunk_key` and `part` of the chunks that are asked and depend on no scan, in the plan's order."""
    import pyarrow.compute as pc

    for table in plan.tables(["chunk_key", "part", "admission", "condition"]):
        asked = pc.and_(pc.is_null(table["admission"]), pc.is_null(table["condition"]))
        if shard is not None:
            asked = pc.and_(asked, table["part"].to_numpy() % shard.count == shard.index)
        yield table.select(["chunk_key", "part"]).filter(asked)
