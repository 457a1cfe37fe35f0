"""ASF's speed-invariant tuning: clips at speeds 2, 4 and 8 teach what actions look like faster and slower.

Shape letters: V videos, I views of a video, T steps, S side of the grid, C classes, D features, B views of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.asf import Asf, AsfConfig
from heads.head import Batch
from heads.metrics import video_map
from heads.optimise import learning_rate, make_optimizer
from heads.options import TrainOptions
from heads.standardise import Model
from tests.claims.experiment import Arm

CLASSES = 4
PACES = (-2, -1, 0, 1, 2)  # octaves of duration, of test videos; training videos have 0
LOOKS = len(PACES) + 2  # of a class: octaves of duration in the network's eyes, at speeds from 2 to 8
BACKGROUND = 4  # features that are always 1, for the query of the last position
WIDTH = CLASSES * LOOKS + BACKGROUND
STEPS, SIDE = 2, 2
STRENGTH, NOISE = 2.0, 0.6
MIXED: Mapping[int, int] = {2: 9, 4: 12, 8: 9}  # speed -> views of a video: the paper's 30
ALONE: Mapping[int, int] = {4: 30}
BATCH, FIRST_STEPS, SECOND_STEPS = 32, 300, 500
TRAIN, TEST = 400, 300


class Videos(NamedTuple):
    """All views of some videos."""

    views: Mapping[int, NDArray[np.float32]]  # speed -> (V, 30, T, S, S, D)
    labels: NDArray[np.int8]  # (V, C)
    looks: Mapping[int, NDArray[np.int64]]  # speed -> (V, C) octaves


def generate(rng: np.random.Generator, videos: int, paces: Sequence[int]) -> Videos:
    """Actions of some durations, seen by a network to whose eyes a motion at another pace is another motion.

    Each of 4 classes is a video's with probability 0.4, with a pace (octaves of duration) drawn from `paces`. In a
    clip at speed r it has the look pace - log2(r / 4), and shows as 2 along the direction of that class and that
    look alone, in one cell, drawn for every view, under independent noise of deviation 0.6.

    Why tuning: all training videos have pace 0, test videos -2 to 2 alike. Clips of training videos at speed 4 show
    look 0 alone, and the other looks' directions, orthogonal to it, hold noise; at speeds 2 and 8 the same videos
    show looks 1 and -1. Of the 30 views of a test video, an untuned head knows an action of pace 0 in 12, of pace
    1 or -1 in 9, and of pace 2 or -2 in none.
    """
    labels_VC = rng.random((videos, CLASSES)) < 0.4
    paces_VC = rng.choice(np.asarray(paces), (videos, CLASSES))
    views, looks = {}, {}
    number = max(ALONE.values())
    at = np.arange(videos)[:, None], np.arange(number)
    for speed in MIXED:
        x = NOISE * rng.normal(size=(videos, number, STEPS * SIDE * SIDE, WIDTH))
        x[..., -BACKGROUND:] += 1
        looks[speed] = paces_VC - int(np.log2(speed / 4))
        for index in range(CLASSES):
            cell_VI = rng.integers(0, x.shape[2], (videos, number))
            feature_V1 = feature(index, looks[speed][:, index, None])
            x[*at, cell_VI, feature_V1] += STRENGTH * labels_VC[:, index, None]
        views[speed] = x.reshape(videos, number, STEPS, SIDE, SIDE, WIDTH).astype(np.float32)
    return Videos(views, labels_VC.astype(np.int8), looks)


def feature(index: int, look: NDArray[np.int64]) -> NDArray[np.int64]:
    """The direction along which a class of that look shows."""
    return index * LOOKS + look + LOOKS // 2


@dataclass(frozen=True)
class SpeedTuning:
    """A second stage on speeds 2, 4 and 8, drawn for each batch, against one as long on speed 4 alone."""

    name: str = "asf-speed"
    full: Mapping[str, Sequence[int]] = field(default_factory=lambda: {"tuned on 2, 4, 8": (2, 4, 8)})
    ablations: Mapping[str, Sequence[int]] = field(default_factory=lambda: {"tuned on 4": (4,)})

    def carry_out(self, seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        """Both arms from the same first stage on speed 4, and chance; 30 views, of all speeds or of one."""
        rng = np.random.default_rng(seed)
        train, test = generate(rng, TRAIN, (0,)), generate(rng, TEST, PACES)
        tests = {"30 of 2, 4, 8": MIXED, "30 of 4": ALONE}
        arms = {}
        for name, speeds in {**self.full, **self.ablations}.items():
            torch.manual_seed(seed)
            model = Model(Asf(AsfConfig(WIDTH, CLASSES, num_observations=16, embed=32, groups=4)), {"map": WIDTH})
            model.head.learn_labels(torch.from_numpy(train.labels))
            for steps, chosen in ((FIRST_STEPS, (4,)), (SECOND_STEPS, speeds)):
                fit(model, train, chosen, steps, seed)
            figures = {on: video_map(scores(model, test, views), test.labels) for on, views in tests.items()}
            arms[name] = Arm(figures, sum(weight.numel() for weight in model.parameters()))
        nothing = video_map(np.full(test.labels.shape, 0.5), test.labels)
        return arms, dict.fromkeys(tests, nothing)


def fit(model: Model, videos: Videos, speeds: Sequence[int], steps: int, seed: int) -> None:
    """Train on one view of each of some videos a batch, all of one speed, drawn for each batch anew."""
    options = TrainOptions(optimizer="adam", lr=0.01, weight_decay=0.0, schedule="onecycle", steps=steps)
    optimizer = make_optimizer(model, options, torch.device("cpu"))
    rng = np.random.default_rng([seed, steps])
    model.train()
    for step in range(steps):
        x_VI = videos.views[int(rng.choice(speeds))]
        which_B = rng.integers(0, len(x_VI), BATCH)
        view_B = rng.integers(0, x_VI.shape[1], BATCH)
        batch = batch_of(x_VI[which_B, view_B])
        batch.labels = torch.from_numpy(videos.labels[which_B])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, options)
        optimizer.zero_grad()
        torch.autograd.backward(model.head.loss(model(batch), batch))
        optimizer.step()


def scores(model: Model, videos: Videos, views: Mapping[int, int]) -> NDArray[np.float32]:
    """(V, C) mean probability over so many views of each speed."""
    model.eval()
    given: list[Tensor] = []
    for speed, number in views.items():
        x = videos.views[speed][:, :number]
        with torch.inference_mode():
            flat = model(batch_of(x.reshape(-1, *x.shape[2:]))).probabilities()
        given.append(flat.unflatten(0, x.shape[:2]))
    mean: NDArray[np.float32] = torch.cat(given, dim=1).mean(1).numpy()
    return mean


def batch_of(x_BTSSD: NDArray[np.float32]) -> Batch:
    """A batch without padding, labels or times of interest."""
    shape = x_BTSSD.shape[:2]
    return Batch(
        {"map": torch.from_numpy(x_BTSSD)}, {"map": torch.ones(shape, dtype=torch.bool)}, torch.zeros(*shape, 2)
    )
