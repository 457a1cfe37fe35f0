"""VGGish: a VGG network on log-mel spectrograms, trained to tag videos by their sound.

Source: Hershey et al., "CNN Architectures for Large-Scale Audio Classification", ICASSP 2017, and its released code
(AudioSet's features are made by it). Parameter names and shapes are those of torchvggish's port `vggish-10086976.pth`.

An example is 96 frames of 10 ms of `extract.logmel`, 0.96 s, and needs 15,600 samples, as the last frame sees 25 ms. A
row is one example; by default they lie end to end, and another rate gives their starts: example k begins with the frame
nearest to 100 k / rate. As in VGGish a rest too short for an example is left out; a sound that is shorter than one
is filled up with zeros to one row, whose times end with the sound.

Differs from torchvggish: no ReLU after the last layer, as in VGGish's own code today; the means of its published PCA
are partly negative, so that it was fitted without one. `relu(row)` is what torchvggish gives.

Shape letters: S samples, J frames, R rows, M mel bands, C channels.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import ClassVar

import torch
from torch import Tensor, nn

from extract.backbone import ExampleBackbone
from extract.logmel import BANDS, HOP, SAMPLE_RATE, WINDOW, LogMel, frame_settings
from stores.spec import Granularity

EXAMPLE = 96  # frames
EMBEDDING = 128
FRAMES_A_SECOND = SAMPLE_RATE // HOP
EXAMPLES_AT_ONCE = {"cpu": 8, "cuda": 128}  # 1.5 MB each in the first layer


class Vggish(ExampleBackbone):
    """Mono samples at 16 kHz to FRAME rows of 128 features, one for each 0.96 s."""

    name = "vggish"
    sample_rate = SAMPLE_RATE
    row_shapes = {Granularity.FRAME: (EMBEDDING,)}  # noqa: RUF012
    default_weights = "audioset"
    default_rate = FRAMES_A_SECOND / EXAMPLE
    row_seconds = EXAMPLE / FRAMES_A_SECOND
    pca_features = EMBEDDING
    example_shape = EXAMPLE, BANDS
    widths: ClassVar[tuple[tuple[int, ...], ...]] = ((64,), (128,), (256, 256), (512, 512))  # before each pool
    hidden: ClassVar[int] = 4096

    def __init__(self) -> None:
        super().__init__()
        self.front = LogMel()
        layers: list[nn.Module] = []
        channels = 1
        for widths in self.widths:
            for width in widths:
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        pooled = 2 ** len(self.widths)
        self.embeddings = nn.Sequential(
            nn.Linear(channels * (EXAMPLE // pooled) * (BANDS // pooled), self.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(self.hidden, self.hidden),
            nn.ReLU(inplace=True),
            nn.Linear(self.hidden, EMBEDDING),
        )
        self.eval()

    def span(self, first: int, stop: int, rate: float) -> tuple[int, int]:
        """Samples [from, to) that rows `first` to `stop` need; outside the sound they count as zeros."""
        last = first_frame(stop - 1, rate) + EXAMPLE - 1
        return first_frame(first, rate) * HOP, last * HOP + WINDOW

    def num_rows(self, samples: int, rate: float) -> int:
        """Whole examples in a sound of so many samples, and one of a shorter sound."""
        frames = 1 + (samples - WINDOW) // HOP
        rows = max(0, math.floor((frames - EXAMPLE) * Fraction(rate) / FRAMES_A_SECOND) + 2)
        while rows and first_frame(rows - 1, rate) + EXAMPLE > frames:
            rows -= 1
        return max(rows, min(samples, 1))

    def examples(self, wave: Tensor, first: int, stop: int, rate: float) -> Tensor:
        """(S,) samples of that span to the log-mel of each row's example, (R, 96, 64)."""
        frames_JM = self.front.frames(wave)
        starts_R = torch.tensor([first_frame(row, rate) for row in range(first, stop)]) - first_frame(first, rate)
        index_RJ = starts_R.unsqueeze(1) + torch.arange(EXAMPLE)
        return frames_JM[index_RJ.to(frames_JM.device)]

    def forward(self, examples: Tensor, levels: frozenset[Granularity]) -> dict[Granularity, Tensor]:
        """(B, T, 96, 64) log-mel examples to FRAME rows (B, T, 128), of the parameters' dtype."""
        assert levels <= set(self.row_shapes), f"vggish has no {levels - set(self.row_shapes)}"
        parameter = next(self.parameters())
        x_R1JM = examples.to(parameter.dtype).flatten(0, 1).unsqueeze(1)
        parts = torch.split(x_R1JM, EXAMPLES_AT_ONCE.get(parameter.device.type, 32))
        # TensorFlow's order, in which the first linear layer was trained: time, band, channel.
        rows = torch.cat([self.embeddings(self.features(part).permute(0, 2, 3, 1).flatten(1)) for part in parts])
        return {level: rows.view(*examples.shape[:2], EMBEDDING) for level in levels}

    def settings(self) -> dict[str, float | int | str]:
        """What defines the numbers, for the spec."""
        return {**frame_settings(), "example": EXAMPLE}


def first_frame(row: int, rate: float) -> int:
    """Frame with which the example of a row begins, in exact arithmetic; a half goes up."""
    return math.floor(row * FRAMES_A_SECOND / Fraction(rate) + Fraction(1, 2))
