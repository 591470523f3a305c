"""How many tokens each expert worked on; prompts and answers alike, idle rows of a decoding step left out."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import torch
from torch import Tensor

from s1batch.engine.reference.config import TextConfig


class ExpertUse:
    """Counts per layer and expert; several threads may add to it.

    Every token takes the same number of experts from each group, so the sums of the groups of a layer are equal.
    """

    def __init__(self, config: TextConfig) -> None:
        self._layers, self._experts = config.num_hidden_layers, config.num_experts
        self._counts_E = torch.zeros(self._layers * self._experts, dtype=torch.long)
        self._lock = threading.Lock()

    def add(self, routed: Sequence[Tensor], tokens: int) -> None:
        """Count the first `tokens` tokens of a forward pass.

        Args:
            routed: For each layer the ids of the experts that each token chose, (T, k).
            tokens: How many of them are no idle rows.
        """
        firsts_L = torch.arange(self._layers) * self._experts
        ids = torch.stack([ids_Tk[:tokens] for ids_Tk in routed]) + firsts_L[:, None, None]
        counts_E = torch.bincount(ids.flatten(), minlength=len(self._counts_E))
        with self._lock:
            self._counts_E += counts_E

    def counts(self) -> list[list[int]]:
        """Return tokens by layer and expert."""
        with self._lock:
            found: list[list[int]] = self._counts_E.view(self._layers, self._experts).tolist()
        return found
