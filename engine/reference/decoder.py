"""The decoder: pre-norm layers of grouped-query attention with FoPE, and a mixture of experts without a shared one.

A forward pass takes a flat list of tokens, (T, H): those of one sequence, or one of each of several. Everything but
attention works on tokens one by one, and attention goes through a `Memory`. Parameter names are the public
checkpoint's, except that the experts of a layer are stacked (`checkpoint` splits and joins them).

Suffixes: T tokens, H hidden, N key/value heads, R query heads per key/value head, D head size, E experts, M width of
an expert.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from s1batch.engine.reference.cache import Memory
from s1batch.engine.reference.config import TextConfig
from s1batch.engine.reference.fope import Fope, rotate
from s1batch.engine.reference.router import GroupedRouter

FEW = 4
"""Up to so many experts for each one that a token chooses, a decoding step computes all of them at once."""


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast back before the weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, values: Tensor) -> Tensor:
        """Normalise over the last axis."""
        wide = values.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return wide.to(values.dtype) * self.weight


class Attention(nn.Module):
    """Grouped-query attention; queries and keys are normalised per head before they are rotated."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.kv_heads, self.head_dim = config.num_key_value_heads, config.head_dim
        self.shared = config.num_attention_heads // config.num_key_value_heads
        queries, keys = config.num_attention_heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps)
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps)

    def forward(self, hidden_TH: Tensor, tables: tuple[Tensor, Tensor], memory: Memory, layer: int) -> Tensor:
        """Attend to what the memory holds and to these tokens, which it takes up."""
        tokens = hidden_TH.shape[0]
        cos_NTD, sin_NTD = tables
        heads_TNRD = self.q_norm(self.q_proj(hidden_TH).view(tokens, self.kv_heads, self.shared, self.head_dim))
        # Query head q uses table floor(q / R), so the tables broadcast over R.
        queries_NRTD = rotate(heads_TNRD.permute(1, 2, 0, 3), cos_NTD[:, None], sin_NTD[:, None])
        keys = self.k_norm(self.k_proj(hidden_TH).view(tokens, self.kv_heads, self.head_dim))
        keys_NTD = rotate(keys.transpose(0, 1), cos_NTD, sin_NTD)
        values_NTD = self.v_proj(hidden_TH).view(tokens, self.kv_heads, self.head_dim).transpose(0, 1)
        found_TNRD = memory.attend(layer, queries_NRTD, keys_NTD, values_NTD)
        return self.o_proj(found_TNRD.reshape(tokens, -1))  # type: ignore[no-any-return]


class Experts(nn.Module):
    """The experts of one layer, `down(silu(gate x) * up x)`, stacked: each matrix is (E, M, H), `down` transposed.

    Called, it computes all experts, and those not chosen weigh zero; gradients flow through that. `of_chosen`, `of_met`
    and `of_all` give the same for generation, after `lay_out`.

    Attributes:
        joint_EHM: Gate and up side by side with inputs first, (E, H, 2 M), once they are laid out.
    """

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        shape = (config.num_experts, config.moe_intermediate_size, config.hidden_size)
        self.gate_proj = nn.Parameter(torch.zeros(shape))
        self.up_proj = nn.Parameter(torch.zeros(shape))
        self.down_proj = nn.Parameter(torch.zeros(shape))
        self.joint_EHM: Tensor | None = None
        self._width = config.moe_intermediate_size

    def lay_out(self) -> None:
        """Store the weights as products of few rows read them fastest (40 % faster than by `gate_proj` and `up_proj`).

        The parameters become views of the joint tensor, so nothing is stored twice; no optimiser, no change of number
        type and no move to a device may follow.
        """
        if self.joint_EHM is None:
            joint = torch.cat((self.gate_proj.data, self.up_proj.data), dim=1).transpose(1, 2).contiguous()
            self.gate_proj.data = joint[:, :, : self._width].transpose(1, 2)
            self.up_proj.data = joint[:, :, self._width :].transpose(1, 2)
            self.joint_EHM = joint

    def forward(self, hidden_TH: Tensor, weights_Tk: Tensor, ids_Tk: Tensor) -> Tensor:
        """Return the weighted sum of the chosen experts."""
        experts, width, hidden = self.gate_proj.shape
        gates = functional.linear(hidden_TH, self.gate_proj.reshape(-1, hidden))
        ups = functional.linear(hidden_TH, self.up_proj.reshape(-1, hidden))
        inner_TEM = (functional.silu(gates) * ups).view(-1, experts, width)
        inner_TEM = inner_TEM * self._dense(weights_Tk, ids_Tk).to(inner_TEM.dtype)[:, :, None]
        return inner_TEM.view(-1, experts * width) @ self.down_proj.view(-1, hidden)

    def of_all(self, joint_EHM: Tensor, hidden_TH: Tensor, weights_Tk: Tensor, ids_Tk: Tensor) -> Tensor:
        """Return the same for few tokens; the shapes of the products do not depend on what was chosen."""
        experts, hidden = joint_EHM.shape[:2]
        found_ETM = torch.bmm(hidden_TH.expand(experts, -1, -1), joint_EHM)
        inner_ETM = functional.silu(found_ETM[..., : self._width]).mul_(found_ETM[..., self._width :])
        inner_ETM = inner_ETM.mul_(self._dense(weights_Tk, ids_Tk).T[:, :, None])
        return inner_ETM.transpose(0, 1).reshape(len(hidden_TH), -1) @ self.down_proj.view(-1, hidden)

    def of_met(self, joint_EHM: Tensor, hidden_TH: Tensor, weights_Tk: Tensor, ids_Tk: Tensor) -> Tensor:
        """Return the same, all tokens through each expert that any of them chose.

        Every product has the same shape, and experts that a token did not choose add zero to it, so that tokens of
        several sequences do not notice one another.
        """
        dense_TE = self._dense(weights_Tk, ids_Tk)
        mixed_TH = torch.zeros_like(hidden_TH, dtype=torch.float32)
        for expert in torch.unique(ids_Tk).tolist():
            mixed_TH += self._one(joint_EHM, expert, hidden_TH, dense_TE[:, expert, None])
        return mixed_TH.to(hidden_TH.dtype)

    def of_chosen(self, joint_EHM: Tensor, hidden_TH: Tensor, weights_Tk: Tensor, ids_Tk: Tensor) -> Tensor:
        """Return the same, one expert after the other, each on the tokens that chose it.

        The shapes of the products depend on all tokens, so these must be of one sequence.
        """
        tokens = torch.arange(len(ids_Tk), device=ids_Tk.device)[:, None].expand_as(ids_Tk)
        order = ids_Tk.flatten().argsort(stable=True)
        rows, shares = tokens.flatten()[order], weights_Tk.flatten()[order, None]
        mixed_TH = torch.zeros_like(hidden_TH, dtype=torch.float32)
        first = 0
        for expert, count in enumerate(torch.bincount(ids_Tk.flatten()).tolist()):
            if count:
                here = rows[first : first + count]
                its_TH = torch.index_select(hidden_TH, 0, here)
                found = self._one(joint_EHM, expert, its_TH, shares[first : first + count])
                mixed_TH.index_add_(0, here, found)
                first += count
        return mixed_TH.to(hidden_TH.dtype)

    def _one(self, joint_EHM: Tensor, expert: int, hidden_TH: Tensor, shares_T1: Tensor) -> Tensor:
        found_TM = hidden_TH @ joint_EHM[expert]
        inner_TM = functional.silu(found_TM[:, : self._width], inplace=True).mul_(found_TM[:, self._width :])
        return (inner_TM.mul_(shares_T1) @ self.down_proj[expert]).float()

    def _dense(self, weights_Tk: Tensor, ids_Tk: Tensor) -> Tensor:
        return weights_Tk.new_zeros(len(ids_Tk), len(self.gate_proj)).scatter(1, ids_Tk, weights_Tk)


