"""The results directory: parts, resuming, one table of rows, and disks that refuse."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from s1batch.columns import Column
from s1batch.errors import ConflictError, LockedError, ResultsError
from s1batch.records import PlanEntry
from s1batch.results.journal import read_journal
from s1batch.results.schema import RowSchema
from s1batch.results.store import ResultsStore
from tests.plans import LINEAGE, SCHEMA, minutes, row
from tests.results import victim

ENTRIES = minutes(8, per_part=4)


def of(part: int) -> list[PlanEntry]:
    return [entry for entry in ENTRIES if entry.part == part]


def keys(part: int) -> list[str]:
    return [entry.chunk.key for entry in of(part)]


def finish(store: ResultsStore, part: int) -> None:
    with store.open_part(part) as writer:
        for entry in of(part):
            writer.append(row(entry))
        writer.finish(keys(part))


def test_a_finished_part_is_one_file_in_the_order_of_the_plan(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        with store.open_part(0) as part:
            for entry in reversed(of(0)):
                part.append(row(entry))
            part.finish(keys(0))
        assert store.finished() == {0}
        assert store.scan().collect()["chunk_key"].to_list() == keys(0)
        assert [file.name for file in (tmp_path / "rows").iterdir()] == ["part-000000.parquet"]
        assert list((tmp_path / "journal").iterdir()) == []


def test_rows_of_an_interrupted_part_are_there_when_it_is_opened_again(tmp_path: Path) -> None:
    for entry in of(0)[:3]:
        with ResultsStore(tmp_path, SCHEMA) as store, store.open_part(0) as part:
            part.append(row(entry))
    with ResultsStore(tmp_path, SCHEMA) as store, store.open_part(0) as part:
        assert set(part.rows) == set(keys(0)[:3])
        assert part.rows[keys(0)[0]] == SCHEMA.fit(row(of(0)[0]))
        with pytest.raises(ResultsError, match="1 of its 4 chunks have no row"):
            part.finish(keys(0))
        part.append(row(of(0)[3]))
        part.finish(keys(0))


def test_the_first_row_of_a_chunk_counts(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        with store.open_part(0) as part:
            first = part.append(row(of(0)[0], text="first"))
            assert part.append(row(of(0)[0], text="second")) == first
            assert part.rows[keys(0)[0]].text == "first"
        (journal,) = (tmp_path / "journal").iterdir()
        assert len(read_journal(journal).payloads) == 1


def test_threads_append_at_once(tmp_path: Path) -> None:
    entries = minutes(200, per_part=200)
    with ResultsStore(tmp_path, SCHEMA) as store, store.open_part(0) as part:

        def work() -> None:
            for entry in entries:
                part.append(row(entry))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        part.finish([entry.chunk.key for entry in entries])
    with ResultsStore(tmp_path, None) as store:
        assert store.scan().collect().height == 200


def test_rows_that_are_not_in_the_plan_do_not_finish_a_part(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store, store.open_part(0) as part:
        for entry in of(0):
            part.append(row(entry))
        with pytest.raises(ResultsError, match="1 rows are not in the plan"):
            part.finish(keys(0)[:3])
        with pytest.raises(ResultsError, match="doubled keys"):
            part.finish([*keys(0), keys(0)[0]])
        assert store.finished() == set()


def test_a_finished_part_opens_as_finished(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        finish(store, 0)
        with store.open_part(0) as part:
            assert part.finished
            assert list(part.rows) == keys(0)
            part.append(row(of(0)[0], text="again"))
            part.finish(keys(0))
            with pytest.raises(ValueError, match="a row of part 1"):
                part.append(row(of(1)[0]))
            with pytest.raises(ValueError, match="finished"):
                part.append(row(minutes(9, per_part=99)[8]))


def test_two_writers_of_one_part_are_kept_apart(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as one, ResultsStore(tmp_path, SCHEMA) as two:
        with one.open_part(0), pytest.raises(LockedError, match="part-000000 is held by process"):
            two.open_part(0)
        with two.open_part(0), one.open_part(1):
            pass


def test_closing_the_store_closes_its_parts(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path, SCHEMA)
    store.open_part(0).append(row(of(0)[0]))
    store.close()
    assert list((tmp_path / "leases").iterdir()) == []
    with ResultsStore(tmp_path, SCHEMA) as again, again.open_part(0) as part:
        assert len(part.rows) == 1


def test_all_rows_are_those_of_files_and_journals(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        assert store.scan().collect().height == store.scan_all().collect().height == 0
        finish(store, 0)
        with store.open_part(1) as part:
            part.append(row(of(1)[0]))
            assert store.scan_all().collect()["chunk_key"].to_list() == [*keys(0), keys(1)[0]]
            assert store.scan().collect()["chunk_key"].to_list() == keys(0)
    with ResultsStore(tmp_path, None) as reader:
        assert reader.schema == SCHEMA
        assert reader.scan_all().collect().height == 5


def test_superseded_rows_are_kept_aside_and_the_others_stay(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        with store.open_part(0) as part:
            for number, entry in enumerate(of(0)):
                part.append(row(entry, outcome="failed" if number == 1 else "ok", answer={}))
            part.finish(keys(0))
        assert store.supersede(0, ["unparsed", "length"]) == 0
        assert store.finished() == {0}
        assert store.supersede(0, ["failed"]) == 1
        assert store.finished() == set()
        with store.open_part(0) as part:
            assert set(part.rows) == set(keys(0)) - {keys(0)[1]}
            part.append(row(of(0)[1], text="better"))
            part.finish(keys(0))
        assert store.scan().collect()["text"].to_list() == ["yes", "better", "yes", "yes"]


def test_other_columns_are_refused_by_name(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        store.layout.run.write_text("{}")  # a run has begun
    other = RowSchema(LINEAGE, (Column(name="magnitude", type=pa.float64(), doc=""),))
    with pytest.raises(ConflictError, match="magnitude is additional"):
        ResultsStore(tmp_path, other)


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultsError, match="holds no results"):
        ResultsStore(tmp_path, None)
    assert list(tmp_path.iterdir()) == [], "reading creates nothing"


def test_a_damaged_file_of_rows_is_a_results_error(tmp_path: Path) -> None:
    with ResultsStore(tmp_path, SCHEMA) as store:
        finish(store, 0)
        file = store.layout.part_rows(0)
        data = bytearray(file.read_bytes())
        data[len(data) // 3] ^= 0xFF
        file.write_bytes(data)
        with pytest.raises(ResultsError, match=r"part-000000\.parquet cannot be read"):
            store.open_part(0)
        with store.open_part(1):
            pass


def test_a_limit_of_file_size_costs_no_row(tmp_path: Path) -> None:
    """Refused appends leave a clean journal; what was accepted is there; afterwards it goes on."""
    report = tmp_path / "report"
    child = victim.start(victim.append_until_full, tmp_path / "r", 4000, report)
    child.join()
    assert child.exitcode == 0
    said = json.loads(report.read_text())
    assert said["kept"]
    assert "raise the limit" in said["refused"][0][1]
    (journal,) = (tmp_path / "r" / "journal").iterdir()
    content = read_journal(journal)
    assert (content.torn, content.damaged) == (0, 0)
    with ResultsStore(tmp_path / "r", SCHEMA) as store, store.open_part(0) as part:
        assert set(part.rows) == {*said["kept"], said["last"]}


def mount(folder: Path, options: str) -> None:
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small file system is not permitted here")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    mount(folder, "size=128k")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_with_advice_and_loses_nothing(small_disk: Path) -> None:
    entries = minutes(400, per_part=400)
    stored: list[str] = []
    with ResultsStore(small_disk / "r", SCHEMA) as store, store.open_part(0) as part:

        def append_all() -> None:
            stored.extend(part.append(row(entry, text="x" * 2000)).chunk_key for entry in entries)

        with pytest.raises(ResultsError, match="the disk is full: free some space and run again"):
            append_all()
        with pytest.raises(ResultsError, match="the disk is full"):
            part.finish(stored)
        assert store.finished() == set()
        assert list((small_disk / "r" / "rows").iterdir()) == []
    assert len(stored) > 10
    with ResultsStore(small_disk / "r", None) as store:
        assert store.scan_all().collect()["chunk_key"].to_list() == stored


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder with results that cannot be written; for root, whom permissions do not stop, a read-only mount."""
    folder = tmp_path / "ro"
    if os.geteuid() == 0:
        mount(folder, "size=4m")
    folder.mkdir(exist_ok=True)
    with ResultsStore(folder / "r", SCHEMA) as store:
        finish(store, 0)
    if os.geteuid() == 0:
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    else:
        for each in [folder, *folder.rglob("*")]:
            each.chmod(0o555)
    yield folder
    if os.geteuid() == 0:
        subprocess.run(["umount", "-l", str(folder)], check=True)
    else:
        for each in [folder, *folder.rglob("*")]:
            each.chmod(0o755)


def test_a_read_only_folder_can_be_read_and_says_so_when_written(read_only: Path) -> None:
    with ResultsStore(read_only / "r", SCHEMA) as store:
        assert store.scan().collect().height == 4
        with pytest.raises(ResultsError, match=r"choose another"):
            store.open_part(1)
        with pytest.raises(ResultsError, match=r"choose another"):
            store.supersede(0, ["ok"])
    with pytest.raises(ResultsError, match=r"choose another"):
        ResultsStore(read_only / "new", SCHEMA)
