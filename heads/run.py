"""One training run, from feature stores and labels to weights and scored predictions.

`plan_run` decides everything and writes nothing; `carry_out` does what a run's config says, from wherever the
run stands. A first start and a resume are therefore the same code.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.checkpoint import (
    Run,
    RunConfig,
    build_model,
    load_run,
    read_config,
    read_json,
    read_run_labels,
    write_json,
)
from heads.head import HeadError, head_class
from heads.options import TrainOptions, full_config
from heads.score_store import write_scores
from heads.sources import Source, choose_sources, find_sources
from heads.train import PROTOCOLS, Observer, Training
from heads.windows import Windows, role_shapes
from stores import disk
from stores.errors import SpecMismatchError
from stores.labels import Labels, match_videos
from stores.names import printable
from stores.opening import open_store
from stores.spec import FeatureStore
from stores.splits import split_videos

NO_LABELS = (
    "there are no labels: give --labels FILE (csv or json), or attach them to the store with 'vl labels attach'. "
    "'vl extract' attaches a labels.csv that lies beside the videos."
)


@dataclass(frozen=True)
class RunPlan:
    """A run that could start, and what people should know of it before it does."""

    config: RunConfig
    labels: Labels  # of the run's videos alone
    notes: tuple[str, ...]


def plan_run(
    head: str,
    stores: Sequence[FeatureStore],
    labels: Labels | None,
    *,
    options: Mapping[str, Any] | None = None,
    training: TrainOptions | None = None,
    sets: Sequence[str] = (),
    lists: Mapping[str, Path] | None = None,
    split_seed: int = 0,
    label_source: str = "attached to the store",
) -> RunPlan:
    """Settle sets, videos, split and options.

    Args:
        head: its name.
        stores: feature stores, joined by video.
        labels: None takes those attached to the first store that has some.
        options: of the head, those that differ from its defaults.
        training: None takes the trainer's defaults with the head's recipe.
        sets: names of feature sets; empty takes all that the head can use.
        lists: split name to a file of ids.
        split_seed: of the hash that splits where neither lists nor labels do.

    Raises:
        HeadError: no labels, no set, no video to train on, or an option that does not fit.
    """
    kind = head_class(head)
    training = training or TrainOptions(**kind.recipe)
    sources = choose_sources(kind, stores, sets)
    labels = labels or attached_labels(stores)
    if kind.level == "row" and not labels.timed:
        raise HeadError(f"{head} scores rows, but the labels have no times, only videos. Train meanpool, or time them.")
    grid = sources[0].features
    matched = match_videos(grid, labels.videos)
    empty = [video for video in matched.pairs if not grid.entry(video).num_rows]
    usable = [video for video in matched.pairs if video not in set(empty)]
    split = split_videos(usable, labels, seed=split_seed, lists=lists)
    if not split["train"]:
        raise HeadError(
            f"no video to train on: {len(matched.pairs)} of the {len(grid)} videos in {grid.name} have labels, "
            "and none of them falls to train. Check ids with 'vl ls', or give --train-list."
        )
    if kind.level == "row":
        longest = max(grid.entry(video).num_rows for video in split["train"])
        training = replace(training, window=min(training.window, longest))
    used = [video for videos in split.values() for video in videos]
    kept = labels.only(matched.pairs[video] for video in sorted(used))
    config = RunConfig(
        head=head,
        options=full_config(kind, role_shapes(sources), len(labels.classes), options or {}),
        training=training,
        classes=labels.classes,
        features=tuple(source.to_dict() for source in sources),
        split={name: tuple(videos) for name, videos in split.items()},
        split_seed=split_seed,
        matched={video: matched.pairs[video] for video in used},
        rows_sha256=rows_digest(sources, used),
        labels=label_source,
        labels_sha256=kept.fingerprint,
        versions={"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    )
    return RunPlan(config, kept, tuple(_notes(sources, split, matched.only_store, matched.only_labels, empty)))


def carry_out(run: Path, *, device: torch.device, observer: Observer) -> dict[str, Any]:
    """Train the run in the folder `run` to its end, score its validation and test videos, and say how it went.

    Returns:
        What result.json holds: head, epochs, best_epoch, val (protocol and score), predictions, seconds.

    Raises:
        SpecMismatchError: the stores no longer hold what the run was planned on.
        InterruptedRunError: a signal came; calling again goes on.
    """
    began = time.monotonic()
    config = read_config(run)
    labels = read_run_labels(run, config)
    stores = open_stores(config)
    try:
        sources = find_sources(config.features, stores)
        videos = [video for split in config.split.values() for video in split]
        if rows_digest(sources, videos) != config.rows_sha256:
            raise SpecMismatchError("the stores' rows have changed since the run began. Start a new run.")
        windows = run_windows(config, sources, videos, labels, device)
        index = {video: number for number, video in enumerate(videos)}
        members = {name: [index[video] for video in split] for name, split in config.split.items()}
        training = prepare(config, windows, members, run, observer)
        position = training.run()
        trained = load_run(run, device)
        trained.model.standardise.to(device)
        predictions = {}
        for name in ("val", "test"):
            if members[name]:
                out = run / f"{name}.zarr"
                disk.remove_tree(out)  # of an attempt that did not finish
                write_scores(out, trained, windows, members[name], split=name, labels=labels)
                predictions[name] = str(out)
        result = {
            "head": config.head,
            "epochs": position.epoch,
            "best_epoch": position.best_epoch,
            "val": {"protocol": PROTOCOLS[trained.model.head.level], "score": position.best},
            "predictions": predictions,
            "random_weights": config.random_weights,
            "seconds": round(sum(entry["seconds"] for entry in position.history), 3),

        }
        write_json(run / "result.json", result)
        return result
    finally:
        for store in stores:
            store.close()
