"""Lines of the plan and of the inventory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from s1batch.records.outcomes import Outcome, Reason
from s1batch.records.places import Chunk


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

    Readers fill `chunk`, `label`, `series`, `further_series`, `nbytes`, `text_chars`, `text_tokens`, `images`,
    `image_sizes` and, where they cannot serve the chunk, `refusal`; the planner adds `part`, `prompt_tokens` and the
    refusals of the engine's rules.

    Attributes:
        chunk: What is read.
        label: A short name for people: the station, the paper, the file.
        series: Shape of the series that will be sent; None for other payloads.
        further_series: Shapes of the series that will be sent besides; None for one whose shape is not known before it
            is read. Only the planner uses it: it is not stored.
        text_chars: Characters of text that the payload adds to the prompt.
        text_tokens: Tokens of that text in the model's own count; None where the reader has not counted them. Only the
            planner uses it: it is not stored.
        images: How many images will be sent.
        image_sizes: Width and height in pixels of each of them as sent; empty where the reader does not know them. Only
            the planner uses it: it is not stored.
        nbytes: Bytes that are read for it (an estimate).
        gap_frac: Share of the samples that will be filled because the archive has none, 0 to 1.
        refusal: Decided before the run; such a chunk is written as a row and never asked.
        part: The result file that its row goes to.
        prompt_tokens: Estimated tokens of the prompt.
        is_scan: Whether it is asked first, at a lower rate, and its answer decides about other chunks of its part. A
            scan answers for no sample by itself: those chunks cover it.
        condition: Key of the scan, planned before in the same part, whose answer decides whether this chunk is asked;
            None when it is asked anyway.
    """

    chunk: Chunk
    label: str = ""
    series: SeriesShape | None = None
    further_series: tuple[SeriesShape | None, ...] = ()
    text_chars: int = 0
    text_tokens: int | None = None
    images: int = 0
    image_sizes: tuple[tuple[int, int], ...] = ()
    nbytes: int = 0
    gap_frac: float = 0.0
    refusal: Refusal | None = None
    part: int = -1
    prompt_tokens: int = 0
    is_scan: bool = False
    condition: str | None = None

    @property
    def n_series(self) -> int:
        """How many series will be sent."""
        return (self.series is not None) + len(self.further_series)


InventoryStatus = Literal["selected", "duplicate", "not_selected", "unreadable", "optional"]
"""What the reader does with a stretch of the archive: it goes into chunks; another file holds the same samples; the
job does not ask for it; it cannot be read; it goes into chunks as far as something else calls for it, and what no chunk
holds of it is not selected."""


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
