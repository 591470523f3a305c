"""Series as the model gets them: as they are, as plots, or as both."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from s1batch.jobs.template import series_of
from s1batch.records import Fields, ImagePart, Part, PlanEntry, Record, Series, SeriesPart

Render = Literal["series", "image", "both"]
Plot = Literal["waveform", "spectrogram", "recurrence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How the series of records are sent.

    Attributes:
        render: As series, as plots, or as both.
        plot: What is drawn.
        size_px: Width and height of a plot.
    """

    render: Render = "series"
    plot: Plot = "waveform"
    size_px: tuple[int, int] = (896, 672)

    @property
    def identity(self) -> list[object]:
        """What a hash of the prompt must hold of it; nothing where series are sent as they are."""
        return [] if self.render == "series" else [self.render, self.plot, list(self.size_px)]

    def sends(self, entry: PlanEntry) -> PlanEntry:
        """Return the entry with what is sent of it: a plot for each series, besides it or in its place."""
        count = entry.n_series
        if self.render == "series" or not count:
            return entry
        sizes = (*entry.image_sizes, *[self.size_px] * count)
        drawn = replace(entry, images=entry.images + count, image_sizes=sizes)
        return drawn if self.render == "both" else replace(drawn, series=None, further_series=())

    def parts(self, record: Record) -> tuple[Part, ...]:
        """Return the media of a question: the series, their plots, then the images of the record.

        Raises:
            SourceError: A series cannot be drawn.
        """
        series = series_of(record)
        parts: list[Part] = []
        if self.render != "image":
            parts += (SeriesPart(values_TC=each.values_TC, rate_hz=each.rate_hz) for each in series)
        if self.render != "series":
            parts += (self._picture(each) for each in series)
        if isinstance(record.payload, Fields):
            parts += record.payload.images
        return tuple(parts)

    def _picture(self, series: Series) -> ImagePart:
        from s1batch.jobs.pictures import draw

        return draw(series, self.plot, self.size_px)


AS_SERIES = Drawing()
"""Series are sent as they are."""
