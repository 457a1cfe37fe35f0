"""Stores of scores as `vl predict` writes them, and the labels of their videos."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrWriter

CLASSES = ("run", "jump", "fall")

LABELS = Labels(
    CLASSES,
    {
        "a.mp4": VideoLabels.of([(0, 0.0, 2.0), (1, 1.0, 4.0)], duration=4.0, subset="test"),
        "b.mp4": VideoLabels.of([(0, 2.0, 3.0)], duration=3.0, subset="test"),
        "c.mp4": VideoLabels.of([], duration=2.0, subset="test"),
        "d.mp4": VideoLabels.of([(2, 0.0, 2.0)], duration=2.0, subset="train"),
    },
)
TEST = ["a.mp4", "b.mp4", "c.mp4"]


def seconds(rows: int) -> NDArray[np.float64]:
    return np.stack([np.arange(rows), np.arange(1, rows + 1)], axis=1).astype(float)


def scores_of(*videos: str, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {video: rng.random((int(LABELS.videos[video].duration or 0), 3), dtype=np.float32) for video in videos}


def score_store(
    path: Path, scores: Mapping[str, NDArray[np.float32]], classes: tuple[str, ...] = CLASSES, **prediction: Any
) -> Path:
    """A store as `vl predict` writes it; without any fact about the prediction, one that somebody else made."""
    spec = FeatureSpec(Granularity.SCORE, (len(classes),), dtype="float32", classes=classes)
    with ZarrWriter(path, {"scores": spec}) as writer:
        for video, table in scores.items():
            entry = writer.video(video, {})
            entry.append("scores", Rows(table, seconds(len(table))))
            entry.commit()
        if prediction:
            writer.attach("prediction", prediction)
    return path


def predicted(path: Path, scores: Mapping[str, NDArray[np.float32]], **changes: Any) -> Path:
    facts: dict[str, Any] = {"level": "row", "split": "test", "expected": TEST, "labels": LABELS.to_dict()}
    return score_store(path, scores, **(facts | changes))
