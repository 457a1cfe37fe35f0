"""`vl score` on predictions that others made: every form gives the score of the same numbers in a store."""

import csv
from pathlib import Path

import numpy as np
import pytest

from heads import metrics
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrWriter
from tests.cli.commands import Said, refused, report
from tests.cli.score.files import ROWS, npz, some, store, val_scores, write_csv, write_form
from tests.cli.score.stores import CLASSES, seconds

pytestmark = pytest.mark.usefixtures("label_file")


@pytest.mark.parametrize("form", ["npz of videos", "npz of rows", "csv at times", "csv of stretches"])
@pytest.mark.parametrize("protocol", ["frame-map", "video-map", "multilabel", "action-conditional"])
def test_every_form_of_rows_scores_as_the_store_does(said: Said, form: str, protocol: str) -> None:
    scores = some()
    path, words = write_form(form, scores)
    found = report(said, path, "--labels", "l.csv", "--protocol", protocol, *words)
    other = report(said, store("p.zarr", scores), "--labels", "l.csv", "--protocol", protocol)
    assert found["values"] == pytest.approx(other["values"], abs=1e-6)
    assert found["classes"] == other["classes"]
    assert (found["videos_scored"], found["rows"]) == (other["videos_scored"], other["rows"])


def test_rows_of_any_order_are_put_in_order_of_time(said: Said) -> None:
    scores = some()
    path, _ = write_form("npz of rows", scores)
    words = ["--labels", "l.csv", "--protocol", "charades-localize-map"]
    expected = report(said, store("p.zarr", scores), *words)["score"]
    assert report(said, path, *words)["score"] == pytest.approx(expected, abs=1e-6)


def test_whole_videos_need_no_times(said: Said) -> None:
    whole = {video: table.max(axis=0) for video, table in some().items()}
    expected = report(said, store("p.zarr", some()), "--labels", "l.csv", "--protocol", "video-map")["score"]
    names = np.array(CLASSES)
    np.savez("rows.npz", scores=np.stack(list(whole.values())), videos=np.array(list(whole)), classes=names)
    paths = [
        npz("p.npz", whole, classes=names),
        "rows.npz",
        write_csv("p.csv", ["video", *CLASSES], [[video, *row] for video, row in whole.items()]),
    ]
    for path in paths:
        found = report(said, path, "--labels", "l.csv")
        assert (found["protocol"], found["score"]) == ("video-map", pytest.approx(expected, abs=1e-6))
        assert "frame-map needs scores of rows" in refused(said, path, "--labels", "l.csv", "--protocol", "frame-map")


def test_rows_lie_where_somebody_says_and_never_at_a_guess(said: Said) -> None:
    path = npz("p.npz", some(), classes=np.array(CLASSES))
    message = refused(said, path, "--labels", "l.csv")
    assert all(word in message for word in ("p.npz does not say where its rows lie", "--fps", "--rows-of", "start"))
    expected = report(said, path, "--labels", "l.csv", "--fps", "1")
    assert "rows 1 a second (--fps)" in expected["notes"]
    store("s.zarr", some(seed=1))
    as_stored = report(said, path, "--labels", "l.csv", "--rows-of", "s.zarr")
    assert (as_stored["score"], as_stored["notes"]) == (expected["score"], ["rows as in s.zarr"])
    assert report(said, path, "--labels", "l.csv", "--rows-of", "s.zarr:scores")["score"] == expected["score"]
    assert report(said, path, "--labels", "l.csv", "--label-at", "start")["notes"] == [
        "row k at k * duration / rows (--label-at start)"
    ]
    double = report(said, path, "--labels", "l.csv", "--fps", "2")  # rows 0.25, 0.75, 1.25, 1.75 of a: run, run, ..
    assert double["classes"][0]["positives"] == 4
    assert "Give one of them" in refused(said, path, "--labels", "l.csv", "--fps", "1", "--rows-of", "s.zarr")
    store("short.zarr", some({"a": 4, "b": 2, "c": 2}))
    message = refused(said, path, "--labels", "l.csv", "--rows-of", "short.zarr")
    assert "'b' has 3 rows of scores, but 2 in short.zarr" in message
    store("fewer.zarr", some({"a": 4}))
    assert "fewer.zarr has no rows of 'b'" in refused(said, path, "--labels", "l.csv", "--rows-of", "fewer.zarr")
    assert "not 0" in refused(said, path, "--labels", "l.csv", "--fps", "0")


