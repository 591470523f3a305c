"""Answers that another run, or somebody's script, left in files, found by fingerprint.

What is kept in memory is an index of 16 bytes per answer and the blocks of answers that were used last, so a run over
millions of stored answers takes tens of MB. Blocks are row groups of Parquet files and single lines of JSON lines.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s1batch.errors import UsageError
from s1batch.records import FinishReason, Response, TokenLogprob, turns_from_text

if TYPE_CHECKING:
    import pyarrow as pa

_ANSWERED = frozenset({"ok", "unparsed", "length"})
"""Outcomes of rows that hold an answer; in a table without outcomes every row with a text does."""

_FINISHED: tuple[FinishReason, ...] = ("stop", "length", "tool_calls")
_OPTIONAL = (
    "reasoning",
    "finish_reason",
    "prompt_tokens",
    "cached_tokens",
    "output_tokens",
    "seconds",
    "engine",
    "model",
    "logprobs",
)
_LARGEST_GROUP = 1 << 24
_COUNTS = ("prompt_tokens", "cached_tokens", "output_tokens")


class StoredAnswers:
    """Responses by fingerprint, from Parquet or JSON lines; the first answer to a fingerprint counts.

    A Parquet file needs the columns `fingerprint` and `text`, a JSON line the keys; `reasoning`, `finish_reason`,
    `prompt_tokens`, `cached_tokens`, `output_tokens`, `seconds`, `engine`, `model` and `logprobs` are taken where they
    are present. Rows whose `outcome` says that there was no answer are left out, but for the `turns` before it, in
    which tools were called: each of these is an answer of its own.

    Args:
        path: A results directory, a folder with such files, or one file (`.parquet`, `.jsonl`).
        cache_bytes: Most memory for blocks read from Parquet, besides the one in use.

    Raises:
        UsageError: There are no such files, or one is no table of answers; the text names the file and the place.
    """

    def __init__(self, path: Path, *, cache_bytes: int = 256 << 20) -> None:
        self.path = path
        self._files = _files(path)
        self._cache_bytes = cache_bytes
        self._blocks: OrderedDict[tuple[int, int], pa.Table] = OrderedDict()
        self._blocks_bytes = 0
        hashes: list[np.ndarray[Any, np.dtype[np.uint64]]] = []
        # A place is (file << 40) + (row group << 24) + row in Parquet, (file << 40) + byte offset in JSON lines.
        places: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        for number, file in enumerate(self._files):
            scan = _scan_parquet(file) if file.suffix == ".parquet" else _scan_lines(file)
            for found_hashes, found_places in scan:
                hashes.append(found_hashes)
                places.append(found_places + (number << 40))
        all_hashes = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
        order = np.argsort(all_hashes, kind="stable")
        self._hashes = all_hashes[order]
        self._places = (np.concatenate(places) if places else np.empty(0, np.int64))[order]

    def __len__(self) -> int:
        """How many answers there are, repeated fingerprints included."""
        return len(self._hashes)

    @property
    def cached_bytes(self) -> int:
        """Memory that the kept blocks take, in bytes."""
        return self._blocks_bytes

    def get(self, fingerprint: str) -> Response | None:
        """Return the stored answer, or None.

        Raises:
            UsageError: The file was changed or removed since it was indexed.
        """
        wanted = _hash(fingerprint)
        first = int(np.searchsorted(self._hashes, wanted))
        while first < len(self._hashes) and self._hashes[first] == wanted:
            row = self._row(int(self._places[first]))
            if row["fingerprint"] == fingerprint and _is_answered(row):
                return _response(row)
            for turn in turns_from_text(row.get("turns")):
                if turn.response.fingerprint == fingerprint:
                    return replace(turn.response, attempts=0)
            first += 1
        return None

    def _row(self, place: int) -> Mapping[str, Any]:
        number, within = place >> 40, place & ((1 << 40) - 1)
        file = self._files[number]
        try:
            if file.suffix != ".parquet":
                with file.open("rb") as lines:
                    lines.seek(within)
                    return _parsed(lines.readline(), f"{file}, byte {within}")
            group, row = within >> 24, within & ((1 << 24) - 1)
            found: Mapping[str, Any] = self._block(number, group).slice(row, 1).to_pylist()[0]
        except (OSError, IndexError) as error:
            raise UsageError(f"{file} was changed while it was replayed ({error}); start again") from error
        return found

    def _block(self, number: int, group: int) -> pa.Table:
        import pyarrow.parquet as pq

        key = (number, group)
        block = self._blocks.get(key)
        if block is not None:
            self._blocks.move_to_end(key)
            return block
        with pq.ParquetFile(self._files[number]) as file:
            wanted = ("fingerprint", "text", "outcome", "turns", *_OPTIONAL)
            names = [name for name in wanted if name in file.schema_arrow.names]
            block = file.read_row_group(group, columns=names, use_threads=False)
        while self._blocks and self._blocks_bytes + block.nbytes > self._cache_bytes:
            self._blocks_bytes -= self._blocks.popitem(last=False)[1].nbytes
        self._blocks[key] = block
        self._blocks_bytes += block.nbytes
        return block


def _files(path: Path) -> tuple[Path, ...]:
    if path.is_file():
        if path.suffix not in (".parquet", ".jsonl"):
            raise UsageError(f"{path} is no table of answers; give a results directory, a .parquet or a .jsonl file")
        return (path,)
    folder = path / "rows" if (path / "rows").is_dir() else path
    found = sorted(
        file for file in folder.glob("*") if file.suffix in (".parquet", ".jsonl") and file.name[0] not in "._"
    )
    if not found:
        raise UsageError(f"no .parquet or .jsonl file in {folder}; give the results directory of another run")
    return tuple(found)


def _scan_parquet(path: Path) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in ("fingerprint", "text") if name not in names]
            if missing:
                raise UsageError(f"{path} is no table of answers: it has no column {' and no '.join(missing)}")
            columns = ["fingerprint", *(name for name in ("outcome", "turns") if name in names)]
            for group in range(file.num_row_groups):
                table = file.read_row_group(group, columns=columns, use_threads=False)
                if len(table) > _LARGEST_GROUP:
                    raise UsageError(f"{path} has {len(table):,} rows in a row group; write at most {_LARGEST_GROUP:,}")
                prints = table["fingerprint"].cast(pa.string())
                keep = pc.not_equal(prints, "")
                if "outcome" in columns:
                    outcome = table["outcome"].cast(pa.string())
                    keep = pc.and_(keep, pc.is_in(outcome, value_set=pa.array(sorted(_ANSWERED))))
                rows = np.flatnonzero(pc.fill_null(keep, False).to_numpy())
                yield _hashes(prints.take(pa.array(rows)).to_pylist()), rows.astype(np.int64) + (group << 24)
                if "turns" in columns:
                    yield _scan_turns(table["turns"].cast(pa.string()), group)
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} cannot be read as Parquet: {error}") from error


def _scan_turns(column: Any, group: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    prints: list[str] = []
    rows: list[int] = []
    for row in np.flatnonzero(column.is_valid().to_numpy()):
        for turn in turns_from_text(column[int(row)].as_py()):
            prints.append(turn.response.fingerprint)
            rows.append(int(row))
    return _hashes(prints), np.array(rows, np.int64) + (group << 24)


def _is_answered(row: Mapping[str, Any]) -> bool:
    return row.get("outcome", "ok") in _ANSWERED


def _scan_lines(path: Path) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    prints: list[str] = []
    offsets: list[int] = []
    offset = 0
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                row = _parsed(line, f"{path}, line {number}")
                if _is_answered(row):
                    prints.append(row["fingerprint"])
                    offsets.append(offset)
                for turn in turns_from_text(row.get("turns")):
                    prints.append(turn.response.fingerprint)
                    offsets.append(offset)
            offset += len(line)
    yield _hashes(prints), np.array(offsets, np.int64)


def _parsed(line: bytes, where: str) -> Mapping[str, Any]:
    import orjson

    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise UsageError(f"{where}: no JSON ({error})") from error
    if not isinstance(row, dict) or not isinstance(row.get("fingerprint"), str) or not isinstance(row.get("text"), str):
        raise UsageError(f'{where}: not of the form {{"fingerprint": "...", "text": "..."}}')
    return row


def _hash(fingerprint: str) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(fingerprint.encode(), digest_size=8).digest(), "big"))


def _hashes(fingerprints: list[str]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return np.fromiter((_hash(each) for each in fingerprints), np.uint64, len(fingerprints))


def _response(row: Mapping[str, Any]) -> Response:
    """Build the response that the row tells of; what is absent or of another type is left at its default."""
    reasoning, seconds = row.get("reasoning"), row.get("seconds")
    finish_reason: FinishReason = next((each for each in _FINISHED if each == row.get("finish_reason")), "stop")
    counts = {name: row[name] for name in _COUNTS if isinstance(row.get(name), int)}
    return Response(
        fingerprint=row["fingerprint"],
        text=str(row["text"] or ""),
        reasoning=reasoning if isinstance(reasoning, str) else None,
        finish_reason=finish_reason,
        seconds=float(seconds) if isinstance(seconds, (int, float)) else 0.0,
        attempts=0,
        engine=str(row.get("engine") or ""),
        model=str(row.get("model") or ""),
        logprobs=_logprobs(row.get("logprobs")),
        **counts,
    )


def _logprobs(found: object) -> tuple[TokenLogprob, ...] | None:
    if not isinstance(found, list):
        return None
    try:
        return tuple(map(TokenLogprob.from_plain, found))
    except (KeyError, TypeError):
        return None
