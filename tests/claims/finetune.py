"""STAN end to end: a head on frozen networks, then with its image network tuned, then with both.

Shape letters: V videos, S scenes, T frames of a clip, H height, W width, C classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from extract.weights import fill_randomly
from heads.checkpoint import create_run
from heads.clip_windows import Part, Videos
from heads.end_to_end import ClipNetwork, Clips, TuneOptions
from heads.metrics import class_average_precision
from heads.options import split_settings
from heads.run import carry_out
from heads.run_plan import plan_run
from heads.stan import Stan
from stores import open_store
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.claims.experiment import Arm, video_name
from tests.extract.narrow import NarrowR2Plus1d18, NarrowResNet18
from tests.heads.feature_stores import Silent

CPU = torch.device("cpu")
SCENES, FRAMES = 3, 4
CLASSES = 2  # one that shows in pictures, one that shows in motion
GRATING, MOVING, GRAIN = 34.0, 80.0, 30.0  # levels of 255: of stripes, and of the noise that they lie under
SUBSETS: Mapping[str, int] = {"train": 360, "val": 60, "test": 200}
SPATIAL, TEMPORAL = "resnet18.rgb.scene", "r2plus1d_18.rgb.scene"
HEAD = ("embed=32", "ffn=64", "num_layers=2", "dropout=0", "weight_decay=0.01", "batch_size=16")
FIRST = ("epochs=80", "schedule=onecycle", "lr=0.0005")
SECOND = ("epochs=12", "schedule=cosine", "lr=0.0003")
BACKBONE_LR = 3e-4  # of networks that begin with weights of chance


class Trailers(NamedTuple):
    """Videos of scenes, as the two networks see them."""

    pictures: NDArray[np.uint8]  # (V, S, 1, 56, 56, 3)
    clips: NDArray[np.uint8]  # (V, S, T, 56, 56, 3)
    labels: NDArray[np.int8]  # (V, C)

    @property
    def subsets(self) -> NDArray[np.str_]:
        """(V,) train, val or test."""
        return np.repeat([*SUBSETS], [*SUBSETS.values()])


def generate(rng: np.random.Generator) -> Trailers:
    """A label is a trailer's whose first cue comes in an earlier scene than its second.

    Each of 2 labels, independently with probability 1/2, has two cues, each in one of 3 scenes, drawn without
    replacement; with the label the first cue takes the earlier scene, without it the later. Label 0 shows in pictures
    alone: its cues are stripes, 6 pixels wide and of random phase, that stand or lie, about as strong as the noise
    around them. Label 1 shows in clips alone: standing stripes, 8 pixels wide, move 2 pixels a frame to either side
    (first cue) or stay (second), under noise that is new in every frame; single frames of both look alike.

    Why the order needs scenes as a sequence: with a label and without the scenes are the same set. Why tuning: a
    network of random weights was made for neither stripes nor motion; only stan-large may change what sees motion.
    """
    count = sum(SUBSETS.values())
    labels_VC = rng.random((count, CLASSES)) < 0.5
    pictures_VS = rng.normal(128, GRAIN, (count, SCENES, 1, 56, 56, 3))
    motions_VS = np.zeros((count, SCENES), np.int64)  # -1 moves, 1 stays, 0 none
    y, x = np.mgrid[:56, :56]
    for video in range(count):
        for label in range(CLASSES):
            early, late = np.sort(rng.permutation(SCENES)[:2])
            places = (early, late) if labels_VC[video, label] else (late, early)
            for cue, scene in enumerate(places):
                if label == 0:
                    phase = 2 * np.pi * (rng.random() + (y if cue else x) / 6)
                    pictures_VS[video, scene, 0] += GRATING * np.sin(phase)[..., None]
                else:
                    motions_VS[video, scene] = 2 * cue - 1
    clips = rng.normal(128, GRAIN, (count, SCENES, FRAMES, 56, 56, 3))
    direction_VS = rng.choice([-1, 1], (count, SCENES)) * (motions_VS < 0)
    place_VSTW = np.arange(56) + 2 * direction_VS[..., None, None] * np.arange(FRAMES)[:, None]
    phases_VSTW = rng.random((count, SCENES, 1, 1)) + place_VSTW / 8
    stripes_VSTW = MOVING * np.sin(2 * np.pi * phases_VSTW) * (motions_VS != 0)[..., None, None]
    clips += stripes_VSTW[:, :, :, None, :, None]
    return Trailers(levels(pictures_VS), levels(clips), labels_VC.astype(np.int8))


def levels(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Rounded to what a picture can hold."""
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class MemoryReader:
    """Gives the frames of generated trailers, unchanged."""

    frames: Mapping[str, NDArray[np.uint8]]  # set -> (V, S, T, H, W, 3)

    def read(
        self, parts: Sequence[Part], draw: tuple[int, int] | None = None
    ) -> Generator[dict[str, Clips], None, None]:
        """The scenes of each part."""
        for video, rows in parts:
            yield {name: self._clips(of[int(video[1:6])][slice(*rows[name])]) for name, of in self.frames.items()}

    def _clips(self, scenes_STHWC: NDArray[np.uint8]) -> Clips:
        index = np.arange(scenes_STHWC.shape[0] * scenes_STHWC.shape[1]).reshape(scenes_STHWC.shape[:2])
        one_row = torch.tensor([[0, 1]]).expand(len(index), 2)
        return torch.from_numpy(scenes_STHWC).flatten(0, 1), torch.from_numpy(index).unbind(), one_row


