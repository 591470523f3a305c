"""The records that flow from an archive to a table.

    plan -> parts of chunks -> (worker: read -> prepare -> admit -> engine -> interpret) -> rows -> results -> merge

A frozen record without arrays (`Address`, `Chunk`, `PlanEntry`) pickles, hashes and compares, and is what travels
between processes. A record with a payload (`Record`, `Request`) compares by identity and never leaves its worker.

Times are int64 UTC nanoseconds since 1970, half-open. Shapes are named by suffix: `wave_TC` is (time, channel).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

from s1batch.canonical import bytes_digest, digest, plain_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Outcome = Literal["ok", "unparsed", "length", "refused", "unreadable", "failed", "skipped"]
"""How a planned chunk ended: answered; answered but not in the schema; cut by the output limit; inadmissible for the
engine; not readable; the engine failed after its retries; not asked on purpose."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

Reason = Literal[
    # unreadable
    "unknown_format",
    "empty_file",
    "not_readable",
    "decode_error",
    "source_changed",
    "source_missing",
    # refused
    "missing_component",
    "gap_too_large",
    "series_not_supported",
    "image_not_supported",
    "series_too_long",
    "series_too_short",
    "several_series",
    "series_with_image",
    "mixed_series",
    "not_finite",
    "wrong_shape",
    "rate_missing",
    "context_too_long",
    "thinking_not_supported",
    "schema_not_supported",
    "tools_not_supported",
    "prompt_error",
    # unparsed
    "not_json",
    "not_in_schema",
    "out_of_range",
    "no_answer",
    # length
    "output_limit",
    # failed
    "bad_request",
    "unauthorized",
    "not_found",
    "rate_limited",
    "server_error",
    "connection",
    "bad_response",
    "deadline",
    "engine_error",
    "engine_unavailable",
    "context_length_exceeded",
    "invalid_request",
    "preprocess_failed",
    "internal_error",
    # skipped
    "not_triggered",
    "budget",
]
"""Why a row is not `ok`, as a closed set of codes; the row's `detail` says it in words."""

REASONS: tuple[Reason, ...] = get_args(Reason)

FinishReason = Literal["stop", "length", "tool_calls", "error", "abort"]
"""Why generation ended."""

Scalar = str | int | float | bool | None


