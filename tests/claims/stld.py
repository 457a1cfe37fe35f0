"""TranSTL's branches: over places where two cues share one, over times where they share one.

The two branches have the same size, so the full head with a layer each and one branch with two layers differ by
what the last classifier reads alone.

Shape letters: V videos, T steps, H height, W width, P = H x W places, L labels, D features.
"""

from __future__ import annotations

import numpy as np

from stores.spec import FeatureSpec, Granularity
from tests.claims.experiment import Claim, Data, mean_ap

STEPS, HEIGHT, WIDTH = 6, 3, 3
LABELS = 2  # each with two cues of its own
STRENGTH, NOISE = 3.0, 0.5


def same_place(rng: np.random.Generator, videos: int) -> Data:
    """A label is a video's whose two cues come at one place; no two cues come at one time.

    Both cues of both labels are in every video, once each, at four times drawn apart from each other. With the label,
    one place is drawn for both; without it, two places apart from each other. Noise is independent for every cell and
    feature.

    Why over places: the place of a cue at its step is uniform whatever the label, and nothing else is in that step, so
    the maximum over places of every step, and the mean over all, have one distribution with the label and without.
    """
    return _cues(rng, videos, together="places")


def same_time(rng: np.random.Generator, videos: int) -> Data:
    """A label is a video's whose two cues come at one time; no two cues come at one place.

    As `same_place`, with times and places changing roles, and so does the reason: nothing else is in the place of a
    cue, and the maximum over time keeps nothing of when it came.
    """
    return _cues(rng, videos, together="times")


def _cues(rng: np.random.Generator, videos: int, together: str) -> Data:
    labels_VL = rng.random((videos, LABELS)) < 0.5
    x_VTPD = NOISE * rng.normal(size=(videos, STEPS, HEIGHT * WIDTH, 2 * LABELS))
    apart, shared = (STEPS, HEIGHT * WIDTH) if together == "places" else (HEIGHT * WIDTH, STEPS)
    for video in range(videos):
        alone = rng.permutation(apart)[: 2 * LABELS]
        met = np.concatenate([rng.permutation(shared)[:2] for _ in range(LABELS)])
        met[1::2] = np.where(labels_VL[video], met[::2], met[1::2])
        times, places = (alone, met) if together == "places" else (met, alone)
        x_VTPD[video, times, places, np.arange(2 * LABELS)] += STRENGTH
    spec = FeatureSpec(Granularity.MAP, (HEIGHT, WIDTH, 2 * LABELS), "float32", backbone="made", stream="rgb")
    maps = x_VTPD.reshape(videos, STEPS, HEIGHT, WIDTH, -1).astype(np.float32)
    return Data({"made.rgb.map": maps}, {"made.rgb.map": spec}, labels_VL.astype(np.int8))


FIGURES = {"mAP": mean_ap()}
TRAINING = (
    "hidden=32",
    "nhead=4",
    "dim_feedforward=64",
    "dropout=0",
    "lr=0.003",
    "steps=800",
    "batch_size=64",
)
BOTH = {"both branches": ("num_layers=1",)}
TEMPORAL = {"branches=temporal": ("branches=temporal", "num_layers=2")}
SPATIAL = {"branches=spatial": ("branches=spatial", "num_layers=2")}
CLAIMS = (
    Claim("stld-spatial", "stld", same_place, 2400, TRAINING, BOTH, TEMPORAL, FIGURES),
    Claim("stld-temporal", "stld", same_time, 2400, TRAINING, BOTH, SPATIAL, FIGURES),
)
