"""What networks on clips of a fixed length share: a clip is one row, or one map for each of its output time steps.

Shape letters: B clips, C channels, T frames, R output time steps, H height, W width.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from extract.backbone import Backbone, BackboneError
from stores.spec import Granularity


class ClipBackbone(Backbone):
    """CLIP rows, the mean over space and time, and MAP rows of a network on RGB clips, from one pass."""

    def __init__(self, stream: str = "rgb") -> None:
        if stream != "rgb":
            raise BackboneError(f"{self.name} sees RGB frames; it has no stream '{stream}'.")
        super().__init__()

    def forward(
        self, frames: Tensor, levels: frozenset[Granularity], convolutional: bool = False
    ) -> dict[Granularity, Tensor]:
        """Rows of `levels`: CLIP (B, 1, C) and MAP (B, R, H, W, C), of the parameters' dtype."""
        assert levels <= set(self.row_shapes), f"{self.name} has no {levels - set(self.row_shapes)}"
        assert not convolutional, f"{self.name} was trained on clips and has no convolutional mode"
        x_BCRHW = self.maps(frames)
        rows: dict[Granularity, Tensor] = {}
        if Granularity.MAP in levels:
            rows[Granularity.MAP] = x_BCRHW.permute(0, 2, 3, 4, 1)
        if Granularity.CLIP in levels:
            rows[Granularity.CLIP] = x_BCRHW.mean((2, 3, 4)).unsqueeze(1)
        return rows

    def classify(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to class logits (B, classes)."""
        return self.classifier(self.maps(frames))

    def maps(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to (B, C, R, H', W'), of the parameters' dtype also under autocast."""
        return self.trunk(self.normalise(frames)).to(next(self.parameters()).dtype)

    @abstractmethod
    def trunk(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised to the last maps before any pooling, (B, C, R, H', W')."""

    @abstractmethod
    def classifier(self, x: Tensor) -> Tensor:
        """(B, C, R, H', W') maps to logits (B, classes)."""
