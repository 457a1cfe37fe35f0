"""STAN: the order of scenes, and what only one of its two streams shows.

Shape letters: V videos, S scenes, C classes, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.spec import FeatureSpec, Granularity
from tests.claims.experiment import Claim, Data, mean_ap

SCENES = 8
WIDTH = 8  # features of a scene in each stream
STRENGTH, NOISE = 3.0, 0.5


def scenes(
    spatial_VSD: NDArray[Any], temporal_VSD: NDArray[Any]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, FeatureSpec]]:
    """A set of image rows and a set of clip rows for the same scenes."""
    sets = {"image.rgb.scene": spatial_VSD.astype(np.float32), "clip.rgb.scene": temporal_VSD.astype(np.float32)}
    windows = {"image.rgb.scene": 1, "clip.rgb.scene": 12}
    specs = {
        name: FeatureSpec(Granularity.SCENE, (WIDTH,), "float32", backbone=name, stream="rgb", window=windows[name])
        for name in sets
    }
    return sets, specs


def ordered(rng: np.random.Generator, videos: int) -> Data:
    """A label is a video's whose first cue comes before its second.

    Each of 2 labels has two cues, each in one scene of its own, of 8, drawn without replacement; with the label the
    first cue takes the earlier of the two, without it the later. Both streams show the cues, under independent noise.

    Why the order: with the label and without, the scenes of a video are the same set. (Which cues of the two labels
    share a scene says whether the labels are equal, but not which: the set of the reversed video is the same.)
    """
    labels_VC = rng.random((videos, 2)) < 0.5
    cues_VSD = np.zeros((videos, SCENES, WIDTH))
    for video in range(videos):
        for label in range(2):
            early, late = np.sort(rng.permutation(SCENES)[:2])
            first, second = (early, late) if labels_VC[video, label] else (late, early)
            cues_VSD[video, first, 2 * label] = STRENGTH
            cues_VSD[video, second, 2 * label + 1] = STRENGTH
    noise = NOISE * rng.normal(size=(2, *cues_VSD.shape))
    return Data(*scenes(cues_VSD + noise[0], cues_VSD + noise[1]), labels_VC.astype(np.int8))


def one_stream_each(rng: np.random.Generator, videos: int) -> Data:
    """Two labels show in pictures alone, two in motion alone.

    Each of 4 labels is a video's with probability 1/2, independently; its cue is in one scene, drawn uniformly, of
    the spatial stream for labels 0 and 1 and of the temporal stream for labels 2 and 3. All else is noise.

    Why both streams: each stream is independent of the other one's labels.
    """
    labels_VC = rng.random((videos, 4)) < 0.5
    at_VC = rng.integers(0, SCENES, (videos, 4))
    x = NOISE * rng.normal(size=(2, videos, SCENES, WIDTH))
    for label in range(4):
        x[label // 2, np.arange(videos), at_VC[:, label], label % 2] += STRENGTH * labels_VC[:, label]
    return Data(*scenes(x[0], x[1]), labels_VC.astype(np.int8))


TRAINING = (
    "embed=32",
    "ffn=64",
    "dropout=0",
    "lr=0.003",
    "steps=400",
    "batch_size=64",
    "weight_decay=0.01",
    "schedule=onecycle",
)
FULL = {"two layers": ("num_layers=2",)}
UNORDERED = {
    "pos_enc=false": ("num_layers=2", "pos_enc=false"),
    "aggregation=mean": ("aggregation=mean",),
}
ALONE = {role: {f"streams={role}": (f"streams={role}", "num_layers=4")} for role in ("spatial", "temporal")}
CLAIMS = (
    Claim("stan-order", "stan", ordered, 2000, TRAINING, FULL, UNORDERED, {"mAP": mean_ap()}),
    Claim(
        "stan-streams-motion",
        "stan",
        one_stream_each,
        1200,
        TRAINING,
        FULL,
        ALONE["spatial"],
        {"mAP motion": mean_ap(2, 3)},
    ),
    Claim(
        "stan-streams-picture",
        "stan",
        one_stream_each,
        1200,
        TRAINING,
        FULL,
        ALONE["temporal"],
        {"mAP picture": mean_ap(0, 1)},
    ),
)
