"""What all `source:` blocks share: what they say to the checks of a job file, and how each builds its reader."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from s1batch.config import Config
from s1batch.long_series import LongSeries
from s1batch.windows import WindowSpec

if TYPE_CHECKING:
    from s1batch.readers.base import Reader


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSetting:
    """What a reader is told besides its own block.

    Attributes:
        base_dir: Folder of the job file, which relative paths are relative to.
        window: How series are cut, fitted to what the engine takes.
        long_series: What becomes of windows that are longer than the engine takes.
        tokenizer: The model's `tokenizer.json`; None where it is not at hand.
        context_tokens: Most tokens of prompt and answer together; None where it is not known.
        answer_tokens: Most tokens of an answer.
    """

    base_dir: Path
    window: WindowSpec
    long_series: LongSeries
    tokenizer: Path | None = None
    context_tokens: int | None = None
    answer_tokens: int = 0


class SourceConfig(Config):
    """The base of all `source:` blocks.

    Attributes:
        windowed: Whether `window:` and `long_series:` cut what it reads.
        waveforms: Whether its series are seismic waveforms.
    """

    windowed: ClassVar[bool] = False
    waveforms: ClassVar[bool] = False

    @property
    def cuts_series(self) -> bool:
        """Whether `window:` and `long_series:` mean something here."""
        return type(self).windowed

    @abstractmethod
    def build(self, setting: ReaderSetting) -> Reader:
        """Make the reader; what it needs is imported here, and not with the block."""
