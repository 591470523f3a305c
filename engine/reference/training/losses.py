"""What training minimises: the answer's tokens, and what the tokens of the series are asked (see `onset_heads`)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from s1batch.engine.reference.training.onset_heads import DIGITS, OnsetReading, pointer_logits


def text_loss(logits_BLV: Tensor, answer_BL: Tensor, weight_BL: Tensor) -> Tensor:
    """Return the mean cross-entropy of the answers' tokens, each with its weight; weight 0 is padding."""
    flat = functional.cross_entropy(logits_BLV.flatten(0, 1).float(), answer_BL.flatten(), reduction="none")
    return (flat * weight_BL.flatten()).sum() / weight_BL.sum()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnsetLosses:
    """The parts of the auxiliary loss, each a mean.

    Attributes:
        pointer: Which token an onset lies in, or none.
        tens: The tens digit of its place there.
        circle: Squared distance on the circle of that place.
        place: The token's own number.
    """

    pointer: Tensor
    tens: Tensor
    circle: Tensor
    place: Tensor

    def total(self) -> Tensor:
        """Return their weighted sum; the circle is bounded by 2, the others begin at log(N) and log(10)."""
        return self.pointer + 0.5 * self.tens + 2.0 * self.circle + 0.25 * self.place


def onset_losses(reading: OnsetReading, onset_BF: Tensor, token_samples: int) -> OnsetLosses:
    """Compare what the heads say with the onsets.

    Args:
        reading: Of the heads.
        onset_BF: Sample index of each phase's onset; NaN where it does not begin in the window.
        token_samples: Samples that a token advances by.
    """
    tokens = reading.presence_BNF.shape[1]
    there_BF = ~onset_BF.isnan()
    filled_BF = onset_BF.nan_to_num(0.0)
    token_BF = (filled_BF / token_samples).floor().long().clamp(0, tokens - 1)
    target_BF = torch.where(there_BF, token_BF, tokens)
    pointer = functional.cross_entropy(pointer_logits(reading), target_BF)
    window, phase = there_BF.nonzero(as_tuple=True)
    token = token_BF[window, phase]
    offset = (filled_BF[window, phase] - token * token_samples) / token_samples
    tens = functional.cross_entropy(
        reading.tens_BNFD[window, token, phase], (offset * DIGITS).long().clamp(0, DIGITS - 1), reduction="sum"
    )
    angle = offset * (2 * math.pi)
    aim = torch.stack((angle.cos(), angle.sin()), dim=-1)
    circle = (reading.circle_BNF2[window, token, phase] - aim).square().sum()
    count = max(len(window), 1)
    numbers = torch.arange(tokens, device=onset_BF.device).expand(reading.place_BND.shape[0], -1).flatten()
    high, low = reading.place_BND.flatten(0, 1).chunk(2, dim=-1)
    place = functional.cross_entropy(high, numbers // 10 % 10) + functional.cross_entropy(low, numbers % 10)
    return OnsetLosses(pointer=pointer, tens=tens / count, circle=circle / count, place=place)
