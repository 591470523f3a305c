"""Makes the plan: the reader's chunks, with parts, token counts and the engine's refusals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from s1batch.engine.prompt_shape import PromptShape
from s1batch.engine.rules import Rules
from s1batch.jobs.base import ChoosesMedia, Job
from s1batch.records import InventoryItem, PlanEntry, Reason, Refusal, Sampling, SeriesShape

FIRST_PART_CHUNKS = 128
LARGEST_PART_CHUNKS = 4096
PARTS_PER_SIZE = 1000

CountText = Callable[[str], int]

_SOME_SERIES = SeriesShape(steps=1000, channels=1, rate_hz=100.0)
"""Stands for a series whose shape is not known yet, where it matters only that there is one."""

_WHATEVER_SHAPE: frozenset[Reason] = frozenset({"series_not_supported", "several_series", "series_with_image"})
"""What is refused of a series, whatever its shape."""


PART_ADDRESSES = 16384
"""A part with so many addresses is full, however few its chunks: a worker holds the addresses of its open parts."""


def part_sizes(fixed: int | None = None) -> Iterator[int]:
    """Yield the chunks of part 0, 1, ...: 128, doubled every thousand parts up to 4,096.

    Small archives get parts that resume finely; an archive of a hundred million chunks stays near 28,000 parts.
    """
    if fixed is not None:
        while True:
            yield fixed
    part = 0
    while True:
        yield min(FIRST_PART_CHUNKS << (part // PARTS_PER_SIZE), LARGEST_PART_CHUNKS)
        part += 1


@dataclass(slots=True)
class PlanTotals:
    """What a plan adds up to, counted while it streams by.

    Attributes:
        chunks: Planned chunks, refused ones included.
        parts: Result files.
        refused: Chunks by the reason why they are not asked.
        details: What was said of the first chunk of each reason.
        prompt_tokens: Estimated prompt tokens of what is asked.
        steps: Samples per channel of what is asked, overlaps counted each time.
        nbytes: Bytes to read.
        shapes: Distinct (steps, channels, rate) of the series that are asked, with counts.
        scans: Chunks that are asked first, at a lower rate, and decide about others.
        conditional: What depends on their answers; it is part of all other counts too.
    """

    chunks: int = 0
    parts: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    prompt_tokens: int = 0
    steps: int = 0
    nbytes: int = 0
    shapes: Counter[tuple[int, int, float]] = field(default_factory=Counter)
    scans: int = 0
    conditional: PlanTotals | None = None

    @property
    def asked(self) -> int:
        """Chunks that will be asked; those that depend on a scan included."""
        return self.chunks - sum(self.refused.values())

    def count(self, entry: PlanEntry, refusal: Refusal | None, tokens: int) -> None:
        """Add one entry, with why it is refused and its prompt tokens."""
        self.chunks += 1
        if refusal is not None:
            self.refused[refusal.reason] += 1
            self.details.setdefault(refusal.reason, refusal.detail)
            return
        self.scans += entry.is_scan
        self.prompt_tokens += tokens
        self.nbytes += entry.nbytes
        if entry.series is not None:
            self.steps += entry.series.steps
            shape = (entry.series.steps, entry.series.channels, entry.series.rate_hz)
            if shape in self.shapes or len(self.shapes) < 10_000:
                self.shapes[shape] += 1


class Planner:
    """Completes a reader's entries one by one; holds only totals, so memory does not grow with the archive.

    Args:
        rules: What the engine takes.
        job: Gives the text around the payload.
        sampling: Gives the output limit and whether the model thinks.
        count_text: Tokens of a text, exact or estimated.
        part_chunks: Fixed part size; None grows it with the plan. Chunks of very many addresses make smaller parts.
        first_part: Number of the first part (more than 0 when a plan is extended).
    """

    def __init__(
        self,
        rules: Rules,
        job: Job,
        sampling: Sampling,
        count_text: CountText,
        *,
        part_chunks: int | None = None,
        first_part: int = 0,
    ) -> None:
        self._rules = rules
        self._job = job
        self._sampling = sampling
        self._count_text = count_text
        self._sizes = part_sizes(part_chunks)
        self._part = first_part - 1
        self._room = self._room_for_addresses = 0
        self._refused_scan: str | None = None
        self._texts: dict[str, int] = {}
        self.totals = PlanTotals()

    def complete(self, items: Iterable[InventoryItem | PlanEntry]) -> Iterator[InventoryItem | PlanEntry]:
        """Yield inventory items as they are, and entries with part, tokens and the engine's verdict."""
        for item in items:
            yield self._complete(item) if isinstance(item, PlanEntry) else item

    def _complete(self, entry: PlanEntry) -> PlanEntry:
        if entry.condition is not None and entry.condition == self._refused_scan:
            entry = replace(entry, condition=None)
        # What depends on a scan stays in its part, which may grow beyond its size for it.
        if min(self._room, self._room_for_addresses) <= 0 and entry.condition is None:
            self._part += 1
            self._room, self._room_for_addresses = next(self._sizes), PART_ADDRESSES
            self.totals.parts += 1
        self._room -= 1
        self._room_for_addresses -= len(entry.chunk.inputs)
        if isinstance(self._job, ChoosesMedia):
            entry = self._job.sends(entry)
        shape = self._shape(entry)
        refusal = entry.refusal or self._rules.admit_shape(shape) or self._refusal_of_unknown(entry, shape)
        if refusal is not None and refusal.reason == "context_too_long" and len(entry.image_sizes) < entry.images:
            # How large the images are is not known before they are read; the worker refuses what does not fit.
            refusal = entry.refusal or self._rules.admit_shape(replace(shape, images=len(entry.image_sizes)))
        tokens = self._rules.prompt_tokens(shape)
        if entry.is_scan and refusal is not None:
            self._refused_scan = entry.chunk.key
        self._count(entry, refusal, tokens)
        return replace(entry, part=self._part, prompt_tokens=tokens, refusal=refusal)

    def _shape(self, entry: PlanEntry) -> PromptShape:
        text = self._job.outline(entry)
        tokens = self._texts.get(text)
        if tokens is None:
            tokens = self._count_text(text)
            if len(self._texts) < 1000:
                self._texts[text] = tokens
        return PromptShape(
            text_tokens=tokens + (entry.text_tokens or 0),
            series=tuple(each for each in (entry.series, *entry.further_series) if each is not None),
            images=entry.images,
            image_sizes=entry.image_sizes,
            max_tokens=self._sampling.max_tokens,
            thinking=self._sampling.thinking,
            thinking_budget=self._sampling.thinking_budget is not None,
            schema=self._job.guided and bool(self._job.columns),
            tools=self._job.toolbox is not None,
        )

    def _refusal_of_unknown(self, entry: PlanEntry, shape: PromptShape) -> Refusal | None:
        """Return why a prompt must not hold the series whose shapes are not known yet."""
        unknown = entry.n_series - len(shape.series)
        if not unknown:
            return None
        refusal = self._rules.admit_shape(replace(shape, series=shape.series + (_SOME_SERIES,) * unknown))
        return refusal if refusal is not None and refusal.reason in _WHATEVER_SHAPE else None

    def _count(self, entry: PlanEntry, refusal: Refusal | None, tokens: int) -> None:
        self.totals.count(entry, refusal, tokens)
        if entry.condition is not None:
            if self.totals.conditional is None:
                self.totals.conditional = PlanTotals()
            self.totals.conditional.count(entry, refusal, tokens)
