"""What the networks share that are built as torchvision's VideoResNet: a stem, four stages, a linear classifier.

Source: torchvision's video models; VMZ builds its networks for PyTorch on them.

Shape letters: B clips, C channels, T frames, H height, W width.
"""

from __future__ import annotations

from torch import Tensor, nn

from extract.clip_backbone import ClipBackbone

MEAN, STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)  # of Kinetics-400, on pixels in [0, 1]


class VideoResNet(ClipBackbone):
    """A network of these parts, trained on Kinetics-400."""

    default_weights = "kinetics400"
    class_list = "kinetics400"
    last_stage = "layer4"

    stem: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module
    fc: nn.Linear

    def trunk(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised to the maps of `layer4`."""
        for layer in (self.stem, self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return x

    def classifier(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits
