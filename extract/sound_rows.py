"""One loaded network on sound, and the rows it gives of a video whose samples arrive piece by piece.

Shape letters: S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from extract.backbone import AudioBackbone
from extract.extractors import NamedRows, as_stored, cell_times, finite
from extract.whitening import Whitening
from stores.spec import FeatureSpec, Rows

AUDIO_BLOCK_ROWS = 256


@dataclass(frozen=True)
class Sound:
    """An audio backbone with the settings of one extraction."""

    backbone: AudioBackbone
    set_name: str
    spec: FeatureSpec
    rate: float  # rows a second
    device: torch.device
    whitening: Whitening | None = None  # where rows are stored as uint8

    def start(self) -> SoundRows:
        """What takes the samples of one video."""
        return SoundRows(self)

    def times(self, first: int, stop: int, samples: int) -> NDArray[np.float64]:
        """(stop - first, 2) seconds of rows of a sound that has so many samples, as far as it is known."""
        times = cell_times(np.arange(first, stop), 1, self.rate)
        if self.backbone.row_seconds is not None:
            end = samples / self.backbone.sample_rate  # of the sound, where it is a row's
            times[:, 1] = np.minimum(times[:, 0] + self.backbone.row_seconds, end)
        return times

    def zeros(self, seconds: float) -> Rows:
        """Rows of zeros over a video of that length, at least one."""
        count = max(1, int(np.ceil(seconds * self.rate - 1e-6)))
        features = np.zeros((count, *self.spec.row_shape), self.spec.dtype)
        return Rows(features, cell_times(np.arange(count), 1, self.rate))


class SoundRows:
    """Rows of the sound of one video, block by block; holds no more than one block of samples."""

    def __init__(self, sound: Sound) -> None:
        self.sound = sound
        self.first = 0  # number of the first sample that is held
        self.held = np.zeros(0, np.float32)
        self.row = 0  # the next one

    def push(self, samples: NDArray[np.float32]) -> NamedRows:
        """(S,) the next samples at the backbone's sample rate."""
        self.held = np.concatenate([self.held, samples])
        backbone, rate = self.sound.backbone, self.sound.rate
        end = self.first + len(self.held)
        while backbone.span(self.row, self.row + AUDIO_BLOCK_ROWS, rate)[1] <= end:
            yield from self._run(self.row + AUDIO_BLOCK_ROWS)

    def finish(self) -> NamedRows:
        """The rows up to the end of the sound; the last one may reach beyond it."""
        rows = self.sound.backbone.num_rows(self.first + len(self.held), self.sound.rate)
        while self.row < rows:
            yield from self._run(min(rows, self.row + AUDIO_BLOCK_ROWS))

    def _run(self, stop: int) -> NamedRows:
        backbone, rate = self.sound.backbone, self.sound.rate
        start_sample, stop_sample = backbone.span(self.row, stop, rate)
        wave = np.zeros(stop_sample - start_sample, np.float32)
        inside = slice(max(start_sample, self.first), min(stop_sample, self.first + len(self.held)))
        wave[inside.start - start_sample : inside.stop - start_sample] = self.held[
            inside.start - self.first : inside.stop - self.first
        ]
        with torch.inference_mode():
            rows = backbone.rows(torch.from_numpy(wave).to(self.sound.device), self.row, stop, rate)
        name = self.sound.set_name
        times = self.sound.times(self.row, stop, self.first + len(self.held))
        stored = as_stored(rows, self.sound.spec, self.sound.whitening).cpu().numpy()
        self.row = stop
        keep = max(0, backbone.span(stop, stop + 1, rate)[0] - self.first)
        self.held = self.held[keep:]
        self.first += keep
        yield name, Rows(finite(stored, name, self.sound.spec), times)
