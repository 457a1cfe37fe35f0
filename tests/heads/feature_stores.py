"""Small feature stores whose labels can be read off their features, made in a moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.train import Epoch
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrStore, ZarrWriter

RATE = 5.0  # rows a second


def grid_times(rows: int, rate: float = RATE) -> NDArray[np.float64]:
    """(rows, 2) seconds of cells side by side from 0 on."""
    return np.stack([np.arange(rows), np.arange(rows) + 1], axis=1) / rate


def flat_spec(width: int, dtype: str = "float32", **fields: Any) -> FeatureSpec:
    return FeatureSpec(Granularity.FRAME, (width,), dtype=dtype, **fields)


def write_store(
    path: Path,
    sets: Mapping[str, Mapping[str, NDArray[Any]]],
    *,
    specs: Mapping[str, FeatureSpec] | None = None,
    rates: Mapping[str, float] | None = None,
) -> ZarrStore:
    """A store of `sets`: set name -> video -> (N, ...) features, with cells of 1/rate seconds from 0 on."""
    specs = dict(specs or {})
    for name, videos in sets.items():
        first = next(iter(videos.values()))
        specs.setdefault(name, flat_spec(first.shape[1], str(first.dtype), backbone=name))
    with ZarrWriter(path, specs) as writer:
        for video in sorted({video for videos in sets.values() for video in videos}):
            entry = writer.video(video, {})
            for name, videos in sets.items():
                if video in videos:
                    features = videos[video]
                    entry.append(name, Rows(features, grid_times(len(features), (rates or {}).get(name, RATE))))
            entry.commit()
    return ZarrStore(path)


def planted(
    videos: int = 24, classes: int = 3, width: int = 8, rows: int = 30, seed: int = 0
) -> tuple[dict[str, NDArray[np.float32]], Labels]:
    """Features that show one of the classes as a direction of their own, under noise, and the labels in seconds."""
    random = np.random.default_rng(seed)
    directions = random.normal(size=(classes, width))
    features, labelled = {}, {}
    for number in range(videos):
        length = rows + number % 5
        active = np.zeros((length, classes))
        spans = []
        for index in range(classes):
            start = int(random.integers(0, length - 8))
            stop = start + int(random.integers(4, 8))
            if random.random() < 0.7:
                active[start:stop, index] = 1
                spans.append((index, start / RATE, stop / RATE))
        noise = 0.5 * random.normal(size=(length, width))
        features[f"v{number:02d}.mp4"] = (active @ directions + noise).astype(np.float32)
        labelled[f"v{number:02d}"] = VideoLabels.of(spans)
    return features, Labels(tuple(f"class{index}" for index in range(classes)), labelled)


class Silent:
    """Watches a training without a word, and keeps what it saw."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.epochs: list[Epoch] = []
        self.steps = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, done: int, total: int) -> None:
        self.steps = done

    def epoch(self, epoch: Epoch, best: bool) -> None:
        self.epochs.append(epoch)


class Killed(Exception):
    """Stands for a process that ends without another word."""


class Killer(Silent):
    """Ends a training at so many updates."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def step(self, done: int, total: int) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed
