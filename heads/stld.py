"""TranSTL: each class looks at the other classes, then at the places and at the times of a video.

Source: Wu et al., "TranSTL: Spatial-Temporal Localization Transformer for Multi-Label Video Classification", ICASSP
2022; the loss is the asymmetric loss of Ben-Baruch et al., "Asymmetric Loss for Multi-Label Classification", ICCV
2021, with full gradient through the focal weight.
Differs from it: trained on stored maps with the backbone frozen; padded steps are masked from all three poolings and
from attention; the loss is the mean over known labels. Equation 5 is read as a sum over all features of a class, and
equation 6 with its minus sign and its mean over classes. Where the paper is silent: the convolution is 1 x 1 x 1
with bias; a layer has projections, residuals, 8 heads, a feed-forward of 2048 and dropout 0.1 as PyTorch's decoder
layer has them; weights of the layers start as Xavier uniform; negatives are shifted by 0.05 (`margin=0` is equation 6
to the letter).

Shape letters: B windows, T steps, H height, W width, K stored features, D hidden features, C classes, S = H x W
places, L rows of a branch's memory (places or steps).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from heads.head import Batch, Head, HeadError, Scores
from heads.layers import ClassifierPerClass, at_least_float32
from heads.loss import known_labels
from stores.spec import Granularity

SMALLEST = 1e-8  # what logarithms and powers in the loss see at least


@dataclass(frozen=True)
class StldConfig:
    """Sizes, ablations and the loss; `--set` changes all but the first two."""

    num_features: int  # K
    num_classes: int  # C
    hidden: int = 1024  # D
    num_layers: int = 2  # of each branch
    branches: Literal["both", "spatial", "temporal"] = "both"
    nhead: int = 8  # 1: attention as equations 3 and 4 have it
    dim_feedforward: int = 2048
    dropout: float = 0.1
    gamma_pos: float = 1.0  # focal power of positives; 0: not weighed
    gamma_neg: float = 4.0  # of negatives
    margin: float = 0.05  # a negative with a probability below counts nothing

    def __post_init__(self) -> None:
        sizes = (self.num_features, self.num_classes, self.hidden, self.nhead, self.dim_feedforward)
        if min(sizes) < 1 or not 1 <= self.num_layers <= 1000:
            raise HeadError(f"stld needs positive sizes and 1 to 1000 layers, not {self}.")
        if self.hidden % self.nhead:
            raise HeadError(f"nhead divides hidden, which {self.nhead} and {self.hidden} do not.")
        if self.branches not in ("both", "spatial", "temporal"):
            raise HeadError(f"branches is both, spatial or temporal, not {self.branches}.")
        if not 0 <= self.dropout < 1:
            raise HeadError(f"dropout is a share in [0, 1), not {self.dropout}.")
        for name in ("gamma_pos", "gamma_neg"):
            if not 0 <= getattr(self, name) < math.inf:
                raise HeadError(f"{name} is a power of 0 or more, not {getattr(self, name)}.")
        if not 0 <= self.margin < 1:
            raise HeadError(f"margin is a probability in [0, 1), not {self.margin}.")


class Stld(Head):
    """Multi-label scores for a whole video, from feature maps of any height and width."""

    name: ClassVar[str] = "stld"
    level: ClassVar[Literal["row", "video"]] = "video"
    roles: ClassVar[tuple[str, ...]] = ("map",)
    accepts: ClassVar[frozenset[Granularity]] = frozenset({Granularity.MAP})
    views: ClassVar[Literal["max", "mean"] | None] = "max"
    config_class: ClassVar[type[StldConfig]] = StldConfig
    paper: ClassVar[str] = (
        "Wu et al., TranSTL: Spatial-Temporal Localization Transformer for Multi-Label Video Classification, "
        "ICASSP 2022"
    )
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Charades, SlowFast": {"num_features": 2304, "num_classes": 157}
    }
    published_rows: ClassVar[tuple[int, ...]] = (32, 7, 7)  # 64 frames, every other; slow pathway repeated 4 times
    published_part: ClassVar[tuple[str, str]] = ("one layer", "spatial.layers.0")
    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 1e-2,
        "batch_size": 32,
    }

    def __init__(self, config: StldConfig) -> None:
        super().__init__()
        self.config = config
        self.project = nn.Linear(config.num_features, config.hidden)
        self.first = nn.Linear(config.hidden, config.num_classes)
        self.spatial = Branch(config) if config.branches != "temporal" else None
        self.temporal = Branch(config) if config.branches != "spatial" else None
        width = config.hidden * (2 if config.branches == "both" else 1)
        self.last = ClassifierPerClass(config.num_classes, width, 1 / math.sqrt(width))

    def forward(self, batch: Batch) -> Scores:
        """(B, C) logits; every window has a real row."""
        return self._scores(batch, with_maps=False)

    def attention(self, batch: Batch) -> Scores:
        """The scores of `forward`, in full precision, with `maps`: what each class of the last layers looks at.

        Returns:
            Maps `spatial` (B, C, S), places in rows of the image; `temporal` (B, C, T); and of the two branches
            `spatial_labels` and `temporal_labels` (B, C, C), from class to class. Mean over the attention heads;
            what is looked at lies on the last axis and sums to 1. A branch that is ablated gives none.
        """
        with torch.autocast(batch.features["map"].device.type, enabled=False):
            return self._scores(batch, with_maps=True)

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        """Asymmetric loss of equation 6."""
        labels, known = known_labels(batch, scores.logits)
        gammas = (self.config.gamma_pos, self.config.gamma_neg)
        return asymmetric_loss(scores.logits, labels, known, gammas, self.config.margin)

    def _scores(self, batch: Batch, *, with_maps: bool) -> Scores:
        x_BTSK, mask_BT = batch.features["map"].flatten(2, 3), batch.mask["map"]
        pooled = pool(self.project(x_BTSK), mask_BT)
        e_BCD = pooled.whole_BD[:, None] * self.first.weight  # equation 2: W learns from both of its uses
        refined: list[Tensor] = []
        maps: dict[str, Tensor] = {}
        for name, branch, memory_BLD, padded_BL in (
            ("spatial", self.spatial, pooled.places_BSD, None),
            ("temporal", self.temporal, pooled.steps_BTD, ~mask_BT),
        ):
            if branch is not None:
                seen = branch(e_BCD, memory_BLD, padded_BL, with_maps)
                refined.append(seen.e_BCD)
                if with_maps:
                    maps |= {name: seen.memory_BCL, f"{name}_labels": seen.labels_BCC}
        return Scores(self.first(pooled.whole_BD) + self.last(torch.cat(refined, dim=-1)), maps=maps)


class Pooled(NamedTuple):
    """A video's features three times; every value comes from real steps, but for `steps_BTD` of padded ones."""

    places_BSD: Tensor  # maximum over time
    steps_BTD: Tensor  # maximum over the places
    whole_BD: Tensor  # mean over both