# --------------------------------------------------------------------------------------------- where the data is


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """A half-open range of one named dimension.

    Attributes:
        dim: `time_ns` (UTC nanoseconds), `bytes`, `rows`, `chars`, `x`, `y`, or an array's own dimension (indices).
        start: First value inside.
        stop: First value outside.
    """

    dim: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where one input is, independent of machine, engine and time of modification.

    Attributes:
        source: The stream that the data belong to, such as the channel `BW.RJOB..EHZ`; empty where there is none.
        root: The name of the root folder (not its path) below which `path` lies.
        path: The file, relative to the root, encoded by `s1batch.paths`.
        slices: The selected ranges; for time series the first is the window in `time_ns`.
        rate_hz: Recorded sampling rate of the stream (of its grid, where it jitters); None outside time series.
    """

    source: str = ""
    root: str
    path: str
    slices: tuple[Slice, ...] = ()
    rate_hz: float | None = None


@dataclass(frozen=True)
class Chunk:
    """One piece of the archive that becomes one row.

    Attributes:
        inputs: The addresses that are read, in a stated order.
        core: The part of the chunk that it alone answers for, as a half-open range in the units of the addresses'
            first slice; None means all of it. What lies outside is halo (overlap, blinded edges).
    """

    inputs: tuple[Address, ...]
    core: tuple[int, int] | None = None

    @classmethod
    def planned(cls, key: str, inputs: tuple[Address, ...], core: tuple[int, int] | None) -> Chunk:
        """Return a chunk whose key was computed before, when it was planned."""
        chunk = cls(inputs=inputs, core=core)
        chunk.__dict__["key"] = key
        return chunk

    @cached_property
    def key(self) -> str:
        """The identity: a hash of the addresses alone, equal in every process and for every engine."""
        return plain_digest([_address_identity(address) for address in self.inputs])

    @property
    def start(self) -> int | None:
        """First value of the first slice of the first address; None when there is none."""
        slices = self.inputs[0].slices if self.inputs else ()
        return slices[0].start if slices else None

    @property
    def stop(self) -> int | None:
        """First value behind the first slice of the first address; None when there is none."""
        slices = self.inputs[0].slices if self.inputs else ()
        return slices[0].stop if slices else None

    @property
    def dim(self) -> str | None:
        """The dimension of the first slice of the first address; None when there is none."""
        slices = self.inputs[0].slices if self.inputs else ()
        return slices[0].dim if slices else None


def _address_identity(address: Address) -> dict[str, object]:
    """What `s1batch.canonical` makes of an address, written out: every chunk of a plan is keyed."""
    identity: dict[str, object] = {}
    if address.path:
        identity["path"] = address.path
    if address.rate_hz is not None:
        identity["rate_hz"] = address.rate_hz
    if address.root:
        identity["root"] = address.root
    if address.slices:
        identity["slices"] = [
            {"dim": part.dim, "start": part.start, "stop": part.stop}
            if part.dim
            else {"start": part.start, "stop": part.stop}
            for part in address.slices
        ]
    if address.source:
        identity["source"] = address.source
    return identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a chunk or request is not asked, decided before any engine sees it."""

    outcome: Outcome
    reason: Reason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesShape:
    """The shape of a time series without its values: T steps of C channels at a rate in Hz."""

    steps: int
    channels: int
    rate_hz: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEntry:
    """One line of the plan.

    Readers fill `chunk`, `label`, `series`, `nbytes`, `text_chars` and, where they cannot serve the chunk, `refusal`;
    the planner adds `part`, `prompt_tokens` and the refusals of the engine's rules.

    Attributes:
        chunk: What is read.
        label: A short name for people: the station, the paper, the file.
        series: Shape of the series that will be sent; None for other payloads.
        text_chars: Characters of text that the payload adds to the prompt.
        nbytes: Bytes that are read for it (an estimate).
        gap_frac: Share of the samples that will be filled because the archive has none, 0 to 1.
        refusal: Decided before the run; such a chunk is written as a row and never asked.
        part: The result file that its row goes to.
        prompt_tokens: Estimated tokens of the prompt.
    """

    chunk: Chunk
    label: str = ""
    series: SeriesShape | None = None
    text_chars: int = 0
    nbytes: int = 0
    gap_frac: float = 0.0
    refusal: Refusal | None = None
    part: int = -1
    prompt_tokens: int = 0


