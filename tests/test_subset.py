"""What a run is about, and how its rows are counted: the same by either way."""

from __future__ import annotations

from collections import Counter

import pytest

from s1batch import subset
from s1batch.plan_store import PlanStore
from s1batch.records import Refusal
from s1batch.results.store import ResultsStore
from s1batch.subset import Shard, Subset
from tests.plans import MINUTE_NS, SCHEMA, minutes, row, window, write_plan

BAD = Refusal(outcome="refused", reason="gap_too_large", detail="")


@pytest.fixture
def results(tmp_path):
    """Parts 0 and 1 finished, part 2 half done, part 3 untouched; some rows are not ok, some know no tokens."""
    entries = minutes(16)
    write_plan(tmp_path, entries)
    with ResultsStore(tmp_path, SCHEMA) as store:
        for part in range(3):
            mine = [entry for entry in entries if entry.part == part]
            with store.open_part(part) as writer:
                for number, entry in enumerate(mine[: 2 if part == 2 else 4]):
                    failed = {"outcome": "failed", "reason": "bad_request", "prompt_tokens": None}
                    writer.append(row(entry, **failed if number == 1 else {"prompt_tokens": 7}))
                if part < 2:
                    writer.finish([entry.chunk.key for entry in mine])
        yield PlanStore(tmp_path), store


@pytest.mark.parametrize("most", [0, 256], ids=["many", "few"])
@pytest.mark.parametrize("limit", [None, 7])
def test_rows_are_counted_the_same_however_many_parts_there_are(results, monkeypatch, most, limit):
    plan, store = results
    monkeypatch.setattr(subset, "FEW_PARTS", most)
    outcomes, reasons, tokens = Subset.of(plan, limit=limit).tally(store)
    # Of the rows within the limit, every second one of a part failed.
    ok, failed = (7, 3) if limit is None else (5, 2)
    assert outcomes == {"ok": ok, "failed": failed}
    assert reasons == {("failed", "bad_request"): failed}
    assert tokens == {"prompt_tokens": 7 * ok, "cached_tokens": 0}
    assert isinstance(tokens, Counter)


@pytest.mark.parametrize("most", [0, 256], ids=["many", "few"])
def test_where_nothing_is_answered_nothing_is_counted(tmp_path, monkeypatch, most):
    write_plan(tmp_path, minutes(4))
    monkeypatch.setattr(subset, "FEW_PARTS", most)
    with ResultsStore(tmp_path, SCHEMA) as store:
        outcomes, reasons, tokens = Subset.of(PlanStore(tmp_path)).tally(store)
    assert (outcomes, reasons, tokens) == ({}, {}, {"prompt_tokens": 0, "cached_tokens": 0})


def test_a_shard_has_its_own_parts_with_their_chunks(results):
    plan, _ = results
    assert dict(Subset.of(plan).parts) == {0: 4, 1: 4, 2: 4, 3: 4}
    assert dict(Subset.of(plan, Shard(1, 2)).parts) == {1: 4, 3: 4}
    assert dict(Subset.of(plan, Shard(1, 2), limit=5).parts) == {1: 4, 3: 1}


def test_a_plan_knows_how_much_of_each_part_is_asked(tmp_path):
    entries = [
        window(i * MINUTE_NS, (i + 1) * MINUTE_NS, part=i // 3, refusal=BAD if i in (0, 4, 6, 7, 8) else None)
        for i in range(12)
    ]
    write_plan(tmp_path, entries)
    assert PlanStore(tmp_path).asked().tolist() == [2, 2, 0, 3]