def pool(x_BTSD: Tensor, mask_BT: Tensor) -> Pooled:
    """The three poolings."""
    steps_BTD = x_BTSD.max(dim=2).values
    sum_BD = x_BTSD.mean(dim=2).masked_fill(~mask_BT[..., None], 0).sum(dim=1)
    whole_BD = sum_BD / mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    places_BSD = x_BTSD.masked_fill(~mask_BT[..., None, None], -math.inf).max(dim=1).values
    return Pooled(places_BSD, steps_BTD, whole_BD)


class Seen(NamedTuple):
    """Refined embeddings, and the attention that made them where it was asked for."""

    e_BCD: Tensor
    labels_BCC: Tensor | None = None
    memory_BCL: Tensor | None = None


class Branch(nn.Module):
    """STLD layers, one after the other, over the same memory."""

    def __init__(self, config: StldConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(StldLayer(config) for _ in range(config.num_layers))

    def forward(self, e_BCD: Tensor, memory_BLD: Tensor, padded_BL: Tensor | None, with_maps: bool) -> Seen:
        """What the last layer gives; `padded_BL` is True where no class may look."""
        seen = Seen(e_BCD)
        for layer in self.layers:
            seen = layer(seen.e_BCD, memory_BLD, padded_BL, with_maps)
        return seen


class StldLayer(nn.Module):
    """A post-norm decoder layer that can show its attention; parameters as in `nn.TransformerDecoderLayer`."""

    def __init__(self, config: StldConfig) -> None:
        super().__init__()
        width, nhead, dropout = config.hidden, config.nhead, config.dropout
        self.self_attn = nn.MultiheadAttention(width, nhead, dropout, batch_first=True)
        self.multihead_attn = nn.MultiheadAttention(width, nhead, dropout, batch_first=True)
        self.linear1 = nn.Linear(width, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, e_BCD: Tensor, memory_BLD: Tensor, padded_BL: Tensor | None, with_maps: bool) -> Seen:
        """Classes look at classes, then at the memory, then each goes through the feed-forward."""
        mixed_BCD, labels_BCC = self.self_attn(e_BCD, e_BCD, e_BCD, need_weights=with_maps)
        e_BCD = self.norm1(e_BCD + self.dropout(mixed_BCD))
        found_BCD, memory_BCL = self.multihead_attn(
            e_BCD, memory_BLD, memory_BLD, key_padding_mask=padded_BL, need_weights=with_maps
        )
        e_BCD = self.norm2(e_BCD + self.dropout(found_BCD))
        wide = self.dropout(self.linear1(e_BCD).relu())
        return Seen(self.norm3(e_BCD + self.dropout(self.linear2(wide))), labels_BCC, memory_BCL)


def asymmetric_loss(
    logits: Tensor, labels: Tensor, known: Tensor, gammas: tuple[float, float], margin: float
) -> Tensor:
    """Mean over the known labels of a cross entropy that easy labels, and easy negatives most, hardly move.

    Args:
        logits: any shape.
        labels: 0 or 1, of that shape.
        known: 1 where the label counts, 0 where not; with none known the loss is 0.
        gammas: powers of the focal weights 1 - p of positives and p of negatives; gradient flows through both.
        margin: what a negative's p is lowered by, to no less than 0.

    >>> half = torch.tensor([0.0])
    >>> float(asymmetric_loss(half, torch.ones(1), torch.ones(1), (0.0, 0.0), 0.0))  # log 2
    0.6931471824645996
    """
    p = torch.sigmoid(at_least_float32(logits))
    shifted = (p - margin).clamp(min=0)
    positive = at_least(1 - p) ** gammas[0] * at_least(p).log()
    negative = at_least(shifted) ** gammas[1] * at_least(1 - shifted).log()
    each = torch.where(labels > 0, positive, negative) * known
    return -each.sum() / known.sum().clamp(min=1)


def at_least(values: Tensor) -> Tensor:
    """No lower than `SMALLEST`, so that neither a logarithm nor the slope of a root is infinite."""
    return values.clamp(min=SMALLEST)
