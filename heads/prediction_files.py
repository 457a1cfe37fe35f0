"""Opens predictions of any form that scoring takes; what a file is, its content says. No torch."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from heads.answers import score_set
from heads.predictions import Level, PredictionError, Predictions, StorePredictions
from stores import open_store
from stores.names import printable
from stores.opening import HDF5_MAGIC, VIDEO_SUFFIXES

FORMS = (
    "npz matrices (VIDEO: (T, C), or scores, videos, times), csv (video,start,end,label,score; or video,time,CLASS,..; "
    "or video,start,end,CLASS,...; or video,CLASS,...), ActivityNet results json, Charades submission text (157 "
    "classes) and YouTube-8M submission csv"
)
NPY_MAGIC = b"\x93NUMPY"
PICKLE_MAGIC = b"\x80"


def open_predictions(path: Path) -> Predictions:
    """What was predicted, from a store of scores or any other form.

    Raises:
        PredictionError: the file is of no form that is known, or not sound; the message says where.
        StoreError: there is nothing, or a store that cannot be read.
    """
    if path.is_dir() or not path.is_file() or path.suffix.lower() in VIDEO_SUFFIXES:
        return _store(path)
    try:
        with path.open("rb") as file:
            beginning = file.read(1 << 16)
    except OSError as error:
        raise PredictionError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    if beginning.startswith(HDF5_MAGIC):
        return _store(path)
    if beginning.startswith(b"PK\x03\x04"):
        from heads.predictions_npz import read_npz

        return read_npz(path)
    if beginning.startswith(NPY_MAGIC):
        raise PredictionError(
            f"{printable(path)} is one array, which names no videos. Save numpy.savez(PATH, **{{video: scores}})."
        )
    if beginning.startswith(PICKLE_MAGIC):
        raise PredictionError(f"{printable(path)} is a pickle, which can run code. Save an npz of arrays instead.")
    return _text(path, beginning)


def _store(path: Path) -> Predictions:
    store = open_store(path)
    try:
        features = score_set(path, store)
        facts = store.attachment("prediction") or {}
        many = any(features.entry(video).num_rows > 1 for video in features)
        level: Level = "row" if many else "video"
        if facts.get("level") in ("row", "video"):
            level = facts["level"]
        return StorePredictions(
            path,
            "store of scores",
            level,
            len(features.spec.classes),
            features.spec.classes,
            facts=facts,
            random_weights=features.spec.random_weights,
            store=store,
            features=features,
        )
    except BaseException:
        store.close()
        raise


def _text(path: Path, beginning: bytes) -> Predictions:
    text = beginning.decode("utf-8-sig", errors="replace")
    if b"\0" in beginning or not text.strip():
        what = "is empty" if not beginning.strip() else "is no text"
        raise PredictionError(f"{printable(path)} {what} and no store. vl scores stores, {FORMS}.")
    if text.lstrip()[:1] in ("{", "["):
        from heads.predictions_activitynet import read_activitynet

        return read_activitynet(path)
    first = next(line for line in text.splitlines() if line.strip())
    try:
        header = next(csv.reader(io.StringIO(first)), [])
    except csv.Error as error:
        raise PredictionError(f"{printable(path)}, row 1: {error}.") from error
    names = tuple(name.strip().lower() for name in header)
    if names == ("videoid", "labelconfidencepairs"):
        from heads.predictions_yt8m import read_yt8m

        return read_yt8m(path)
    if "video" in names and len(names) > 1:
        from heads.predictions_csv import read_csv

        return read_csv(path, header)
    from heads.predictions_charades import NUM_CLASSES, read_charades

    if len(first.split()) in (NUM_CLASSES + 1, NUM_CLASSES + 2):
        return read_charades(path, len(first.split()))
    shown = printable(first)[:80]
    raise PredictionError(f"{printable(path)} begins with '{shown}': no form that is known. vl scores stores, {FORMS}.")
