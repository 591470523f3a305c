"""Fourier position encoding (FoPE): rotation angles mixed over frequencies, one table per key/value head.

    theta_i = base^(-2 i / D),  i < K
    cos_h(t) = cos(t theta) C_h        sin_h(t) = sin(t theta) S_h       (contracting the first K axis, in float32)

The K columns are padded to D / 2 with ONE for both tables, as FoPE's author does it: those pairs get a constant turn of
45 degrees and a gain of sqrt(2). The halves are then duplicated for `rotate_half`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from s1batch.engine.reference.config import TextConfig


class Fope(nn.Module):
    """The position tables, shared by all layers; the coefficients are buffers and take no gradient.

    Shapes: `sin_coef` and `cos_coef` are (n_kv, K, K), or (K, K) without `fope_sep_head`.
    """

    sin_coef: Tensor
    cos_coef: Tensor
    theta_K: Tensor

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        kept = config.fope_frequencies
        self._pairs = config.head_dim // 2
        shape = (config.num_key_value_heads, kept, kept) if config.fope.sep_head else (kept, kept)
        self.register_buffer("sin_coef", torch.zeros(shape))
        self.register_buffer("cos_coef", torch.zeros(shape))
        exponents = torch.arange(kept, dtype=torch.float32) * 2 / config.head_dim
        self.register_buffer("theta_K", 1.0 / config.rope_theta**exponents, persistent=False)

    def forward(self, positions_T: Tensor) -> tuple[Tensor, Tensor]:
        """Return the cosine and sine tables of the positions, each of shape (n_kv or 1, T, D), float32."""
        angles_TK = positions_T.to(self.theta_K)[:, None] * self.theta_K
        return self._mix(angles_TK.cos(), self.cos_coef), self._mix(angles_TK.sin(), self.sin_coef)

    def _mix(self, waves_TK: Tensor, coefficients: Tensor) -> Tensor:
        coefficients_NKK = coefficients.float().reshape(-1, *coefficients.shape[-2:])
        mixed_NTK = torch.matmul(waves_TK, coefficients_NKK)
        mixed_NTP = functional.pad(mixed_NTK, (0, self._pairs - mixed_NTK.shape[-1]), value=1.0)
        return torch.cat((mixed_NTP, mixed_NTP), dim=-1)


def rotate(heads_NTD: Tensor, cos_NTD: Tensor, sin_NTD: Tensor) -> Tensor:
    """Apply the tables: x cos + rotate_half(x) sin, where rotate_half((a, b)) = (-b, a) for the halves of D."""
    first, second = heads_NTD.chunk(2, dim=-1)
    return heads_NTD * cos_NTD + torch.cat((-second, first), dim=-1) * sin_NTD
