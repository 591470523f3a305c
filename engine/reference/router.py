"""The grouped router: the same number of experts from every group, so that groups are balanced by construction.

p = softmax(W h) over all E experts, float32;  the top k / G of each of the G groups;  w = p_S / (sum p_S + 1e-20)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s1batch.engine.reference.config import TextConfig


def route(logits_TE: Tensor, groups: int, top_k: int, *, renormalise: bool = True) -> tuple[Tensor, Tensor]:
    """Choose experts.

    Args:
        logits_TE: Router logits, (tokens, experts).
        groups: G; E and k are multiples of it.
        top_k: k experts per token, k / G of each group.
        renormalise: Whether the weights of the chosen sum to one.

    Returns:
        Weights (T, k), float32, and global expert ids (T, k), ordered by group.
    """
    tokens, experts = logits_TE.shape
    probabilities_TGM = torch.softmax(logits_TE, dim=-1, dtype=torch.float32).view(tokens, groups, experts // groups)
    weights_TGk, local_TGk = probabilities_TGM.topk(top_k // groups, dim=-1)
    first_G = torch.arange(groups, device=logits_TE.device) * (experts // groups)
    ids_Tk = (local_TGk + first_G[:, None]).view(tokens, top_k)
    weights_Tk = weights_TGk.reshape(tokens, top_k)
    if renormalise:
        weights_Tk = weights_Tk / (weights_Tk.sum(dim=-1, keepdim=True) + 1e-20)
    return weights_Tk, ids_Tk


class GroupedRouter(nn.Module):
    """The router's matrix, and the choice of experts from it."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.groups = config.router_n_groups
        self.top_k = config.num_experts_per_tok
        self.renormalise = config.norm_topk_prob
        self.weight = nn.Parameter(torch.zeros(config.num_experts, config.hidden_size))

    def forward(self, hidden_TH: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights (T, k) and expert ids (T, k)."""
        logits_TE = hidden_TH.to(self.weight.dtype) @ self.weight.T
        return route(logits_TE, self.groups, self.top_k, renormalise=self.renormalise)
