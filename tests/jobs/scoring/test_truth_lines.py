"""Lines of truth are read from tables of any kind, and find the rows that they are about."""

from __future__ import annotations

import polars as pl
import pytest

from s1batch.errors import UsageError
from s1batch.jobs.scoring.truth_lines import TruthLines, row_keys

LINES = {"Image": ["d/a.png", "b.png"], "value": ["1,234.5", "-"], "ok": ["Yes", "0"]}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet", ".jsonl"])
def test_any_kind_of_table(tmp_path, suffix):
    path = tmp_path / f"truth{suffix}"
    frame = pl.DataFrame(LINES)
    match suffix:
        case ".parquet":
            frame.write_parquet(path)
        case ".jsonl":
            frame.write_ndjson(path)
        case _:
            frame.write_csv(path, separator="\t" if suffix == ".tsv" else ",")
    truth = TruthLines.read(path)
    assert truth.columns == ("Image", "value", "ok")
    assert [truth.number(number, "value") for number in (0, 1)] == [1234.5, None]
    assert [truth.boolean(number, "ok") for number in (0, 1)] == [True, False]
    assert truth.value(0, "image") == "d/a.png"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'{"a": '])
def test_what_is_no_table_is_a_line_of_its_own(tmp_path, content):
    path = tmp_path / "truth.jsonl"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no table of truth can be read there"):
        TruthLines.read(path)
    with pytest.raises(UsageError, match="there is no such file of truth"):
        TruthLines.read(tmp_path / "none.csv")


def test_wrong_values_are_named_by_their_line():
    truth = TruthLines.read(pl.DataFrame({"n": ["x"], "b": ["perhaps"], "t": ["noon"]}))
    for read, column, what in (
        (truth.number, "n", "'x' is no number"),
        (truth.boolean, "b", "'perhaps' is neither true nor false"),
        (truth.time_ns, "t", "'noon' is no time"),
    ):
        with pytest.raises(UsageError, match=f"line 2: {what}"):
            read(0, column)


def test_lines_find_their_rows_by_all_keys_that_both_have():
    rows = pl.DataFrame(
        {
            "chunk_key": ["k0", "k1", "k2"],
            "image": ["d/a.png", "d/a.png", "e/b.png"],
            "question": ["What?", "Why?", "What?"],
            "start": pl.Series([0, 10**9, 2 * 10**9]).cast(pl.Datetime("ns", "UTC")),
        }
    )
    keys = row_keys(rows)

    def found(**columns):
        return TruthLines.read(pl.DataFrame(columns)).rows_of(keys)

    assert found(file=["a.png", "b.png", "c.png"]) == [[0, 1], [2], []]
    assert found(file=["d/a.png", "b.png"]) == [[0, 1], []]
    assert found(image=["a.png"], question=["Why?"]) == [[1]]
    assert found(chunk_key=["k2"]) == [[2]]
    assert found(start=["1970-01-01T00:00:01.000Z"]) == [[1]]
    with pytest.raises(UsageError, match=r"Columns found: colour. Columns understood: chunk_key: chunk_key"):
        found(colour=["red"])


def test_the_first_column_that_says_something_counts():
    rows = pl.DataFrame({"image": ["a", None], "source_file": ["x", "y"], "paper_id": ["p", "q"]})
    keys = row_keys(rows)
    assert (keys["image"], keys["paper"]) == (["a", "y"], ["p", "q"])
