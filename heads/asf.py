"""ASF: observations look at parts of a video, each class mixes them, and classes that go together share features.

Source: Zhang et al., "Multi-Label Activity Recognition using Activity-specific Features and Activity
Correlations", CVPR 2021; equation numbers below are the paper's.
Differs from it: the paper leaves open how a class weighs the observations; here it is a softmax of the product of
each observation with a vector that the class learns, the only form whose size agrees with the paper's counts, as
are classifiers shared by all classes. Dropout stands before the classifiers, the loss is the sum of those of the
two outputs, and the score is the mean of their probabilities. The "last row" of equation 12 is the last column: the
last position of the last real step; padded steps take no part. The two-stage transformer is left out: the paper
gives neither its widths nor whether a layer weighs positions or mixes them. Without activity-specific features, a
class weighs the channels of one feature that all share: the mean of the map through one group-linear map. The
learning rate follows a cosine, where the paper gives its first value alone.

Speed-invariant tuning and the test on 30 views are those of `heads.samples`, on clip-sampled sets.

Linear maps and sums over positions change places, which leaves every value as it is and saves five sixths of the
multiplications: the query goes back through the keys' map to the features, and the values' map comes after the sum.

Shape letters: B videos, T steps, H x W cells of a step, P = T H W positions, D features, G groups, I features of a
group, K observations, E embedding (the paper's C'), O entries of it in a group, C classes (the paper's A), V
training videos.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from heads.head import Batch, Head, HeadError, Scores
from heads.layers import at_least_float32, mean_log_odds
from heads.loss import binary_cross_entropy, known_labels
from stores.spec import Granularity


@dataclass(frozen=True)
class AsfConfig:
    """Sizes and ablations; `--set` changes all but the first two."""

    num_features: int  # D
    num_classes: int  # C
    num_observations: int = 64  # K
    embed: int = 128  # E
    groups: int = 32  # G, of the linear maps
    dropout: float = 0.5  # before the classifiers
    activity_specific: bool = True  # False: one feature from the mean of the map for all classes
    correlation: bool = True  # False: no second output from the features of correlated classes

    def __post_init__(self) -> None:
        sizes = (self.num_features, self.num_classes, self.num_observations, self.embed, self.groups)
        if min(sizes) < 1:
            raise HeadError(f"asf needs positive sizes, not {self}.")
        if self.num_features % self.groups or self.embed % self.groups:
            raise HeadError(
                f"groups={self.groups} does not divide {self.num_features} features and embed={self.embed}. "
                f"--set groups={math.gcd(self.num_features, self.embed)} does, and so do its divisors."
            )
        if not 0 <= self.dropout < 1:
            raise HeadError(f"dropout is a share in [0, 1), not {self.dropout}.")


class Asf(Head):
    """Multi-label scores of a video from feature maps."""

    name: ClassVar[str] = "asf"
    level: ClassVar[Literal["row", "video"]] = "video"
    roles: ClassVar[tuple[str, ...]] = ("map",)
    accepts: ClassVar[frozenset[Granularity]] = frozenset({Granularity.MAP})
    views: ClassVar[Literal["max", "mean"] | None] = "mean"
    config_class: ClassVar[type[AsfConfig]] = AsfConfig
    paper: ClassVar[str] = (
        "Zhang et al., Multi-Label Activity Recognition using Activity-specific Features and Activity Correlations, "
        "CVPR 2021"
    )
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Charades, CSN-152": {"num_features": 2048, "num_classes": 157}
    }
    recipe: ClassVar[Mapping[str, Any]] = {
        "optimizer": "sgd",
        "lr": 3.5e-2,
        "momentum": 0.9,
        "weight_decay": 1.25e-5,
        "schedule": "cosine",
        "batch_size": 12,
        "steps": 50_000,
        "standardise": False,  # queries are features of one position: without their mean they would be of chance alone
    }

    def __init__(self, config: AsfConfig) -> None:
        super().__init__()
        self.config = config
        self.observe = Observations(config) if config.activity_specific else None
        self.share = None if config.activity_specific else GroupLinear(config.num_features, config.embed, config.groups)
        self.activity_CE = nn.Parameter(torch.randn(config.num_classes, config.embed))
        self.correlate = Correlation(config) if config.correlation else None
        self.dropout = nn.Dropout(config.dropout)
        self.first = nn.Linear(config.embed, 1)  # phi: of a class's own features
        self.second = nn.Linear(config.embed, 1) if config.correlation else None  # theta: of its correlated ones

    def forward(self, batch: Batch) -> Scores:
        """(B, C) logits; `earlier` are those that are trained: of own features, and of correlated ones."""
        scores, _ = self._scores(batch)
        return scores

    def attention(self, batch: Batch) -> Scores:
        """The scores of `forward`, with `maps`: where observations look, and what classes take from where.

        Returns:
            Maps `observation` (B, K, T, H, W), `class` (B, C, K) and `correlation` (B, C, C), those that the
            ablations leave.
        """
        scores, maps = self._scores(batch)
        return dataclasses.replace(scores, maps=maps)

    def _scores(self, batch: Batch) -> tuple[Scores, dict[str, Tensor]]:
        x_BTHWD, mask_BT = batch.features["map"], batch.mask["map"]
        own_BCE, maps = self.activity_features(x_BTHWD, mask_BT)
        z_BC = self.first(self.dropout(own_BCE)).squeeze(-1)
        if self.correlate is None or self.second is None:
            return Scores(z_BC, earlier=(z_BC,)), maps
        correlation_BCC = self.correlate(own_BCE)
        correlated_BCE = correlation_BCC @ own_BCE.to(correlation_BCC.dtype)
        other_BC = self.second(self.dropout(correlated_BCE)).squeeze(-1)
        maps["correlation"] = correlation_BCC
        return Scores(mean_log_odds(z_BC, other_BC), earlier=(z_BC, other_BC)), maps

    def activity_features(self, x_BTHWD: Tensor, mask_BT: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Every class's own features (B, C, E), equation 1, and the attention that made them."""
        steps, height, width = x_BTHWD.shape[1:4]
        x_BPD = x_BTHWD.flatten(1, 3)
        mask_BP = mask_BT.repeat_interleave(height * width, dim=1)
        if self.observe is None:
            assert self.share is not None, "one of the two makes the features"
            count_B1 = mask_BP.sum(1, keepdim=True).clamp(min=1)
            mean_BD = torch.einsum("bp,bpd->bd", mask_BP.to(x_BPD.dtype) / count_B1, x_BPD)
            return self.share(mean_BD)[:, None] * self.activity_CE, {}
        last_B = (mask_BT * torch.arange(1, steps + 1, device=mask_BT.device)).argmax(1)
        last_BD = x_BTHWD[torch.arange(len(x_BTHWD), device=last_B.device), last_B, -1, -1]
        observed_BKE, seen_BKP = self.observe(x_BPD, last_BD, mask_BP)
        mix_BCK = softmax(self.activity_CE @ observed_BKE.mT)
        maps = {"observation": seen_BKP.unflatten(-1, (steps, height, width)), "class": mix_BCK}
        return mix_BCK @ observed_BKE.to(mix_BCK.dtype), maps

    def learn_labels(self, labels_VC: Tensor) -> None:
        """Take how often classes go together from the labels of the training videos: 0, 1, or -1 for "not known"."""
        if self.correlate is not None:
            self.correlate.cooccurrence_CC.copy_(cooccurrence(labels_VC))

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        """The sum of the losses of the outputs; their mean, which is decoded, is not trained by itself."""
        labels, known = known_labels(batch, scores.logits)
        return torch.stack([binary_cross_entropy(logits, labels, known) for logits in scores.earlier]).sum()


