"""MLAD: each class looks at the other classes, and at itself over time.

Source: Tirupattur et al., "Modeling Multi-Label Action Dependencies for Temporal Action Localization", CVPR
2021; position code, ReLU after the attention, narrow feed-forward and dropout as in the authors' released code.
Differs from it: padded steps are masked from attention and losses; `alpha` weighs the branch over classes, as
equation 6 says (the released code puts it on the branch over time); all classes' features come from one matrix
product. The fully connected baseline (`branches=joint`) is one branch that looks from every class at every step to
all others; where that would take more memory than there is, it says so before.

Shape letters: B windows, N rows, D features, C classes, E class embedding; S sequences, L tokens of a sequence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from heads.attention_memory import MatrixGuard
from heads.head import Batch, Head, HeadError, Scores
from heads.layers import ClassifierPerClass, position_code
from stores.spec import Granularity

MAX_SEQUENCES = 65_535  # a CUDA grid has no more blocks along one side


@dataclass(frozen=True)
class MladConfig:
    """Sizes and ablations; `--set` changes all but the first two."""

    num_features: int  # D
    num_classes: int  # C
    embed: int = 128  # E, also the width of the feed-forward
    num_layers: int = 5  # 0: the class features alone, without attention (the paper's CF baseline)
    dropout: float = 0.2
    pos_enc: bool = True  # sinusoids on the input features
    # cb: over classes alone; tb: over time alone; joint: over all pairs of class and time at once
    branches: Literal["both", "cb", "tb", "joint"] = "both"
    fixed_alpha: float | None = None  # weight of the branch over classes; None: learned
    initial_loss: bool = True  # train a second classifier on the class features before the layers

    def __post_init__(self) -> None:
        if min(self.num_features, self.num_classes, self.embed) < 1 or not 0 <= self.num_layers <= 1000:
            raise HeadError(f"mlad needs positive sizes and 0 to 1000 layers, not {self}.")
        if not 0 <= self.dropout < 1:
            raise HeadError(f"dropout is a share in [0, 1), not {self.dropout}.")
        if self.fixed_alpha is not None and not 0 <= self.fixed_alpha <= 1:
            raise HeadError(f"fixed_alpha is a weight in [0, 1], not {self.fixed_alpha}.")
        if self.fixed_alpha is not None and self.branches != "both":
            raise HeadError(f"fixed_alpha weighs two branches; branches={self.branches} has one.")


class Mlad(Head):
    """Multi-label scores for every row, from frame or clip features."""

    name: ClassVar[str] = "mlad"
    level: ClassVar[Literal["row", "video"]] = "row"
    accepts: ClassVar[frozenset[Granularity]] = frozenset({Granularity.FRAME, Granularity.CLIP})
    config_class: ClassVar[type[MladConfig]] = MladConfig
    paper: ClassVar[str] = (
        "Tirupattur et al., Modeling Multi-Label Action Dependencies for Temporal Action Localization, CVPR 2021"
    )
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "MultiTHUMOS, rgb and flow": {"num_features": 2048, "num_classes": 65},
        "Charades, rgb and flow": {"num_features": 2048, "num_classes": 157},
    }
    published_rows: ClassVar[tuple[int, ...]] = (128,)
    published_part: ClassVar[tuple[str, str]] = ("one layer", "layers.0")
    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adam",
        "lr": 1e-4,
        "weight_decay": 1e-6,
        "batch_size": 32,
        "variable_length": True,
    }

    def __init__(self, config: MladConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.embed = nn.Linear(config.num_features, config.num_classes * config.embed)
        self.layers = nn.ModuleList(MladLayer(config) for _ in range(config.num_layers))
        self.last = ClassifierPerClass(config.num_classes, config.embed, math.sqrt(6 / config.embed))
        self.first: ClassifierPerClass | None = None
        if config.initial_loss and config.num_layers:
            self.first = ClassifierPerClass(config.num_classes, config.embed, math.sqrt(6 / config.embed))
        self.guard = MatrixGuard(config.num_layers, config.dropout) if config.branches == "joint" else None
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.kaiming_uniform_(module.weight)

    def forward(self, batch: Batch) -> Scores:
        """(B, N, C) logits; `earlier` are those of the class features before the layers.

        Raises:
            HeadError: the matrices of joint attention do not fit into memory.
        """
        x_BND, mask_BN = batch.features["x"], batch.mask["x"]
        if self.config.pos_enc:
            x_BND = x_BND + position_code(x_BND.shape[1], x_BND.shape[2], x_BND.device)
        x_BND = self.dropout(x_BND)
        x_BNCE = self.embed(x_BND).relu().unflatten(-1, (self.config.num_classes, self.config.embed))
        earlier = (self.first(x_BNCE),) if self.first is not None else ()
        if self.guard is not None and self.layers:
            self.guard.check(x_BNCE, self.training)
        for layer in self.layers:
            x_BNCE = layer(x_BNCE, mask_BN)
        return Scores(self.last(x_BNCE), earlier=earlier)


class MladLayer(nn.Module):
    """Two branches on the same input, over classes and over time, merged by one learned weight (equation 6).

    Or one: either of them, or the one over both at once.
    """

    def __init__(self, config: MladConfig) -> None:
        super().__init__()
        self.over_classes = Branch(config, "classes") if config.branches in ("both", "cb") else None
        self.over_time = Branch(config, "time") if config.branches in ("both", "tb") else None
        self.over_pairs = Branch(config, "pairs") if config.branches == "joint" else None
        self.fixed_alpha = config.fixed_alpha
        learned = config.branches == "both" and config.fixed_alpha is None
        self.alpha_logit = nn.Parameter(torch.zeros(())) if learned else None

    def forward(self, x_BNCE: Tensor, mask_BN: Tensor) -> Tensor:
        """(B, N, C, E) to the same."""
        branches = (self.over_classes, self.over_time, self.over_pairs)
        given: list[Tensor] = [branch(x_BNCE, mask_BN) for branch in branches if branch is not None]
        if len(given) == 1:
            return given[0]
        classes_BNCE, time_BNCE = given
        return self.alpha * classes_BNCE + (1 - self.alpha) * time_BNCE

    @property
    def alpha(self) -> Tensor | float:
        """Weight of the branch over classes, in [0, 1]; the branch over time has the rest."""
        if self.alpha_logit is not None:
            return torch.sigmoid(self.alpha_logit)
        assert self.fixed_alpha is not None, "only a layer with both branches has an alpha"
        return self.fixed_alpha


class Branch(nn.Module):
    """A post-norm block of self-attention with one head; its feed-forward is as wide as the embedding."""

    def __init__(self, config: MladConfig, over: Literal["classes", "time", "pairs"]) -> None:
        super().__init__()
        width = config.embed
        self.over = over
        self.project = nn.Linear(width, 3 * width)  # queries, keys, values
        self.out = nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, width), nn.Linear(width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x_BNCE: Tensor, mask_BN: Tensor) -> Tensor:
        """(B, N, C, E) to the same; attention over classes alone sees no padded row, so it needs no mask."""
        q, k, v = self.project(x_BNCE).chunk(3, dim=-1)
        dropout = self.dropout.p if self.training else 0.0
        if self.over == "time":
            q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
            seen = attend(q, k, v, mask_BN[:, None, None, :], dropout).transpose(1, 2)
        elif self.over == "pairs":
            q, k, v = (tensor.flatten(1, 2).unsqueeze(1) for tensor in (q, k, v))
            mask_BL = mask_BN[..., None].expand(x_BNCE.shape[:3]).flatten(1)
            seen = attend(q, k, v, mask_BL[:, None, None, :], dropout).reshape(x_BNCE.shape)
        else:
            q, k, v = (tensor.flatten(0, 1).unsqueeze(1) for tensor in (q, k, v))
            seen = attend(q, k, v, None, dropout).reshape(x_BNCE.shape)
        x_BNCE = self.norm1(x_BNCE + self.dropout(self.out(seen).relu()))
        wide_BNCE = self.dropout(self.widen(x_BNCE).relu())
        out: Tensor = self.norm2(x_BNCE + self.dropout(self.narrow(wide_BNCE)))
        return out


def attend(q_BSLE: Tensor, k_BSLE: Tensor, v_BSLE: Tensor, mask: Tensor | None, dropout: float) -> Tensor:
    """Scaled dot-product attention within each of B x S sequences, in as many calls as a CUDA grid needs.

    Args:
        q_BSLE, k_BSLE, v_BSLE: views of any strides, as long as the last axis is contiguous.
        mask: (B, 1, 1, L) True where a key may be seen, or None for everywhere; each row needs one True.
        dropout: share of attention weights dropped.
    """
    step = max(1, MAX_SEQUENCES // q_BSLE.shape[1])
    parts = []
    for start in range(0, q_BSLE.shape[0], step):
        part = slice(start, start + step)
        allowed = None if mask is None else mask[part]
        parts.append(
            functional.scaled_dot_product_attention(q_BSLE[part], k_BSLE[part], v_BSLE[part], allowed, dropout)
        )
    return parts[0] if len(parts) == 1 else torch.cat(parts)
