"""The `seismic-pick` job: does a window hold an earthquake, and where do its P and S waves begin?

The question is the one that LMDeploy documents for Intern-S1-Pro; the answer is one JSON object,
`{"contain": bool, "p_index": int or null, "s_index": int or null}`. Indices count from the start of the window at the
rate that was sent: time = start + round(index * 1e9 / rate_sent_hz).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s1batch.canonical import digest
from s1batch.columns import Column
from s1batch.errors import SourceError
from s1batch.jobs.answers import AnswerSchema, interpret_json
from s1batch.jobs.base import Settings
from s1batch.jobs.messages import messages_of
from s1batch.jobs.pick_merge import MERGE_COLUMNS, merge_picks
from s1batch.jobs.repair import MENDED, repair_request
from s1batch.jobs.template import PromptTemplate, names_of
from s1batch.records import Answer, PlanEntry, Record, Request, Response, Series, SeriesPart, TextPart

if TYPE_CHECKING:
    import polars as pl

PROMPT = (
    "Please determine whether an Earthquake event has occurred. If so, specify P-wave and S-wave starting indices.\n"
    'Answer with one JSON object and nothing else: {"contain": true or false, "p_index": integer or null, '
    '"s_index": integer or null}. Indices count samples from 0 at the start of the series; null means that the phase '
    "does not start in it."
)
"""What all windows share, and so what stands first; the first line is LMDeploy's documented question."""

NOTE = "The series has {{ steps }} samples at {{ '%g'|format(rate_sent_hz) }} Hz."
"""What differs from window to window; it follows the series."""

_PHASES = ("p", "s")
_NEEDED = ("steps", "rate_sent_hz")


