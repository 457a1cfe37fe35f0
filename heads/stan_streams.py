"""How STAN makes one vector of a video's scenes: a transformer's class token, their mean, or an LSTM's last state.

Source: Fish et al., section 3 (transformer) and Table 1 (average pooling, LSTM); layers as PyTorch's
TransformerEncoderLayer, which is the post-norm block of Vaswani et al., "Attention Is All You Need".
Differs from it: the last layer works out the class token's row alone, as nothing else of it is used.

Shape letters: B videos, S scenes, D features, E width of tokens, V learned vectors, L = V + S tokens, Q asking rows,
H attention heads.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from heads.layers import at_least_float32, position_code
from heads.mlad import attend

if TYPE_CHECKING:  # stan.py builds these
    from heads.stan import StanConfig


class Stream(nn.Module, ABC):
    """Features to tokens; a subclass makes vectors of them."""

    def __init__(self, num_features: int, config: StanConfig, num_vectors: int) -> None:
        super().__init__()
        self.num_vectors = num_vectors
        self.project = nn.Linear(num_features, config.embed)
        self.dropout = nn.Dropout(config.dropout)

    @abstractmethod
    def forward(self, x_BSD: Tensor, mask_BS: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """Vectors (B, V, E) of the scenes where the mask is True.

        Args:
            maps: takes (B, H, L) for every layer: how the first vector's row attends; by the transformer alone.
        """


class TransformerStream(Stream):
    """Learned vectors before the scenes; what attention makes of these vectors stands for the video."""

    def __init__(self, num_features: int, config: StanConfig, num_vectors: int) -> None:
        super().__init__(num_features, config, num_vectors)
        self.pos_enc = config.pos_enc
        self.cls = nn.Parameter(torch.empty(num_vectors, config.embed))
        nn.init.normal_(self.cls, std=0.02)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))

    def forward(self, x_BSD: Tensor, mask_BS: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """The learned vectors' rows (B, V, E) of the last layer."""
        vectors_BVE = self.cls.expand(len(x_BSD), -1, -1)
        x_BLE = torch.cat([vectors_BVE, self.project(x_BSD)], dim=1)
        mask_BL = torch.cat([mask_BS.new_ones(len(x_BSD), self.num_vectors), mask_BS], dim=1)
        if self.pos_enc:
            code_LE = position_code(1 + x_BSD.shape[1], x_BLE.shape[2], x_BLE.device)
            shared = code_LE[:1].expand(self.num_vectors - 1, -1)  # all vectors at 0, so scenes count from 1
            x_BLE = x_BLE + torch.cat([shared, code_LE]).to(x_BLE.dtype)
        x_BLE = self.dropout(x_BLE)
        for number, layer in enumerate(self.layers, start=1):
            wanted = self.num_vectors if number == len(self.layers) else x_BLE.shape[1]
            x_BLE = layer(x_BLE, mask_BL, wanted, maps)
        out_BVE: Tensor = x_BLE
        return out_BVE


class EncoderLayer(nn.Module):
    """A post-norm block of self-attention and a feed-forward with ReLU."""

    def __init__(self, config: StanConfig) -> None:
        super().__init__()
        width = config.embed
        self.num_heads = config.num_heads
        self.project = nn.Linear(width, 3 * width)  # queries, keys, values
        self.out = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, config.ffn), nn.Linear(config.ffn, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.xavier_uniform_(self.project.weight)  # this and the zeros as in PyTorch's layer
        nn.init.zeros_(self.project.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, x_BLE: Tensor, mask_BL: Tensor, rows: int, maps: list[Tensor] | None = None) -> Tensor:
        """The first `rows` rows (B, Q, E) of the block's output, which look at all tokens (B, L, E)."""
        width = x_BLE.shape[-1]
        x_BQE = x_BLE[:, :rows]
        weight, bias = self.project.weight, self.project.bias
        queries = functional.linear(x_BQE, weight[:width], bias[:width])
        keys, values = functional.linear(x_BLE, weight[width:], bias[width:]).chunk(2, dim=-1)
        parts = (queries, keys, values)
        q, k, v = (part.reshape(*part.shape[:2], self.num_heads, -1).transpose(1, 2) for part in parts)
        allowed = mask_BL[:, None, None, :]
        if maps is not None:
            score_BHL = at_least_float32(torch.einsum("bhe,bhle->bhl", q[:, :, 0], k)) * q.shape[-1] ** -0.5
            maps.append(score_BHL.masked_fill(~allowed[:, 0], -torch.inf).softmax(-1))
        seen = attend(q, k, v, allowed, self.dropout.p if self.training else 0.0).transpose(1, 2).flatten(2)
        x_BQE = self.norm1(x_BQE + self.dropout(self.out(seen)))
        wide = self.dropout(self.widen(x_BQE).relu())
        out: Tensor = self.norm2(x_BQE + self.dropout(self.narrow(wide)))
        return out


class MeanStream(Stream):
    """The mean of the scenes' tokens."""

    def forward(self, x_BSD: Tensor, mask_BS: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """(B, 1, E); zeros for a video without scenes."""
        tokens_BSE = self.dropout(self.project(x_BSD))
        sum_B1E = (at_least_float32(tokens_BSE) * mask_BS[..., None]).sum(1, keepdim=True)
        return (sum_B1E / mask_BS.sum(1).clamp(min=1)[:, None, None]).to(tokens_BSE.dtype)


class LstmStream(Stream):
    """The state of an LSTM after the last scene."""

    def __init__(self, num_features: int, config: StanConfig, num_vectors: int) -> None:
        super().__init__(num_features, config, num_vectors)
        self.lstm = nn.LSTM(config.embed, config.embed, batch_first=True)

    def forward(self, x_BSD: Tensor, mask_BS: Tensor, maps: list[Tensor] | None = None) -> Tensor:
        """(B, 1, E); zeros for a video without scenes."""
        order_BS = (~mask_BS).to(torch.uint8).argsort(dim=1, stable=True)  # real scenes first, in their order
        tokens_BSE = self.dropout(self.project(x_BSD))
        tokens_BSE = tokens_BSE.gather(1, order_BS[..., None].expand_as(tokens_BSE))
        states_BSE, _ = self.lstm(tokens_BSE)
        count_B11 = mask_BS.sum(1)[:, None, None]
        last_B1E = (count_B11 - 1).clamp(min=0).expand(-1, -1, states_BSE.shape[-1])
        out: Tensor = states_BSE.gather(1, last_B1E) * (count_B11 > 0)
        return out


STREAMS: Mapping[str, type[Stream]] = {"lstm": LstmStream, "mean": MeanStream, "transformer": TransformerStream}