InventoryStatus = Literal["selected", "duplicate", "not_selected", "unreadable"]
"""What the reader does with a stretch of the archive: it goes into chunks; another file holds the same samples; the
job does not ask for it; it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InventoryItem:
    """A stretch of one stream in one file, with exactly one status: together they are the whole archive.

    Attributes:
        root: Name of the root folder.
        path: File below the root, encoded.
        source: The stream (channel); empty for a file that could not be opened.
        status: What becomes of it.
        reason: For `unreadable`, a `Reason`; for `not_selected` and `duplicate`, a word (`channel`, `time_range`, ...).
        unit: What `count` counts: `samples`, `bytes`, `rows`, `chars`, `pixels`.
        count: How many.
        start: First value in the stream's dimension (ns for time series); None where there is none.
        stop: First value behind it.
        rate_hz: Sampling rate as recorded; None outside time series.
        size: Size of the file in bytes.
        mtime_ns: Modification time of the file.
        sha256: Content hash, when the job asks for it.
    """

    root: str
    path: str
    source: str = ""
    status: InventoryStatus
    reason: str = ""
    unit: str
    count: int
    start: int | None = None
    stop: int | None = None
    rate_hz: float | None = None
    size: int = 0
    mtime_ns: int = 0
    sha256: str = ""


# ------------------------------------------------------------------------------------------------- what was read


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Series:
    """A regularly sampled series.

    Attributes:
        values_TC: float32, shape (T, C): time first.
        rate_hz: Rate of these samples (after resampling).
        channels: Name of each of the C columns.
        start_ns: Time of sample 0; sample i is at `start_ns + round(i * 1e9 / rate_hz)`.
        units: Physical unit, or "counts".
    """

    values_TC: NDArray[np.float32]
    rate_hz: float
    channels: tuple[str, ...]
    start_ns: int = 0
    units: str = ""

    @property
    def shape(self) -> SeriesShape:
        """The shape without the values."""
        steps, channels = self.values_TC.shape
        return SeriesShape(steps=steps, channels=channels, rate_hz=self.rate_hz)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fields:
    """One row of a table, as plain values by column name."""

    values: Mapping[str, Any]


Payload = Series | Fields


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """A chunk with its payload and lineage; lives on one worker, between reading and answering.

    Attributes:
        chunk: What was read.
        payload: The data; None when `refusal` says why there are none, and after `without_payload()`.
        lineage: Values of the reader's lineage columns, by name; also what a prompt template may use.
        refusal: The reader's verdict that there is nothing to ask (unreadable, too much gap, not finite ...).
    """

    chunk: Chunk
    payload: Payload | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    refusal: Refusal | None = None

    def without_payload(self) -> Record:
        """Return the record with its payload dropped: what waits for the answer needs no samples in memory."""
        return replace(self, payload=None)


# ------------------------------------------------------------------------------------------- what the engine gets


@dataclass(frozen=True, slots=True, kw_only=True)
class TextPart:
    """Text in a message."""

    text: str


@dataclass(frozen=True, eq=False)
class SeriesPart:
    """A time series in a message.

    Attributes:
        values_TC: float32, shape (T, C).
        rate_hz: True rate of the samples.
        declared_rate_hz: Rate that the engine is told when the true one would break it; None means the true one.
        conditioned: Channels that were standardised because the engine's z-score would have damaged them; shown in the
            row. The identity has it through the values.
    """

    values_TC: NDArray[np.float32]
    rate_hz: float
    declared_rate_hz: float | None = None
    conditioned: tuple[int, ...] = ()

    @property
    def shape(self) -> SeriesShape:
        """Steps, channels and the rate that the engine is told."""
        steps, channels = self.values_TC.shape
        return SeriesShape(steps=steps, channels=channels, rate_hz=self.declared_rate_hz or self.rate_hz)

    @cached_property
    def digest(self) -> str:
        """Hash of the values, shape and rate."""
        import numpy as np

        values = np.ascontiguousarray(self.values_TC, dtype=np.float32)
        content = bytes_digest(values.data.cast("B") if values.size else b"")
        return digest([content, list(values.shape), self.rate_hz, self.declared_rate_hz])


@dataclass(frozen=True, eq=False)
class ImagePart:
    """An encoded image (JPEG, PNG or WebP) in a message."""

    data: bytes
    mime: str = "image/png"

    @cached_property
    def digest(self) -> str:
        """Hash of the bytes and their type."""
        return digest([bytes_digest(self.data), self.mime])


Part = TextPart | SeriesPart | ImagePart
Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: Role
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; every value is resolved, none is left to an engine's default.

    Attributes:
        max_tokens: Most tokens that may be generated, reasoning included.
        temperature: 0 means greedy: the most probable token, always.
        top_p: Nucleus: the smallest set of tokens whose probability reaches this.
        top_k: Only the k most probable tokens; 0 means all.
        min_p: Only tokens at least this fraction as probable as the best.
        repetition_penalty: 1 means none.
        thinking: Whether the model reasons before it answers.
    """

    max_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    thinking: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """Which weights answer, down to what alters an answer."""

    name: str
    revision: str = ""
    dtype: str = ""
    quantisation: str = ""