@dataclass(frozen=True, kw_only=True)
class SeismicPickJob:
    """Asks for P and S onsets in windows of waveforms.

    Attributes:
        prompt: Template of the text before the series.
        note: Template of the text behind it; None leaves it out.
        system: Template of a system message; None sends none.
        guided: Whether the engine is told the schema, with the window's own bounds.
        repairs: How often the model is asked to mend an answer that is not of the form, or names samples that the
            window does not have.
        merge_tolerance_s: Picks of one phase at one station not farther apart than this are one pick.
    """

    prompt: PromptTemplate
    note: PromptTemplate | None
    system: PromptTemplate | None = None
    guided: bool = True
    repairs: int = 0
    merge_tolerance_s: float = 0.5

    @property
    def columns(self) -> tuple[Column, ...]:
        """`contain`, the indices, and the times that they stand for."""
        import pyarrow as pa

        time = pa.timestamp("ns", tz="UTC")
        return (
            Column(name="contain", type=pa.bool_(), doc="whether the window holds an earthquake"),
            Column(name="p_index", type=pa.int64(), doc="first sample of the P wave, from 0, at rate_sent_hz"),
            Column(name="s_index", type=pa.int64(), doc="first sample of the S wave, from 0, at rate_sent_hz"),
            Column(name="p_time", type=time, doc="time of p_index (UTC)"),
            Column(name="s_time", type=time, doc="time of s_index (UTC)"),
        )

    @property
    def prompt_hash(self) -> str:
        """Hash of the templates and the schema."""
        parts = [template.source if template else None for template in (self.system, self.prompt, self.note)]
        return digest([*parts, _SCHEMA.text, self.guided])

    @property
    def names(self) -> frozenset[str]:
        """The names that the templates use."""
        templates = (self.prompt, self.note, self.system)
        return frozenset().union(*(template.names for template in templates if template is not None))

    def outline(self, entry: PlanEntry) -> str:
        """Return the prompt with what the plan knows; a template that needs more stands as it is written."""
        names: dict[str, Any] = {}
        if entry.series is not None:
            names = {"steps": entry.series.steps, "rate_sent_hz": entry.series.rate_hz}
        texts = []
        for template in (self.system, self.prompt, self.note):
            if template is not None:
                try:
                    texts.append(template.render(names).text)
                except SourceError:
                    texts.append(template.source)
        return "\n".join(texts)

    @property
    def pieces(self) -> tuple[str | None, ...]:
        """System message and question; then the series, and the note about it."""
        before = self.system.pieces if self.system else ()
        return (*before, *self.prompt.pieces, None, *(self.note.pieces if self.note else ()))

    def prepare(self, record: Record, settings: Settings) -> Request:
        """Build the request: the shared text, the series, the note.

        Raises:
            SourceError: The record holds no series, or a template fails on it.
        """
        series = record.payload
        if not isinstance(series, Series) or any(name not in record.lineage for name in _NEEDED):
            raise SourceError(
                "prompt_error", "seismic-pick needs a series from a reader of waveforms; use an ask job for other data"
            )
        names = names_of(record, self.names)
        prompt = self.prompt.render(names)
        parts: list[TextPart | SeriesPart] = [
            TextPart(text=prompt.text + "\n"),
            SeriesPart(values_TC=series.values_TC, rate_hz=series.rate_hz),
        ]
        messages, elsewhere = messages_of(parts, note=self.note, system=self.system, names=names)
        steps = series.values_TC.shape[0]
        return Request(
            messages=messages,
            sampling=settings.sampling,
            model=settings.model,
            seed=settings.seed,
            schema=pick_schema(steps) if self.guided else None,
            neutralised=prompt.neutralised + elsewhere,
        )

    @property
    def checks_values(self) -> bool:
        """False: the answer alone decides."""
        return False

    def interpret(self, record: Record, response: Response) -> Answer:
        """Turn a response into picks.

        An index outside the data of the window (behind its end, or in its padding) makes the answer `unparsed`,
        `out_of_range`: such a model did not see what it answers about. Two contradictions stay `ok` and are told in
        `detail`: indices beside `"contain": false` are dropped, because `contain` is what was asked first; an S that
        does not follow its P is kept, because it may belong to an earlier event than the P.
        """
        answer = interpret_json(response, _SCHEMA)
        if answer.outcome != "ok":
            return answer
        window = _SentWindow.of(record)
        notes = [answer.detail] if answer.detail else []
        fields = dict(answer.fields)
        for phase in _PHASES:
            index = fields[f"{phase}_index"]
            if index is not None and not 0 <= index < window.data_steps:
                where = "in the padding" if 0 <= index < window.steps else "outside"
                detail = f"{phase}_index {index} lies {where}: the window has data at 0 to {window.data_steps - 1}"
                return Answer(outcome="unparsed", reason="out_of_range", detail=detail)
            if index is not None and not fields["contain"]:
                notes.append(f"{phase}_index {index} dropped: contain is false")
                fields[f"{phase}_index"] = index = None
            fields[f"{phase}_time"] = None if index is None else window.time_ns(index)
        p_index, s_index = fields["p_index"], fields["s_index"]
        if p_index is not None and s_index is not None and s_index <= p_index:
            notes.append(f"s_index {s_index} is not behind p_index {p_index}")
        return Answer(outcome="ok", detail="; ".join(notes), fields=fields)

    def repair(self, request: Request, response: Response, answer: Answer) -> Request | None:
        """Return the question that asks for an answer of the form.

        None for an onset in the padding: such an answer has its form, and a model that is pressed would name another
        sample just to please.
        """
        if answer.outcome != "unparsed" or answer.reason not in MENDED:
            return None
        form = AnswerSchema(document=pick_schema(request.series[0].shape.steps))
        if form.validate(response.text).reason is None:
            return None
        return repair_request(request, response, answer.detail, "")

    def places(self, fields: Mapping[str, Any]) -> tuple[int, ...] | None:
        """Return the times (ns) of the picks; everywhere when there is an earthquake without one."""
        if not fields.get("contain"):
            return ()
        times = tuple(int(fields[name]) for name in ("p_time", "s_time") if fields.get(name) is not None)
        return times or None

    @property
    def toolbox(self) -> None:
        """None: picks need no tools."""

    @property
    def merge_columns(self) -> frozenset[str]:
        """What says where and when a pick is, and how its window lies."""
        return MERGE_COLUMNS

    def merge(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return one line for each pick of a phase at a station, merged over overlapping windows."""
        return merge_picks(rows, self.merge_tolerance_s)

    def merge_pieces(self, pieces: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Yield the same for rows that come in pieces, in memory that does not grow with the archive."""
        from s1batch.jobs.pick_pieces import merge_pieces

        return merge_pieces(pieces, self.merge_tolerance_s)


def pick_schema(steps: int | None = None) -> Mapping[str, Any]:
    """Return the schema of the answer; with a number of steps, one in which every index lies in the window."""
    index: dict[str, Any] = {"type": "integer", "minimum": 0}
    if steps is not None:
        index["maximum"] = steps - 1
    return {
        "type": "object",
        "properties": {
            "contain": {"type": "boolean"},
            "p_index": {"anyOf": [index, {"type": "null"}]},
            "s_index": {"anyOf": [index, {"type": "null"}]},
        },
        "required": ["contain", "p_index", "s_index"],
        "additionalProperties": False,
    }


_SCHEMA = AnswerSchema(document=pick_schema())


@dataclass(frozen=True, slots=True, kw_only=True)
class _SentWindow:
    """The window as the model saw it: `steps` samples, of which the first `data_steps` are no padding."""

    steps: int
    data_steps: int
    rate_hz: float
    start_ns: int | None

    @classmethod
    def of(cls, record: Record) -> _SentWindow:
        steps = int(record.lineage["steps"])
        rate_hz = float(record.lineage["rate_sent_hz"])
        padded = round(steps * float(record.lineage.get("pad_frac") or 0.0))
        start_ns = record.chunk.start if record.chunk.dim == "time_ns" else None
        return cls(steps=steps, data_steps=steps - padded, rate_hz=rate_hz, start_ns=start_ns)

    def time_ns(self, index: int) -> int | None:
        if self.start_ns is None:
            return None
        return self.start_ns + round(index * 1e9 / self.rate_hz)
