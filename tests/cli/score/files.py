"""Files of predictions in the forms that others write, and a label file of their videos."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cli.score.stores import CLASSES, score_store

ROWS = {"a": 4, "b": 3, "c": 2}  # of one second each
LABELS = """video,start,end,label,subset,duration
a,0,2,run,test,4
a,1,4,jump,test,4
b,2,3,run,test,3
b,0,1,fall,test,3
c,,,,test,2
d,0,2,jump,val,2
d,1,2,fall,val,2
e,0,1,run,val,2
"""


def some(rows: Mapping[str, int] = ROWS, seed: int = 0, classes: int = 3) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return {video: rng.random((count, classes)).round(4) for video, count in rows.items()}


def store(path: str, scores: Mapping[str, NDArray[Any]]) -> str:
    score_store(Path(path), {video: table.astype(np.float32) for video, table in scores.items()})
    return path


def write_csv(path: str, header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    with Path(path).open("w", newline="") as file:
        csv.writer(file).writerows([list(header), *map(list, rows)])
    return path


def npz(path: str, scores: Mapping[str, NDArray[Any]], **more: Any) -> str:
    arrays: dict[str, Any] = {**more, **scores}
    np.savez(path, **arrays)
    return path


def write_form(form: str, scores: Mapping[str, NDArray[np.float64]]) -> tuple[str, list[str]]:
    """The scores in a file of that form, and the options without which it cannot be scored."""
    together = [(video, k, table[k].tolist()) for video, table in scores.items() for k in range(len(table))]
    if form == "npz of videos":
        return npz("p.npz", scores, classes=np.array(CLASSES)), ["--fps", "1"]
    if form == "npz of rows":
        chosen = sorted(together, key=lambda entry: -entry[1])  # from the end, and all videos by turns
        times = np.array([[k, k + 1] for _, k, _ in chosen], float)
        ids, table = np.array([video for video, _, _ in chosen]), np.array([row for _, _, row in chosen])
        np.savez_compressed("p.npz", scores=table, videos=ids, times=times, classes=np.array(CLASSES))
        return "p.npz", []
    if form == "csv at times":
        return write_csv("p.csv", ["video", "time", *CLASSES], [[v, k + 0.5, *row] for v, k, row in together[::-1]]), []
    assert form == "csv of stretches"
    rows = [[v, *row, k, k + 1] for v, k, row in together]
    return write_csv("p.csv", ["Video", *CLASSES, "Start", "END"], rows), []


def val_scores(seed: int = 3) -> str:
    return npz("val.npz", some({"d": 2, "e": 2}, seed), classes=np.array(CLASSES))
