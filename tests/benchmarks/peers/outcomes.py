"""What came out of a program, whatever it writes: which prompts have their answer, a reason, nothing, or too much."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a result.

    Attributes:
        name: The id of its prompt.
        text: The answer, if there is one.
        reason: Why there is none, if the program says so.
    """

    name: str
    text: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The prompts by what became of them; they add up to all prompts.

    Attributes:
        right: One row, with the right answer.
        reasons: No answer, but a row or a record that says why.
        empty: One row with nothing in it, and no reason.
        wrong: One row with another answer than the server gave.
        missing: No row at all.
        twice: More than one row.
    """

    right: int = 0
    reasons: int = 0
    empty: int = 0
    wrong: int = 0
    missing: int = 0
    twice: int = 0

    @property
    def silent(self) -> int:
        """Prompts that have neither their answer nor a reason."""
        return self.empty + self.wrong + self.missing + self.twice


def expected_answer(text: str) -> str:
    """Return what the mock server answers to a prompt."""
    return f"ANS:{hashlib.sha1(text.encode()).hexdigest()[:12]}"


def judge(rows: Iterable[Row], prompts: Mapping[str, str]) -> Outcome:
    """Hold rows to the prompts.

    Args:
        rows: What a program wrote.
        prompts: Texts by id.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row.name, []).append(row)
    counts: Counter[str] = Counter()
    for name, text in prompts.items():
        match found.get(name, []):
            case []:
                counts["missing"] += 1
            case [row] if row.text == expected_answer(text):
                counts["right"] += 1
            case [row] if row.text is None:
                counts["empty" if row.reason is None else "reasons"] += 1
            case [_]:
                counts["wrong"] += 1
            case _:
                counts["twice"] += 1
    return Outcome(**counts)


def as_dict(outcome: Outcome) -> dict[str, int]:
    """Return an outcome for JSON."""
    return asdict(outcome)


# ------------------------------------------------------------------------------ what the programs write


def parquet_rows(output: Path) -> list[Row]:
    """Rows of columns `id` and `response`: the bare loop, Daft, Ray Data."""
    files = sorted(output.rglob("*.parquet")) if output.is_dir() else [output] if output.exists() else []
    rows = []
    for file in files:
        with suppress(pa.ArrowInvalid):  # one that was never finished holds no rows for anybody
            table = pq.ParquetFile(file).read(columns=["id", "response"])
            rows += [Row(name=str(row["id"]), text=row["response"]) for row in table.to_pylist()]
    return rows


def curator_rows(output: Path, state: Path) -> list[Row]:
    """Curator's data set, and the failures that it keeps beside its answers."""
    rows = parquet_rows(output)
    named = {row.name for row in rows}
    for file in sorted(state.rglob("failed_requests.jsonl")):
        for line in file.read_text().splitlines():
            name = str(json.loads(line)["original_row"]["id"])
            if name not in named:
                rows.append(Row(name=name, reason="in failed_requests.jsonl"))
                named.add(name)
    return rows


def datatrove_rows(output: Path) -> list[Row]:
    """The documents in datatrove's JSON lines, with their first rollout."""
    rows = []
    for file in sorted((output / "data").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            document = json.loads(line)
            rollouts = document["metadata"]["rollout_results"]
            rows.append(Row(name=document["id"], text=rollouts[0]["text"] if rollouts else None))
    return rows


def s1batch_rows(output: Path, prompts: Mapping[str, str]) -> list[Row]:
    """Rows of s1batch; a chunk of a table names its row by its number, which the prompts' order gives."""
    names = list(prompts)
    rows = []
    for file in sorted((output / "rows").glob("*.parquet")):
        for row in pq.ParquetFile(file).read(columns=["row_index", "text", "outcome", "reason"]).to_pylist():
            is_ok = row["outcome"] == "ok"
            reason = f"{row['outcome']}: {row['reason']}"
            rows.append(
                Row(name=names[row["row_index"]], text=row["text"] if is_ok else None, reason=None if is_ok else reason)
            )
    return rows
