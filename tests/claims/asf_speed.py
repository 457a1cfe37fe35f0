"""ASF's speed-invariant tuning: clips at speeds 2, 4 and 8 teach what actions look like faster and slower.

Shape letters: V videos, I views of a video, P places in a clip (T x H x W), C classes, D features.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from heads.asf import Asf
from heads.checkpoint import create_run, load_run
from heads.metrics import video_map
from heads.options import split_settings
from heads.run import carry_out
from heads.run_plan import plan_run
from heads.score_store import predict_store
from stores import open_store
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.claims.experiment import Arm, video_name
from tests.heads.feature_stores import Silent
from tests.heads.sampled_stores import SECONDS, clip_times

CPU = torch.device("cpu")
CLASSES = 4
PACES = (-2, -1, 0, 1, 2)  # octaves of duration, of test videos; the others have 0
LOOKS = len(PACES) + 2  # of a class: octaves of duration in the network's eyes, at speeds from 2 to 8
BACKGROUND = 4  # features that are 1 everywhere, for the query of the last position
WIDTH = CLASSES * LOOKS + BACKGROUND
STEPS, SIDE = 2, 2
STRENGTH, NOISE = 2.0, 0.6
VIEWS: Mapping[str, tuple[int, int, int]] = {  # set -> speed, clips, crops
    "made.rgb.map.r4": (4, 4, 3),
    "made.rgb.map.r2": (2, 3, 3),
    "made.rgb.map.r8": (8, 3, 3),
    "made.rgb.map.r4.many": (4, 10, 3),
}
ONE_SPEED, ALL_SPEEDS = ("made.rgb.map.r4",), ("made.rgb.map.r4", "made.rgb.map.r2", "made.rgb.map.r8")
TESTS: Mapping[str, Sequence[str]] = {"30 at 2, 4, 8": ALL_SPEEDS, "30 at 4": ("made.rgb.map.r4.many",)}
SUBSETS: Mapping[str, int] = {"train": 320, "val": 80, "test": 300}
TRAINING = (
    "num_observations=16",
    "embed=32",
    "groups=4",
    "optimizer=adam",
    "lr=0.01",
    "weight_decay=0",
    "schedule=onecycle",
    "batch_size=32",
)


class Videos(NamedTuple):
    """All views of some videos."""

    views: Mapping[str, NDArray[np.float32]]  # set -> (V, I, P, D)
    labels: NDArray[np.int8]  # (V, C)
    looks: Mapping[str, NDArray[np.int64]]  # set -> (V, C) octaves


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
    for name, (speed, clips, crops) in VIEWS.items():
        x_VIPD = NOISE * rng.normal(size=(videos, clips * crops, STEPS * SIDE * SIDE, WIDTH))
        x_VIPD[..., -BACKGROUND:] += 1
        looks[name] = paces_VC - int(np.log2(speed / 4))
        at = np.arange(videos)[:, None], np.arange(clips * crops)
        for index in range(CLASSES):
            cell_VI = rng.integers(0, x_VIPD.shape[2], x_VIPD.shape[:2])
            feature_V1 = feature(index, looks[name][:, index, None])
            x_VIPD[*at, cell_VI, feature_V1] += STRENGTH * labels_VC[:, index, None]
        views[name] = x_VIPD.astype(np.float32)
    return Videos(views, labels_VC.astype(np.int8), looks)


def feature(index: int, look: NDArray[np.int64]) -> NDArray[np.int64]:
    """The direction along which a class of that look shows."""
    return index * LOOKS + look + LOOKS // 2


@dataclass(frozen=True)
class SpeedTuning:
    """A second stage on speeds 2, 4 and 8, drawn for each batch, against one of as many steps on speed 4 alone.

    Both begin with the same run (`vl train-head --init`) and are scored on 30 views, of all speeds and of one.
    """

    name: str = "asf-speed"
    full: Mapping[str, tuple[Sequence[str], int]] = field(  # sets of the second stage, and its epochs: 600 steps
        default_factory=lambda: {"tuned on 2, 4, 8": (ALL_SPEEDS, 2)}
    )
    ablations: Mapping[str, tuple[Sequence[str], int]] = field(default_factory=lambda: {"tuned on 4": (ONE_SPEED, 5)})

    def carry_out(self, seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        """Both arms, and chance."""
        rng = np.random.default_rng(seed)
        parts = {name: generate(rng, count, PACES if name == "test" else (0,)) for name, count in SUBSETS.items()}
        arms = {}
        with tempfile.TemporaryDirectory(prefix="vl-claims-") as folder:
            store, labels = write(parts, Path(folder) / "f.zarr")
            first = Path(folder) / "first"
            train(store, labels, ONE_SPEED, (*TRAINING, "epochs=3", f"seed={seed}"), first)
            for number, (name, (sets, epochs)) in enumerate({**self.full, **self.ablations}.items()):
                run = Path(folder) / f"run{number}"
                train(store, labels, sets, (*TRAINING, f"epochs={epochs}", f"seed={seed}"), run, init=first)
                figures = {
                    on: video_map(scores(run, store, labels, seen), parts["test"].labels) for on, seen in TESTS.items()
                }
                arms[name] = Arm(figures, sum(weight.numel() for weight in load_run(run).model.parameters()))
        nothing = video_map(np.full(parts["test"].labels.shape, 0.5), parts["test"].labels)
        return arms, dict.fromkeys(TESTS, nothing)


def write(parts: Mapping[str, Videos], path: Path) -> tuple[ZarrStore, Labels]:
    """A store of all sets, and labels of whole videos that say which of them train."""
    cell = (SIDE, SIDE, WIDTH)
    specs = {
        name: FeatureSpec(
            Granularity.MAP, cell, "float32", backbone="made", stream="rgb", speed=speed, view=f"{clips}x{crops}"
        )
        for name, (speed, clips, crops) in VIEWS.items()
    }
    labelled: dict[str, VideoLabels] = {}
    with ZarrWriter(path, specs) as writer:
        for subset, videos in parts.items():
            for number, present in enumerate(videos.labels):
                video = video_name(len(labelled))
                classes = tuple(int(index) for index in np.flatnonzero(present))
                labelled[video] = VideoLabels.of([], subset=subset, video_level=classes)
                entry = writer.video(video, {"duration": SECONDS})
                for name, (speed, clips, crops) in VIEWS.items():
                    rows = videos.views[name][number].reshape(-1, *cell)
                    entry.append(name, Rows(rows, clip_times(speed, clips, crops, STEPS)))
                entry.commit()
    return ZarrStore(path), Labels(tuple(f"class{index}" for index in range(CLASSES)), labelled)


def train(
    store: ZarrStore, labels: Labels, sets: Sequence[str], words: Sequence[str], run: Path, init: Path | None = None
) -> None:
    """A run on some of the sets, from weights of chance or from those of another."""
    options, training = split_settings(Asf, words)
    plan = plan_run("asf", [store], labels, options=options, training=training, sets=sets, init=init)
    create_run(run, plan.config, plan.labels)
    carry_out(run, device=CPU, observer=Silent())


def scores(run: Path, store: ZarrStore, labels: Labels, sets: Sequence[str]) -> NDArray[np.float32]:
    """(V, C) probabilities of the test videos, each from all its views in these sets."""
    videos = [video for video, known in labels.videos.items() if known.subset == "test"]
    out = run / f"seen{len(sets)}.zarr"
    predict_store(load_run(run), [store], out, videos=videos, sets=sets, device=CPU)
    scored = open_store(out)["scores"]
    return np.concatenate([scored.read(video).features for video in videos])