def test_columns_are_named_by_the_file_or_by_the_user(said: Said) -> None:
    scores = some()
    named = report(said, npz("p.npz", scores, classes=np.array(CLASSES)), "--labels", "l.csv", "--fps", "1")
    npz("q.npz", scores)
    assert "q.npz does not name its 3 columns" in refused(said, "q.npz", "--labels", "l.csv", "--fps", "1")
    Path("names.txt").write_text("run\njump\nfall\n")
    found = report(said, "q.npz", "--labels", "l.csv", "--fps", "1", "--classes", "names.txt")
    assert found["score"] == named["score"]
    assert "columns in the order of names.txt" in found["notes"]
    Path("two.txt").write_text("run\njump\n")
    message = refused(said, "q.npz", "--labels", "l.csv", "--fps", "1", "--classes", "two.txt")
    assert "for which the 2 class names have no name" in message


def test_coverage_names_what_is_missing_unknown_and_left_out(said: Said) -> None:
    names = np.array(CLASSES)
    path = npz("p.npz", some({"a": 4, "c": 2, "d": 2, "zz": 3}), classes=names)
    words = ["--labels", "l.csv", "--fps", "1"]
    assert "2 of 3 videos of 'test' have scores in p.npz; 'b' have none" in refused(said, path, *words)
    found = report(said, path, *words, "--allow-missing")
    assert (found["missing"], found["unknown_videos"], found["extra_videos"]) == (["b"], ["zz"], 2)
    _, out, _ = said(path, *words, "--allow-missing")
    assert "test: 2 of 3 videos scored, 6 rows; 2 more videos have scores" in out
    assert "1 videos have no scores: 'b'\n1 videos are not in the labels: 'zz'\n" in out
    assert out.startswith("p.npz, npz matrices\nframe-map: ")
    assert report(said, path, *words, "--subset", "val", "--allow-missing")["videos_scored"] == 1
    assert "(they have: test, val)" in refused(said, path, *words, "--subset", "train")


def test_only_what_both_score_is_scored_if_one_asks(said: Said) -> None:
    names = np.array(CLASSES)
    npz("p.npz", some(), classes=names)
    npz("q.npz", some({"a": 4, "b": 3}, seed=5), classes=names)
    words = ["--labels", "l.csv", "--fps", "1"]
    found = report(said, "p.npz", *words, "--common-with", "q.npz")
    assert (found["videos_scored"], found["videos_expected"], found["rows"]) == (2, 2, 7)
    assert "only the 2 videos that q.npz scores too; 1 left out" in found["notes"]
    both = report(said, "q.npz", *words, "--allow-missing")
    assert found["classes"][0]["positives"] == both["classes"][0]["positives"]
    message = refused(said, "p.npz", *words, "--compare", "q.npz", "--allow-missing")
    assert "only p.npz has the video 'c'. --common-with" in message
    compared = report(said, "p.npz", *words, "--compare", "q.npz", "--common-with", "q.npz", "--bootstrap", "50")
    assert [side["score"] for side in compared["reports"]] == [found["score"], both["score"]]


def test_files_of_two_forms_are_compared(said: Said) -> None:
    scores = some()
    path, _ = write_form("csv at times", scores)
    other = store("p.zarr", scores)
    found = report(said, path, "--labels", "l.csv", "--compare", other, "--bootstrap", "50")
    assert found["difference"] == pytest.approx(0, abs=1e-6)
    assert [side["form"] for side in found["reports"]] == ["csv of rows", "store of scores"]


