"""`vl score` on predictions that others made: every form gives the score of the same numbers in a store."""

import csv
import json
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heads import metrics
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrWriter
from tests.cli.commands import Said, runner

CLASSES = ("run", "jump", "fall")
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


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.chdir(tmp_path)
    Path("l.csv").write_text(LABELS)
    return runner(capsys, "score")


def report(said: Said, *words: object) -> dict[str, Any]:
    code, out, err = said(*words, "--json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


def refused(said: Said, *words: object) -> str:
    code, out, err = said(*words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err


def seconds(rows: int) -> NDArray[np.float64]:
    return np.stack([np.arange(rows), np.arange(1, rows + 1)], axis=1).astype(float)


def some(rows: Mapping[str, int] = ROWS, seed: int = 0, classes: int = 3) -> dict[str, NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return {video: rng.random((count, classes)).round(4) for video, count in rows.items()}


def store(path: str, scores: Mapping[str, NDArray[Any]]) -> str:
    spec = FeatureSpec(Granularity.SCORE, (3,), dtype="float32", classes=CLASSES)
    with ZarrWriter(path, {"scores": spec}) as writer:
        for video, table in scores.items():
            entry = writer.video(video, {})
            entry.append("scores", Rows(table.astype(np.float32), seconds(len(table))))
            entry.commit()
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


# Thresholds


def val_scores(seed: int = 3) -> str:
    return npz("val.npz", some({"d": 2, "e": 2}, seed), classes=np.array(CLASSES))


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


# Segments

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
        assert any("1 segments of classes that the labels do not have" in said for said in found["warnings"])
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


# Submissions


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


BAD: dict[str, tuple[str | bytes, str]] = {
    "nothing.csv": ("", "nothing.csv is empty and no store. vl scores stores, npz matrices"),
    "binary.bin": (b"\x00\x01", "binary.bin is no text and no store"),
    "one.npy": (b"\x93NUMPY\x01\x00", "one.npy is one array, which names no videos"),
    "p.pkl": (b"\x80\x04\x95", "p.pkl is a pickle, which can run code"),
    "words.txt": ("some words", "words.txt begins with 'some words': no form that is known"),
    "list.json": ("[]", 'list.json is json, but not {"results"'),
    "twice.json": ('{"results": {"a": [], "a": []}}', "twice.json has 'a' twice in one object"),
    "broken.json": ('{"results": {', "broken.json, row 1: this is no sound json"),
    "back.csv": ("video,start,end,label,score\na,2,1,run,0.5\n", "row 2: the segment 2 to 1 s ends before it starts"),
    "word.csv": ("video,start,end,label,score\na,0,1,run,high\n", "word.csv, row 2: score is 'high', no number"),
    "same.csv": ("video,start,end,label,score\na,0,1,run,1\na,2,3,run,1\n", "all 2 segments have the score 1"),
    "nan.csv": ("video,time,run,jump\na,0,0.5,nan\n", "nan.csv, row 2, field 4: 'nan' is no number"),
    "short.csv": ("video,time,run,jump\na,0,0.5,1\na,1,0.5\n", "short.csv, row 3: 3 fields where 4 belong"),
    "long.csv": ("video,time,run\na,0,0.5\na,1,0.5,3\n", "long.csv, row 3: 4 fields where 3 belong"),
    "again.csv": ("video,time,run,jump,fall\na,0,0.5,1,1\na,0,0.6,1,1\n", "again.csv has two rows for 'a' at 0 to 0 s"),
    "untimed.csv": ("video,run\na,0.5\na,0.6\n", "untimed.csv has 2 rows for 'a' and no times"),
    "half.csv": ("video,start,run\na,0,0.5\n", "half.csv has the columns start: give time, or start and end"),
    "names.csv": ("video,time,run,run\na,0,1,2\n", "the header names the class 'run' twice"),
    "odd.csv": ("VideoId,LabelConfidencePairs\na,1 0.5 2\n", "odd.csv, row 2: not of the form"),
    "copy.csv": (
        "VideoId,LabelConfidencePairs\na,1 0.5\na,1 0.4\n",
        "row 3: the video 'a' stands there twice",
    ),
    "wide.csv": ("video,time,run\na,0,0.5,3\na,1,0.6,3\n", "wide.csv, row 2: 4 fields where 3 belong"),
    "flat.csv": ("VideoId,LabelConfidencePairs\na,1 0.5\nb,2 0.5\n", "flat.csv: all confidences are the same"),
    "pair.csv": ("VideoId,LabelConfidencePairs\na,1 0.5 1 0.4\n", "pair.csv, row 2: 'a' has a class twice"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_file_that_is_not_sound_gets_one_line_that_says_where(said: Said, name: str) -> None:
    content, message = BAD[name]
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    warnings.simplefilter("ignore")  # as for people: what pandas only warns of is refused too
    assert message in refused(said, name, "--labels", "l.csv", "--split", "all", "--allow-missing")
    document = json.loads(said(name, "--labels", "l.csv", "--json")[1])
    assert document["exit_code"] == 2


def test_an_npz_that_is_not_sound_is_refused_and_runs_nothing(said: Said) -> None:
    names = np.array(CLASSES)
    words = ["--labels", "l.csv", "--fps", "1", "--allow-missing"]
    np.savez("object.npz", a=np.array([{}], object), allow_pickle=True)
    assert "'a.npy' holds objects (object). Save plain numbers" in refused(said, "object.npz", *words)
    tables = some()
    tables["b"][1, 2] = np.nan
    message = refused(said, npz("nan.npz", tables, classes=names), *words)
    assert "1 scores of 'b' are nan, the first in row 1, class 'fall'" in message
    tables["b"][1, 2] = -np.inf
    message = refused(said, npz("inf.npz", tables, classes=names), *words)
    assert "1 scores of 'b' are infinite, the first in row 1, class 'fall'" in message
    message = refused(said, npz("wide.npz", {"a": np.ones((4, 3)), "b": np.ones((3, 2))}), *words)
    assert "wide.npz holds videos of 2 and 3 classes" in message
    message = refused(said, npz("mixed.npz", {"a": np.ones((4, 3)), "b": np.ones(3)}), *words)
    assert "(T, C) and (C,) matrices" in message
    np.savez("times.npz", scores=np.ones((2, 1)), videos=np.array(["a", "a"]), times=np.array([0.0, np.nan]))
    assert "row 1 of the times: nan to nan s is no stretch of time" in refused(said, "times.npz", *words)
    Path("cut.npz").write_bytes(Path("nan.npz").read_bytes()[:-40])
    assert "cut.npz is no sound npz file" in refused(said, "cut.npz", *words)


def test_an_npz_that_lies_about_sizes_or_texts_takes_no_memory(said: Said) -> None:
    def rewritten(path: str, name: str, old: bytes, new: bytes) -> str:
        with zipfile.ZipFile("p.npz") as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        assert old in members[name]
        members[name] = members[name].replace(old, new)
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return path

    words = ["--labels", "l.csv", "--fps", "1"]
    npz("p.npz", some(), classes=np.array(CLASSES))
    huge = rewritten("huge.npz", "a.npy", b"(4, 3), }          ", b"(4000000000000, 3),}")
    assert "'a.npy' says it is float64 (4000000000000, 3), but has" in refused(said, huge, *words)
    odd = rewritten("odd.npz", "classes.npy", "r".encode("utf-32-le"), b"\xff\xff\xff\x7f")
    assert "'classes' holds what is no text" in refused(said, odd, *words)


def test_scoring_a_file_needs_no_torch(said: Said, tmp_path: Path) -> None:
    import subprocess
    import sys

    npz("p.npz", some(), classes=np.array(CLASSES))
    words = ["score", "p.npz", "--labels", "l.csv", "--fps", "1", "--protocol", "weighted"]
    words += ["--tune-thresholds-on", val_scores()]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r}); from cli.main import run; "
        f"code = run({words!r}); print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


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
