"""How long requests take: a distribution with a mean, and stragglers that take a multiple."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from s1batch.api import Results

Kind = Literal["constant", "exponential", "lognormal", "measured"]

MEAN_S = 20.0

QUANTILES = 201
"""Of a measured distribution, evenly spaced from the smallest to the largest time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """How long a request takes in an engine of ordinary speed whose slots are full.

    Nobody but the engine and the oracle knows a time before it is over. Stragglers are requests, not engines: one that
    takes ten times as long does so wherever it is asked, because its answer is long.

    Attributes:
        kind: The distribution.
        mean_s: Its mean, without the stragglers; not used by `measured`.
        sigma: Of `lognormal`: the standard deviation of the logarithm.
        quantiles_s: Of `measured`: times at evenly spaced probabilities from 0 to 1, with straight lines in between.
        stragglers: Share of the requests that take `factor` times as long.
        factor: See there.
    """

    kind: Kind = "lognormal"
    mean_s: float = MEAN_S
    sigma: float = 0.5
    quantiles_s: tuple[float, ...] = ()
    stragglers: float = 0.0
    factor: float = 10.0

    def draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Return the times of so many requests, in seconds."""
        seconds = self._draw(random, count)
        if self.stragglers:
            seconds = np.where(random.random(count) < self.stragglers, self.factor * seconds, seconds)
        return seconds

    def _draw(self, random: np.random.Generator, count: int) -> NDArray[np.float64]:
        if self.kind == "constant":
            return np.full(count, self.mean_s)
        if self.kind == "exponential":
            return random.exponential(self.mean_s, count)
        if self.kind == "lognormal":
            return self.mean_s * random.lognormal(-(self.sigma**2) / 2, self.sigma, count)
        at = np.linspace(0.0, 1.0, len(self.quantiles_s))
        return np.interp(random.random(count), at, self.quantiles_s)


def parse_service(text: str, mean_s: float = MEAN_S) -> Service:
    """Read `constant`, `exponential` or `lognormal:SIGMA`.

    Raises:
        ValueError: It is none of them.
    """
    name, _, sigma = text.partition(":")
    if name == "lognormal":
        return Service(mean_s=mean_s, sigma=float(sigma or 0.5))
    if sigma or name not in ("constant", "exponential"):
        raise ValueError(f"{text!r} is no distribution: constant, exponential, or lognormal:SIGMA")
    return Service(kind="constant" if name == "constant" else "exponential", mean_s=mean_s)


def measured(path: Path) -> Service:
    """Take the times from a file that `describe` wrote, or from the rows of a results folder.

    Raises:
        ValueError: There are no times.
    """
    if path.is_dir():
        return Service(kind="measured", quantiles_s=tuple(json.loads(describe(path, ""))["quantiles_s"]))
    return Service(kind="measured", quantiles_s=tuple(json.loads(path.read_text())["quantiles_s"]))


def describe(results: Path, where: str) -> str:
    """Return the times of a run's answers as JSON: their quantiles, what they were measured on, and how many they are.

    Args:
        results: A results folder.
        where: The machine, in words.
    """
    rows = Results(results).scan(unfinished=True).filter(pl.col("seconds") > 0, pl.col("outcome") == "ok")
    found = rows.select("seconds", "output_tokens", "engine", "model").collect()
    if not len(found):
        raise ValueError(f"{results} holds no answer with its time")
    seconds = found["seconds"].to_numpy()
    document = {
        "measured": where,
        "engine": found["engine"][0],
        "model": found["model"][0],
        "answers": len(found),
        "mean_s": round(float(seconds.mean()), 6),
        "mean_output_tokens": round(float(found["output_tokens"].cast(pl.Float64).mean() or 0.0), 2),  # type: ignore[arg-type]
        "quantiles_s": [round(float(each), 6) for each in np.quantile(seconds, np.linspace(0.0, 1.0, QUANTILES))],
    }
    return json.dumps(document) + "\n"


def with_stragglers(service: Service, share: float, factor: float) -> Service:
    """Return the distribution with so many stragglers."""
    return replace(service, stragglers=share, factor=factor)
