"""ASF's correlations between classes, where labels exclude each other and where they go together.

What to expect of them: a class's correlated features are its own and the others' with weights that are never
negative (softmax plus frequency), and one classifier, shared by all classes, reads them. Evidence of a class that
goes with this one is added; that of a class that excludes it can be subtracted only if its features score
negative by themselves. Nor does the effect need the part as those of the other heads do: every class already sees
all observations, so the ablation can learn linear combinations of all cues. These two are comparisons, no proofs.

Shape letters: V videos, P places in time and space, C classes, D features.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stores.spec import FeatureSpec, Granularity
from tests.claims.experiment import Claim, Data, mean_ap, top1

STEPS, SIDE = 4, 3
NOISE = 0.3
BACKGROUND = 8  # features that are 1 everywhere, for the query of the last position
EXCLUDING = 8  # classes, of which one holds
GROUPS, MEMBERS = 4, 6  # of classes that go together


def excluding(rng: np.random.Generator, videos: int) -> Data:
    """Exactly one of 8 labels holds: that of the strongest cue.

    Every cue is in every video, each in a cell of its own; that of the label, drawn uniformly, is 3 times the
    video's gain (2 to the power of -1.5 to 1.5, uniform), the others 0.2 to 0.8 of it. Noise has deviation 0.3.

    Why correlations should help: a cue's strength says little by itself, for the gain differs from video to video;
    it must be compared with those of the labels that exclude it.
    """
    held_V = rng.integers(0, EXCLUDING, videos)
    share_VC = rng.uniform(0.2, 0.8, (videos, EXCLUDING))
    share_VC[np.arange(videos), held_V] = 1
    gain_V1 = 2 ** rng.uniform(-1.5, 1.5, (videos, 1))
    return _maps(rng, 3 * gain_V1 * share_VC, np.eye(EXCLUDING, dtype=np.int8)[held_V])


def together(rng: np.random.Generator, videos: int) -> Data:
    """Labels come in groups: a video has one of 4 groups of 6, and each label of it with probability 0.8.

    Each label's cue is in a cell of its own; its strength is 1.5 with the label and 0 without, and varies by a
    deviation of 0.8 from video to video. Cells' noise has deviation 0.3.

    Why correlations should help: a cue alone is often mistaken; the other five of its group say whether the group
    is there, and how often labels go together is counted on the training labels and need not be learnt.
    """
    num_classes = GROUPS * MEMBERS
    group_C = np.arange(num_classes) // MEMBERS
    held_VC = (group_C == rng.integers(0, GROUPS, (videos, 1))) & (rng.random((videos, num_classes)) < 0.8)
    return _maps(rng, 1.5 * held_VC + 0.8 * rng.normal(size=held_VC.shape), held_VC.astype(np.int8))


def _maps(rng: np.random.Generator, strength_VC: NDArray[np.float64], labels: NDArray[np.int8]) -> Data:
    """Each class's cue in a cell of its own, along a direction of its own."""
    videos, num_classes = strength_VC.shape
    x_VPD = NOISE * rng.normal(size=(videos, STEPS * SIDE * SIDE, num_classes + BACKGROUND))
    x_VPD[..., num_classes:] += 1
    cell_VC = np.argsort(rng.random(x_VPD.shape[:2]), axis=1)[:, :num_classes]
    x_VPD[np.arange(videos)[:, None], cell_VC, np.arange(num_classes)] += strength_VC
    spec = FeatureSpec(Granularity.MAP, (SIDE, SIDE, x_VPD.shape[-1]), "float32", backbone="made", stream="rgb")
    maps = x_VPD.reshape(videos, STEPS, SIDE, SIDE, -1).astype(np.float32)
    return Data({"made.rgb.map": maps}, {"made.rgb.map": spec}, labels)


COMMON = ("num_observations=16", "embed=32", "groups=4", "dropout=0.3", "optimizer=adam", "weight_decay=0")
FULL = {"correlation": ()}
WITHOUT = {"correlation=false": ("correlation=false",)}
CLAIMS = (
    Claim(
        "asf-excluding",
        "asf",
        excluding,
        2000,
        (*COMMON, "lr=0.03", "steps=1200", "batch_size=64"),
        FULL,
        WITHOUT,
        {"mAP": mean_ap(), "top-1": top1},
    ),
    Claim(
        "asf-together",
        "asf",
        together,
        1000,
        (*COMMON, "lr=0.01", "steps=1200", "batch_size=32"),
        FULL,
        WITHOUT,
        {"mAP": mean_ap()},
    ),
)
