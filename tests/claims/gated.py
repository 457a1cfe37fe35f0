"""Gated attention's local maps: frames that are noisy by themselves mean something where they come in bursts.

Shape letters: V videos, T steps, C classes, D features.
"""

from __future__ import annotations

import numpy as np

from stores.spec import FeatureSpec, Granularity
from tests.claims.experiment import Claim, Data, mean_ap

STEPS = 60
CLASSES = 2
FRAMES = 6  # that show a cue
STRENGTH, NOISE = 3.0, 0.5


def bursts(rng: np.random.Generator, videos: int) -> Data:
    """A label is a video's whose cue comes in one burst; without it, as many frames show the cue here and there.

    Label 0 has the first 30 frames, label 1 the last 30. Exactly 6 of them show its cue in every video: with the
    label 6 in a row, from a place drawn uniformly; without it one of every 5, drawn uniformly. Noise is
    independent; 8 features are always 0.

    Why local maps: with the label and without, the frames of a video are the same set, only in another order, and
    `gated` has no position code, so what global attention makes of them has one distribution.
    """
    labels_VC = rng.random((videos, CLASSES)) < 0.5
    own = STEPS // CLASSES  # frames of a label
    start_VC1 = rng.integers(0, own - FRAMES, (videos, CLASSES, 1), endpoint=True)
    every = own // FRAMES
    scattered_VCF = every * np.arange(FRAMES) + rng.integers(0, every, (videos, CLASSES, FRAMES))
    at_VCF = np.where(labels_VC[..., None], start_VC1 + np.arange(FRAMES), scattered_VCF)
    at_VCF += own * np.arange(CLASSES)[:, None]
    shown_VTC = (at_VCF[..., None] == np.arange(STEPS)).any(axis=2).transpose(0, 2, 1)
    x_VTD = np.zeros((videos, STEPS, 16))
    x_VTD[..., :CLASSES] = STRENGTH * shown_VTC
    x_VTD[..., :8] += NOISE * rng.normal(size=(videos, STEPS, 8))
    spec = FeatureSpec(Granularity.FRAME, (16,), "float32", backbone="made", stream="rgb")
    return Data({"made.rgb.frame": x_VTD.astype(np.float32)}, {"made.rgb.frame": spec}, labels_VC.astype(np.int8))


TRAINING = (
    "modalities=visual",
    "num_steps=60",
    "ffn=64",
    "hidden=32",
    "dropout=0",
    "lr=0.003",
    "steps=400",
    "batch_size=64",
    "schedule=onecycle",
    "select=map",
    "patience=0",
)
FULL = {
    "share": ("variant=share", "local=bd"),
    "gate_att": ("variant=gate_att", "local=tp", "width=3"),
    "gate_op": ("variant=gate_op", "local=tp", "width=3"),
}
CLAIMS = (
    Claim("gated-bursts", "gated", bursts, 2000, TRAINING, FULL, {"global": ("variant=global",)}, {"mAP": mean_ap()}),
)
