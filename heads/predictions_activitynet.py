"""Segments as ActivityNet's detection challenge takes them: {"results": {VIDEO: [{"segment", "label", "score"}]}}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from heads.predictions import PredictionError, Predictions
from heads.predictions_csv import checked_segment, segment_predictions
from heads.predictions_text import read_json
from stores.names import printable


def read_activitynet(path: Path) -> Predictions:
    """The predictions in a result file.

    Raises:
        PredictionError: the file is not sound json, or not of that form; the message has the video and the place.
    """
    document = read_json(path)
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, dict) or not results:
        raise PredictionError(
            f'{printable(path)} is json, but not {{"results": {{VIDEO: [{{"segment", "label", "score"}}]}}}}.'
        )
    entries = []
    for video, found in results.items():
        if not isinstance(found, list):
            raise PredictionError(f"{printable(path)}: '{printable(video)[:100]}' has no list of segments.")
        for number, entry in enumerate(found, 1):
            entries.append(_entry(path, video, f"'{printable(video)[:100]}', segment {number}", entry))
    if not entries:
        raise PredictionError(f"{printable(path)} has {len(results)} videos and no segment.")
    return segment_predictions(path, "ActivityNet results", entries, list(results))


def _entry(path: Path, video: str, where: str, entry: Any) -> tuple[str, str, float, float, float]:
    segment = entry.get("segment") if isinstance(entry, dict) else None
    if not isinstance(segment, list) or len(segment) != 2 or not {"label", "score"} <= set(entry):
        raise PredictionError(
            f'{printable(path)}, {where}: not of the form {{"segment": [start, end], "label", "score"}}.'
        )
    if not all(type(value) in (int, float) for value in (*segment, entry["score"])):
        raise PredictionError(f"{printable(path)}, {where}: a time or score is no number.")
    if type(entry["label"]) not in (str, int):
        raise PredictionError(f"{printable(path)}, {where}: the label is no text.")
    try:
        start, end, score = float(segment[0]), float(segment[1]), float(entry["score"])
    except OverflowError as error:
        raise PredictionError(f"{printable(path)}, {where}: a number is too large.") from error
    return checked_segment(path, where, video.strip(), str(entry["label"]).strip(), start, end, score)
