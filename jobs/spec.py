"""What all `job:` blocks of a job file share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from s1batch.config import Config
from s1batch.records import Sampling

if TYPE_CHECKING:
    from s1batch.jobs.base import Job

Preset = Literal[
    "greedy", "recommended", "intern-s1-pro", "intern-s1", "intern-s1-mini", "intern-s2-preview", "intern-s2-mobius"
]

_CARD = {"temperature": 0.8, "top_p": 0.95, "top_k": 50, "min_p": 0.0}
_PRESETS: Mapping[Preset, Mapping[str, float | int]] = {
    "greedy": {},
    "recommended": _CARD,
    "intern-s1-pro": _CARD,
    "intern-s1": {"temperature": 0.7, "top_p": 1.0, "top_k": 50, "min_p": 0.0},
    "intern-s1-mini": {"temperature": 0.8, "top_p": 1.0, "top_k": 50, "min_p": 0.0},
    "intern-s2-preview": _CARD,
    "intern-s2-mobius": {"temperature": 0.8, "top_p": 1.0, "top_k": 50, "min_p": 0.0},
}
"""What each model's card recommends under "Sampling Parameters" (huggingface.co/internlm/NAME; for Intern-S1 and
-mini also docs/interns1_user_guide.md of github.com/InternLM/Intern-S1). `recommended` is Intern-S1-Pro's."""


class SamplingSpec(Config):
    """How tokens are chosen; what is left out comes from the preset."""

    preset: Preset = Field(
        "greedy",
        description="greedy: always the most probable token; recommended: as the card of Intern-S1-Pro says "
        "(temperature 0.8, top_p 0.95, top_k 50, min_p 0); or the name of a model: as its card says",
    )
    max_tokens: int = Field(512, ge=1, le=262_144, description="most tokens of an answer, reasoning included")
    temperature: float | None = Field(None, ge=0, le=10, description="0 is greedy")
    top_p: float | None = Field(None, gt=0, le=1, description="nucleus sampling; 1 is off")
    top_k: int | None = Field(None, ge=0, description="only the k most probable tokens; 0 is off")
    min_p: float | None = Field(None, ge=0, le=1, description="only tokens this fraction as probable as the best")
    repetition_penalty: float = Field(1.0, gt=0, le=10, description="1 is off")
    thinking: bool = Field(
        False, description="reason before the answer; servers then force no schema, and max_tokens must hold both"
    )
    thinking_budget: int | None = Field(
        None,
        ge=1,
        le=262_144,
        description="most tokens of the reasoning, which is ended then; not with `transformers serve`",
    )
    logprobs: int | None = Field(
        None,
        ge=0,
        le=20,
        description="adds the column logprobs: each generated token's probability, and so many of the most probable "
        "tokens in its place",
    )

    @model_validator(mode="after")
    def _budget_leaves_an_answer(self) -> SamplingSpec:
        if self.thinking_budget is None:
            return self
        if not self.thinking:
            raise ValueError("thinking_budget has no meaning without `thinking: true`; leave it out")
        if self.thinking_budget >= self.max_tokens:
            raise ValueError(
                f"thinking_budget ({self.thinking_budget:,}) leaves nothing of max_tokens ({self.max_tokens:,}) for "
                "the answer; raise max_tokens"
            )
        return self

    def resolve(self) -> Sampling:
        """Return the sampling with the preset's values filled in."""
        given = {name: getattr(self, name) for name in _CARD if getattr(self, name) is not None}
        chosen: dict[str, Any] = {**_PRESETS[self.preset], **given}
        return Sampling(
            max_tokens=self.max_tokens,
            repetition_penalty=self.repetition_penalty,
            thinking=self.thinking,
            thinking_budget=self.thinking_budget,
            logprobs=self.logprobs,
            **chosen,
        )


class TaskConfig(Config):
    """The base of all `job:` blocks.

    Attributes:
        needs_waveforms: Whether it can only be asked about seismic waveforms.
        names_places: Whether its answers say where a closer look is worth it.
    """

    needs_waveforms: ClassVar[bool] = False
    names_places: ClassVar[bool] = False

    kind: str
    system: str | None = Field(None, min_length=1, description="Jinja2 template of a system message")
    guided: bool = Field(True, description="let the engine produce nothing but JSON of the schema")
    repair: int = Field(
        1,
        ge=0,
        le=3,
        description="how often an answer that does not fit goes back to the model, with what is wrong; answers that a "
        "grammar forced always fit",
    )
    sampling: SamplingSpec = Field(SamplingSpec(), description="how tokens are chosen")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the sampling")

    @property
    def sends_series(self) -> bool:
        """Whether series are sent as such, so that what the engine takes limits their length."""
        return True

    @abstractmethod
    def build(self, base_dir: Path) -> Job:
        """Make the job.

        Args:
            base_dir: Folder of the job file, which paths are relative to.

        Raises:
            JobFileError: A template, the schema or a tool is wrong.
        """
