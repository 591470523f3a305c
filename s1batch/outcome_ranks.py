"""What became of each chunk, by its key: small enough for every row of a large archive."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

REFUSED = "refused by the plan"
UNFINISHED = "unfinished"

# A sample in several chunks counts for the best of them.
BEST_FIRST = ("ok", "unparsed", "length", "skipped", "failed", "refused", "unreadable", UNFINISHED, REFUSED)


class OutcomeRanks:
    """The outcomes of rows as their places in `BEST_FIRST`, found by chunk key; nine bytes for each row.

    Keys are told apart by 64 bits of hash. Of several rows with one key the first counts.
    """

    def __init__(self) -> None:
        self._parts: list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        self._sorted: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None = None

    @classmethod
    def of(cls, rows: pl.LazyFrame) -> OutcomeRanks:
        """Take the columns `chunk_key` and `outcome`."""
        ranks = cls()
        taken = rows.select(pl.col("chunk_key").hash(), _rank("outcome")).collect()
        ranks._parts.append((taken["chunk_key"].to_numpy(), taken["outcome"].to_numpy()))
        return ranks

    def add(self, rows: pl.DataFrame) -> None:
        """Take further rows, behind those that are there."""
        taken = rows.select(pl.col("chunk_key").hash(), _rank("outcome"))
        self._parts.append((taken["chunk_key"].to_numpy(), taken["outcome"].to_numpy()))
        self._sorted = None

    def find(self, keys: pl.Series) -> pl.Series:
        """Return the rank of each key; that of `UNFINISHED` where there is no row."""
        hashes, ranks = self._by_hash()
        wanted = keys.hash().to_numpy()
        place = np.searchsorted(hashes, wanted)
        found = hashes[np.minimum(place, len(hashes) - 1)] == wanted if len(hashes) else np.zeros(len(wanted), bool)
        result = np.full(len(wanted), BEST_FIRST.index(UNFINISHED), np.int8)
        result[found] = ranks[place[found]]
        return pl.Series("rank", result)

    def _by_hash(self) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        if self._sorted is None:
            hashes = np.concatenate([np.zeros(0, np.uint64), *(part[0] for part in self._parts)])
            ranks = np.concatenate([np.zeros(0, np.int8), *(part[1] for part in self._parts)])
            order = np.argsort(hashes, kind="stable")
            self._sorted = (hashes[order], ranks[order])
            self._parts = [self._sorted]
        return self._sorted


def _rank(name: str) -> pl.Expr:
    # An outcome that does not exist answers nothing; `verify` names it.
    unfinished = BEST_FIRST.index(UNFINISHED)
    numbers = list(range(len(BEST_FIRST)))
    return pl.col(name).replace_strict(list(BEST_FIRST), numbers, default=unfinished, return_dtype=pl.Int8)
