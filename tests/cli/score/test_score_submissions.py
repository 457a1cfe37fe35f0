"""`vl score` on what goes to challenges: Charades and YouTube-8M."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heads import metrics
from tests.cli.commands import Said, refused, report
from tests.cli.score.files import npz, some

pytestmark = pytest.mark.usefixtures("label_file")


def charades(path: str, scores: Mapping[str, NDArray[np.float64]], localised: bool) -> str:
    lines = []
    for video, table in scores.items():
        for frame, row in enumerate(table, 1):
            words = [video, str(frame)] if localised else [video]
            lines.append(" ".join([*words, *(f"{value:.4f}" for value in row)]))
    Path(path).write_text("\n".join(lines) + "\n")
    return path


def charades_labels() -> None:
    actions = {"a": [[0, 0.0, 2.0], [156, 1.0, 4.0]], "b": [[0, 2.0, 3.0]], "c": []}
    durations = {"a": 4.0, "b": 3.0, "c": 2.0}
    entries = {v: {"subset": "testing", "duration": durations[v], "actions": actions[v]} for v in actions}
    Path("charades.json").write_text(json.dumps(entries))


def test_charades_submissions_are_scored_as_the_challenge_does(said: Said) -> None:
    charades_labels()
    localised = some({"a": 25, "b": 25, "c": 25}, classes=157)
    segments = [[(0, 0.0, 2.0), (156, 1.0, 4.0)], [(0, 2.0, 3.0)], []]
    found = report(said, charades("p.txt", localised, True), "--labels", "charades.json")
    assert found["protocol"] == "charades-localize-map"
    expected = metrics.charades_localize_map(list(localised.values()), segments, [4.0, 3.0, 2.0])
    assert found["score"] == pytest.approx(expected)
    again = npz("p.npz", localised, classes=np.arange(157).astype(str))
    named = ["--labels", "charades.json", "--protocol", "charades-localize-map"]
    found = report(said, again, *named)
    assert found["score"] == pytest.approx(expected)
    assert any("25 rows a video, taken as the 25 equally spaced times" in note for note in found["notes"])
    whole = {video: table[:1] for video, table in localised.items()}
    found = report(
        said, charades("q.txt", whole, False), "--labels", "charades.json", "--protocol", "charades-video-map"
    )
    truth = np.zeros((3, 157))
    truth[[0, 0, 1], [0, 156, 0]] = 1
    assert found["score"] == pytest.approx(metrics.charades_video_map(np.concatenate(list(whole.values())), truth))
    assert report(said, "q.txt", "--labels", "charades.json")["protocol"] == "video-map"


def test_charades_submissions_are_whole(said: Said) -> None:
    charades_labels()
    short = {"a": np.random.default_rng(0).random((24, 157))}
    message = refused(said, charades("p.txt", short, True), "--labels", "charades.json")
    assert "'a' has the frames 1, 2, 3" in message
    twice = {"a": np.random.default_rng(0).random((2, 157))}
    message = refused(said, charades("q.txt", twice, False), "--labels", "charades.json")
    assert "q.txt has 'a' 2 times. Keep one line a video." in message


def test_youtube_submissions_are_scored_by_what_they_list(said: Said) -> None:
    Path("y.csv").write_text("video,label\na,0\na,3\nb,1\nb,0\n")
    Path("p.csv").write_text("VideoId,LabelConfidencePairs\na,0 0.9 7 0.2\nb,1 0.6 2 0.5\n")
    found = report(said, "p.csv", "--labels", "y.csv")
    assert (found["protocol"], found["form"]) == ("gap", "YouTube-8M submission")
    assert found["score"] == pytest.approx((1 / 1 + 2 / 2) / 4)  # two of four positives are listed, and come first
    by_class = report(said, "p.csv", "--labels", "y.csv", "--protocol", "yt8m-map")["score"]
    assert by_class == pytest.approx((1 / 2 + 1 + 0) / 3)
    assert report(said, "p.csv", "--labels", "y.csv", "--protocol", "hit-at-1")["score"] == 1.0
    Path("q.csv").write_text("VideoId,LabelConfidencePairs\na,0 -0.5 7 -2\nb,1 -0.6 2 -1\n")
    assert report(said, "q.csv", "--labels", "y.csv", "--protocol", "hit-at-1")["score"] == 1.0
    assert report(said, "p.csv", "--labels", "y.csv", "--protocol", "perr")["score"] == pytest.approx(
        (1 / 2 + 1 / 2) / 2
    )


def test_the_real_charades_is_scored_from_matrices(said: Said, shared_data: Path) -> None:
    """1,863 videos at 25 times; scores that are the labels themselves are perfect, and labels are mostly absent."""
    actions = json.loads((shared_data / "labels/charades.json").read_text())
    arrays: dict[str, NDArray[Any]] = {}
    rng = np.random.default_rng(0)
    for video, entry in actions.items():
        if entry["subset"] == "testing":
            times = np.arange(25) / 25 * entry["duration"]
            table = rng.random((25, 157), np.float32) / 2
            for index, start, end in entry["actions"]:
                table[(times >= start) & (times <= end), index] += 0.5
            arrays[video] = table
    names = np.array([line[:4] for line in (shared_data / "labels/Charades_v1_classes.txt").read_text().splitlines()])
    Path("codes.txt").write_text("\n".join(f"{name} {name}" for name in names))
    path = npz("p.npz", arrays, classes=names)
    words = ["--labels", str(shared_data / "labels/charades.json"), "--classes", "codes.txt"]
    found = report(said, path, *words, "--protocol", "charades-localize-map")
    assert (found["score"], found["videos_scored"], found["rows"]) == (1.0, 1863, 1863 * 25)