class Observations(nn.Module):
    """K summaries of a map, each with its own group-linear maps to query, keys and values (equations 2, 12, 13)."""

    def __init__(self, config: AsfConfig) -> None:
        super().__init__()
        self.groups = groups = config.groups
        sizes = config.embed // groups, config.num_features // groups
        self.query_GKOI = group_weight(groups, config.num_observations, *sizes)
        self.key_KGOI = group_weight(config.num_observations, groups, *sizes)
        self.value_KGOI = group_weight(config.num_observations, groups, *sizes)

    def forward(self, x_BPD: Tensor, last_BD: Tensor, mask_BP: Tensor) -> tuple[Tensor, Tensor]:
        """Observations (B, K, E) and their attention (B, K, P), from the features, those of the query, and a mask."""
        q_BGKO = torch.einsum("gkoi,bgi->bgko", self.query_GKOI, grouped(last_BD, self.groups))
        q_BKD = torch.einsum("bgko,kgoi->bkgi", q_BGKO, self.key_KGOI).flatten(2)
        seen_BKP = softmax(q_BKD @ x_BPD.mT, mask_BP[:, None])
        sum_BKGI = grouped(seen_BKP.to(x_BPD.dtype) @ x_BPD, self.groups)
        return torch.einsum("kgoi,bkgi->bkgo", self.value_KGOI, sum_BKGI).flatten(2), seen_BKP


class Correlation(nn.Module):
    """How much of each class's features goes into each class: attention and frequency together (equations 7 and 8)."""

    cooccurrence_CC: Tensor

    def __init__(self, config: AsfConfig) -> None:
        super().__init__()
        self.query = GroupLinear(config.embed, config.embed, config.groups)
        self.key = GroupLinear(config.embed, config.embed, config.groups)
        self.register_buffer("cooccurrence_CC", torch.eye(config.num_classes))

    def forward(self, own_BCE: Tensor) -> Tensor:
        """(B, C, E) to (B, C, C); a row adds up to 1 and the row of frequencies."""
        return softmax(self.query(own_BCE) @ self.key(own_BCE).mT) + self.cooccurrence_CC


class GroupLinear(nn.Module):
    """A linear map from each group of the input to the same group of the output, without bias (equation 13)."""

    def __init__(self, num_in: int, num_out: int, groups: int) -> None:
        super().__init__()
        self.weight_GOI = group_weight(groups, num_out // groups, num_in // groups)

    def forward(self, x: Tensor) -> Tensor:
        """(..., G I) to (..., G O)."""
        x_GI = grouped(x, len(self.weight_GOI))
        return torch.einsum("...gi,goi->...go", x_GI, self.weight_GOI).flatten(-2)


def group_weight(*shape: int) -> nn.Parameter:
    """A weight whose last axis is summed over, with nn.Linear's first values."""
    bound = 1 / math.sqrt(shape[-1])
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def grouped(x: Tensor, groups: int) -> Tensor:
    """(..., G I) to (..., G, I)."""
    return x.reshape(*x.shape[:-1], groups, -1)


def softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Over the last axis, in float32 or wider; 0 where the mask is False, all alike where it is all False."""
    scores = at_least_float32(scores)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1)


def cooccurrence(labels_VC: Tensor) -> Tensor:
    """(C, C) share of the videos with class j that have class k, of those where k is known (equation 8).

    Args:
        labels_VC: 0, 1, or -1 for "not known".

    Returns:
        Float64, 1 on the diagonal; all 0 in the row of a class that no video has.

    >>> cooccurrence(torch.tensor([[1, 1, 0], [1, 0, 0]])).tolist()
    [[1.0, 0.5, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    present_VC, known_VC = (labels_VC == 1).double(), (labels_VC >= 0).double()
    return present_VC.T @ present_VC / (present_VC.T @ known_VC).clamp(min=1)
