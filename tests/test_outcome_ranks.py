"""Outcomes by chunk key, in nine bytes a row."""

from __future__ import annotations

import polars as pl

from s1batch.outcome_ranks import BEST_FIRST, UNFINISHED, OutcomeRanks


def names(ranks: OutcomeRanks, *keys: str) -> list[str]:
    return [BEST_FIRST[rank] for rank in ranks.find(pl.Series(keys, dtype=pl.String))]


def test_each_key_has_the_outcome_of_its_first_row() -> None:
    ranks = OutcomeRanks()
    ranks.add(pl.DataFrame({"chunk_key": ["a", "b"], "outcome": ["ok", "failed"]}))
    assert names(ranks, "b", "a") == ["failed", "ok"]
    ranks.add(pl.DataFrame({"chunk_key": ["b", "c"], "outcome": ["ok", "length"]}))
    assert names(ranks, "a", "b", "c") == ["ok", "failed", "length"]


def test_without_a_row_or_with_an_unknown_outcome_a_chunk_is_unfinished() -> None:
    assert names(OutcomeRanks(), "a") == [UNFINISHED]
    rows = pl.LazyFrame({"chunk_key": ["a"], "outcome": ["splendid"]})
    assert names(OutcomeRanks.of(rows), "a", "b") == [UNFINISHED, UNFINISHED]
    assert names(OutcomeRanks.of(rows)) == []
