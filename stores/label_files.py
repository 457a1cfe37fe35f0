"""Reads the label files that people have, of any form in FORMATS; the content says which one it is.

    video,start,end,label[,subset][,duration]   csv: one span of seconds a row
    video,label[,subset]                        csv: classes of whole videos

A row without times gives a class of the whole video, a row without a label a video in which nothing happens, and
the label `ignore` a stretch that nobody annotated. The other forms are shown where they are read: `label_csv`,
`label_json`, `label_frames`, `label_folders`, `label_tools`. Several files hold the labels together where a folder has
train.csv, val.csv and test.csv, or where NAME is given and there are NAME_train.csv, ...; each is then its subset.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stores.label_csv import read_charades, read_csv, read_lvu, read_mmx, read_yt8m
from stores.label_folders import read_align, read_multithumos
from stores.label_frames import SLOWFAST_HEADER, read_matrices, read_slowfast
from stores.label_json import json_form, read_activitynet, read_label_studio, read_super_events
from stores.label_table import SUBSETS, LabelFile, Part, ReadOptions, subset_of
from stores.label_text import beginning, parse_json
from stores.label_tools import is_boris, read_boris, read_elan
from stores.labels import LabelError, Labels
from stores.names import printable

__all__ = ["FORMATS", "SUBSETS", "read_label_file", "read_labels"]

FORMATS: Mapping[str, str] = {
    "csv": "video,start,end,label[,subset][,duration], or video,label for classes of whole videos",
    "charades": "Charades_v1_train.csv: id,...,actions,length",
    "super-events": "charades.json, multithumos.json: {video: {subset, duration, actions}}",
    "activitynet": 'ActivityNet or THUMOS json: {"database": {video: {subset, duration, annotations}}}',
    "multithumos": "a folder of <Class>.txt with rows 'video start end'",
    "yt8m": "YouTube-8M csv: VIDEO_ID,12 45",
    "mmx": "MMX-Trailer-20 csv: img_root,g1,...,g6",
    "lvu": "LVU csv of a task with classes: class_id class_name youtube_id imdb_id",
    "slowfast": "SlowFast frame list: original_vido_id video_id frame_id path labels; needs the frame rate",
    "matrix": "npy of (T, C) with 1, 0 and -1 for unlabelled, or a folder of them; needs the rows a second",
    "elan": "ELAN's tab-delimited text: tier, begin, end, annotation",
    "boris": "BORIS's tabular or aggregated events",
    "label-studio": "Label Studio's JSON export",
    "align": "GRID .align, or a folder of them",
}
_TABLES: Mapping[str, Callable[[Sequence[Part], ReadOptions], LabelFile]] = {
    "csv": read_csv,
    "charades": read_charades,
    "multithumos": read_multithumos,
    "yt8m": read_yt8m,
    "mmx": read_mmx,
    "lvu": read_lvu,
    "slowfast": read_slowfast,
    "matrix": read_matrices,
    "elan": read_elan,
    "boris": read_boris,
    "align": read_align,
}
_DOCUMENTS: Mapping[str, Callable[[Part, Any, ReadOptions], LabelFile]] = {
    "super-events": read_super_events,
    "activitynet": read_activitynet,
    "label-studio": read_label_studio,
}
_FOLDERS = {".txt": "multithumos", ".align": "align", ".npy": "matrix"}
_YT8M_ROW = re.compile(r"[^,\s]+,\d+( \d+)* *")
MAX_FILES = 200_000  # of a folder
EXPECTED = (
    "expected the columns video,start,end,label (subset and duration may follow), or video,label for classes "
    "of whole videos, or id,actions,length as Charades has them, or another form that 'vl labels' lists; names of "
    "classes, one a line, go to --classes"
)


def read_labels(
    path: str | Path, classes: str | Path | None = None, *, form: str | None = None, fps: float | None = None
) -> Labels:
    """The labels in `path`; see `read_label_file`."""
    return read_label_file(path, ReadOptions(Path(classes) if classes is not None else None, fps), form).labels


def read_label_file(path: str | Path, options: ReadOptions | None = None, form: str | None = None) -> LabelFile:
    """The labels in `path`, with the place of each.

    Args:
        path: a file or folder of one of FORMATS, text in UTF-8.
        options: `classes` names the classes for files that number them: `c000 Holding some clothes`, one name a
            line, `{"1": "BaseballPitch", ...}`. Without it, `<stem>_classes.json` or `.txt` beside the file is
            taken, and else the numbers are the names. For files that name their classes it gives the order, and
            which others there are. `fps` is for files that count frames.
        form: one of FORMATS; without, the content tells.

    Raises:
        LabelError: the file is absent, too large, of another form, not sound, or of no video; the message has the row.
    """
    found = _read(Path(path), options or ReadOptions(), form)
    if not found.labels.videos:  # one that was cut off after its header, say
        raise LabelError(f"{path} names no video.")
    return found


def _read(path: Path, options: ReadOptions, form: str | None) -> LabelFile:
    if options.fps is not None and not 0 < options.fps < math.inf:
        raise LabelError(f"the frame rate must be positive, not {options.fps}.")
    if form is not None and form not in FORMATS:
        raise LabelError(f"there is no format '{printable(form)[:40]}'. There are: {', '.join(FORMATS)}.")
    parts = _parts(path)
    if path.is_dir() and (inside := _FOLDERS.get(parts[0].path.suffix.lower())):
        if form == "elan" and inside == "multithumos":
            return read_elan(parts, options)
        if form not in {None, inside}:
            raise LabelError(f"{path} is a folder of {parts[0].path.suffix} files, as {inside} has, not {form}.")
        return _TABLES[inside](parts, options)
    form = form or _form(parts[0].path)
    if form is not None and form in _TABLES:
        return _TABLES[form](parts, options)
    if len(parts) > 1:
        raise LabelError(f"{path} stands for {len(parts)} files, of which only tables can be read together.")
    document = parse_json(parts[0].path)
    found = json_form(document)
    if found is None:
        raise LabelError(
            f'{path} is json, but not of the form {{video: {{"subset", "duration", "actions"}}}}, nor '
            "ActivityNet's or Label Studio's."
        )
    if form not in {None, found}:
        raise LabelError(f"{path} is json of the form {found}, not {form}.")
    return _DOCUMENTS[found](parts[0], document, options)


def _parts(path: Path) -> list[Part]:
    """The files that `path` stands for."""
    if path.is_file():
        return [Part(path)]
    if path.is_dir():
        entries = sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
        if len(entries) > MAX_FILES:
            raise LabelError(f"{path} has {len(entries)} files, over the {MAX_FILES} allowed here.")
        for ending in _FOLDERS:
            if found := [Part(entry) for entry in entries if entry.suffix.lower() == ending]:
                return found
        splits = _splits(path, "")
        if not splits:
            raise LabelError(
                f"there is no label file in the folder {path}: expected train.csv, val.csv, test.csv, or files "
                f"{', '.join(_FOLDERS)}."
            )
        return splits
    if splits := _splits(path.parent, f"{path.name}_"):
        return splits
    raise LabelError(f"there is no label file {path}.")


def _splits(folder: Path, prefix: str) -> list[Part]:
    names = ("train", "val", "validation", "test")
    files = [(folder / f"{prefix}{name}.csv", subset_of(name)) for name in names]
    return [Part(file, subset) for file, subset in files if file.is_file()]


def _form(path: Path) -> str | None:
    """What a file is, by its content; None for json, whose content must be parsed to tell."""
    if path.suffix.lower() in {".npy", ".align"}:
        return _FOLDERS[path.suffix.lower()]
    text = beginning(path)
    if text.lstrip()[:1] in ("{", "["):
        return None
    try:
        header = next(csv.reader(io.StringIO(text, newline="")), [])
    except csv.Error as error:
        raise LabelError(f"{path}, row 1: {printable(str(error))}.") from error
    columns = {name.strip().lower() for name in header}
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    words = first.lower().split()
    if {"id", "actions"} <= columns:
        return "charades"
    if {"video", "label"} <= columns and ("start" in columns) == ("end" in columns):
        return "csv"
    if {"img_root", "g1"} <= columns:
        return "mmx"
    if words[:1] and words[0] in SLOWFAST_HEADER:
        return "slowfast"
    if words[-2:] == ["youtube_id", "imdb_id"]:
        return "lvu"
    if columns == {"videoid", "labels"} or _YT8M_ROW.fullmatch(first):
        return "yt8m"
    if any(is_boris(re.split("[\t,]", line.replace('"', ""))) for line in text.splitlines()[:100]):
        return "boris"
    if first.count("\t") == 3 or ("\t" in first and "begin" in first.lower()):
        return "elan"
    shown = ", ".join(printable(name) for name in header[:12])[:200]
    raise LabelError(f"{path} has the header '{shown}': {EXPECTED}.")
