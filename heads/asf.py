"""ASF: observations look at parts of a video, each class mixes them, and classes that go together share features.

Source: Zhang et al., "Multi-Label Activity Recognition using Activity-specific Features and Activity
Correlations", CVPR 2021; equation numbers below are the paper's.
Differs from it: the paper leaves open how a class weighs the observations; here it is a softmax of the product of
each observation with a vector that the class learns, the only form whose size agrees with the paper's counts, as
are classifiers shared by all classes. Dropout stands before the classifiers, the loss is the sum of those of the
two outputs, and the score is the mean of their probabilities. The "last row" of equation 12 is the last column: the
last position of the last real step; padded steps take no part. The two-stage transformer it is compared with
(`network=two_stage_transformer`) is in asf_two_stage.py, with how it is read. Without activity-specific features, a
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

from heads.asf_layers import GroupLinear, back, forth, group_weight, grouped, softmax
from heads.asf_two_stage import TwoStages
from heads.head import Batch, Head, HeadError, Scores
from heads.layers import mean_log_odds
from heads.loss import binary_cross_entropy, known_labels
from stores.spec import Granularity


@dataclass(frozen=True)
class AsfConfig:
    """Sizes and ablations; `--set` changes all but the first two."""

    num_features: int  # D
    num_classes: int  # C
    network: Literal["observations", "two_stage_transformer"] = "observations"  # the paper's, or that of its Table 3e
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
        theirs = (self.num_observations, self.activity_specific, self.correlation) != (64, True, True)
        if self.network == "two_stage_transformer" and theirs:
            raise HeadError(
                "num_observations, activity_specific and correlation are options of network=observations; "
                "the two-stage transformer has embed, groups and dropout."
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
    activity_CE: nn.Parameter
    paper: ClassVar[str] = (
        "Zhang et al., Multi-Label Activity Recognition using Activity-specific Features and Activity Correlations, "
        "CVPR 2021"
    )
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "Charades, CSN-152": {"num_features": 2048, "num_classes": 157}
    }
    published_rows: ClassVar[tuple[int, ...]] = (4, 7, 7)
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
        self.dropout = nn.Dropout(config.dropout)
        self.observe: Observations | None = None
        self.share: GroupLinear | None = None
        self.correlate: Correlation | None = None
        self.second: nn.Linear | None = None
        self.stages: TwoStages | None = None
        if config.network == "two_stage_transformer":
            self.stages = TwoStages(config.num_features, config.embed, config.groups)
            self.first = nn.Linear(config.num_features, config.num_classes)
            return
        if config.activity_specific:
            self.observe = Observations(config)
        else:
            self.share = GroupLinear(config.num_features, config.embed, config.groups)
        self.activity_CE = nn.Parameter(torch.randn(config.num_classes, config.embed))
        self.correlate = Correlation(config) if config.correlation else None
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
            ablations leave; of the two-stage transformer `position` (B, T, H, W), which adds up to 1.
        """
        scores, maps = self._scores(batch)
        return dataclasses.replace(scores, maps=maps)

    def _scores(self, batch: Batch) -> tuple[Scores, dict[str, Tensor]]:
        x_BTHWD, mask_BT = batch.features["map"], batch.mask["map"]
        if self.stages is not None:
            mean_BD, share_BP = self.stages(x_BTHWD.flatten(1, 3), by_position(mask_BT, x_BTHWD))
            z_BC = self.first(self.dropout(mean_BD))
            return Scores(z_BC, earlier=(z_BC,)), {"position": share_BP.reshape(x_BTHWD.shape[:4])}
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
        mask_BP = by_position(mask_BT, x_BTHWD)
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
        q_BGX = forth(self.query_GKOI.flatten(1, 2), grouped(last_BD, self.groups))  # X = K O
        q_BGKO = q_BGX.reshape(*q_BGX.shape[:2], len(self.key_KGOI), -1)
        q_BKD = back(self.key_KGOI, q_BGKO.transpose(1, 2)).flatten(2)
        seen_BKP = softmax(q_BKD @ x_BPD.mT, mask_BP[:, None])
        sum_BKGI = grouped(seen_BKP.to(x_BPD.dtype) @ x_BPD, self.groups)
        return forth(self.value_KGOI, sum_BKGI).flatten(2), seen_BKP


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


def by_position(mask_BT: Tensor, x_BTHWD: Tensor) -> Tensor:
    """(B, P) of a mask of steps."""
    return mask_BT[..., None, None].expand(x_BTHWD.shape[:4]).flatten(1)


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
