"""The baselines that keep tables honest: no attention, nothing of one class seen by another.

Source: ours; `linear` is the classifier that the papers put under "features alone".

Shape letters: B windows, N rows, D features, C classes, W width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from heads.head import Batch, Head, HeadError, Scores
from stores.spec import Granularity

FLAT_ROWS = frozenset({Granularity.FRAME, Granularity.CLIP, Granularity.SCENE})


@dataclass(frozen=True)
class LinearConfig:
    """Sizes, and dropout on the features."""

    num_features: int  # D
    num_classes: int  # C
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if min(self.num_features, self.num_classes) < 1 or not 0 <= self.dropout < 1:
            raise HeadError(f"sizes are positive and dropout lies in [0, 1), which is not so in {self}.")


@dataclass(frozen=True)
class ConvolutionConfig(LinearConfig):
    """Sizes and dropout before every layer."""

    dropout: float = 0.2
    width: int = 128  # W

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width < 1:
            raise HeadError(f"width is a positive number of channels, not {self.width}.")


class Linear(Head):
    """Each row is scored by itself."""

    name: ClassVar[str] = "linear"
    level: ClassVar[Literal["row", "video"]] = "row"
    accepts: ClassVar[frozenset[Granularity]] = FLAT_ROWS
    config_class: ClassVar[type[LinearConfig]] = LinearConfig

    def __init__(self, config: LinearConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.last = nn.Linear(config.num_features, config.num_classes)

    def forward(self, batch: Batch) -> Scores:
        """(B, N, C) logits."""
        return Scores(self.last(self.dropout(batch.features["x"])))


class MeanPool(Linear):
    """A video is scored from the mean of its rows."""

    name: ClassVar[str] = "meanpool"
    level: ClassVar[Literal["row", "video"]] = "video"
    views: ClassVar[Literal["max", "mean"] | None] = "mean"

    def forward(self, batch: Batch) -> Scores:
        """(B, C) logits."""
        x_BND, mask_BN = batch.features["x"], batch.mask["x"]
        sum_BD = (x_BND * mask_BN[..., None]).sum(1)
        mean_BD = sum_BD / mask_BN.sum(1, keepdim=True).clamp(min=1)
        return Scores(self.last(self.dropout(mean_BD)))


class TemporalConvolution(Head):
    """Three convolutions over time, of 3, 5 and 3 rows, then each row is scored."""

    name: ClassVar[str] = "tconv"
    level: ClassVar[Literal["row", "video"]] = "row"
    accepts: ClassVar[frozenset[Granularity]] = FLAT_ROWS
    config_class: ClassVar[type[ConvolutionConfig]] = ConvolutionConfig
    kernels: ClassVar[tuple[int, ...]] = (3, 5, 3)

    def __init__(self, config: ConvolutionConfig) -> None:
        super().__init__()
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        widths = (config.num_features, config.width, config.width)
        self.layers = nn.ModuleList(
            nn.Conv1d(width, config.width, kernel, padding=kernel // 2)
            for width, kernel in zip(widths, self.kernels, strict=True)
        )
        self.last = nn.Linear(config.width, config.num_classes)

    def forward(self, batch: Batch) -> Scores:
        """(B, N, C) logits; padded rows count as the zeros beyond a video's end before every layer."""
        x_BDN, mask_B1N = batch.features["x"].transpose(1, 2), batch.mask["x"][:, None]
        for layer in self.layers:
            x_BDN = layer(self.dropout(x_BDN * mask_B1N)).relu()
        return Scores(self.last(self.dropout(x_BDN.transpose(1, 2))))
