"""Choosing the next token from logits, for one request at a time.

Order of the filters, as in transformers: repetition penalty, grammar, temperature, top_k, top_p, min_p. Every request
has a random generator of its own, so that its choices depend on its seed and nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor

from s1batch.records import Request


@dataclass(frozen=True, slots=True)
class Chosen:
    """How probable a generated token was, by the model alone: before penalty, grammar, temperature and filters.

    Attributes:
        token: Its id.
        logprob: Natural logarithm of its probability.
        top: The most probable tokens in its place with their logarithms, best first.
    """

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """The sampling state of one request.

    Args:
        request: Whose sampling parameters, seed and sample index are used.
        prompt_ids: Tokens of the prompt; the repetition penalty counts them.
        vocabulary: Ids the tokenizer knows; others are never chosen.
    """

    def __init__(self, request: Request, prompt_ids: tuple[int, ...], vocabulary: int) -> None:
        self._sampling = request.sampling
        self._vocabulary = vocabulary
        self._seen = torch.tensor(sorted(set(prompt_ids)), dtype=torch.long)
        seed = hashlib.sha256(f"{request.seed} {request.sample_index}".encode()).digest()
        self._generator = torch.Generator().manual_seed(int.from_bytes(seed[:7], "little"))

    def choose(self, logits_V: Tensor, allowed_V: Tensor | None = None) -> int:
        """Return the next token.

        Args:
            logits_V: float32 logits; not changed.
            allowed_V: Which tokens a grammar admits; None admits all.
        """
        sampling = self._sampling
        logits_V = logits_V.clone()
        if sampling.repetition_penalty != 1.0:
            seen = logits_V[self._seen]
            penalty = sampling.repetition_penalty
            logits_V[self._seen] = torch.where(seen > 0, seen / penalty, seen * penalty)
        logits_V[self._vocabulary :] = -torch.inf
        if allowed_V is not None:
            logits_V[~allowed_V] = -torch.inf
        token = int(logits_V.argmax()) if sampling.temperature == 0 else self._draw(logits_V)
        if sampling.repetition_penalty != 1.0:
            self._seen = torch.unique(torch.cat((self._seen, torch.tensor([token]))))
        return token

    def told(self, logits_V: Tensor, token: int) -> Chosen | None:
        """Return how probable a token was, when the request asks for that.

        Args:
            logits_V: The logits that it was chosen from.
            token: The token.
        """
        wanted = self._sampling.logprobs
        if wanted is None:
            return None
        logprobs_V = logits_V[: self._vocabulary].double().log_softmax(dim=-1)
        values, ids = logprobs_V.sort(descending=True, stable=True)
        top = tuple(zip(ids[:wanted].tolist(), values[:wanted].tolist(), strict=True))
        return Chosen(token, float(logprobs_V[token]), top)

    def _draw(self, logits_V: Tensor) -> int:
        probabilities_V = filtered(
            logits_V,
            temperature=self._sampling.temperature,
            top_k=self._sampling.top_k,
            top_p=self._sampling.top_p,
            min_p=self._sampling.min_p,
        )
        return int(torch.multinomial(probabilities_V, 1, generator=self._generator))


def filtered(logits_V: Tensor, *, temperature: float, top_k: int, top_p: float, min_p: float) -> Tensor:
    """Return the probabilities (float64) that are left after temperature, top_k, top_p and min_p; the best one stays.

    Ties keep the order of a stable sort, so exactly k tokens pass top_k.
    """
    logits_V = logits_V.double()
    # The peak is taken out first, so that a tiny temperature cannot overflow.
    sorted_V, order_V = ((logits_V - logits_V.max()) / temperature).sort(descending=True, stable=True)
    if top_k > 0:
        sorted_V[top_k:] = -torch.inf
    probabilities_V = sorted_V.softmax(dim=-1)
    if top_p < 1.0:
        before_V = probabilities_V.cumsum(dim=-1) - probabilities_V
        keep_V = before_V < top_p
        keep_V[0] = True
        probabilities_V = torch.where(keep_V, probabilities_V, 0.0)
    if min_p > 0.0:
        probabilities_V = torch.where(probabilities_V >= min_p * probabilities_V[0], probabilities_V, 0.0)
    return torch.zeros_like(probabilities_V).scatter(0, order_V, probabilities_V / probabilities_V.sum())
