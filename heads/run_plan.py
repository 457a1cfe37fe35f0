"""What a run will do, settled before anything is written: its sets, videos, split and options."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from heads.checkpoint import RunConfig, read_config
from heads.head import HeadError, head_class
from heads.initial import Initial
from heads.options import TrainOptions, full_config
from heads.samples import view_notes
from heads.sources import Source, by_speed, choose_sources, notes_beside, require_equal_times
from heads.train import SELECTION
from heads.windows import role_shapes
from stores.labels import Labels, match_videos
from stores.names import printable
from stores.spec import FeatureSet, FeatureStore
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
    init: Path | None = None,
    finetune: Mapping[str, Any] | None = None,
    beside: Sequence[FeatureStore] = (),
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
        init: a run whose best weights, options and standardisation this one begins with; None: weights of chance.
        finetune: as RunConfig has it, where the stores are of clips whose networks learn; None: stored rows.
        beside: stores of rows for the roles that no such network makes.

    Raises:
        HeadError: no labels, no set, no video to train on, or an option or initial run that does not fit.
    """
    kind = head_class(head)
    initial = Initial.read(init, head) if init is not None else None
    if initial is not None:
        options = initial.options(kind, options or {})
    training = training or TrainOptions(**kind.recipe)
    if (kind.level, training.select) not in SELECTION:
        raise HeadError(f"select={training.select} is for heads that score whole videos; {head} scores rows.")
    if training.keep_windows and kind.level == "video":
        raise HeadError(f"keep_windows is for heads that score rows; {head} scores whole videos.")
    sources = choose_sources(kind, stores, sets, options, None if finetune is None else beside)
    labels = labels or attached_labels(stores)
    if kind.level == "row" and not labels.timed:
        raise HeadError(f"{head} scores rows, but the labels have no times, only videos. Train meanpool, or time them.")
    grid = sources[0].features
    failed = {failure.video for store in stores for failure in store.failures()}
    matched = match_videos([*grid, *sorted(failed.difference(grid))], labels.videos)
    pairs = dict(matched.pairs)
    if lists or labels.has_subsets:  # who names the videos of a split counts those without features too
        pairs |= {video: video for video in matched.only_labels}
    whole = split_videos(pairs, labels, seed=split_seed, lists=lists)
    split, absent = _with_and_without_rows(grid, whole)
    if not split["train"]:
        labelled = sum(video in matched.pairs for video in grid)
        raise HeadError(
            f"no video to train on: {labelled} of the {len(grid)} videos in {grid.name} have labels, "
            "and none of them falls to train. Check ids with 'vl ls', or give --train-list."
        )
    require_equal_times(kind, sources, (video for videos in split.values() for video in videos))
    if kind.level == "row":
        longest = max(grid.entry(video).num_rows for video in split["train"])
        training = replace(training, window=min(training.window, longest))
    used = [video for videos in split.values() for video in videos]
    counted = [video for videos in whole.values() for video in videos]
    kept = labels.only(pairs[video] for video in sorted(counted))
    config = RunConfig(
        head=head,
        options=full_config(kind, role_shapes(by_speed(sources)[0]), len(labels.classes), options or {}),
        training=training,
        classes=labels.classes,
        features=tuple(source.to_dict() for source in sources),
        split={name: tuple(videos) for name, videos in split.items()},
        absent={name: tuple(videos) for name, videos in absent.items()},
        split_seed=split_seed,
        matched={video: pairs[video] for video in counted},
        rows_sha256=rows_digest(sources, used),
        labels=label_source,
        labels_sha256=kept.fingerprint,
        versions={"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        init=initial.to_dict() if initial is not None else None,
        finetune=finetune,
    )
    if initial is not None:
        initial.require_fits(config)
    unlabelled = sum(video in grid for video in matched.only_store)
    unknown = sum(video not in pairs for video in matched.only_labels)
    notes = (
        *_notes(sources, config, unlabelled, unknown),
        *view_notes(kind, sources, kept),
        *notes_beside(sources, beside),
    )
    return RunPlan(config, kept, notes)


def require_resumable(run: Path, config: RunConfig) -> None:
    """HeadError unless the run in the folder `run` is unfinished and was begun with this config."""
    if (run / "result.json").is_file():
        raise HeadError(f"{printable(run)} is finished. Give --out a new folder; 'vl score' scores the finished run.")
    require_begun_with(run, config)


def require_begun_with(run: Path, config: RunConfig) -> None:
    """HeadError, naming the setting that differs, unless the run in the folder `run` was begun with this config."""
    begun, wanted = _decisive(read_config(run)), _decisive(config)
    command = "train-head" if config.finetune is None else "finetune"
    for name in sorted({*begun, *wanted}):
        if begun.get(name) != wanted.get(name):
            raise HeadError(
                f"{printable(run)} was begun with {name} {printable(begun.get(name))}, not "
                f"{printable(wanted.get(name))}. "
                f"'vl {command} --resume {printable(run)}' goes on with its own settings; a new --out starts afresh."
            )


def _decisive(config: RunConfig) -> dict[str, str]:
    """Everything that decides a run's numbers, as flat text; long values by their digest."""
    fields = config.to_dict()
    nested = fields.pop("options") | fields.pop("training")
    del fields["versions"], fields["labels"]
    fields["init"] = (fields["init"] or {}).get("weights_sha256")
    fields["features"] = [[entry["role"], entry["set"], entry["fingerprint"]] for entry in fields["features"]]
    for name in ("classes", "features", "split", "absent", "matched"):
        fields[name] = hashlib.sha256(json.dumps(fields[name]).encode()).hexdigest()[:12]
    return {name: str(value) for name, value in (nested | fields).items()}


def attached_labels(stores: Sequence[FeatureStore]) -> Labels:
    """The labels attached to the first store that has some; HeadError, saying what to do, if none has."""
    for store in stores:
        if (found := store.attachment("labels")) is not None:
            return Labels.from_dict(found)
    raise HeadError(NO_LABELS)


def rows_digest(sources: Sequence[Source], videos: Sequence[str]) -> str:
    """SHA-256 over the digests of the rows of some videos in every set: equal rows, equal digest."""
    digest = hashlib.sha256()
    for source in sources:
        for video in sorted(videos):
            name = source.ids.get(video)
            rows = source.features.entry(name).sha256 if name is not None else "none"
            digest.update(f"{source.features.name}\0{video}\0{rows}\n".encode())
    return digest.hexdigest()


def _with_and_without_rows(
    grid: FeatureSet, split: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Of each split the videos that have rows, and those that have none: failed, empty, or never extracted."""
    held = {video for video in grid if grid.entry(video).num_rows}
    return (
        {name: [video for video in videos if video in held] for name, videos in split.items()},
        {name: [video for video in videos if video not in held] for name, videos in split.items()},
    )


def _notes(sources: Sequence[Source], config: RunConfig, unlabelled: int, unknown: int) -> tuple[str, ...]:
    """What is used, and everything that is left out, counted."""
    counts = ", ".join(f"{len(videos)} {name}" for name, videos in config.split.items())
    notes = [
        f"features: {' + '.join(source.features.name for source in sources)}; rows and times of the first",
        f"videos: {counts}; {len(config.classes)} classes; labels {config.labels}",
    ]
    grid = sources[0].features
    for count, what in (
        (unlabelled, "videos have features but no labels"),
        (unknown, "videos have labels but no features"),
        (len(grid) - unlabelled - sum(video in grid for video in config.matched), "videos are in no split"),
    ):
        if count:
            notes.append(f"left out: {count} {what}")
    for name, videos in config.absent.items():
        if videos:
            counted = "" if name == "train" else "; 'vl score' counts them as missing"
            total = len(videos) + len(config.split[name])
            first = f"'{printable(videos[0])}' is the first"
            notes.append(f"{len(videos)} of {total} {name} videos have no rows ({first}){counted}")
    for source in sources[1:]:
        lacking = sum(video not in source.ids for videos in config.split.values() for video in videos)
        if lacking:
            alone = sum(other.role == source.role for other in sources) == 1
            instead = "nothing is seen in its place" if alone else "they get its mean"
            if source.spec.view and source.spec.speed != sources[0].spec.speed:
                instead = "they are seen at the other speeds alone"
            notes.append(f"{source.features.name}: {lacking} videos lack it; {instead}")
    if config.init is not None:
        notes.append(f"begins with the weights of {printable(config.init['run'])}")
    if not config.split["val"]:
        notes.append("no validation videos: the last epoch is kept")
    return tuple(notes)
