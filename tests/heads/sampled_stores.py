"""Small clip-sampled stores whose labels can be read off the features of their clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrStore, ZarrWriter

VIEWS: Mapping[int, str] = {4: "4x3", 2: "3x3", 8: "3x3"}  # the 30 views
WIDTH, STEPS, SECONDS = 6, 2, 20.0


def sampled_spec(speed: int, view: str, level: str = "map", **fields: object) -> FeatureSpec:
    shape = (2, 2, WIDTH) if level == "map" else (WIDTH,)
    more = {"dtype": "float32", "backbone": "net", "stream": "rgb", "fps": 24.0, "window": 16, **fields}
    return FeatureSpec(Granularity(level), shape, speed=speed, view=view, **more)  # type: ignore[arg-type]


def name_of(speed: int, level: str = "map") -> str:
    return f"net.rgb.{level}.r{speed}"


def clip_times(speed: int, clips: int, crops: int, steps: int = STEPS) -> NDArray[np.float64]:
    """(N, 2) seconds of clips of `speed` seconds, spread over the video."""
    starts = np.linspace(0, SECONDS - speed, clips) if clips > 1 else np.array([(SECONDS - speed) / 2])
    edges = np.linspace(0, speed, steps + 1)
    cells = [(start + edges[k], start + edges[k + 1]) for start in starts for _ in range(crops) for k in range(steps)]
    return np.array(cells)


def planted_labels(videos: int = 16, classes: int = 3, seed: int = 0) -> Labels:
    """Each class is there once in most videos, for 3 to 8 seconds."""
    random = np.random.default_rng(seed)
    labelled = {}
    for number in range(videos):
        starts, lengths = random.uniform(0, 12, classes), random.uniform(3, 8, classes)
        there = random.random(classes) < 0.5
        spans = [(c, float(starts[c]), float(starts[c] + lengths[c])) for c in range(classes) if there[c]]
        labelled[f"v{number:02d}"] = VideoLabels.of(spans, duration=SECONDS)
    return Labels(tuple(f"class{index}" for index in range(classes)), labelled)


def planted_rows(labels: Labels, video: str, times: NDArray[np.float64], seed: int) -> NDArray[np.float32]:
    """(N, 2, 2, WIDTH): a class shows as a direction of its own where it is, under noise."""
    random = np.random.default_rng([seed, int(video[1:])])
    directions = np.random.default_rng(99).normal(size=(len(labels.classes), WIDTH))
    active = np.maximum(labels.rows(video, times, "overlap"), 0)
    noise = 0.3 * random.normal(size=(len(times), 2, 2, WIDTH))
    return ((active @ directions)[:, None, None] + noise).astype(np.float32)


def write_sampled(
    path: Path, labels: Labels, views: Mapping[int, str] = VIEWS, lacking: Mapping[int, Sequence[str]] | None = None
) -> ZarrStore:
    """A store with a map set for each speed; `lacking` leaves videos out of one of them."""
    specs = {name_of(speed): sampled_spec(speed, view) for speed, view in views.items()}
    with ZarrWriter(path, specs) as writer:
        for video in labels.videos:
            entry = writer.video(f"{video}.mp4", {"duration": SECONDS})
            for speed, view in views.items():
                if video in (lacking or {}).get(speed, ()):
                    continue
                clips, crops = (int(word) for word in view.split("x"))
                times = clip_times(speed, clips, crops)
                entry.append(name_of(speed), Rows(planted_rows(labels, video, times, speed), times))
            entry.commit()
        writer.attach("labels", labels.to_dict())
    return ZarrStore(path)
