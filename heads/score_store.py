"""From a trained run and stored features to a store of scores: one set `scores`, the classes named in its spec.

On request a second set, `windows`, holds what every overlapping window gave before averaging: the rows of a video
in order of time, each as often as windows saw it, and last the padded steps, which stand for no time at the end.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.answers import WINDOWS
from heads.checkpoint import BEST, Run, file_sha256
from heads.head import HeadError
from heads.predict import Reading, score_videos, score_windows
from heads.ranks import ALONE, Ranks
from heads.samples import SampledWindows
from heads.sources import find_sources, find_views, require_equal_times
from heads.windows import Windows
from stores import disk
from stores.names import printable
from stores.spec import FeatureSpec, FeatureStore, Granularity, Rows
from stores.zarr_store import ZarrWriter

SET_NAME = "scores"


def predict_store(
    run: Run,
    stores: Sequence[FeatureStore],
    out: Path,
    *,
    videos: Sequence[str] | None = None,
    sets: Sequence[str] = (),
    device: torch.device,
    resident: bool | None = None,
    keep_windows: bool = False,
) -> list[str]:
    """Score stored features with a trained run.

    Args:
        run: its features are looked for in the stores by name and fingerprint.
        stores: feature stores, joined by video.
        out: a new store NAME.zarr; labels attached to the features go along.
        videos: ids to score; None: all that the store holds.
        sets: names of clip-sampled sets to see, which may be of other speeds and views than the run was trained on.
        device: where the model is put.
        resident: as `Windows` has it; None reads from disk unless all rows fit.
        keep_windows: as `write_scores` has it.

    Returns:
        Ids of videos that have no rows to score; all others are in `out`.

    Raises:
        SpecMismatchError: features of another kind than the head was trained on.
        HeadError: `out` is there already, a video is not in the store, or there are no windows to keep.
    """
    if out.exists():
        raise HeadError(f"{printable(out)} is there already. Give --out a new name, or remove it.")
    if keep_windows and run.model.head.level == "video":
        raise HeadError(f"{run.config.head} scores whole videos: it has no windows to keep. Leave --keep-windows out.")
    recorded = run.config.features
    sources = find_views(recorded, stores, sets) if sets else find_sources(recorded, stores)
    grid = sources[0].features
    chosen = list(grid) if videos is None else list(videos)
    if unknown := [video for video in chosen if video not in grid]:
        raise HeadError(f"'{printable(unknown[0])}' has no rows in {grid.name}. 'vl ls' lists all videos.")
    scored = [video for video in chosen if grid.entry(video).num_rows]
    require_equal_times(type(run.model.head), sources, scored)
    run.model.to(device)
    kind = SampledWindows if sources[0].spec.view else Windows
    windows = kind(sources, scored, device=device, resident=resident)
    windows.fill_missing(run.model.standardise.means)
    attached = next((found for store in stores if (found := store.attachment("labels"))), None)
    write_scores(
        out,
        run,
        windows,
        range(len(scored)),
        expected=chosen,
        split=None,
        labels=attached,
        keep_windows=keep_windows,
    )
    return [video for video in chosen if not grid.entry(video).num_rows]


def write_scores(
    out: Path,
    run: Run,
    windows: Windows | SampledWindows,
    videos: Sequence[int],
    *,
    expected: Sequence[str],
    split: str | None,
    labels: dict[str, Any] | None,
    keep_windows: bool = False,
    ranks: Ranks = ALONE,
) -> None:
    """Score some videos of `windows` into the new store `out`.

    Args:
        expected: ids of those and of the videos that should have scores and cannot, for scoring to count.
        split: the split that these are, if any.
        labels: `Labels.to_dict()` of what `vl score` shall compare with, if known.
        keep_windows: write the scores of MLAD's slide mode too, which takes a second pass over the rows.
        ranks: the processes that come here together: each scores its share, and the first writes.
    """
    options, level = run.config.training, run.model.head.level
    grid = windows.sources[0]
    reading = Reading(level, options.window, options.stride, options.batch_size, options.precision)
    attachment = {
        "run": str(run.path.resolve()),
        "head": run.config.head,
        "level": level,
        "label_at": options.label_at,
        "boundary": options.boundary,
        "split": split,
        "expected": list(expected),
        "labels": labels,
        "random_weights": run.config.random_weights,
        "views": run.model.head.views if grid.spec.view else None,
        "features": {source.features.name: source.spec.fingerprint for source in windows.sources},
        "snapshot_id": grid.store.snapshot_id,
    }
    spec = score_spec(run)
    specs = {SET_NAME: spec}
    own = ranks.own(videos)
    of_videos = ranks.collect(score_videos(run.model, windows, own, reading))
    of_windows: Iterator[tuple[int, NDArray[np.float32], NDArray[np.int64]]] = iter(())
    if keep_windows:
        assert isinstance(windows, Windows), "heads that score rows see no views"
        specs[WINDOWS] = dataclasses.replace(spec, settings={"window": reading.window, "stride": reading.stride})
        of_windows = ranks.collect(score_windows(run.model, windows, own, reading))
    if not ranks.first:
        deque(chain(of_videos, of_windows), maxlen=0)
        return
    try:
        with ZarrWriter(out, specs, provenance=dict.fromkeys(specs, run.config.versions)) as writer:
            writer.attach("prediction", attachment)
            for video, scores in of_videos:
                name, times = windows.videos[video], windows.times[video]
                info = dict(grid.features.entry(grid.ids[name]).info)
                if level == "video":
                    times = np.array([[0.0, info.get("duration") or times[:, 1].max()]])
                entry = writer.video(name, info)
                entry.append(SET_NAME, Rows(scores, times))
                entry.commit()
            for video, seen, row_N in of_windows:
                name, times = windows.videos[video], windows.times[video]
                entry = writer.video(name, dict(grid.features.entry(grid.ids[name]).info))
                entry.append(WINDOWS, Rows(seen, np.append(times, [[times[-1, 1]] * 2], axis=0)[row_N]))
                entry.commit()
    except BaseException:
        disk.remove_tree(out)  # half a store of scores would be taken for a whole one
        raise


def score_spec(run: Run) -> FeatureSpec:
    """What defines the scores of a run: its head, its weights and the order of its classes."""
    return FeatureSpec(
        granularity=Granularity.SCORE,
        row_shape=(len(run.config.classes),),
        dtype="float32",
        backbone=run.config.head,
        weights=str(run.path),
        weights_sha256=file_sha256(run.path / BEST),
        random_weights=run.config.random_weights,
        classes=run.config.classes,
    )
