"""What `vl score` takes: runs, stores, labels, splits and classes that meet; the rest gets one line."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrWriter
from tests.cli.commands import Said, report
from tests.cli.score.stores import CLASSES, LABELS, TEST, predicted, score_store, scores_of, seconds

ROOT = Path(__file__).parents[3]


def test_bare_score_takes_the_test_scores_of_the_run_that_finished_last(said: Said, tmp_path: Path) -> None:
    for number, (name, finished) in enumerate({"b-001": True, "a-002": True, "c-003": False}.items()):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        if finished:
            predicted(folder / "test.zarr", scores_of(*TEST))
            (folder / "result.json").write_text("{}")
            os.utime(folder / "result.json", (number, number))
    code, out, _ = said()
    assert (code, out.splitlines()[0]) == (0, "runs/a-002/test.zarr")
    assert said("runs/b-001")[1].splitlines()[0] == "runs/b-001/test.zarr"
    code, _, err = said("runs/c-003")
    assert (code, "no scores of 'test'" in err, "not finished" in err) == (2, True, True)
    assert said("runs/b-001", "--split", "val")[0] == 2


def test_bare_score_without_a_run_says_what_makes_one(said: Said) -> None:
    code, out, err = said()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "no finished run in runs" in err
    assert "train-head" in err


def test_labels_of_the_run_are_found_beside_the_scores(said: Said, tmp_path: Path) -> None:
    predicted(tmp_path / "test.zarr", scores_of(*TEST), labels=LABELS.fingerprint)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "labels.json").write_text(json.dumps(LABELS.to_dict()))
    assert report(said, ".")["videos_scored"] == 3


def test_missing_videos_are_an_error_unless_allowed(said: Said) -> None:
    predicted(Path("p.zarr"), scores_of("a.mp4", "b.mp4"))
    code, out, err = said("p.zarr")
    assert (code, out) == (2, "")
    assert "2 of 3 videos of 'test' have scores" in err
    assert "'c.mp4'" in err
    code, out, _ = said("p.zarr", "--allow-missing")
    assert (code, "2 of 3 videos scored, 7 rows" in out) == (0, True)
    assert report(said, "p.zarr", "--allow-missing")["missing"] == ["c.mp4"]


LABEL_FILE = "video,start,end,label,subset\na,0,2,run,test\na,1,4,jump,test\nb.mp4,2,3,run,test\nd,0,2,fall,train\n"


def test_scores_of_anybody_are_scored_with_a_label_file(said: Said) -> None:
    score_store(Path("p.zarr"), scores_of("a.mp4", "b.mp4", "d.mp4"))
    Path("l.csv").write_text(LABEL_FILE)
    found = report(said, "p.zarr", "--labels", "l.csv")
    assert (found["videos_scored"], found["split"], found["rows"]) == (2, "test", 7)
    assert "1 more videos have scores and are not in this split" in said("p.zarr", "--labels", "l.csv")[1]
    assert report(said, "p.zarr", "--labels", "l.csv", "--split", "all")["videos_scored"] == 3
    assert report(said, "p.zarr", "--labels", "l.csv", "--split", "training")["rows"] == 2
    code, _, err = said("p.zarr", "--labels", "l.csv", "--split", "fold3")
    assert (code, "no video of subset 'fold3'" in err) == (2, True)


def test_a_label_file_says_which_videos_a_split_has(said: Said) -> None:
    predicted(Path("p.zarr"), scores_of("a.mp4"), expected=["a.mp4"])
    assert said("p.zarr")[0] == 0
    Path("l.csv").write_text(LABEL_FILE)
    code, _, err = said("p.zarr", "--labels", "l.csv")
    assert (code, "1 of 2 videos of 'test'" in err) == (2, True)


def test_labels_meet_rows_by_time_and_as_asked(said: Said) -> None:
    scores = {"a.mp4": np.array([[0.1], [0.9], [0.3], [0.4]], np.float32)}
    labels = Labels(("run",), {"a.mp4": VideoLabels.of([(0, 1.4, 2.1)], duration=8.0)})
    score_store(Path("p.zarr"), scores, ("run",), labels=labels.to_dict())
    ap = {}
    for at in ("centre", "start", "overlap"):
        found = report(said, "p.zarr", "--label-at", at)
        ap[at] = found["score"]
        assert {"centre": "centre", "start": "k * duration", "overlap": "overlap"}[at] in found["labels_taken"]
    # centre 1.5 s is row 1; 2 s of 0, 2, 4, 6 s is row 1; rows 1 and 2 overlap, ranked first and third
    assert ap == {"centre": 1.0, "start": 1.0, "overlap": (1 + 2 / 3) / 2}
    labels = Labels(("run",), {"a.mp4": VideoLabels.of([(0, 1.5, 3.5)])})
    score_store(Path("q.zarr"), scores, ("run",), labels=labels.to_dict(), boundary="inclusive")
    assert report(said, "q.zarr")["score"] == 1.0  # rows 1, 2, 3: first to third
    assert report(said, "q.zarr", "--boundary", "strict")["score"] == 1 / 3  # row 2 alone


def test_unknown_labels_are_left_out_or_refused(said: Said) -> None:
    scores = {"a.mp4": np.array([[0.1], [0.9], [0.3], [0.4]], np.float32)}
    labels = Labels(("run",), {"a.mp4": VideoLabels.of([(0, 2.0, 3.0), (-1, 1.0, 2.0)])})
    score_store(Path("p.zarr"), scores, ("run",), labels=labels.to_dict())
    assert report(said, "p.zarr")["score"] == 1 / 2  # of .4, .3, .1 the second
    code, _, err = said("p.zarr", "--protocol", "multilabel")
    assert (code, "cannot leave out the 1 labels that are unknown" in err) == (2, True)


def test_random_weights_stand_above_the_score(said: Said) -> None:
    predicted(Path("p.zarr"), scores_of(*TEST), random_weights=True)
    _, out, _ = said("p.zarr")
    assert "RANDOM WEIGHTS" in out
    assert "\x1b" not in out  # no colour where nobody sees it
    assert out.index("RANDOM WEIGHTS") < out.index("map   ")
    assert report(said, "p.zarr")["random_weights"] is True


def test_nan_and_constant_scores_are_refused_by_name(said: Said) -> None:
    scores = scores_of(*TEST)
    scores["b.mp4"][1, 2] = np.nan
    predicted(Path("p.zarr"), scores)
    code, _, err = said("p.zarr")
    assert (code, "1 scores of 'b.mp4' are nan" in err) == (2, True)
    scores = scores_of(*TEST)
    for table in scores.values():
        table[:, 1] = 0.5
    predicted(Path("q.zarr"), scores)
    code, _, err = said("q.zarr")
    assert (code, "1 classes have one score in all rows: jump. Predict again, or give --allow" in err) == (2, True)
    assert "warning: 1 classes have one score in all rows: jump" in said("q.zarr", "--allow-constant")[1]
    predicted(Path("r.zarr"), {video: np.full_like(table, 0.5) for video, table in scores.items()})
    assert "all rows have the same scores" in said("r.zarr")[2]
    scores = scores_of(*TEST)
    scores["b.mp4"][:] = 0.25
    predicted(Path("s.zarr"), scores)
    assert "1 videos have one score for all classes and rows: 'b.mp4'" in said("s.zarr")[2]


def test_scores_of_no_split_may_hold_training_videos_and_say_so(said: Said) -> None:
    labels = Labels(CLASSES, {video: VideoLabels.of([(0, 0.0, 1.0)]) for video in TEST})
    score_store(Path("p.zarr"), scores_of(*TEST), head="mlad", labels=labels.to_dict())
    assert report(said, "p.zarr")["warnings"] == ["videos that the head was trained on may be among these"]


def test_per_class_csv_is_safe_to_open_in_a_spreadsheet(said: Said) -> None:
    classes = ("=cmd|' /C calc'!A0", "+1, or more", "plain")
    names = dict(enumerate(classes))
    labels = Labels(classes, LABELS.videos)
    predicted(Path("p.zarr"), scores_of(*TEST), classes=classes, labels=labels.to_dict())
    code, _, _ = said("p.zarr", "--per-class", "c.csv")
    with Path("c.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert code == 0
    assert [row["class"] for row in rows] == [f"'{names[0]}", f"'{names[1]}", "plain"]
    assert [row["positives"] for row in rows] == ["3", "3", "0"]
    assert float(rows[0]["ap"]) == report(said, "p.zarr")["classes"][0]["ap"]
    assert rows[2]["ap"] == ""


def test_classes_are_joined_by_name(said: Said) -> None:
    scores = scores_of(*TEST)
    predicted(Path("p.zarr"), scores)
    turned = {video: np.ascontiguousarray(table[:, ::-1]) for video, table in scores.items()}
    predicted(Path("q.zarr"), turned, classes=CLASSES[::-1])
    assert report(said, "q.zarr")["score"] == report(said, "p.zarr")["score"]


def test_classes_that_do_not_meet_are_refused(said: Said) -> None:
    scores = scores_of(*TEST)
    predicted(Path("p.zarr"), scores, classes=("0", "1", "2"))
    assert "share no class: '0' against 'run'" in said("p.zarr")[2]
    predicted(Path("q.zarr"), scores, classes=("run", "other", "fall"))
    code, _, err = said("q.zarr")
    assert (code, "1 classes that the scores do not know, 'jump'" in err) == (2, True)
    predicted(Path("r.zarr"), scores, classes=("run", "jump", "other"))  # fall is nowhere in the test videos
    assert said("r.zarr")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["p.zarr", "--protocol", "map"], "no protocol 'map'. There are: frame-map, video-map, charades-video-map"),
        (["p.zarr", "--label-at", "end"], "--label-at is centre, start, overlap, not 'end'"),
        (["p.zarr", "--boundary", "open"], "--boundary is strict, inclusive, not 'open'"),
        (["p.zarr", "--labels", "none.csv"], "there is no label file none.csv"),
        (["nowhere.zarr"], "nowhere.zarr"),
        (["features.zarr"], "features.zarr holds features, no scores"),
        (["unlabelled.zarr"], "unlabelled.zarr has no labels with it"),
        (["p.zarr", "--what"], "--what"),
        (["p.zarr", "--tau", "1,2"], "--tau is for --protocol action-conditional; frame-map has none"),
        (["p.zarr", "--tau", "1,-2"], "--tau takes different whole numbers from 0 on, as 0,5,10, not '1,-2'"),
        (["p.zarr", "--tau", "1,1"], "--tau takes different whole numbers"),
        (["p.zarr", "--tau", "1", "--protocol", "action-conditional-official"], "the official window of tau 1"),
        (["p.zarr", "p.zarr", "--compare", "p.zarr"], "--compare sets one prediction against another"),
        (["one.zarr", "--bootstrap", "9"], "a bootstrap draws videos, and there is only one"),
    ],
)
def test_wrong_input_gets_one_line_and_exit_code_two(said: Said, words: list[str], message: str) -> None:
    predicted(Path("p.zarr"), scores_of(*TEST))
    score_store(Path("unlabelled.zarr"), scores_of(*TEST))
    predicted(Path("one.zarr"), scores_of("a.mp4"), expected=["a.mp4"])
    with ZarrWriter("features.zarr", {"x": FeatureSpec(Granularity.CLIP, (2,), dtype="float32")}) as writer:
        entry = writer.video("a", {})
        entry.append("x", Rows(np.zeros((1, 2), np.float32), seconds(1)))
        entry.commit()
    code, out, err = said(*words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    document = json.loads(said(*words, "--json")[1])
    assert document["exit_code"] == 2


def test_scoring_starts_and_ends_without_torch(tmp_path: Path) -> None:
    predicted(tmp_path / "p.zarr", scores_of(*TEST))
    code = (
        f"import sys; from cli.main import run; code = run(['score', {str(tmp_path / 'p.zarr')!r}]); "
        "print(code, [name for name in ('torch', 'av', 'decord') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr
