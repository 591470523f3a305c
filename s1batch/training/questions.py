"""Windows as the model meets them: the record, the job's request, the engine's conditioning, the prompt's tokens.

Nothing is written anew here. The questions are those of `seismic-pick` and of an `ask` job, the series goes through
`conditioned` and `standardise`, the prompt through the checkpoint's own chat template and tokenizer: training and
serving cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from s1batch.engine.conditioning import conditioned
from s1batch.engine.reference.chat import ChatFormat
from s1batch.engine.reference.time_series import standardise
from s1batch.engine.reference.training.loop import PickBatch
from s1batch.jobs.ask_spec import AskSpec
from s1batch.jobs.base import Job, Settings
from s1batch.jobs.seismic_pick_spec import SeismicPickSpec
from s1batch.records import (
    Address,
    Chunk,
    ModelIdentity,
    Record,
    Request,
    Sampling,
    Series,
    SeriesPart,
    Slice,
    TextPart,
)
from s1batch.training import descriptions
from s1batch.training.descriptions import Description
from s1batch.training.labelled import LabelledWindow

CHANNELS = ("HHZ", "HHN", "HHE")

_FIXED_WEIGHT = 0.05
"""Of tokens that the schema writes by itself; a little, so that the model can also answer without a grammar."""

_CONTAIN_WEIGHT = 2.0
_TENS_WEIGHT = 1.5
_UNITS_WEIGHT = 0.5
"""Of the last digit: hundredths of a second are mostly the analyst's noise."""

_DECIDING = ("P", "S", ",", ".")
"""In a description, where it is said which onsets are named."""


class Questions:
    """Turns windows into requests and batches.

    Args:
        folder: Checkpoint folder whose chat template and tokenizer are used.
    """

    def __init__(self, folder: Path) -> None:
        self.job: Job = SeismicPickSpec(kind="seismic-pick").build(Path())
        self.description_job: Job = AskSpec(kind="ask", prompt=descriptions.PROMPT).build(Path())
        self._chat = ChatFormat(folder)
        self._tokenizer = Tokenizer.from_str(self._chat.tokenizer_json)
        self._prompt_ids = lru_cache(maxsize=64)(self._find_prompt_ids)

    def record(self, window: LabelledWindow, station: str = "XX.NANO", start_ns: int = 0) -> Record:
        """Return a window as a reader would hand it on."""
        steps = window.wave_CT.shape[1]
        length_ns = round(steps * 1e9 / window.rate_hz)
        place = Slice(dim="time_ns", start=start_ns, stop=start_ns + length_ns)
        address = Address(source=f"{station}..HHZ", root="", path="", slices=(place,), rate_hz=window.rate_hz)
        series = Series(
            values_TC=np.ascontiguousarray(window.wave_CT.T, dtype=np.float32),
            rate_hz=window.rate_hz,
            channels=CHANNELS,
            start_ns=start_ns,
        )
        lineage = {"steps": steps, "rate_sent_hz": window.rate_hz}
        return Record(chunk=Chunk(inputs=(address,)), payload=series, lineage=lineage)

    def request(self, record: Record, *, describe: bool = False) -> Request:
        """Return what the job asks about a record, greedily; on request, a sentence instead of picks."""
        job = self.description_job if describe else self.job
        return job.prepare(record, Settings(model=ModelIdentity(name="nano"), sampling=Sampling(max_tokens=64)))

    def batch(
        self,
        windows: list[LabelledWindow],
        random: np.random.Generator,
        jitter_samples: float,
        *,
        describe: bool = False,
    ) -> PickBatch:
        """Return windows of one shape as a training batch.

        Args:
            windows: At least one.
            random: Of the jitter.
            jitter_samples: Deviation of what is added to the indices of the answers.
            describe: Whether sentences are asked for.
        """
        onsets = [(window.p, window.s) for window in windows]
        scored_BCT = torch.from_numpy(np.stack([self.scored(window) for window in windows]))
        steps, rate_hz = windows[0].wave_CT.shape[1], windows[0].rate_hz
        return self.batch_of(scored_BCT, onsets, steps, rate_hz, random, jitter_samples, describe=describe)

    def scored(self, window: LabelledWindow) -> NDArray[np.float32]:
        """Return a window as the encoder sees it, (C, T)."""
        return standardise(conditioned(_series(self.request(self.record(window)))).values_TC)

    def batch_of(
        self,
        media: torch.Tensor,
        onsets: Sequence[tuple[float | None, float | None]],
        steps: int,
        rate_hz: float,
        random: np.random.Generator,
        jitter_samples: float,
        *,
        is_features: bool = False,
        describe: bool = False,
    ) -> PickBatch:
        """Return a batch of windows of one shape.

        Args:
            media: Scored windows (B, C, T), or features of their patches (B, n, W).
            onsets: P and S of each.
            steps: Samples of a window.
            rate_hz: Their rate.
            random: Of the jitter.
            jitter_samples: Deviation of what is added to the indices of the answers.
            is_features: What `media` holds.
            describe: Whether sentences are asked for.
        """
        shared_ids, note_ids = self._prompt_ids(steps, rate_hz, describe)
        moved = [self._jittered(pair, steps, random, jitter_samples) for pair in onsets]
        rows = [self.sentence_tokens(pair, rate_hz) if describe else self.answer_tokens(pair) for pair in moved]
        longest = max(len(ids) for ids, _ in rows)
        answer_BL, weight_BL = np.zeros((len(rows), longest), np.int64), np.zeros((len(rows), longest), np.float32)
        for number, (ids, weights) in enumerate(rows):
            answer_BL[number, : len(ids)], weight_BL[number, : len(ids)] = ids, weights
        onset_BF = [[np.nan if onset is None else onset for onset in pair] for pair in onsets]
        return PickBatch(
            media=media,
            is_features=is_features,
            rate_hz=rate_hz,
            shared_ids=shared_ids,
            note_ids=note_ids,
            answer_BL=torch.from_numpy(answer_BL),
            weight_BL=torch.from_numpy(weight_BL),
            onset_BF=torch.tensor(onset_BF, dtype=torch.float32),
        )

    @staticmethod
    def _jittered(
        onsets: tuple[float | None, float | None], steps: int, random: np.random.Generator, jitter_samples: float
    ) -> tuple[int | None, int | None]:
        indices = []
        for onset in onsets:
            moved = None if onset is None else onset + random.normal(0, jitter_samples)
            indices.append(None if moved is None else int(np.clip(np.floor(moved), 0, steps - 1)))
        return indices[0], indices[1]

    def sentence_tokens(self, indices: tuple[int | None, int | None], rate_hz: float) -> tuple[list[int], list[float]]:
        """Return the tokens of a window's description, the end token included, and their weights."""
        text = Description.of(*indices, rate_hz).sentence
        ids = self._tokenizer.encode(text, add_special_tokens=False).ids
        words = [self.piece(number).strip() for number in ids]
        weights = [1.0 if word.isdigit() or word in _DECIDING else _FIXED_WEIGHT for word in words]
        return [*ids, self._chat.end_ids[0]], [_CONTAIN_WEIGHT, *weights[1:], _FIXED_WEIGHT]

    def answer_tokens(self, indices: tuple[int | None, int | None]) -> tuple[list[int], list[float]]:
        """Return the tokens of the answer that a window should get, its end token included, and their weights.

        Args:
            indices: Samples of P and S.
        """
        contain = any(index is not None for index in indices)
        text = json.dumps({"contain": contain, "p_index": indices[0], "s_index": indices[1]})
        encoded = self._tokenizer.encode(text, add_special_tokens=False).ids
        tokens = [(number, self.piece(number)) for number in encoded]
        ids = [number for number, _ in tokens]
        weights = [_FIXED_WEIGHT] * len(ids)
        for place, (_, piece) in enumerate(tokens):
            word = piece.strip()
            if word in ("true", "false"):
                weights[place] = _CONTAIN_WEIGHT
            elif word == "null" or piece.endswith(" "):
                weights[place] = 1.0  # here it is decided whether a phase begins in the window
            elif word.isdigit():
                behind = 0
                while tokens[place + behind + 1][1].isdigit():
                    behind += 1
                weights[place] = _UNITS_WEIGHT if behind == 0 else _TENS_WEIGHT if behind == 1 else 1.0
        return [*ids, self._chat.end_ids[0]], [*weights, _FIXED_WEIGHT]

    def piece(self, token: int) -> str:
        """Return the text of one token."""
        return str(self._tokenizer.decode([token]))

    def _find_prompt_ids(
        self, steps: int, rate_hz: float, describe: bool = False
    ) -> tuple[tuple[int, ...], tuple[int, ...]]:
        window = LabelledWindow(wave_CT=np.zeros((3, steps), np.float32), rate_hz=rate_hz)
        messages = self.request(self.record(window), describe=describe).messages
        ids = self._chat.prompt(messages, thinking=False).ids
        place = self._chat.place_id
        first = ids.index(place)
        last = len(ids) - ids[::-1].index(place)
        return ids[:first], ids[last:]


def _series(request: Request) -> SeriesPart:
    for message in request.messages:
        for part in message.parts:
            if not isinstance(part, TextPart):
                return _only_series(part)
    raise ValueError("the job's request holds no series")


def _only_series(part: object) -> SeriesPart:
    if not isinstance(part, SeriesPart):
        raise TypeError(f"a {type(part).__name__} where a series is expected")
    return part
