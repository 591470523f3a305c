"""How a job file says how long a window is, how far windows overlap, and what happens at the end."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from s1batch.config import Config

Unit = Literal["s", "samples", "%", "max"]
_EXTENT = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*(ms|s|min|h|d|%|samples?)?\s*")
_SECONDS = {"ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True)
class ExtentValue:
    """A length as the job file gives it: `60s`, `6000` (samples), `50%` or `max`."""

    value: float
    unit: Unit

    def __str__(self) -> str:
        if self.unit == "max":
            return "max"
        number = int(self.value) if self.value.is_integer() else self.value
        return f"{number}" + ("" if self.unit == "samples" else self.unit)

    def samples(self, rate_hz: float, whole: int | None = None) -> int:
        """Return the length in samples.

        Args:
            rate_hz: Sampling rate, for lengths in seconds.
            whole: What 100 % is, in samples.

        Raises:
            ValueError: For `max`, which only the planner resolves, and for percent of nothing.
        """
        if self.unit == "s":
            return round(self.value * rate_hz)
        if self.unit == "samples":
            return round(self.value)
        if self.unit == "%" and whole is not None:
            return round(self.value / 100 * whole)
        raise ValueError(f"{self} is no length in samples")


def parse_extent(text: Any) -> ExtentValue:
    """Parse `60s`, `1.5 min`, `6000`, `50%` or `max`.

    Raises:
        ValueError: For anything else, with the valid forms.
    """
    if isinstance(text, ExtentValue):
        return text
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if text < 0 or text != int(text):
            raise ValueError(f"{text} is no number of samples")
        return ExtentValue(float(text), "samples")
    if isinstance(text, str):
        if text.strip() == "max":
            return ExtentValue(0.0, "max")
        match = _EXTENT.fullmatch(text)
        if match:
            number, unit = float(match.group(1)), match.group(2)
            if unit in _SECONDS:
                return ExtentValue(number * _SECONDS[unit], "s")
            if unit == "%":
                return ExtentValue(number, "%")
            if number == int(number):
                return ExtentValue(number, "samples")
    raise ValueError("give seconds (60s, 5min, 1h), samples (6000), percent (50%) or max")


Extent = Annotated[
    ExtentValue,
    BeforeValidator(parse_extent),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": ["string", "integer"], "examples": ["60s", 6000, "50%", "max"]}),
]


class WindowSpec(Config):
    """How a series is cut into windows."""

    length: Extent = Field(
        ExtentValue(60.0, "s"), description="seconds (60s), samples (6000), max (the engine's longest)"
    )
    overlap: Extent = Field(ExtentValue(0.0, "%"), description="percent of the length, seconds, or samples")
    tail: Literal["shift", "pad", "short"] = Field(
        "shift",
        description="the last window of a run of data: moved back to end with the data, zero-padded, or left short",
    )
    blinding: Extent = Field(
        ExtentValue(0.0, "samples"),
        description="margin at inner edges whose answers are left to the neighbouring window",
    )
    longest_samples: int | None = Field(
        None,
        ge=1,
        description="the longest series that is sent; `long_series` says what becomes of longer windows. Left out: the "
        "engine's longest, or no limit",
    )
    max_gap_frac: float = Field(1.0, ge=0, le=1, description="windows with a larger share filled are refused")

    @model_validator(mode="after")
    def _check(self) -> WindowSpec:
        if self.length.unit == "%" or (self.length.unit != "max" and self.length.value <= 0):
            raise ValueError("window.length is seconds (60s), samples (6000) or max, and more than zero")
        if self.overlap.unit == "max" or (self.overlap.unit == "%" and self.overlap.value >= 100):
            raise ValueError("window.overlap is percent below 100, seconds or samples")
        if self.length.unit == self.overlap.unit and self.overlap.value >= self.length.value:
            raise ValueError("window.overlap must be shorter than window.length")
        if self.blinding.unit == "max" or (self.blinding.unit == "%" and self.blinding.value >= 50):
            raise ValueError("window.blinding is percent below 50, seconds or samples")
        return self
