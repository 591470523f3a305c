"""Few large files hold what many small ones held, and everything goes on as before."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest

import s1batch.results.switching as switching
from s1batch.errors import LockedError, ResultsError
from s1batch.plan_store import PlanStore
from s1batch.results.compaction import arrangement, compact
from s1batch.results.layout import Layout
from s1batch.results.part_files import RowsFile
from s1batch.results.rows_file import write_rows
from s1batch.results.status import status
from s1batch.results.store import ResultsStore
from s1batch.results.verify import verify
from tests.plans import SCHEMA, minutes, row
from tests.results.finished import rows_of, write_results

EXCHANGE = pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two renames"])


def names(path: Path) -> list[str]:
    return sorted(file.name for file in (path / "rows").iterdir())


@EXCHANGE
def test_rows_and_their_order_are_the_same_for_every_reader(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(switching, "exchange", lambda one, other: False)
    rows = write_results(tmp_path)
    plain = pl.read_parquet(tmp_path / "rows" / "*.parquet")
    done = compact(tmp_path)
    assert (done.before, done.after, done.parts, done.rows, done.kept) == (10, 1, 10, 40, None)
    assert len(names(tmp_path)) == 1
    assert sorted(each.name for each in tmp_path.iterdir() if each.is_dir()) == ["journal", "leases", "rows"]
    assert pl.read_parquet(tmp_path / "rows" / "*.parquet").equals(plain)
    assert rows_of(tmp_path) == rows
    with ResultsStore(tmp_path, None) as store:
        assert store.finished() == set(range(10))
        assert store.scan().collect().equals(plain)
        assert store.scan({2, 3, 7}).collect().equals(plain.filter(pl.col("part").is_in([2, 3, 7])))
        assert store.scan_all({4}).collect().equals(plain.filter(pl.col("part") == 4))
        assert [each.chunk_key for each in store.latest_rows()][:4] == [each.chunk_key for each in rows[-4:]]
    assert verify(tmp_path).complete
    assert verify(tmp_path).findings == ()


def test_status_says_the_same_as_before(tmp_path):
    """The rate too: a large file knows when the rows of each part were written."""
    write_results(tmp_path, 40, parts=range(8))
    begin = os.stat(tmp_path / "plan.parquet").st_mtime_ns
    for part in range(8):
        when = begin + (part + 1) * 10**9
        os.utime(Layout(tmp_path).part_rows(part), ns=(when, when))
    before = status(tmp_path)
    assert before.rows_per_s == pytest.approx(4)
    compact(tmp_path)
    assert status(tmp_path) == before


def test_what_is_kept_is_what_was_there(tmp_path):
    write_results(tmp_path)
    before = {file.name: file.read_bytes() for file in (tmp_path / "rows").iterdir()}
    done = compact(tmp_path, keep=True)
    kept = tmp_path / "originals" / "0001"
    assert done.kept == kept
    assert {file.name: file.read_bytes() for file in kept.iterdir()} == before
    assert verify(tmp_path).complete


def test_compacting_again_does_nothing(tmp_path):
    write_results(tmp_path)
    compact(tmp_path)
    (before,) = (tmp_path / "rows").iterdir()
    inode = before.stat().st_ino
    again = compact(tmp_path)
    assert (again.before, again.after) == (1, 1)
    assert before.stat().st_ino == inode


def test_parts_that_come_later_are_joined_later(tmp_path):
    entries = minutes(40, per_part=4)
    write_results(tmp_path, parts=range(3))
    compact(tmp_path)
    write_results(tmp_path, entries=entries, parts=[3, 4, 6])
    assert compact(tmp_path, rows_per_file=24).after == 3  # 0-2 have half of the rows; 3-4; 6
    write_results(tmp_path, entries=entries)
    done = compact(tmp_path)
    assert (done.before, done.after) == (7, 1)
    assert verify(tmp_path).complete
    assert rows_of(tmp_path) == write_results(tmp_path / "other")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([1, 1, 1, 1, 1], [(0, 3), (4, 4)]),
        ([5, 1, 1], [(0, 0), (1, 2)]),
        ([1, 1, 3, 1, 1], [(0, 1), (2, 2), (3, 4)]),
        ([9], [(0, 0)]),
    ],
)
def test_neighbours_share_a_file_as_long_as_there_is_room(tmp_path, sizes, expected):
    import numpy as np

    path = tmp_path / "x"
    path.touch()
    files = [RowsFile(part, part, path) for part in range(len(sizes))]
    assert arrangement(files, np.array(sizes), 4) == expected


def test_files_of_parts_with_a_gap_between_them_stay_apart(tmp_path):
    """A name says which parts a file holds, so none may be left out."""
    write_results(tmp_path, parts=[0, 1, 3, 4, 5, 8])
    compact(tmp_path)
    assert [name.partition(".")[0] for name in names(tmp_path)] == [
        "part-000000-000001",
        "part-000003-000005",
        "part-000008",
    ]
    verdict = verify(tmp_path)
    assert verdict.ok
    assert verdict.unfinished == 4


def test_large_files_have_several_row_groups_that_end_with_parts(tmp_path, monkeypatch):
    monkeypatch.setattr("s1batch.results.large_file.GROUP_ROWS", 10)
    rows = write_results(tmp_path)
    compact(tmp_path)
    (file,) = (tmp_path / "rows").iterdir()
    metadata = pq.ParquetFile(file).metadata
    assert [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)] == [12, 12, 12, 4]
    assert rows_of(tmp_path) == rows
    assert verify(tmp_path).complete


def test_a_run_at_work_is_not_disturbed(tmp_path):
    write_results(tmp_path, parts=range(9))
    with (
        ResultsStore(tmp_path, SCHEMA) as store,
        store.lease("run-1-of-2"),
        pytest.raises(LockedError, match="run-1-of"),
    ):
        compact(tmp_path)
    with ResultsStore(tmp_path, SCHEMA) as store, store.open_part(9), pytest.raises(LockedError, match="part-000009"):
        compact(tmp_path)
    with ResultsStore(tmp_path, SCHEMA) as store, store.gate(), pytest.raises(LockedError, match="gate is held"):
        compact(tmp_path)
    assert len(names(tmp_path)) == 9


def test_damaged_rows_are_not_compacted(tmp_path):
    write_results(tmp_path)
    path = Layout(tmp_path).part_rows(4)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    before = names(tmp_path)
    with pytest.raises(ResultsError, match="part-000004"):
        compact(tmp_path)
    assert names(tmp_path) == before
    assert not (tmp_path / "rows.new").exists()


def test_rows_that_are_not_those_of_the_plan_are_not_compacted(tmp_path):
    rows = write_results(tmp_path)
    write_rows(Layout(tmp_path).part_rows(4), SCHEMA, [*rows[16:19], rows[18]])
    with pytest.raises(ResultsError, match=r"part 4 are not its chunks in the plan.*nothing was changed"):
        compact(tmp_path)
    assert len(names(tmp_path)) == 10


def test_a_part_beside_the_large_file_that_holds_it_is_found(tmp_path):
    """Somebody copied an original back: plain readers would see its rows twice."""
    rows = write_results(tmp_path)
    compact(tmp_path)
    write_rows(Layout(tmp_path).part_rows(3), SCHEMA, rows[12:16])
    assert {finding.code for finding in verify(tmp_path).findings} == {"part_doubled"}
    with pytest.raises(ResultsError, match="part 3 lies in two files"):
        compact(tmp_path)


def test_damage_in_a_large_file_is_found_and_named(tmp_path, monkeypatch):
    monkeypatch.setattr("s1batch.results.large_file.GROUP_ROWS", 10)
    write_results(tmp_path)
    compact(tmp_path)
    (path,) = (tmp_path / "rows").iterdir()
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(data)
    (finding,) = verify(tmp_path).findings
    assert finding.code == "file_damaged"
    assert path.name in finding.text
    assert verify(tmp_path).rows == 28


def test_a_large_file_that_somebody_changed_is_found(tmp_path):
    """Its pages are sound, but one answer is another one."""
    write_results(tmp_path)
    compact(tmp_path)
    (path,) = (tmp_path / "rows").iterdir()
    table = pq.read_table(path)
    texts = table.column("text").to_pylist()
    texts[5] = "changed"
    place = table.schema.get_field_index("text")
    about = {key: value for key, value in pq.ParquetFile(path).metadata.metadata.items() if key != b"ARROW:schema"}
    changed = table.set_column(place, table.schema.field(place), [texts])
    pq.write_table(changed.replace_schema_metadata(about), path)
    (finding,) = verify(tmp_path).findings
    assert (finding.code, finding.count) == ("content_differs", 4)


def test_a_finished_part_in_a_large_file_opens_as_finished(tmp_path):
    rows = write_results(tmp_path)
    with ResultsStore(tmp_path, SCHEMA) as early:
        with early.open_part(5) as part:
            assert part.finished
        compact(tmp_path)
        # A store that was opened before the compaction sees it too, and asks nothing again.
        with early.open_part(5) as part:
            assert part.finished
            assert list(part.rows.values()) == rows[20:24]


@EXCHANGE
def test_rows_are_asked_again_out_of_large_files(tmp_path, monkeypatch, exchanges):
    if not exchanges:
        monkeypatch.setattr(switching, "exchange", lambda one, other: False)
    rows = write_results(tmp_path)
    compact(tmp_path)
    with ResultsStore(tmp_path, SCHEMA) as store:
        assert store.large_parts_with(["failed"]) == [0, 2, 4, 6, 7, 9]
        with store.gate() as gate:
            store.take_out(store.large_parts_with(["failed"]), gate)
        assert rows_of(tmp_path) == rows
        assert sum(store.supersede(part, ["failed"]) for part in range(10)) == 6
        assert store.finished() == {1, 3, 5, 8}
    kept = pl.read_parquet(tmp_path / "rows" / "*.parquet")
    assert kept["chunk_key"].to_list() == [each.chunk_key for each in rows if each.part in (1, 3, 5, 8)]
    again = write_results(tmp_path, entries=minutes(40, per_part=4), make=lambda number, entry: row(entry, text="now"))
    assert verify(tmp_path).complete
    assert compact(tmp_path).after == 1
    texts = {each.chunk_key: each.text for each in rows_of(tmp_path)}
    for old, new in zip(rows, again, strict=True):
        assert texts[old.chunk_key] == ("now" if old.outcome == "failed" else old.text)
        assert new.chunk_key == old.chunk_key


def test_one_part_can_be_superseded_without_further_ado(tmp_path):
    write_results(tmp_path)
    compact(tmp_path)
    with ResultsStore(tmp_path, SCHEMA) as store:
        assert store.supersede(1, ["failed"]) == 0
        assert len(names(tmp_path)) == 1
        assert store.supersede(4, ["failed"]) == 1
        assert store.finished() == set(range(10)) - {4}
    assert verify(tmp_path).ok


def test_rows_in_shared_files_are_not_asked_again_beside_another_run(tmp_path):
    write_results(tmp_path)
    compact(tmp_path)
    with (
        ResultsStore(tmp_path, SCHEMA) as other,
        other.lease("run-0-of-2"),
        ResultsStore(tmp_path, SCHEMA) as store,
        pytest.raises(LockedError, match="only while no other run is at work"),
    ):
        store.supersede(4, ["failed"])
    assert rows_of(tmp_path) == write_results(tmp_path / "other")


def test_a_folder_that_cannot_be_read_while_it_is_replaced_is_not_taken_for_empty(tmp_path):
    """Between the two renames s1batch reads the old files; a store that opens then makes no empty folder."""
    rows = write_results(tmp_path)
    (tmp_path / "rows").rename(tmp_path / "rows.old")
    with ResultsStore(tmp_path, SCHEMA) as store:
        assert store.finished() == set(range(10))
        assert store.scan().collect().height == len(rows)
        assert not (tmp_path / "rows").exists()
        assert {finding.code for finding in verify(tmp_path).findings} == {"compaction_left"}
        with store.gate():
            store.settle()
    assert rows_of(tmp_path) == rows
    assert verify(tmp_path).findings == ()


def test_old_files_with_parts_that_are_nowhere_else_are_never_removed(tmp_path):
    write_results(tmp_path)
    compact(tmp_path)
    (tmp_path / "rows.old").mkdir()
    (path,) = (tmp_path / "rows").iterdir()
    path.rename(tmp_path / "rows.old" / path.name)
    with ResultsStore(tmp_path, SCHEMA) as store, store.gate():
        store.settle()
    assert (tmp_path / "originals" / "0001" / path.name).exists()


def test_a_file_system_without_links_gets_copies(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", refuse)
    rows = write_results(tmp_path, parts=[0, 1, 3])
    assert compact(tmp_path).after == 2
    assert rows_of(tmp_path) == rows


def test_a_reader_never_sees_a_row_twice_or_too_few(tmp_path):
    """Plain polars, while files are joined and taken apart again and again."""
    rows = write_results(tmp_path, 200)
    expected = sorted(each.chunk_key for each in rows)
    done = threading.Event()
    seen: list[int] = []
    wrong: list[object] = []

    def read() -> None:
        while not done.is_set():
            try:
                keys = pl.read_parquet(tmp_path / "rows" / "*.parquet", columns=["chunk_key"])["chunk_key"]
            except (FileNotFoundError, pl.exceptions.ComputeError) as error:
                # A file that was listed has gone: said aloud, and right at the next attempt.
                if "No such file" not in str(error) and "expanded paths were empty" not in str(error):
                    wrong.append(error)
                continue
            seen.append(len(keys))
            if sorted(keys) != expected:
                wrong.append(len(keys))

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for turn in range(1000):
            if turn >= 4 and len(seen) > 2:
                break
            compact(tmp_path)
            with ResultsStore(tmp_path, SCHEMA) as store, store.gate() as gate:
                store.take_out(range(turn % 5, 50, 5), gate)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert wrong == []
    assert len(seen) > 2


def test_no_plan_no_compaction(tmp_path):
    with pytest.raises(ResultsError, match="holds no plan"):
        compact(tmp_path)
    write_results(tmp_path, parts=[])
    assert compact(tmp_path).after == 0
    assert PlanStore(tmp_path).parts() == 10
