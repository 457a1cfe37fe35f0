"""`vl score --protocol detection`: segments that others found, and those made of rows."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.commands import Said, refused, report
from tests.cli.score.files import npz, write_csv
from tests.cli.score.stores import CLASSES

pytestmark = pytest.mark.usefixtures("label_file")


SEGMENTS = [
    ("a", 0.0, 2.0, "run", 0.9),
    ("a", 0.0, 4.0, "jump", 0.8),
    ("b", 2.0, 3.0, "run", 0.7),
    ("b", 0.0, 1.0, "swim", 0.6),
    ("c", 0.0, 1.0, "run", 0.95),
]


def activitynet(path: str, rows: Iterable[tuple[str, float, float, str, float]]) -> str:
    results: dict[str, list[dict[str, Any]]] = {}
    for video, start, end, label, score in rows:
        results.setdefault(video, []).append({"segment": [start, end], "label": label, "score": score})
    Path(path).write_text(json.dumps({"version": "x", "results": results, "external_data": {}}))
    return path


def test_segments_are_scored_as_activitynet_does(said: Said) -> None:
    paths = [
        write_csv("p.csv", ["video", "start", "end", "label", "score"], SEGMENTS),
        activitynet("p.json", SEGMENTS),
    ]
    for path in paths:
        found = report(said, path, "--labels", "l.csv", "--per-class", "c.csv")
        # run: wrong, right, right of two; jump (1 to 4, found as 0 to 4): tIoU .75; fall is not found
        run = (2 / 3 + 2 / 3) / 2
        assert found["values"]["map_0.5"] == pytest.approx((run + 1 + 0) / 3)
        assert found["values"]["map_0.8"] == pytest.approx((run + 0 + 0) / 3)
        assert found["score"] == pytest.approx((run + 7 / 9 + 0) / 3)
        assert (found["protocol"], found["rows"], found["videos_scored"]) == ("detection", 4, 3)
        assert any("1 segments of classes that the labels do not have" in warning for warning in found["warnings"])
        with Path("c.csv").open() as file:
            jump = next(row for row in csv.DictReader(file) if row["class"] == "jump")
        assert (jump["positives"], jump["ap_0.7"], jump["ap_0.8"]) == ("1", "1.0", "0.0")
    text = said("p.csv", "--labels", "l.csv")[1]
    assert "detection: mean over tIoU 0.1, 0.2" in text
    assert "test: 3 of 3 videos scored, 4 segments" in text
    chosen = report(said, "p.csv", "--labels", "l.csv", "--tiou", "0.5:0.75:0.25")["values"]
    assert list(chosen) == ["map", "map_0.5", "map_0.75"]
    assert report(said, "p.csv", "--labels", "l.csv", "--compare", "p.json")["difference"] == 0
    assert report(said, "p.csv", "--labels", "l.csv", "--bootstrap", "20")["interval"]["resamples"] == 20
    for wrong in ("0", "1.1", "x", "0.5:0.1:0.1", "0.5:0.9:0", "0.5,0.5"):
        assert "--tiou takes numbers above 0" in refused(said, "p.csv", "--labels", "l.csv", "--tiou", wrong)
    message = refused(said, "p.csv", "--labels", "l.csv", "--protocol", "frame-map")
    assert "frame-map needs scores of rows, but these are segments. Try --protocol detection" in message


def test_a_video_without_a_segment_is_missing_until_allowed_and_then_counts_as_not_found(said: Said) -> None:
    path = activitynet("p.json", SEGMENTS[:2] + SEGMENTS[4:])
    assert "2 of 3 videos of 'test' have scores in p.json; 'b' have none" in refused(said, path, "--labels", "l.csv")
    found = report(said, path, "--labels", "l.csv", "--allow-missing")
    assert (found["classes"][2]["class"], found["classes"][2]["positives"]) == ("run", 2)  # of b too
    assert found["values"]["map_0.5"] == pytest.approx((1 / 2 * 1 / 2 + 1 + 0) / 3)


def test_segments_are_made_of_rows_by_a_rule_or_not_at_all(said: Said) -> None:
    table = {
        "a": np.array([[0.9, 0.1, 0.2], [0.8, 0.6, 0.2], [0.1, 0.6, 0.2], [0.2, 0.6, 0.1]]),
        "b": np.array([[0.1, 0.2, 0.1], [0.3, 0.2, 0.1], [0.7, 0.2, 0.1]]),
        "c": np.array([[0.1, 0.2, 0.3], [0.2, 0.2, 0.3]]),
    }
    path = npz("p.npz", table, classes=np.array(CLASSES))
    words = [path, "--labels", "l.csv", "--fps", "1", "--protocol", "detection"]
    assert "p.npz has scores of rows. Give --segments-from-rows THRESHOLD" in refused(said, *words)
    found = report(said, *words, "--segments-from-rows", "0.5")
    # run 0-2 of a and 2-3 of b, jump 1-4 of a: all exact; fall is not found
    assert found["values"]["map_0.9"] == pytest.approx(2 / 3)
    assert "runs of rows from 0.5 on" in found["labels_taken"]
    write_csv(
        "points.csv", ["video", "time", *CLASSES], [[v, k, *row] for v in table for k, row in enumerate(table[v])]
    )
    message = refused(said, "points.csv", *words[1:3], *words[5:], "--segments-from-rows", "0.5")
    assert "are points in time, of which no segment is made" in message
    message = refused(said, path, "--labels", "l.csv", "--fps", "1", "--segments-from-rows", "0.5")
    assert "--segments-from-rows are for --protocol detection" in message
