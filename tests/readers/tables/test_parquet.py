"""Parquet rows in parts: the same rows as one read of the file gives, and nothing decoded twice."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s1batch.errors import SourceError
from s1batch.readers.tables.formats import RowPlace
from s1batch.readers.tables.forward import KEPT_DECODERS, KeptDecoders
from s1batch.readers.tables.parquet import Parquet

ROWS = 5000
GROUPS = 2


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "rows.parquet"
    write(path)
    return path


def write(path: Path, first: int = 0) -> None:
    table = pa.table({"number": pa.array(range(first, first + ROWS)), "text": [f"row {i}" for i in range(ROWS)]})
    pq.write_table(table, path, row_group_size=ROWS // GROUPS)


def numbers(format: Parquet, path: Path, indices: list[int]) -> list[int]:
    rows = list(format.read(path, [RowPlace(index=index) for index in indices]))
    numbers = []
    for row, index in zip(rows, indices, strict=True):
        assert not isinstance(row, SourceError)
        assert row["text"] == f"row {index}"
        numbers.append(row["number"])
    return numbers


@pytest.fixture
def decoded(monkeypatch):
    """Row groups that were begun."""
    begun: list[int] = []
    original = pq.ParquetFile.iter_batches

    def counting(self, *args, row_groups, **options):
        begun.extend(row_groups)
        return original(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", counting)
    return begun


@settings(max_examples=60, deadline=None)
@given(
    parts=st.lists(
        st.lists(st.integers(0, ROWS - 1), unique=True, min_size=1, max_size=30).map(sorted), min_size=1, max_size=12
    )
)
def test_any_parts_in_any_order_give_their_rows(file, parts):
    format = Parquet()
    for part in parts:
        assert numbers(format, file, part) == part


def test_parts_that_follow_one_another_decode_each_group_once(file, decoded):
    format = Parquet()
    parts = [list(range(first, min(first + 64, ROWS))) for first in range(0, ROWS, 64)]
    found = [number for part in parts for number in numbers(format, file, part)]
    assert found == list(range(ROWS))
    assert decoded == list(range(GROUPS))


def test_every_other_part_does_too(file, decoded):
    """As a shard reads them."""
    format = Parquet()
    for first in range(0, ROWS - 64, 128):
        numbers(format, file, list(range(first, first + 64)))
    assert decoded == list(range(GROUPS))


def test_an_earlier_part_begins_anew(file):
    format = Parquet()
    numbers(format, file, [4000])
    assert numbers(format, file, [3, 4]) == [3, 4]


def test_a_part_that_is_given_up_harms_none(file):
    format = Parquet()
    rows = format.read(file, [RowPlace(index=index) for index in range(100)])
    next(rows)
    del rows
    assert numbers(format, file, [0, 50, 99]) == [0, 50, 99]


def test_a_file_that_was_replaced_is_read_anew(tmp_path):
    path = tmp_path / "rows.parquet"
    write(path)
    format = Parquet()
    assert numbers(format, path, [10]) == [10]
    write(tmp_path / "other.parquet", first=1_000_000)
    os.replace(tmp_path / "other.parquet", path)
    assert numbers(format, path, [20]) == [1_000_020]


def test_a_file_that_is_gone_is_said_to_be(tmp_path):
    path = tmp_path / "rows.parquet"
    write(path)
    format = Parquet()
    numbers(format, path, [10])
    path.unlink()
    with pytest.raises(FileNotFoundError):
        numbers(format, path, [20])


def test_threads_share_it(file):
    format = Parquet()
    wrong: list[int] = []

    def read(offset: int) -> None:
        for first in range(offset * 64, ROWS - 64, 4 * 64):
            wanted = list(range(first, first + 64))
            if numbers(format, file, wanted) != wanted:
                wrong.append(first)

    threads = [threading.Thread(target=read, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_few_files_stay_open(tmp_path):
    """However many there are."""
    paths = [tmp_path / f"{number}.parquet" for number in range(3 * KEPT_DECODERS)]
    format = Parquet()
    before = len(os.listdir("/proc/self/fd"))
    for path in paths:
        write(path)
        numbers(format, path, [0])
    assert len(os.listdir("/proc/self/fd")) <= before + KEPT_DECODERS


def test_a_copy_for_another_process_has_no_open_files(file):
    format = Parquet()
    numbers(format, file, [10])
    copy = pickle.loads(pickle.dumps(format))
    assert isinstance(copy.kept, KeptDecoders)
    assert numbers(copy, file, [5]) == [5]


def test_a_damaged_group_costs_its_own_rows_only(tmp_path):
    path = tmp_path / "rows.parquet"
    write(path)
    with pq.ParquetFile(path) as whole:
        column = whole.metadata.row_group(0).column(0)
        start = column.dictionary_page_offset or column.data_page_offset
    data = bytearray(path.read_bytes())
    data[start : start + column.total_compressed_size] = b"\xff" * column.total_compressed_size
    path.write_bytes(data)
    format = Parquet()
    for wanted in ([0, 1, ROWS // 2, ROWS - 1], [2, ROWS // 2 + 1]):
        rows = list(format.read(path, [RowPlace(index=index) for index in wanted]))
        for index, row in zip(wanted, rows, strict=True):
            if index < ROWS // 2:
                assert isinstance(row, SourceError)
                assert row.reason == "decode_error"
            else:
                assert not isinstance(row, SourceError)
                assert row["number"] == index


def test_rows_of_megabytes_read_the_same_and_leave_the_allocator_of_the_process_as_it_was(tmp_path):
    path = tmp_path / "large.parquet"
    texts = [f"{number}:" + chr(97 + number) * 2**19 for number in range(12)]
    pq.write_table(pa.table({"number": range(12), "text": texts}), path, row_group_size=4)
    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        read: dict[int, list[str]] = {}

        def read_all(turn: int) -> None:
            rows = Parquet(columns=None).read(path, [RowPlace(index=index) for index in range(12)])
            read[turn] = [row["text"] for row in rows if not isinstance(row, SourceError)]

        threads = [threading.Thread(target=read_all, args=(turn,)) for turn in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read == dict.fromkeys(range(4), texts)
        assert pa.default_memory_pool().backend_name == "system"
    finally:
        pa.set_memory_pool(before)
