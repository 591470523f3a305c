"""The model as a whole: embedding, splice of the media's embeddings, decoder, head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from s1batch.engine.reference.cache import KVCache, Memory
from s1batch.engine.reference.config import ModelConfig
from s1batch.engine.reference.decoder import Decoder, Experts
from s1batch.engine.reference.fope import Fope
from s1batch.engine.reference.router import GroupedRouter
from s1batch.engine.reference.time_series import SeriesEncoder
from s1batch.engine.reference.vision import VisionTower
from s1batch.errors import EngineError


class Trunk(nn.Module):
    """Everything below the head: `model.` of the checkpoint's keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.language_model = Decoder(config.text)
        self.time_series = SeriesEncoder(config.series)
        self.visual = VisionTower(config.vision) if config.vision is not None else None


class InternS1Pro(nn.Module):
    """Intern-S1-Pro for text, images and time series.

    Its `state_dict` has the public checkpoint's key names, except for the stacked experts. Use `checkpoint.initialise`
    or `checkpoint.load_model`; a bare instance holds no useful weights.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.text.hidden_size, config.text.vocab_size, bias=False)

    def lay_out(self) -> None:
        """Store the experts' weights as generation reads them; see `decoder.Experts.lay_out`."""
        for module in self.modules():
            if isinstance(module, Experts):
                module.lay_out()

    def compute_in(self, dtype: torch.dtype) -> None:
        """Change the number type of weights and activations; router gates and position tables stay float32, as in the
        public model, and so do norms inside, softmax over experts, and the sum over them."""
        self.to(dtype)
        for module in self.modules():
            if isinstance(module, (GroupedRouter, Fope)):
                module.float()

    def embed(self, ids_T: Tensor, series: Sequence[Tensor] = (), images: Sequence[Tensor] = ()) -> Tensor:
        """Return the embeddings (T, H) of a prompt, with those of its media where its ids are their placeholders.

        Args:
            ids_T: Token ids of one prompt.
            series: Embeddings of its series, (N_i, H) each, in the order of their placeholders `<TS_CONTEXT>`.
            images: Embeddings of its images, likewise, for `<|image_pad|>`.

        Raises:
            EngineError: The prompt does not hold exactly one placeholder for each embedding.
        """
        embedded_TH: Tensor = self.model.language_model.embed_tokens(ids_T)
        for kind, token, encoded in (
            ("series", self.config.ts_token_id, series),
            ("images", self.config.image_token_id, images),
        ):
            places_T = ids_T == token
            given = sum(each.shape[0] for each in encoded)
            if int(places_T.sum()) != given:
                raise EngineError("prompt_error", f"{int(places_T.sum())} places for {given} embeddings of {kind}")
            if encoded:
                spliced = torch.cat(list(encoded)).to(embedded_TH.dtype)
                embedded_TH = embedded_TH.masked_scatter(places_T[:, None], spliced)
        return embedded_TH

    def states(self, embedded_TH: Tensor, memory: Memory, routed: list[Tensor] | None = None) -> Tensor:
        """Run the decoder over embedded tokens that follow what a memory holds; see `Decoder`. Returns (T, H)."""
        return self.model.language_model(embedded_TH, memory, routed)  # type: ignore[no-any-return]

    def forward(self, ids_T: Tensor, series: Sequence[Tensor] = (), images: Sequence[Tensor] = ()) -> Tensor:
        """Return the logits (T, V) of a whole prompt at once, without anything kept."""
        embedded_TH = self.embed(ids_T, series, images)
        return self.lm_head(self.states(embedded_TH, KVCache(self.config.text)))  # type: ignore[no-any-return]