def networks() -> dict[str, ClipNetwork]:
    """Narrow ones of random weights."""
    image, clip = NarrowResNet18(), NarrowR2Plus1d18()
    for network in (image, clip):
        fill_randomly(network, 0)
        network.requires_grad_(False).eval()
    return {
        SPATIAL: ClipNetwork(image, "resnet18", Granularity.FRAME, (1, 56, 56, 3)),
        TEMPORAL: ClipNetwork(clip, "r2plus1d_18", Granularity.CLIP, (FRAMES, 56, 56, 3)),
    }


@torch.inference_mode()
def store_of(trailers: Trailers, handed: Mapping[str, ClipNetwork], path: Path) -> ZarrStore:
    """What extraction with the frozen networks would store."""
    seen = {SPATIAL: trailers.pictures, TEMPORAL: trailers.clips}
    specs = {
        name: FeatureSpec(Granularity.SCENE, (128,), "float32", backbone=name, stream="rgb", window=of.clip_shape[0])
        for name, of in handed.items()
    }
    times = np.stack([np.arange(SCENES), np.arange(SCENES) + 1.0], axis=1)
    with ZarrWriter(path, specs) as writer:
        for video in range(len(trailers.labels)):
            entry = writer.video(video_name(video), {})
            for name, network in handed.items():
                rows = network.module(*network.arguments(torch.from_numpy(seen[name][video])))[network.level]
                entry.append(name, Rows(rows.flatten(0, 1).numpy(), times))
            entry.commit()
    return ZarrStore(path)


@dataclass(frozen=True)
class Finetuning:
    """The three ways of the paper's Table 4, each from the head that was trained on frozen features."""

    name: str = "stan-finetune"
    full: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"stan-large": (SPATIAL, TEMPORAL)})
    ablations: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"stan-small": (SPATIAL,), "frozen, 80 epochs": (), "frozen, 12 more": ()}
    )

    def carry_out(self, seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        """All arms on the same trailers, and chance."""
        trailers = generate(np.random.default_rng(seed))
        videos = {
            video_name(number): VideoLabels.of(
                [(int(index), 0.0, float(SCENES)) for index in np.flatnonzero(row)], subset=str(subset)
            )
            for number, (row, subset) in enumerate(zip(trailers.labels, trailers.subsets, strict=True))
        }
        labels = Labels(tuple(f"class{index}" for index in range(CLASSES)), videos)
        with tempfile.TemporaryDirectory(prefix="vl-claims-") as folder:
            handed = networks()
            store = store_of(trailers, handed, Path(folder) / "f.zarr")
            reader = MemoryReader({SPATIAL: trailers.pictures, TEMPORAL: trailers.clips})
            head = Path(folder) / "head"
            arms = {"frozen, 80 epochs": self._train(store, labels, head, (*HEAD, *FIRST, f"seed={seed}"))}
            words = (*HEAD, *SECOND, f"seed={seed}")
            for number, (name, learning) in enumerate({**self.ablations, **self.full}.items()):
                if name not in arms:
                    clips = Videos(store, reader, handed) if learning else None
                    arms[name] = self._train(store, labels, Path(folder) / f"run{number}", words, head, clips, learning)
        truth = trailers.labels[trailers.subsets == "test"]
        figures = {name: Arm(measured(scores, truth), count) for name, (scores, count) in arms.items()}
        return figures, measured(np.full(truth.shape, 0.5), truth)

    def _train(
        self,
        store: ZarrStore,
        labels: Labels,
        run: Path,
        words: Sequence[str],
        init: Path | None = None,
        clips: Videos | None = None,
        learning: tuple[str, ...] = (),
    ) -> tuple[NDArray[Any], int]:
        options, training = split_settings(Stan, words)
        tuning = TuneOptions(learning, backbone_lr=BACKBONE_LR, chunk=0)
        plan = plan_run(
            "stan",
            [store],
            labels,
            options=options,
            training=training,
            init=init,
            finetune={"options": vars(tuning), "clips": {}} if clips else None,
        )
        create_run(run, plan.config, plan.labels)
        result = carry_out(run, device=CPU, observer=Silent(), clips=clips)
        scored = open_store(run / "test.zarr")["scores"]
        first = SUBSETS["train"] + SUBSETS["val"]
        rows = [scored.read(video_name(first + number)).features[0] for number in range(SUBSETS["test"])]
        return np.stack(rows), int(result["cost"]["parameters"])


def measured(scores: NDArray[Any], labels: NDArray[np.int8]) -> dict[str, float]:
    """AP of the class that shows in pictures, and of the one that shows in motion."""
    ap_C = class_average_precision(scores, labels)
    return {"AP picture": float(ap_C[0]), "AP motion": float(ap_C[1])}
