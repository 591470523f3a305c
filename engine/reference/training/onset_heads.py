"""What each token of a series is asked during training: whether an onset lies in it, and where within it.

The answers are read off the embeddings that the decoder gets, so that what they learn is there for the text to use.
The heads are thrown away afterwards.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

PHASES = 2
"""P and S."""

DIGITS = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OnsetReading:
    """What the tokens say; B windows, N tokens, F phases.

    Attributes:
        presence_BNF: Logit that a phase begins in the token.
        tens_BNFD: Logits of the tens digit of the onset's place within its token.
        circle_BNF2: Cosine and sine of that place, as an angle that goes round once per token.
        place_BND: Logits of the two digits of the token's own number, side by side.
    """

    presence_BNF: Tensor
    tens_BNFD: Tensor
    circle_BNF2: Tensor
    place_BND: Tensor


class OnsetHeads(nn.Module):
    """One linear map behind a norm."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.read = nn.Linear(width, PHASES * (1 + DIGITS + 2) + 2 * DIGITS)

    def forward(self, embedded_BNH: Tensor) -> OnsetReading:
        """Return what each token says."""
        batch, tokens, _ = embedded_BNH.shape
        said = self.read(self.norm(embedded_BNH)).float()
        presence, tens, circle, place = said.split((PHASES, PHASES * DIGITS, PHASES * 2, 2 * DIGITS), dim=-1)
        return OnsetReading(
            presence_BNF=presence,
            tens_BNFD=tens.view(batch, tokens, PHASES, DIGITS),
            circle_BNF2=circle.view(batch, tokens, PHASES, 2),
            place_BND=place,
        )


def read_onsets(reading: OnsetReading, token_samples: int) -> tuple[Tensor, Tensor]:
    """Return the onsets that the heads see: sample index (B, F), and probability (B, F) that there is one."""
    pointed_BNF = pointer_logits(reading).softmax(dim=1)
    best_BF = pointed_BNF[:, :-1].argmax(dim=1)
    picked = best_BF[:, None, :, None].expand(-1, 1, -1, 2)
    circle_BF2 = reading.circle_BNF2.gather(1, picked)[:, 0]
    turn_BF = torch.atan2(circle_BF2[..., 1], circle_BF2[..., 0]) / (2 * math.pi) % 1.0
    return (best_BF + turn_BF) * token_samples, 1 - pointed_BNF[:, -1]


def pointer_logits(reading: OnsetReading) -> Tensor:
    """Return logits over tokens and, last, `in none of them`: (B, N + 1, F)."""
    nowhere = reading.presence_BNF.new_zeros(reading.presence_BNF.shape[0], 1, PHASES)
    return torch.cat((reading.presence_BNF, nowhere), dim=1)
