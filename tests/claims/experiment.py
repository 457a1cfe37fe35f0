"""What all controlled experiments share: generated data, arms that are trained alike, and the figures of each.

An arm goes the way of `vl train-head`: a feature store, a run in a folder, a store of scores for its test videos.

Shape letters: V videos, N rows, C classes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from heads.checkpoint import create_run, load_run
from heads.head import head_class
from heads.metrics import class_average_precision, top1_accuracy
from heads.options import split_settings
from heads.run import carry_out
from heads.run_plan import plan_run
from stores import open_store
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec
from stores.zarr_store import ZarrStore
from tests.heads.feature_stores import RATE, Silent, write_store

VAL, TEST = 0.15, 0.35  # shares of the videos; the rest is learnt from

Measure = Callable[[list[NDArray[Any]], list[NDArray[Any]]], float]
"""(T, C) probabilities of each video, and labels of these shapes, to a figure in [0, 1]; T is 1 for whole videos."""


@dataclass(frozen=True)
class Data:
    """Generated videos of one length, independent of each other."""

    sets: Mapping[str, NDArray[np.float32]]  # name -> (V, N, *row_shape)
    specs: Mapping[str, FeatureSpec]
    labels: NDArray[np.int8]  # (V, C) of whole videos or (V, N, C) of rows

    @property
    def subsets(self) -> NDArray[np.str_]:
        """(V,) train, val or test, in this order."""
        videos = len(self.labels)
        test, val = int(TEST * videos), int(VAL * videos)
        return np.repeat(["train", "val", "test"], [videos - val - test, val, test])

    @property
    def test_labels(self) -> list[NDArray[np.int8]]:
        """(T, C) of each test video."""
        return [np.atleast_2d(table) for table in self.labels[self.subsets == "test"]]


@dataclass(frozen=True)
class Arm:
    """How a trained head did on the test videos."""

    figures: Mapping[str, float]
    parameters: int


class Experiment(Protocol):
    """What the command runs: fresh data, first weights and batches for each seed."""

    @property
    def name(self) -> str:
        """For the command line."""

    @property
    def full(self) -> Mapping[str, Any]:
        """Heads with the part, by name."""

    @property
    def ablations(self) -> Mapping[str, Any]:
        """Heads without it, by name."""

    def carry_out(self, seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        """All arms by name, and the figures of scores that say nothing."""


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, on data that have its effect built in, against heads that should lose."""

    name: str
    head: str
    generate: Callable[[np.random.Generator, int], Data]  # its docstring says why the effect needs the part
    videos: int
    training: tuple[str, ...]  # settings of all arms, as `--set` takes them
    full: Mapping[str, tuple[str, ...]]  # and those of heads with the part, by name
    ablations: Mapping[str, tuple[str, ...]]  # and of heads without it
    figures: Mapping[str, Measure]  # what shows it

    def carry_out(self, seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        """All arms on the same data, and chance."""
        data = self.generate(np.random.default_rng(seed), self.videos)
        arms = {}
        with tempfile.TemporaryDirectory(prefix="vl-claims-") as folder:
            store, labels = store_of(data, Path(folder) / "f.zarr"), labels_of(data)
            for number, (name, settings) in enumerate({**self.full, **self.ablations}.items()):
                run = Path(folder) / f"run{number}"
                self._train(store, labels, [*self.training, *settings, f"seed={seed}"], run)
                parameters = sum(weight.numel() for weight in load_run(run).model.parameters())
                arms[name] = Arm(self._measured(test_scores(data, run), data), parameters)
        constant = [np.full(table.shape, 0.5) for table in data.test_labels]
        return arms, self._measured(constant, data)

    def _train(self, store: ZarrStore, labels: Labels, words: Sequence[str], run: Path) -> None:
        options, training = split_settings(head_class(self.head), words)
        plan = plan_run(self.head, [store], labels, options=options, training=training)
        create_run(run, plan.config, plan.labels)
        carry_out(run, device=torch.device("cpu"), observer=Silent())

    def _measured(self, scores: list[NDArray[Any]], data: Data) -> dict[str, float]:
        return {name: measure(scores, data.test_labels) for name, measure in self.figures.items()}


def mean_ap(*classes: int) -> Measure:
    """Mean over these classes (none named: all) of the AP over all rows of all videos."""

    def measure(scores: list[NDArray[Any]], labels: list[NDArray[Any]]) -> float:
        ap_C = class_average_precision(np.concatenate(scores), np.concatenate(labels))
        return float(np.mean(ap_C[list(classes)] if classes else ap_C))

    return measure


def top1(scores: list[NDArray[Any]], labels: list[NDArray[Any]]) -> float:
    """Share of videos whose highest class is the one that holds."""
    return top1_accuracy(np.concatenate(scores), np.concatenate(labels).argmax(axis=1))


def video_name(number: int) -> str:
    """The id of a generated video."""
    return f"v{number:05d}.mp4"


def labels_of(data: Data) -> Labels:
    """In seconds, as a label file has them: one span a row, or over the whole video."""
    rows = next(iter(data.sets.values())).shape[1]
    videos = {}
    for number, (table, subset) in enumerate(zip(data.labels, data.subsets, strict=True)):
        if data.labels.ndim == 2:
            segments = [(int(index), 0.0, rows / RATE) for index in np.flatnonzero(table)]
        else:
            segments = [(int(index), row / RATE, (row + 1) / RATE) for row, index in np.argwhere(table)]
        videos[video_name(number)] = VideoLabels.of(segments, subset=str(subset))
    return Labels(tuple(f"class{index}" for index in range(data.labels.shape[-1])), videos)


def store_of(data: Data, path: Path) -> ZarrStore:
    """All sets in one store."""
    sets = {name: {video_name(number): rows for number, rows in enumerate(table)} for name, table in data.sets.items()}
    return write_store(path, sets, specs=data.specs)


def test_scores(data: Data, run: Path) -> list[NDArray[Any]]:
    """(T, C) probabilities of each test video, which the run scored when it was done."""
    scored = open_store(run / "test.zarr")["scores"]
    return [scored.read(video_name(int(number))).features for number in np.flatnonzero(data.subsets == "test")]


test_scores.__test__ = False  # type: ignore[attr-defined]
