"""`verify` says yes to sound results, and finds every way in which they can be wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from s1batch.columns import Column
from s1batch.errors import ResultsError
from s1batch.plan_store import PlanStore
from s1batch.records import InventoryItem, PlanEntry, Refusal, Row
from s1batch.results.journal import write_journal
from s1batch.results.layout import Layout
from s1batch.results.merged import write_merged
from s1batch.results.rows_file import read_table, write_rows, write_table
from s1batch.results.schema import RowSchema
from s1batch.results.store import ResultsStore
from s1batch.results.verify import Verdict, verify
from tests.plans import LINEAGE, MINUTE_NS, SCHEMA, minutes, row, stretch, window, write_plan

REFUSAL = Refusal(outcome="refused", reason="gap_too_large", detail="too much")
PLANNED = [*minutes(7), window(7 * MINUTE_NS, 8 * MINUTE_NS, refusal=REFUSAL, part=1)]


def rows_of(part: int) -> list[Row]:
    return [
        SCHEMA.fit(row(entry, outcome="refused", reason="gap_too_large", answer={}) if entry.refusal else row(entry))
        for entry in PLANNED
        if entry.part == part
    ]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_plan(tmp_path, [*PLANNED, stretch(0, 48_000)])
    with ResultsStore(tmp_path, SCHEMA) as store:
        for number in range(2):
            with store.open_part(number) as part:
                for each in rows_of(number):
                    part.append(each)
                part.finish([each.chunk_key for each in rows_of(number)])
    return tmp_path


def codes(verdict: Verdict) -> list[str]:
    return [finding.code for finding in verdict.findings]


def rewrite(path: Path, part: int, rows: Sequence[Row]) -> None:
    write_rows(Layout(path).part_rows(part), SCHEMA, rows)


def test_sound_results_are_complete(results: Path) -> None:
    verdict = verify(results)
    assert verdict.findings == ()
    assert verdict.ok
    assert verdict.complete
    assert (verdict.parts, verdict.unfinished, verdict.chunks, verdict.rows) == (2, 0, 8, 8)
    assert verdict.account is not None
    (tally,) = verdict.account.tallies
    assert (tally.planned, tally.refused) == (42_000, 6_000)
    assert dict(tally.outcomes)["ok"] == 42_000


def test_an_unfinished_run_is_sound_but_not_complete(results: Path) -> None:
    Layout(results).part_rows(1).unlink()
    verdict = verify(results)
    assert (verdict.ok, verdict.complete, verdict.unfinished) == (True, False, 1)


Damage = Callable[[Path], None]


def _drop(path: Path) -> None:
    rewrite(path, 0, rows_of(0)[1:])


def _double(path: Path) -> None:
    rewrite(path, 0, [*rows_of(0), rows_of(0)[0]])


def _swap_parts(path: Path) -> None:
    rewrite(path, 0, rows_of(1))


def _foreign_part(path: Path) -> None:
    rewrite(path, 5, rows_of(1))


def _unknown(column: str) -> Damage:
    def damage(path: Path) -> None:
        table = SCHEMA.to_table(rows_of(0))
        index = table.column_names.index(column)
        values = pa.array(["fantasy"] * table.num_rows)
        write_table(Layout(path).part_rows(0), table.set_column(index, SCHEMA.arrow.field(index), values))

    return damage


def _other_refusal(path: Path) -> None:
    entry = PLANNED[7]
    rewrite(path, 1, [*rows_of(1)[:3], SCHEMA.fit(row(entry, outcome="ok"))])


def _other_columns(path: Path) -> None:
    schema = RowSchema(LINEAGE, (Column(name="other", type=pa.int8(), doc=""),))
    write_rows(Layout(path).part_rows(0), schema, rows_of(0))


def _flip(path: Path) -> None:
    file = Layout(path).part_rows(0)
    data = bytearray(file.read_bytes())
    data[60] ^= 1
    file.write_bytes(data)


def _merged(path: Path) -> None:
    write_merged(path, pl.DataFrame({"group_id": ["g"], "source_chunk_keys": [[PLANNED[0].chunk.key, "nobody"]]}))


def _damaged_merged(path: Path) -> None:
    Layout(path).merged.mkdir()
    Layout(path).merged_rows().write_bytes(b"PAR1 no")


def _no_plan(path: Path) -> None:
    Layout(path).plan().unlink()


def _no_schema(path: Path) -> None:
    Layout(path).schema.unlink()


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_drop, ["row_missing"]),
        (_double, ["row_doubled"]),
        (_swap_parts, ["row_missing", "row_not_in_plan", "part_wrong"]),
        (_foreign_part, ["row_not_in_plan", "part_wrong"]),
        (_unknown("outcome"), ["outcome_unknown"]),
        (_unknown("reason"), ["reason_unknown"]),
        (_other_refusal, ["refusal_differs"]),
        (_other_columns, ["schema_differs"]),
        (_flip, ["file_damaged"]),
        (_merged, ["merged_unknown_chunk"]),
        (_damaged_merged, ["file_damaged"]),
        (_no_plan, ["no_plan"]),
        (_no_schema, ["no_results"]),
    ],
)
def test_every_damage_is_found_by_its_name(results: Path, damage: Damage, expected: list[str]) -> None:
    damage(results)
    verdict = verify(results)
    assert codes(verdict) == expected
    assert not verdict.ok
    assert all(finding.text and finding.count > 0 for finding in verdict.findings)


def test_no_changed_byte_of_the_data_goes_unseen(results: Path) -> None:
    """Up to the footer, which no checksum covers, a changed byte is an error or changes no value."""
    file = Layout(results).part_rows(0)
    sound, table = file.read_bytes(), read_table(file)
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    seen = 0
    for place in range(4, footer, 5):
        file.write_bytes(sound[:place] + bytes([sound[place] ^ 0x10]) + sound[place + 1 :])
        try:
            assert read_table(file).equals(table)
        except ResultsError:
            seen += 1
    assert seen > footer / 20


def test_a_journal_of_a_finished_part_is_only_a_warning(results: Path) -> None:
    write_journal(Layout(results).journal(0, "w"), [SCHEMA.row_to_json(rows_of(0)[0])])
    verdict = verify(results)
    assert codes(verdict) == ["journal_left"]
    assert verdict.complete


def test_damage_in_a_journal_is_a_warning(results: Path) -> None:
    Layout(results).part_rows(1).unlink()
    path = Layout(results).journal(1, "w")
    write_journal(path, [SCHEMA.row_to_json(each) for each in rows_of(1)])
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    verdict = verify(results)
    assert codes(verdict) == ["journal_damaged"]
    assert verdict.ok


def test_dropped_samples_are_found(tmp_path: Path) -> None:
    """The plan leaves out the last minute of the archive: every row is there, and still it is wrong."""
    planned: list[PlanEntry] = minutes(4)
    write_plan(tmp_path, [*planned, stretch(0, 30_000)])
    with ResultsStore(tmp_path, SCHEMA) as store, store.open_part(0) as part:
        for entry in planned:
            part.append(row(entry))
        part.finish([entry.chunk.key for entry in planned])
    (finding,) = verify(tmp_path).findings
    assert (finding.code, finding.count) == ("samples_missing", 6_000)


def test_samples_selected_from_two_files_are_named(tmp_path: Path) -> None:
    """Stretches that touch, or are offset by less than a sample, are not; another rate is another stream."""
    half = 30 * 10**9
    items = [stretch(0, 6_000), stretch(MINUTE_NS - 4_000_000, 6_000), stretch(MINUTE_NS + half, 3_000, rate_hz=50.0)]
    write_plan(tmp_path, [*minutes(4), window(MINUTE_NS, 3 * MINUTE_NS, rate_hz=50.0), *items])
    with ResultsStore(tmp_path, SCHEMA):
        pass
    assert codes(verify(tmp_path)) == []
    with PlanStore(tmp_path).extend() as writer:
        for item in [*items, stretch(MINUTE_NS + half // 3, 6_000)]:
            writer.add(item)
    verdict = verify(tmp_path)
    assert [(finding.code, finding.count) for finding in verdict.findings] == [("samples_overlap", 5_000)]
    assert verdict.ok


def test_a_chunk_planned_twice_is_found(tmp_path: Path) -> None:
    entry = minutes(1)[0]
    write_plan(tmp_path, [entry, entry])
    with ResultsStore(tmp_path, SCHEMA):
        pass
    assert codes(verify(tmp_path)) == ["plan_key_doubled"]


def test_sources_are_asked_about_once_each(results: Path) -> None:
    asked: list[InventoryItem] = []

    def check(item: InventoryItem) -> str | None:
        asked.append(item)
        return "gone"

    verdict = verify(results, sources=check)
    assert [item.path for item in asked] == ["BW.RJOB..EHZ.mseed"]
    assert codes(verdict) == ["source_changed"]
    assert verify(results, sources=lambda item: None).ok