class MixtureOfExperts(nn.Module):
    """Router and experts."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate = GroupedRouter(config)
        self.experts = Experts(config)
        self._few = config.num_experts <= FEW * config.num_experts_per_tok

    def forward(self, hidden_TH: Tensor, *, several: bool, routed: list[Tensor] | None = None) -> Tensor:
        """Return the experts' answer for every token.

        Args:
            hidden_TH: The tokens.
            several: Whether they are of several sequences.
            routed: Gets the ids of the chosen experts, (T, k).
        """
        weights_Tk, ids_Tk = self.gate(hidden_TH)
        if routed is not None:
            routed.append(ids_Tk)
        experts = self.experts
        if experts.joint_EHM is None:
            return experts(hidden_TH, weights_Tk, ids_Tk)  # type: ignore[no-any-return]
        mix = (experts.of_all if self._few else experts.of_met) if several else experts.of_chosen
        return mix(experts.joint_EHM, hidden_TH, weights_Tk, ids_Tk)


class DecoderLayer(nn.Module):
    """x += Attention(RMS(x)); x += MoE(RMS(x))."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MixtureOfExperts(config)

    def forward(
        self,
        hidden_TH: Tensor,
        tables: tuple[Tensor, Tensor],
        memory: Memory,
        layer: int,
        routed: list[Tensor] | None = None,
    ) -> Tensor:
        """Return the layer's output."""
        hidden_TH = hidden_TH + self.self_attn(self.input_layernorm(hidden_TH), tables, memory, layer)
        normed_TH = self.post_attention_layernorm(hidden_TH)
        return hidden_TH + self.mlp(normed_TH, several=memory.several, routed=routed)  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Embedding, layers and last norm: `model.language_model` of the checkpoint."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.rotary_emb = Fope(config)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, hidden_TH: Tensor, memory: Memory, routed: list[Tensor] | None = None) -> Tensor:
        """Run all layers over embedded tokens, which the memory takes up; returns normalised hidden states (T, H).

        Args:
            hidden_TH: Embedded tokens.
            memory: What they follow, and attend to.
            routed: Gets, for each layer, the ids of the experts that each token chose, (T, k).
        """
        tokens = hidden_TH.shape[0]
        cos, sin = self.rotary_emb(memory.positions(tokens))
        tables = cos.to(hidden_TH.dtype), sin.to(hidden_TH.dtype)
        for number, layer in enumerate(self.layers):
            hidden_TH = layer(hidden_TH, tables, memory, number, routed)
        memory.commit(tokens)
        return self.norm(hidden_TH)  # type: ignore[no-any-return]
