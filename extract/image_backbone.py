"""What networks of single images share: every frame is a row of its own.

Shape letters: B clips, T frames, N = B * T images, C channels, H height, W width.
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from extract.backbone import Backbone, BackboneError
from stores.spec import Granularity

# At once on a CPU: the layers of four images stay in the cache, and are small enough for their memory to be used again
# (`extract.memory`); with 32 images the system maps and clears it anew, which takes half as long again.
CPU_IMAGES = 4


class ImageBackbone(Backbone):
    """FRAME rows, the mean over space, and MAP rows of a network on images, from one pass."""

    def __init__(self, stream: str = "rgb") -> None:
        if stream != "rgb":
            raise BackboneError(f"{self.name} sees single RGB frames; it has no stream '{stream}'.")
        super().__init__()

    def forward(
        self, frames: Tensor, levels: frozenset[Granularity], convolutional: bool = False
    ) -> dict[Granularity, Tensor]:
        """Rows of `levels`: FRAME (B, T, C) and MAP (B, T, H, W, C), of the parameters' dtype.

        `convolutional` changes nothing: no row sees another frame than its own.
        """
        assert levels <= set(self.row_shapes), f"{self.name} has no {levels - set(self.row_shapes)}"
        x = self.maps(frames)
        clips, images = frames.shape[:2]
        rows: dict[Granularity, Tensor] = {}
        if Granularity.FRAME in levels:
            rows[Granularity.FRAME] = self.pooled(x).view(clips, images, -1)
        if Granularity.MAP in levels:
            x_NHWC = self.grid(x)
            rows[Granularity.MAP] = x_NHWC.reshape(clips, images, *x_NHWC.shape[1:])
        return rows

    def pooled(self, x: Tensor) -> Tensor:
        """What `trunk` gives to one vector an image, (N, C)."""
        return x.mean((2, 3))

    def grid(self, x: Tensor) -> Tensor:
        """What `trunk` gives to (N, H', W', C)."""
        return x.permute(0, 2, 3, 1)

    def classify(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to ImageNet logits (B, 1000), the mean over the T frames."""
        logits_NK = self.classifier(self.pooled(self.maps(frames)))
        return logits_NK.view(*frames.shape[:2], -1).mean(1)

    def maps(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to what `trunk` gives, of the parameters' dtype also under autocast."""
        parameter = next(self.parameters())
        images = frames.flatten(0, 1)
        parts = torch.split(images, CPU_IMAGES if parameter.is_cpu else max(len(images), 1))
        return torch.cat([self.trunk(self.pixels(part)) for part in parts]).to(parameter.dtype)

    def pixels(self, images: Tensor) -> Tensor:
        """(N, H, W, 3) uint8 to (N, 3, H, W) normalised, the channels last in memory, as the frames have them."""
        x_3NHW = self.normalise(images.unsqueeze(0)).squeeze(0)
        return x_3NHW.transpose(0, 1).contiguous(memory_format=torch.channels_last)

    @abstractmethod
    def trunk(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised to (N, C, H / 32, W / 32)."""

    @abstractmethod
    def classifier(self, features: Tensor) -> Tensor:
        """(N, C) features to (N, 1000) logits."""
