"""Gradients for all experts: a straight-through estimator of the grouped router's choice.

With renormalised weights, plain differentiation gives the experts that were not chosen no gradient at all, so that a
router learns about them only by chance. The estimator leaves the forward pass as it is, and sends the gradient g of the
chosen weights (0 for the others) back through the full softmax:

    dL/dz_j = sum_e (dp_e / dz_j) g_e = p_j (g_j - sum_e g_e p_e)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from s1batch.engine.reference.router import route


def route_straight_through(
    logits_TE: Tensor, groups: int, top_k: int, renormalise: bool = True
) -> tuple[Tensor, Tensor]:
    """Choose experts as `route` does, with a dense gradient.

    Args:
        logits_TE: Router logits, (tokens, experts).
        groups: G.
        top_k: k experts per token, k / G of each group.
        renormalise: Whether the weights of the chosen sum to one.

    Returns:
        Weights (T, k) and expert ids (T, k), exactly those of `route`.
    """
    weights_Tk, ids_Tk = _StraightThrough.apply(logits_TE, groups, top_k, renormalise)  # type: ignore[no-untyped-call]
    return weights_Tk, ids_Tk


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits_TE: Tensor, groups: int, top_k: int, renormalise: bool) -> tuple[Tensor, Tensor]:
        weights_Tk, ids_Tk = route(logits_TE, groups, top_k, renormalise=renormalise)
        ctx.mark_non_differentiable(ids_Tk)
        ctx.save_for_backward(logits_TE, ids_Tk)
        return weights_Tk, ids_Tk

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        logits_TE, ids_Tk = ctx.saved_tensors
        wide = torch.promote_types(logits_TE.dtype, torch.float32)
        probabilities_TE = torch.softmax(logits_TE, dim=-1, dtype=wide)
        chosen_TE = torch.zeros_like(probabilities_TE).scatter(1, ids_Tk, gradients[0].to(wide))
        mean_T1 = (chosen_TE * probabilities_TE).sum(dim=-1, keepdim=True)
        return (probabilities_TE * (chosen_TE - mean_T1)).to(logits_TE.dtype), None, None, None