def test_thresholds_are_given_or_tuned_on_validation(said: Said) -> None:
    path = npz("p.npz", some(), classes=np.array(CLASSES))
    words = [path, "--labels", "l.csv", "--fps", "1", "--protocol", "weighted"]
    both = report(said, *words)["values"]
    lower = report(said, *words, "--threshold", "0.3")
    assert (lower["values"]["f1"], "f1_0.3" in lower["values"]) == (both["f1_0.3"], False)
    tuned = report(said, *words, "--tune-thresholds-on", val_scores(), "--per-class", "c.csv")
    table = np.stack([some({"d": 2, "e": 2}, 3)[video].max(axis=0) for video in ("d", "e")])
    # d jumps and falls, e runs: the best threshold of a class lies at its one positive, or (being lower) takes both
    expected = {"run": table[1, 0], "jump": table[0, 1], "fall": table[0, 2]}
    with Path("c.csv").open() as file:
        assert {row["class"]: float(row["threshold"]) for row in csv.DictReader(file)} == pytest.approx(expected)
    probs = np.stack([scores.max(axis=0) for scores in some().values()])
    truth = np.array([[1, 1, 0], [1, 0, 1], [0, 0, 0]])
    own = metrics.weighted_metrics(probs, truth, np.array([expected[name] for name in CLASSES]))
    assert tuned["values"]["f1"] == pytest.approx(own["f1"])
    assert any("thresholds tuned for F1 on 2 videos of val.npz" in note for note in tuned["notes"])
    for protocol in ("multilabel", "action-conditional"):
        assert report(said, *words[:-1], protocol, "--threshold", "0.2")["values"]
    assert "a threshold is for --protocol" in refused(said, *words[:-2], "--threshold", "0.2")
    assert "from 0 to 1, not 1.2" in refused(said, *words, "--threshold", "1.2")


def test_thresholds_are_never_tuned_on_what_is_scored(said: Said) -> None:
    names = np.array(CLASSES)
    path = npz("p.npz", some(), classes=names)
    words = [path, "--labels", "l.csv", "--fps", "1", "--protocol", "weighted", "--tune-thresholds-on"]
    assert "'a' is a test video. Tune on validation" in refused(said, *words, path)
    all_of_val = [val_scores(), *words[1:3], *words[3:], "val.npz", "--subset", "val"]
    assert "they are the same predictions" in refused(said, *all_of_val)
    npz("other.npz", some({"d": 2}, 7), classes=names)
    message = refused(said, "val.npz", *words[1:], "other.npz", "--subset", "val")
    assert "1 videos are in both, 'd' first" in message
    npz("own.npz", some({"e": 2}, 8), classes=names)
    words_of_val = ["--subset", "val", "--allow-missing", "--compare", "other.npz", "--tune-thresholds-on", "other.npz"]
    message = refused(said, "own.npz", *words[1:-1], *words_of_val)
    assert "cannot set thresholds for other.npz: they are the same predictions" in message
    assert "--tune-thresholds-on is for --protocol" in refused(said, *words[:5], "--tune-thresholds-on", val_scores())
    assert "Give one of them" in refused(said, *words, "val.npz", "--threshold", "0.5")


def test_labels_and_classes_that_only_predictions_have_change_nothing(said: Said) -> None:
    labels = Labels(("run",), {"a": VideoLabels.of([(0, 0.0, 2.0)])})
    assert labels.timed
    scores = some({"a": 4, "b": 3, "c": 2}, classes=4)
    four = npz("p.npz", scores, classes=np.array([*CLASSES, "swim"]))
    three = npz("q.npz", {v: t[:, :3] for v, t in scores.items()}, classes=np.array(CLASSES))
    words = ["--labels", "l.csv", "--fps", "1"]
    assert report(said, four, *words)["score"] == report(said, three, *words)["score"]


def test_a_store_of_several_sets_needs_the_name_of_one(said: Said) -> None:
    path = npz("p.npz", some(), classes=np.array(CLASSES))
    clip = FeatureSpec(Granularity.CLIP, (1,), dtype="float32")
    with ZarrWriter("two.zarr", {"slow": clip, "fast": clip}) as writer:
        for video, rows in ROWS.items():
            entry = writer.video(video, {})
            entry.append("slow", Rows(np.zeros((rows, 1), np.float32), seconds(rows)))
            entry.append("fast", Rows(np.zeros((2 * rows, 1), np.float32), seconds(2 * rows) / 2))
            entry.commit()
    message = refused(said, path, "--labels", "l.csv", "--rows-of", "two.zarr")
    assert "Give --rows-of two.zarr:SET with one of fast, slow" in message
    expected = report(said, path, "--labels", "l.csv", "--fps", "1")["score"]
    assert report(said, path, "--labels", "l.csv", "--rows-of", "two.zarr:slow")["score"] == expected


def test_a_grid_that_is_not_used_is_said(said: Said) -> None:
    path, _ = write_form("csv at times", some())
    assert report(said, path, "--labels", "l.csv")["warnings"] == []
    warned = report(said, path, "--labels", "l.csv", "--fps", "9")["warnings"]
    assert len(warned) == 1
    assert warned[0].startswith("--fps and --rows-of were not used")
