"""The `source: {kind: join}` block of a job file."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from pydantic import Field, model_validator

from s1batch.config import Texts
from s1batch.readers.spec import ReaderSetting, SourceConfig
from s1batch.windows import Extent, ExtentValue

if TYPE_CHECKING:
    from s1batch.readers.base import Reader

Single = TypeVar("Single", bound=SourceConfig)

_ALIAS = re.compile(r"[a-z][a-z0-9_]*")


class JoinSource(SourceConfig, Generic[Single]):
    """Several sources as one: each piece of the primary one is a question, with what belongs to it in the others."""

    kind: Literal["join"]
    sources: dict[str, Single] = Field(
        min_length=2, description="the sources by name; a template finds the values of each under its name"
    )
    primary: str = Field(description="the source whose pieces are the questions")
    by: Literal["key", "time"] = Field(
        "key",
        description="what belongs together: pieces with equal keys, or pieces whose times overlap (and whose keys are "
        "equal, where `on` names some)",
    )
    on: dict[str, str] = Field(
        {},
        description="for each source the field that holds the key: a value, a lineage column, or what the plan knows: "
        "chunk.path, chunk.file, chunk.stem, chunk.label, chunk.stream, chunk.network, chunk.station",
    )
    time: dict[str, Texts] = Field(
        {},
        description="for each source without windows of time the field that holds the instant, or two: start and end",
    )
    tolerance: Extent = Field(
        ExtentValue(0.0, "s"), description="how far apart times may be that belong together, such as 5s"
    )
    many: Texts = Field(
        (),
        description="sources of which all pieces that belong are taken, as a list; of the others the nearest in time, "
        "or the first",
    )
    missing: Literal["refuse", "alone"] = Field(
        "refuse",
        description="a piece without a partner in some source: a row `no_match` that is not asked, or asked without it",
    )

    @model_validator(mode="after")
    def _check(self) -> JoinSource[Single]:
        if wrong := [name for name in self.sources if not _ALIAS.fullmatch(name)]:
            raise ValueError(f"sources: {wrong[0]!r} is no name; use small letters, digits and _")
        if self.primary not in self.sources:
            raise ValueError(f"primary: {self.primary!r} is none of {', '.join(self.sources)}")
        for field, names in (("on", self.on), ("time", self.time), ("many", self.many)):
            if unknown := [name for name in names if name not in self.sources]:
                raise ValueError(f"{field}: {unknown[0]!r} is none of {', '.join(self.sources)}")
        if (self.by == "key" or self.on) and (left_out := [name for name in self.sources if name not in self.on]):
            raise ValueError(f"on: name the field of {', '.join(left_out)} too")
        if self.primary in self.many:
            raise ValueError(f"many: {self.primary!r} is the primary source, of which each piece is a question")
        if any(not 1 <= len(fields) <= 2 for fields in self.time.values()):
            raise ValueError("time: give one field for an instant, or two for start and end")
        if self.by == "key" and (self.time or self.tolerance.value):
            raise ValueError("time and tolerance have no meaning with `by: key`; set by: time, or leave them out")
        if self.tolerance.unit != "s":
            raise ValueError(f"tolerance: {self.tolerance}: give seconds, such as 5s")
        return self

    @property
    def cuts_series(self) -> bool:
        """Whether one of the sources has windows."""
        return any(source.cuts_series for source in self.sources.values())

    def build(self, setting: ReaderSetting) -> Reader:
        """Make the readers of all sources, and the one that joins them."""
        from s1batch.readers.join.reader import JoinReader
        from s1batch.readers.join.rules import JoinRules

        rules = JoinRules(
            primary=self.primary,
            by_time=self.by == "time",
            keys=self.on,
            times=self.time,
            tolerance_ns=round(self.tolerance.value * 1e9),
            many=frozenset(self.many),
            alone=self.missing == "alone",
        )
        return JoinReader({name: source.build(setting) for name, source in self.sources.items()}, rules)
