"""What earlier runs received: bounded, the most useful last, and without what is asked again."""

from __future__ import annotations

from pathlib import Path

from s1batch.known_responses import known_responses
from s1batch.records import Outcome
from s1batch.results.store import ResultsStore
from tests.plans import SCHEMA, minutes, row

RETRIED: tuple[Outcome, ...] = ("length",)


def fill(store: ResultsStore) -> None:
    """Write parts 0 and 1 whole and half of part 2; rows 0, 4 and 8 failed, rows 1, 5 and 9 are cut by the limit."""
    for part in range(3):
        with store.open_part(part) as writer:
            entries = [each for each in minutes(12) if each.part == part]
            for number, entry in enumerate(entries[: 2 if part == 2 else 4]):
                text = f"{part}{number}" * 10
                if number == 0:
                    made = row(entry, outcome="failed", reason="connection", fingerprint=f"f{part}{number}", answer={})
                elif number == 1:
                    made = row(entry, outcome="length", fingerprint=f"f{part}{number}", text=text)
                else:
                    made = row(entry, fingerprint=f"f{part}{number}", text=text)
                writer.append(made)
            if part < 2:
                writer.finish([each.chunk.key for each in entries])


def test_unfinished_parts_come_last_and_before_them_the_latest_parts(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        fill(store)
        found = known_responses(store, most=100, most_chars=10_000)
        assert [each.fingerprint for each in found] == ["f03", "f02", "f01", "f13", "f12", "f11", "f21"]
        assert found[-1].text == "21" * 10
        assert all(each.attempts == 0 and each.error is None for each in found)


def test_what_is_asked_again_serves_nobody(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        fill(store)
        found = known_responses(store, most=100, most_chars=10_000, without=RETRIED)
        assert [each.fingerprint for each in found] == ["f03", "f02", "f13", "f12"]


def test_both_bounds_hold_and_the_most_useful_stay(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        fill(store)
        assert [each.fingerprint for each in known_responses(store, most=2, most_chars=10_000)] == ["f11", "f21"]
        assert [each.fingerprint for each in known_responses(store, most=9, most_chars=45)] == ["f11", "f21"]
        assert known_responses(store, most=0, most_chars=45) == []


def test_an_empty_folder_knows_nothing(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        assert known_responses(store, most=9, most_chars=9) == []
