"""What networks on clips of a fixed length share: a clip is one row, or one map for each of its output time steps.

Shape letters: B clips, C channels, T frames, R output time steps, H height, W width, D features.
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from extract.backbone import Backbone, BackboneError
from stores.spec import Granularity


class ClipBackbone(Backbone):
    """CLIP rows, what the classifier sees of a clip, and MAP rows of a network on RGB clips, from one pass."""

    def __init__(self, stream: str = "rgb") -> None:
        if stream != "rgb":
            raise BackboneError(f"{self.name} sees RGB frames; it has no stream '{stream}'.")
        super().__init__()

    def forward(
        self, frames: Tensor, levels: frozenset[Granularity], convolutional: bool = False
    ) -> dict[Granularity, Tensor]:
        """Rows of `levels`: CLIP (B, 1, D) and MAP (B, R, H, W, C), of the parameters' dtype."""
        assert levels <= set(self.row_shapes), f"{self.name} has no {levels - set(self.row_shapes)}"
        assert not convolutional, f"{self.name} was trained on clips and has no convolutional mode"
        x = self.seen(frames)
        rows: dict[Granularity, Tensor] = {}
        if Granularity.MAP in levels:
            rows[Granularity.MAP] = self.maps(x)
        if Granularity.CLIP in levels:
            rows[Granularity.CLIP] = self.features(x).unsqueeze(1).to(x.dtype)  # a layer may be under autocast
        return rows

    def classify(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to class logits (B, classes)."""
        return self.classifier(self.features(self.seen(frames)))

    def seen(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to what `trunk` gives, of the parameters' dtype also under autocast."""
        return self.trunk(self.normalise(frames)).to(next(self.parameters()).dtype)

    @abstractmethod
    def trunk(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised to the last maps before any pooling, (B, C, R, H', W')."""

    def maps(self, x: Tensor) -> Tensor:
        """What `trunk` gives as (B, R, H', W', C)."""
        return x.permute(0, 2, 3, 4, 1)

    def features(self, x: Tensor) -> Tensor:
        """What `trunk` gives as one vector a clip, (B, D): the mean over space and time."""
        return x.mean((2, 3, 4))

    @abstractmethod
    def classifier(self, features: Tensor) -> Tensor:
        """(B, D) features to logits (B, classes)."""
