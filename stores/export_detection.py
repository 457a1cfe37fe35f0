"""Folders that temporal action detection code trains on: features, annotations, and the keys of its configuration.

    OUT/features/{video}.npy      [T, D], without the video's ending
    OUT/annotations.json          ActivityNet's form, where labels are attached
    OUT/category_idx.txt          one class a line
    OUT/dataset.yaml | dataset.py the keys of ActionFormer | of OpenTAD

Source of the keys: ActionFormer's configs/thumos_i3d.yaml and libs/core/config.py (feat_folder, file_prefix, file_ext,
default_fps, feat_stride, num_frames, input_dim), which puts second t at row (t fps - num_frames / 2) / feat_stride; and
OpenTAD's configs/_base_/datasets/thumos-14 (data_path, feature_stride, sample_stride, offset_frames; prefix and suffix
of LoadFeats), which puts it at (t fps - offset_frames) / feature_stride.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from stores.errors import StoreError
from stores.exporting import Exported, file_names, new_folder, npy_bytes, plain_rows, write_file
from stores.labels import Labels, match_videos
from stores.names import printable
from stores.opening import VIDEO_SUFFIXES
from stores.spec import FeatureSet, FeatureStore
from stores.time_grid import TimeGrid

CLOSE_S = 1e-3  # seconds by which rows may lie beside the grid


def export_detection(store: FeatureStore, part: FeatureSet, kind: str, out: Path) -> Exported:
    """A folder for `opentad` or `actionformer`.

    Raises:
        StoreError: the rows are no vectors, or not on one grid of frames.
    """
    grid = _grid(part)
    done = Exported()
    names = file_names(part, _without_ending)
    document = store.attachment("labels")
    labels = Labels.from_dict(document) if document else None
    durations: dict[str, float] = {}
    with new_folder(out) as folder:
        for video in part:
            rows = plain_rows(part, video)
            expected = grid.times(len(rows.times)).mean(1)
            if not np.allclose(rows.times.mean(1), expected, rtol=0, atol=CLOSE_S):
                raise StoreError(
                    f"rows of '{printable(video)}' are not at the seconds of stride {grid.stride} at {grid.fps} frames "
                    "a second, and this form has no other times. Use --to npy, which keeps them."
                )
            write_file(folder, f"features/{names[video]}.npy", npy_bytes(rows.features.astype(np.float32)))
            durations[video] = float(part.entry(video).info.get("duration") or rows.times[-1, 1])
            done.videos += 1
            done.rows += len(rows.times)
        if labels is not None:
            fields = _annotations(part, labels, names, durations, float(grid.fps or 0), done)
            write_file(folder, "annotations.json", json.dumps(fields, indent=1, allow_nan=False).encode())
            write_file(folder, "category_idx.txt", "".join(f"{printable(c)}\n" for c in labels.classes).encode())
        else:
            done.notes.append("no labels are attached: no annotations.json")
        num_classes = len(labels.classes) if labels is not None else 0
        form = _actionformer(part, grid, num_classes) if kind == "actionformer" else _opentad(grid)
        write_file(folder, "dataset.yaml" if kind == "actionformer" else "dataset.py", form.encode())
    return done


def _without_ending(video: str) -> str:
    return video[: -len(suffix)] if (suffix := PurePosixPath(video).suffix).lower() in VIDEO_SUFFIXES else video


def _grid(part: FeatureSet) -> TimeGrid:
    spec = part.spec
    if len(spec.row_shape) != 1 or spec.view:
        raise StoreError(f"'{part.name}' holds rows {spec.row_shape} {spec.view}: this form takes one vector a step.")
    if spec.fps is None:
        raise StoreError(f"'{part.name}' has no frame rate that all videos share. Use --to npy, which keeps the times.")
    windowed = spec.dense == "windowed" or (spec.dense is None and spec.window)
    window = spec.window if windowed else None
    return TimeGrid(spec.stride or 1, spec.fps, window, float(spec.settings.get("offset", 0.0)))


def _center(grid: TimeGrid) -> float:
    """Frames from the start of a video to the middle of its first row."""
    return grid.offset + (grid.window or grid.stride) / 2


def _actionformer(part: FeatureSet, grid: TimeGrid, num_classes: int) -> str:
    """The part `dataset` of a configuration; JSON values are YAML."""
    fields: dict[str, Any] = {
        "json_file": "./annotations.json",
        "feat_folder": "./features",
        "file_prefix": None,
        "file_ext": ".npy",
        "num_classes": num_classes,
        "input_dim": part.spec.row_shape[0],
        "feat_stride": grid.stride,
        "num_frames": _number(2 * _center(grid)),
        "default_fps": _number(float(grid.fps or 0)),
    }
    lines = [f"  {key}: {json.dumps(value)},\n" for key, value in fields.items()]
    return "dataset: {\n" + "".join(lines) + "}\n"


def _opentad(grid: TimeGrid) -> str:
    """Variables of a configuration for ThumosPaddingDataset and ThumosSlidingDataset."""
    dataset = {
        "ann_file": "annotations.json",
        "class_map": "category_idx.txt",
        "data_path": "features/",
        "feature_stride": grid.stride,
        "sample_stride": 1,
        "offset_frames": _number(_center(grid)),
        "fps": _number(float(grid.fps or 0)),
    }
    pipeline = {"type": "LoadFeats", "feat_format": "npy", "prefix": "", "suffix": ""}
    return f"dataset = {dataset!r}\nload_feats = {pipeline!r}\n"


def _number(value: float) -> float | int:
    return int(value) if value == int(value) else value


def _annotations(
    part: FeatureSet, labels: Labels, names: dict[str, str], durations: dict[str, float], fps: float, done: Exported
) -> dict[str, Any]:
    """ActivityNet's form, with the frames and label ids that the two programs read."""
    found = match_videos(part, labels.videos).pairs
    database = {}
    for video, name in found.items():
        known = labels.videos[name]
        duration = known.duration or durations[video]
        database[names[video]] = {
            "subset": known.subset or "",
            "duration": duration,
            "frame": round(duration * fps),
            "fps": fps,
            "annotations": [
                {"segment": [float(start), float(end)], "label": labels.classes[index], "label_id": int(index)}
                for index, (start, end) in zip(known.classes, known.spans, strict=True)
                if index >= 0 and end > start
            ],
        }
    if missing := len(part) - len(found):
        done.notes.append(f"{missing} videos have no labels and are not in annotations.json")
    return {"database": database}
