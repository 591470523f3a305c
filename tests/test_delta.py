"""A Delta table has each row once, however often it is exported, and the newest answer to it."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import deltalake
import polars as pl
import pytest

import s1batch
from s1batch.cli import main
from s1batch.delta import export_delta
from s1batch.errors import ConflictError, MissingExtra
from s1batch.results.compaction import compact
from s1batch.results.store import ResultsStore
from tests.merging.test_merge import results, say_what
from tests.plans import SCHEMA, minutes, row
from tests.results.finished import plain_row, write_results


def table(path) -> pl.DataFrame:
    return pl.DataFrame(deltalake.DeltaTable(path).to_pyarrow_table()).sort("part", "start")


def test_rows_are_the_same_and_nanoseconds_are_kept(tmp_path):
    results(tmp_path / "r")
    done = export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d")
    assert (done.appended, done.replaced, done.kept, done.version) == (16, 0, 0, 0)
    rows = s1batch.open_results(tmp_path / "r").scan().collect()
    found = table(tmp_path / "d")
    same = [name for name, dtype in rows.schema.items() if not isinstance(dtype, pl.Datetime)]
    assert found.select(same).equals(rows.select(same))
    assert found["p_time_ns"].equals(rows["p_time"].cast(pl.Int64).alias("p_time_ns"))
    assert found["p_time_ns"][1] == 61


def test_exporting_again_writes_nothing(tmp_path):
    results(tmp_path / "r")
    export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d")
    compact(tmp_path / "r")
    again = export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d")
    assert (again.appended, again.replaced, again.kept, again.version) == (0, 0, 16, 0)
    assert table(tmp_path / "d").height == 16


def test_what_is_new_is_appended_and_what_was_asked_again_is_replaced(tmp_path):
    results(tmp_path / "r", parts=[0, 1])
    export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d")
    with ResultsStore(tmp_path / "r", SCHEMA) as store:
        assert store.supersede(0, ["failed"]) == 1

    def now(number, entry):
        return row(entry, text="now", seconds=2.0) if number == 3 else plain_row(number, entry)

    write_results(tmp_path / "r", entries=minutes(16), make=now)
    done = export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d")
    assert (done.appended, done.replaced, done.kept) == (8, 1, 7)
    found = table(tmp_path / "d")
    rows = s1batch.open_results(tmp_path / "r").scan().collect()
    assert found.select("chunk_key", "text", "outcome", "score").equals(
        rows.select("chunk_key", "text", "outcome", "score")
    )
    assert export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d").kept == 16


def test_exports_at_the_same_time_append_nothing_twice(tmp_path):
    results(tmp_path / "r", count=40, parts=[0])
    export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d")
    write_results(tmp_path / "r", entries=minutes(40))

    def export(number: int) -> int:
        try:
            return export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d").appended
        except ConflictError:
            return -1

    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(export, range(4)))
    assert ended.count(36) == 1
    assert table(tmp_path / "d")["chunk_key"].n_unique() == table(tmp_path / "d").height == 40


def test_a_table_of_another_job_is_refused(tmp_path):
    results(tmp_path / "r")
    export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d")
    say_what(tmp_path / "r", **{"job.seed": 8})
    with pytest.raises(ConflictError, match="of another job"):
        export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d")


def test_results_without_rows_make_an_empty_table(tmp_path):
    results(tmp_path / "r", parts=[])
    assert export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d").version == 0
    write_results(tmp_path / "r", entries=minutes(16))
    assert export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d").appended == 16


def test_the_command_line(tmp_path, capsys):
    results(tmp_path / "r")
    arguments = ["export", str(tmp_path / "r"), "--format", "delta", "-o", str(tmp_path / "d")]
    assert main(arguments, standalone_mode=False) is None
    assert main(arguments, standalone_mode=False) is None
    said = capsys.readouterr().out.splitlines()
    assert "16 appended, 0 replaced, 0 as they were" in said[0]
    assert "0 appended, 0 replaced, 16 as they were" in said[1]


def test_a_missing_library_is_named_with_its_command(tmp_path, monkeypatch):
    results(tmp_path / "r")
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(MissingExtra, match=r"pip install 's1batch\[delta\]'"):
        export_delta(s1batch.open_results(tmp_path / "r"), tmp_path / "d")