@dataclass(frozen=True)
class Request:
    """A question, completely resolved.

    Attributes:
        messages: The conversation so far.
        sampling: How to generate.
        model: Who shall answer.
        seed: Seed of the sampling; the same seed, sample index and request give the same answer.
        sample_index: 0 for the first answer; repeats of one question count up.
        schema: JSON Schema that the answer must fit; None for free text.
        neutralised: How many special tokens were made harmless in the text; shown in the row, not part of the identity.
    """

    messages: tuple[Message, ...]
    sampling: Sampling
    model: ModelIdentity
    seed: int = 0
    sample_index: int = 0
    schema: Mapping[str, Any] | None = None
    neutralised: int = 0

    @property
    def nbytes(self) -> int:
        """About the memory that the contents take: characters of the text, bytes of the media."""
        return sum(
            len(part.text)
            if isinstance(part, TextPart)
            else part.values_TC.nbytes
            if isinstance(part, SeriesPart)
            else len(part.data)
            for message in self.messages
            for part in message.parts
        )

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that can change the answer: messages, media digests, sampling, seed, sample index, schema and
        model; neither the engine that serves it, nor a secret, nor where the data came from."""
        messages = [
            {"role": message.role, "parts": [_part_identity(part) for part in message.parts]}
            for message in self.messages
        ]
        return digest(
            {
                "messages": messages,
                "sampling": self.sampling,
                "model": self.model,
                "seed": self.seed,
                "sample_index": self.sample_index,
                # As text: the order of properties steers guided decoding, and canonical JSON drops empty schemas.
                "schema": None if self.schema is None else json.dumps(self.schema),
            }
        )

    @property
    def series(self) -> tuple[SeriesPart, ...]:
        """All time series of all messages, in order."""
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, SeriesPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """All images of all messages, in order."""
        return tuple(part for message in self.messages for part in message.parts if isinstance(part, ImagePart))

    @property
    def text(self) -> str:
        """All text of all messages, joined by line breaks."""
        return "\n".join(message.text for message in self.messages)


def _part_identity(part: Part) -> dict[str, str]:
    if isinstance(part, TextPart):
        return {"text": part.text}
    return {"series" if isinstance(part, SeriesPart) else "image": part.digest}


# ------------------------------------------------------------------------------------------------- what comes back


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What an engine answered.

    Attributes:
        fingerprint: The request's.
        text: The answer, without the reasoning.
        reasoning: What the model thought before it, when it was asked to think.
        finish_reason: Why generation ended.
        prompt_tokens: Tokens of the prompt, media included.
        cached_tokens: How many of them came from the engine's cache.
        output_tokens: Tokens generated, reasoning included.
        seconds: From sending to the last token.
        attempts: How often it was asked.
        engine: Which engine, with its version.
        model: Which model, as the engine names it.
        error: Why there is no answer; then `text` is empty.
        detail: The error in the engine's words.
    """

    fingerprint: str
    text: str = ""
    reasoning: str | None = None
    finish_reason: FinishReason = "stop"
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float = 0.0
    attempts: int = 1
    engine: str = ""
    model: str = ""
    error: Reason | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a job makes of a response: an outcome and the typed fields of its schema."""

    outcome: Outcome
    reason: Reason | None = None
    detail: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the results: the common columns, then lineage, then the answer's fields.

    The meaning of each common column stands in `s1batch.results.schema`.
    """

    chunk_key: str
    part: int
    source: str
    start_ns: int | None = None
    stop_ns: int | None = None
    span_start: int | None = None
    span_end: int | None = None
    outcome: Outcome
    reason: Reason | None = None
    detail: str = ""
    text: str = ""
    reasoning: str | None = None
    finish_reason: FinishReason | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    seconds: float = 0.0
    attempts: int = 0
    engine: str = ""
    model: str = ""
    fingerprint: str = ""
    rate_declared_hz: float | None = None
    neutralised: int = 0
    conditioned: list[int] | None = None
    lineage: Mapping[str, Any] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)
