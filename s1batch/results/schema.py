"""The columns of the results: common ones first, then the request's, the reader's lineage, and the answer's last.

`RowSchema` is the only place that knows how a `Row` becomes a line of Parquet or a record of a journal, and back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import orjson
import pyarrow as pa

from s1batch.columns import Column
from s1batch.errors import JobFileError, ResultsError
from s1batch.records import OUTCOMES, REASONS, Row
from s1batch.results.fitting import (
    Check,
    Convert,
    MisfitError,
    checker,
    clean_text,
    fitter,
    json_reader,
    json_writer,
    plain_type,
)

UTC_NS = pa.timestamp("ns", tz="UTC")


def _columns(*columns: tuple[str, pa.DataType, str]) -> tuple[Column, ...]:
    return tuple(Column(name=name, type=kind, doc=doc) for name, kind, doc in columns)


COMMON: tuple[Column, ...] = _columns(
    ("chunk_key", pa.string(), "identity of the chunk: a hash of where its data are"),
    ("part", pa.int32(), "part of the plan, which is one file of rows"),
    ("source", pa.string(), "stream that the data belong to, such as a channel; empty where there is none"),
    ("start", UTC_NS, "first instant of the chunk (UTC); null outside time series"),
    ("end", UTC_NS, "first instant behind the chunk (UTC); null outside time series"),
    ("span_start", pa.int64(), "first index of the chunk in its own units; null where those are times"),
    ("span_end", pa.int64(), "first index behind the chunk; null for time series"),
    ("outcome", pa.string(), f"how the chunk ended: {', '.join(OUTCOMES)}"),
    ("reason", pa.string(), "why the outcome is not ok, as one of a closed set of codes"),
    ("detail", pa.string(), "the reason in words"),
    ("text", pa.string(), "the model's answer as it was given"),
    ("reasoning", pa.string(), "what the model thought before it; null when it was not asked to"),
    ("finish_reason", pa.string(), "why generation ended; null when nothing was asked"),
    ("prompt_tokens", pa.int64(), "tokens of the prompt, media included"),
    ("cached_tokens", pa.int64(), "how many of them came from the engine's cache"),
    ("output_tokens", pa.int64(), "tokens generated, reasoning included"),
    ("seconds", pa.float64(), "seconds from sending the request to its last token"),
    ("attempts", pa.int32(), "how often the engine was asked"),
    ("engine", pa.string(), "engine and its version"),
    ("model", pa.string(), "model as the engine names it"),
    ("fingerprint", pa.string(), "hash of all that can change the answer"),
)

REQUEST: tuple[Column, ...] = _columns(
    ("rate_declared_hz", pa.float64(), "rate in Hz that the engine was told, where it is not the samples' own"),
    ("neutralised", pa.int32(), "special tokens of the model that were made harmless in the text"),
    (
        "conditioned",
        pa.list_(pa.int64()),
        "channels (from 0, over all series) sent standardised because a z-score in float32 would have damaged them",
    ),
    (
        "turns",
        pa.string(),
        "the turns before the answer, in which the model called tools or gave an answer that does not fit, as a JSON "
        "list; null when there were none",
    ),
    ("repairs", pa.int32(), "how often the model was asked to mend an answer that does not fit"),
    (
        "logprobs",
        pa.list_(
            pa.struct(
                [
                    ("token", pa.string()),
                    ("logprob", pa.float64()),
                    ("top", pa.list_(pa.struct([("token", pa.string()), ("logprob", pa.float64())]))),
                ]
            )
        ),
        "generated tokens with the natural logarithms of their probabilities, and the most probable ones in their "
        "place; null unless job.sampling.logprobs asks for them",
    ),
)

_ATTRIBUTES = {"start": "start_ns", "end": "stop_ns"}
_REQUIRED = frozenset({"chunk_key", "part", "source", "outcome"})
_DEFAULTS = {field.name: field.default for field in fields(Row)}
_GROUP = b"s1batch.group"


@dataclass(frozen=True, slots=True, kw_only=True)
class Misfit:
    """A value of a row that its column does not hold.

    Attributes:
        column: The column.
        problem: What is wrong with the value, in words.
        answer: Whether it is one of the answer's columns (otherwise of lineage or common).
    """

    column: str
    problem: str
    answer: bool


@dataclass(frozen=True)
class RowSchema:
    """All columns of one run's results, in their order.

    Attributes:
        lineage: Columns of the reader.
        answer: Columns of the job's answer.
    """

    lineage: tuple[Column, ...] = ()
    answer: tuple[Column, ...] = ()

    def __reduce__(self) -> tuple[type[RowSchema], tuple[tuple[Column, ...], tuple[Column, ...]]]:
        return RowSchema, (self.lineage, self.answer)

    def __post_init__(self) -> None:
        taken = {column.name: "a common column" for column in COMMON + REQUEST}
        for kind, columns in (("the reader's", self.lineage), ("the answer's", self.answer)):
            for column in columns:
                other = taken.get(column.name)
                if other is not None:
                    raise JobFileError(f"column {column.name}: {kind} field has the name of {other}; rename it")
                taken[column.name] = f"{kind} field"
        # Types that results do not hold are refused here, before anything runs.
        _ = self._fitters

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in the order of the files."""
        return COMMON + REQUEST + self.lineage + self.answer

    @cached_property
    def arrow(self) -> pa.Schema:
        """The Arrow schema; each field's metadata hold its `doc` and its group."""
        groups = (("common", COMMON), ("request", REQUEST), ("lineage", self.lineage), ("answer", self.answer))
        return pa.schema(
            [
                pa.field(column.name, column.type, metadata={b"doc": column.doc.encode(), _GROUP: group.encode()})
                for group, columns in groups
                for column in columns
            ]
        )

    @classmethod
    def from_arrow(cls, schema: pa.Schema) -> RowSchema:
        """Return the schema that `arrow` gave.

        Raises:
            ResultsError: It does not come from s1batch, or from a version with other common columns.
        """
        groups: dict[bytes, list[Column]] = {b"lineage": [], b"answer": []}
        for field in schema:
            metadata = field.metadata or {}
            group = metadata.get(_GROUP, b"")
            if group in groups:
                doc = metadata.get(b"doc", b"").decode("utf-8", "replace")
                groups[group].append(Column(name=field.name, type=field.type, doc=doc))
        found = cls(lineage=tuple(groups[b"lineage"]), answer=tuple(groups[b"answer"]))
        if not found.arrow.equals(schema):
            raise ResultsError(
                "these files do not have the columns of s1batch's results; read them with the version that wrote them"
            )
        return found

    def differences(self, other: pa.Schema) -> list[str]:
        """Return in words how another schema differs from this one; empty when it does not."""
        mine = {field.name: field.type for field in self.arrow}
        theirs = {field.name: field.type for field in other}
        found = [f"{name} is missing" for name in mine if name not in theirs]
        found += [f"{name} is additional" for name in theirs if name not in mine]
        found += [
            f"{name} is {theirs[name]} instead of {mine[name]}"
            for name in mine
            if name in theirs and theirs[name] != mine[name]
        ]
        if not found and list(mine) != list(theirs):
            found.append("the columns are in another order")
        return found

    # ---------------------------------------------------------------------------------------------- fitting

    def misfits(self, row: Row) -> tuple[Misfit, ...]:
        """Return the values of a row that their columns do not hold.

        Raises:
            ValueError: The row has no key, no part, no source or no valid outcome, which is a mistake in the program.
        """
        return self._fit(row)[1]

    def fit(self, row: Row) -> Row:
        """Return the row as it will be stored: every value in its column's own form.

        A value that does not fit is dropped. Then an `ok` row becomes `unparsed` for the reason `not_in_schema`, any
        other keeps its outcome, and the detail names the columns.

        Raises:
            ValueError: As `misfits`.
        """
        if self._is_fitted(row):
            return row
        fitted, misfits = self._fit(row)
        if not misfits:
            return fitted
        said = "; ".join(f"{misfit.column}: {misfit.problem}" for misfit in misfits)
        detail = f"{fitted.detail}; {said}" if fitted.detail else said
        if fitted.outcome == "ok":
            return replace(fitted, outcome="unparsed", reason="not_in_schema", detail=detail)
        return replace(fitted, detail=detail)

    @cached_property
    def _fitters(self) -> dict[str, Convert]:
        return {column.name: fitter(column.type, column.name) for column in self.columns}

    @cached_property
    def _common_fitters(self) -> tuple[tuple[str, str, Any, Convert], ...]:
        """Column, attribute, default and fitter of the columns that all results have."""
        return tuple(
            (column.name, name, _DEFAULTS[name], self._fitters[column.name])
            for column in COMMON + REQUEST
            for name in (_ATTRIBUTES.get(column.name, column.name),)
        )

    @cached_property
    def _common_values(self) -> attrgetter[tuple[Any, ...]]:
        return attrgetter(*(name for _, name, _, _ in self._common_fitters))

    @cached_property
    def _common_checks(self) -> tuple[tuple[Check, bool], ...]:
        """For each common column, whether a value is in its form, and whether it may be None."""
        return tuple(
            (_quick(column), name not in _REQUIRED and default is None)
            for column, (_, name, default, _) in zip(COMMON + REQUEST, self._common_fitters, strict=True)
        )

    @cached_property
    def _lineage_checks(self) -> dict[str, Check]:
        return {column.name: _quick(column) for column in self.lineage}

    @cached_property
    def _answer_checks(self) -> dict[str, Check]:
        return {column.name: _quick(column) for column in self.answer}

    def _is_fitted(self, row: Row) -> bool:
        """Whether a row is as it is stored, as nearly all are; told in a fifth of the time that fitting takes."""
        if row.outcome not in OUTCOMES or (row.reason is not None and row.reason not in REASONS):
            return False
        for value, (is_in_form, may_be_none) in zip(self._common_values(row), self._common_checks, strict=True):
            if not (may_be_none if value is None else is_in_form(value)):
                return False
        return _all_in_form(row.lineage, self._lineage_checks) and _all_in_form(row.answer, self._answer_checks)

    def _fit(self, row: Row) -> tuple[Row, tuple[Misfit, ...]]:
        if row.outcome not in OUTCOMES:
            raise ValueError(f"{row.outcome!r} is no outcome")
        if row.reason is not None and row.reason not in REASONS:
            raise ValueError(f"{row.reason!r} is no reason")
        misfits: list[Misfit] = []
        values: dict[str, Any] = {}
        for column, name, default, fit in self._common_fitters:
            given = getattr(row, name)
            if given is None:
                if name in _REQUIRED:
                    raise ValueError(f"row {row.chunk_key!r} has no {name}")
                values[name] = default
                continue
            try:
                values[name] = fit(given)
            except MisfitError as error:
                if name in _REQUIRED:
                    raise ValueError(f"row {row.chunk_key!r}: {name}: {error}") from error
                misfits.append(Misfit(column=column, problem=str(error), answer=False))
                values[name] = default
        values["lineage"] = self._fit_group(row.lineage, self.lineage, False, misfits)
        values["answer"] = self._fit_group(row.answer, self.answer, True, misfits)
        return Row(**values), tuple(misfits)

    def _fit_group(
        self, given: Mapping[str, Any], columns: tuple[Column, ...], answer: bool, misfits: list[Misfit]
    ) -> dict[str, Any]:
        fitted: dict[str, Any] = {}
        for column in columns:
            try:
                fitted[column.name] = self._fitters[column.name](given.get(column.name))
            except MisfitError as error:
                misfits.append(Misfit(column=column.name, problem=str(error), answer=answer))
                fitted[column.name] = None
        for name in given:
            if name not in fitted:
                misfits.append(Misfit(column=clean_text(str(name)), problem="there is no such column", answer=answer))
        return fitted

    # ---------------------------------------------------------------------------------------------- Parquet

    def to_table(self, rows: Sequence[Row]) -> pa.Table:
        """Return fitted rows as an Arrow table."""
        lists: list[Sequence[Any]] = list(zip(*map(self._common_values, rows), strict=True)) or [()] * len(
            self._common_fitters
        )
        lists += [[row.lineage.get(column.name) for row in rows] for column in self.lineage]
        lists += [[row.answer.get(column.name) for row in rows] for column in self.answer]
        arrays = [pa.array(values, type=field.type) for values, field in zip(lists, self.arrow, strict=True)]
        return pa.Table.from_arrays(arrays, schema=self.arrow)

    def rows_from_table(self, table: pa.Table) -> list[Row]:
        """Return the rows of a table that `to_table` made."""
        plain = table.cast(pa.schema([field.with_type(plain_type(field.type)) for field in self.arrow]))
        lists = {name: plain.column(name).to_pylist() for name in plain.column_names}
        common = [(_ATTRIBUTES.get(column.name, column.name), lists[column.name]) for column in COMMON + REQUEST]
        return [
            Row(
                **{name: values[index] for name, values in common},
                lineage={column.name: lists[column.name][index] for column in self.lineage},
                answer={column.name: lists[column.name][index] for column in self.answer},
            )
            for index in range(table.num_rows)
        ]

    # ---------------------------------------------------------------------------------------------- journal

    @cached_property
    def _common_names(self) -> tuple[str, ...]:
        return tuple(column for column, _, _, _ in self._common_fitters)

    @cached_property
    def _json_writers(self) -> tuple[tuple[str, Convert], ...]:
        return self._converters(json_writer)

    @cached_property
    def _json_readers(self) -> tuple[tuple[str, Convert], ...]:
        return self._converters(json_reader)

    def _converters(self, make: Any) -> tuple[tuple[str, Convert], ...]:
        found = ((column.name, make(column.type)) for column in self.columns)
        return tuple((name, convert) for name, convert in found if convert is not None)

    def row_to_json(self, row: Row) -> bytes:
        """Return a fitted row as one JSON object, keyed by column name; nulls are left out."""
        common = zip(self._common_names, self._common_values(row), strict=True)
        plain = {name: value for name, value in common if value is not None}
        for group in (row.lineage, row.answer):
            plain.update((name, value) for name, value in group.items() if value is not None)
        for name, convert in self._json_writers:
            if name in plain:
                plain[name] = convert(plain[name])
        return orjson.dumps(plain)

    def row_from_json(self, data: bytes | memoryview) -> Row:
        """Return the row that `row_to_json` was given.

        Raises:
            ValueError: The bytes are not such an object.
        """
        plain = orjson.loads(data)
        if not isinstance(plain, dict) or not plain.keys() >= _REQUIRED:
            raise ValueError("not a row")
        for name, convert in self._json_readers:
            plain[name] = convert(plain.get(name))
        common: dict[str, Any] = {
            name: plain[column.name] if column.name in plain else _DEFAULTS[name]
            for column in COMMON + REQUEST
            for name in (_ATTRIBUTES.get(column.name, column.name),)
        }
        return Row(
            **common,
            lineage={column.name: plain.get(column.name) for column in self.lineage},
            answer={column.name: plain.get(column.name) for column in self.answer},
        )


def _quick(column: Column) -> Check:
    return checker(column.type) or (lambda value: False)


def _all_in_form(group: Mapping[str, Any], checks: Mapping[str, Check]) -> bool:
    """Whether a group holds exactly its columns, and each value in its column's form."""
    if type(group) is not dict or group.keys() != checks.keys():
        return False
    return all(value is None or checks[name](value) for name, value in group.items())
