"""`vl score`: the number, the name of its protocol, and what it stands on; wrong input gets one line."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heads import metrics, scoring
from heads.metrics_bootstrap import Interval
from heads.protocols import PROTOCOLS
from heads.report import with_interval
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrWriter
from tests.cli.commands import Said, runner

ROOT = Path(__file__).parents[2]
CLASSES = ("run", "jump", "fall")

LABELS = Labels(
    CLASSES,
    {
        "a.mp4": VideoLabels.of([(0, 0.0, 2.0), (1, 1.0, 4.0)], duration=4.0, subset="test"),
        "b.mp4": VideoLabels.of([(0, 2.0, 3.0)], duration=3.0, subset="test"),
        "c.mp4": VideoLabels.of([], duration=2.0, subset="test"),
        "d.mp4": VideoLabels.of([(2, 0.0, 2.0)], duration=2.0, subset="train"),
    },
)
TEST = ["a.mp4", "b.mp4", "c.mp4"]


def seconds(rows: int) -> NDArray[np.float64]:
    return np.stack([np.arange(rows), np.arange(1, rows + 1)], axis=1).astype(float)


def scores_of(*videos: str, seed: int = 0) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {video: rng.random((int(LABELS.videos[video].duration or 0), 3), dtype=np.float32) for video in videos}


def score_store(
    path: Path, scores: Mapping[str, NDArray[np.float32]], classes: tuple[str, ...] = CLASSES, **prediction: Any
) -> Path:
    """A store as `vl predict` writes it; without any fact about the prediction, one that somebody else made."""
    spec = FeatureSpec(Granularity.SCORE, (len(classes),), dtype="float32", classes=classes)
    with ZarrWriter(path, {"scores": spec}) as writer:
        for video, table in scores.items():
            entry = writer.video(video, {})
            entry.append("scores", Rows(table, seconds(len(table))))
            entry.commit()
        if prediction:
            writer.attach("prediction", prediction)
    return path


def predicted(path: Path, scores: Mapping[str, NDArray[np.float32]], **changes: Any) -> Path:
    facts: dict[str, Any] = {"level": "row", "split": "test", "expected": TEST, "labels": LABELS.to_dict()}
    return score_store(path, scores, **(facts | changes))


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run `vl score WORDS` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    return runner(capsys, "score")


def report(said: Said, *words: object) -> dict[str, Any]:
    code, out, err = said(*words, "--json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


def test_frames_of_all_videos_are_pooled(said: Said) -> None:
    scores = scores_of(*TEST)
    predicted(Path("p.zarr"), scores)
    # by hand: rows stand for whole seconds and are looked at in their middles
    labels = np.zeros((9, 3), int)
    labels[[0, 1, 6], 0] = 1  # run: seconds 0 and 1 of a (4 rows), second 2 of b
    labels[[1, 2, 3], 1] = 1  # jump: seconds 1 to 3 of a
    found = report(said, "p.zarr")
    assert found["score"] == metrics.frame_map(np.concatenate(list(scores.values())), labels)
    assert found["chance"] == pytest.approx(3 / 9)
    assert [(entry["class"], entry["positives"]) for entry in found["classes"]] == [
        ("run", 3),
        ("jump", 3),
        ("fall", 0),
    ]
    assert (found["rows"], found["videos_scored"], found["videos_expected"]) == (9, 3, 3)
    assert found["classes"][2]["ap"] is None


def test_people_read_path_protocol_coverage_chance_and_score(said: Said) -> None:
    predicted(Path("p.zarr"), scores_of(*TEST))
    value = report(said, "p.zarr")["score"]
    code, out, _ = said("p.zarr")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "p.zarr"
    assert lines[1].startswith("frame-map: AP over all rows of all videos pooled")
    assert lines[1].endswith("2 of 3 classes have positives")
    assert "labels at the centre of rows, boundaries strict" in out
    assert "test: 3 of 3 videos scored, 9 rows" in out
    assert "classes without positives, in no mean: fall" in out
    assert f"map        {value:.4f}" in out
    assert "chance     0.3333" in out
    assert "RANDOM" not in out


def test_several_runs_give_mean_and_deviation(said: Said) -> None:
    for seed in range(3):
        predicted(Path(f"p{seed}.zarr"), scores_of(*TEST, seed=seed))
    values = [report(said, f"p{seed}.zarr")["score"] for seed in range(3)]
    mean = sum(values) / 3
    deviation = (sum((value - mean) ** 2 for value in values) / 2) ** 0.5
    code, out, _ = said("p0.zarr", "p1.zarr", "p2.zarr")
    assert code == 0
    assert [line for line in out.splitlines() if line.endswith(".zarr")] == ["p0.zarr", "p1.zarr", "p2.zarr"]
    assert out.splitlines()[-2:] == [
        "3 together, frame-map, mean ± sd",
        f"map        {mean:.4f} ± {deviation:.4f}",
    ]
    code, out, _ = said("p0.zarr", "p1.zarr", "p2.zarr", "--json")
    together = json.loads(out)
    assert [entry["score"] for entry in together["reports"]] == values
    assert together["spread"]["map"] == {"mean": pytest.approx(mean), "sd": pytest.approx(deviation)}


def test_scores_that_do_not_compare_have_no_mean(said: Said) -> None:
    predicted(Path("all.zarr"), scores_of(*TEST))
    predicted(Path("other.zarr"), scores_of(*TEST), label_at="overlap")
    code, out, err = said("all.zarr", "other.zarr")
    assert (code, out) == (2, "")
    assert "different protocols" in err
    code, _, err = said("all.zarr", "all.zarr", "--per-class", "c.csv")
    assert (code, Path("c.csv").exists()) == (2, False)
    assert "--per-class" in err


def test_row_scores_count_at_video_level_by_their_maximum(said: Said) -> None:
    scores = scores_of(*TEST)
    predicted(Path("p.zarr"), scores)
    highest = np.stack([table.max(axis=0) for table in scores.values()])
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]])
    found = report(said, "p.zarr", "--protocol", "video-map")
    assert found["score"] == metrics.video_map(highest, labels)
    assert found["labels_taken"] == "of whole videos"
    assert found["chance"] == pytest.approx((2 / 3 + 1 / 3) / 2)
    charades = report(said, "p.zarr", "--protocol", "charades-video-map")
    assert charades["score"] == metrics.charades_video_map(highest, labels)
    assert charades["chance"] == pytest.approx((2 / 2 + 1 / 2) / 2)  # c has no action and goes last


def test_video_scores_go_by_video_map_and_refuse_frames(said: Said) -> None:
    scores = {video: table.max(axis=0, keepdims=True) for video, table in scores_of(*TEST).items()}
    predicted(Path("p.zarr"), scores, level="video")
    assert report(said, "p.zarr")["protocol"] == "video-map"
    code, _, err = said("p.zarr", "--protocol", "frame-map")
    assert (code, err) == (
        2,
        "vl: frame-map needs scores of rows, but these are of whole videos. Try --protocol video-map.\n",
    )


def test_charades_localisation_picks_rows_by_their_times(said: Said) -> None:
    scores = scores_of(*TEST)
    predicted(Path("p.zarr"), scores)
    found = report(said, "p.zarr", "--protocol", "charades-localize-map")
    # rows of one second each: at j/25 of T seconds stands row floor(j T / 25), as the metric itself has it
    segments = [[(0, 0.0, 2.0), (1, 1.0, 4.0)], [(0, 2.0, 3.0)], []]
    assert found["score"] == metrics.charades_localize_map(list(scores.values()), segments, [4.0, 3.0, 2.0])
    missing = dict(list(scores.items())[:2])
    predicted(Path("q.zarr"), missing)
    found = report(said, "q.zarr", "--protocol", "charades-localize-map", "--allow-missing")
    expected: list[NDArray[Any]] = [*missing.values(), np.empty((0, 3))]
    assert found["score"] == metrics.charades_localize_map(expected, segments, [4.0, 3.0, 2.0])


# one class a video, more than 25 rows, scores of windows, segments
ON_OTHER_ROWS = {"top1", "mstct-25", "mlad-slide", "detection"}


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - ON_OTHER_ROWS))
def test_every_protocol_scores_and_says_its_name(said: Said, protocol: str) -> None:
    predicted(Path("p.zarr"), scores_of(*TEST))
    found = report(said, "p.zarr", "--protocol", protocol)
    assert (found["protocol"], 0 <= found["score"] <= 1) == (protocol, True)
    code, out, _ = said("p.zarr", "--protocol", protocol)
    assert (code, out.splitlines()[1].split(":")[0]) == (0, protocol)


def test_top1_needs_one_class_a_video(said: Said) -> None:
    predicted(Path("p.zarr"), scores_of(*TEST))
    code, _, err = said("p.zarr", "--protocol", "top1")
    assert (code, "2 of 3 videos have none or several" in err) == (2, True)
    scores = {"b.mp4": np.array([[0.6, 0.5, 0.1]], np.float32), "d.mp4": np.array([[0.6, 0.5, 0.1]], np.float32)}
    predicted(Path("q.zarr"), scores, expected=["b.mp4", "d.mp4"])
    assert report(said, "q.zarr", "--protocol", "top1", "--allow-constant")["score"] == 0.5


def test_the_rows_that_ms_tct_samples_need_more_than_25(said: Said) -> None:
    predicted(Path("p.zarr"), scores_of(*TEST))
    code, _, err = said("p.zarr", "--protocol", "mstct-25")
    assert (code, "more than 25 rows; there is none" in err) == (2, True)
    rng = np.random.default_rng(0)
    scores = {"a": rng.random((60, 1), dtype=np.float32), "b": rng.random((25, 1), dtype=np.float32)}
    labels = Labels(("run",), {"a": VideoLabels.of([(0, 20.0, 31.0)]), "b": VideoLabels.of([(0, 0.0, 9.0)])})
    score_store(Path("q.zarr"), scores, ("run",), labels=labels.to_dict())
    found = report(said, "q.zarr", "--protocol", "mstct-25")
    seen = [1 + 2 * place for place in range(25)]  # of 60 rows every second
    expected = metrics.average_precision(scores["a"][seen, 0], [int(20 <= row < 31) for row in seen])
    assert found["values"] == {"map": pytest.approx(expected), "too_short": 1}


def test_weighted_scores_stand_at_both_thresholds(said: Said) -> None:
    scores = {video: np.full((1, 3), 0.4, np.float32) for video in TEST}
    predicted(Path("p.zarr"), scores, level="video")
    values = report(said, "p.zarr", "--protocol", "weighted", "--allow-constant")["values"]
    # 0.4 is no prediction at 0.5 and one at 0.3, where run is right in 2 of 3 and jump in 1 of 3 videos
    assert (values["recall"], values["recall_0.3"]) == (0.0, 1.0)
    assert values["precision_0.3"] == pytest.approx((2 * 2 / 3 + 1 * 1 / 3) / 3)
    assert values["map_macro"] == pytest.approx((2 / 3 + 1 / 3) / 2)


def test_action_conditional_scores_stand_at_every_tau_with_their_pairs(said: Said) -> None:
    predicted(Path("p.zarr"), scores_of(*TEST))
    found = report(said, "p.zarr", "--protocol", "action-conditional", "--tau", "0,2")
    # run in rows 0, 1 and jump in 1, 2, 3 of a: both in row 1; given that run was there up to 2 rows before: jump
    assert (found["values"]["num_pairs_tau0"], found["values"]["num_pairs_tau2"]) == (2, 1)
    a, b, _ = scores_of(*TEST).values()
    run_given_jump = metrics.average_precision(a[1:, 0], [1, 0, 0])
    jump_given_run = metrics.average_precision([a[0, 1], a[1, 1], b[2, 1]], [0, 1, 0])
    assert found["score"] == found["values"]["map_tau0"] == pytest.approx((run_given_jump + jump_given_run) / 2)
    assert found["values"]["map_tau2"] == 1.0  # rows 2 and 3 of a, both jump
    assert "[t - tau, t] (tau 2)" in said("p.zarr", "--protocol", "action-conditional", "--tau", "0,2")[1]
    official = report(said, "p.zarr", "--protocol", "action-conditional-official", "--tau", "3")
    paper = report(said, "p.zarr", "--protocol", "action-conditional", "--tau", "2")
    assert official["values"] == paper["values"]  # one row less


def predicted_many(path: Path, noise: float, seed: int, **changes: Any) -> dict[str, NDArray[np.float32]]:
    """Scores of 12 videos, right but for the noise; `run` is in every other video."""
    names = [f"v{number:02d}" for number in range(12)]
    labels = Labels(
        ("run",), {name: VideoLabels.of([(0, 0.0, 2.0 + k % 3)] if k % 2 else []) for k, name in enumerate(names)}
    )
    rng = np.random.default_rng(seed)
    scores = {}
    for name in names:
        truth = labels.rows(name, seconds(6))
        scores[name] = np.clip(0.5 * truth + noise * rng.random(truth.shape), 0, 1).astype(np.float32)
    facts: dict[str, Any] = {"classes": ("run",), "expected": names, "labels": labels.to_dict()}
    predicted(path, scores, **(facts | changes))
    return scores


def test_a_bootstrap_prints_the_interval_of_the_score_and_its_ground(said: Said) -> None:
    predicted_many(Path("p.zarr"), noise=1.0, seed=0)
    found = report(said, "p.zarr", "--bootstrap", "200")
    interval = found["interval"]
    assert interval["low"] < found["score"] < interval["high"]
    assert (interval["resamples"], interval["videos"], interval["level"]) == (200, 12, 0.95)
    line = f"map        {found['score']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}] 95 % over 200 resamples"
    assert f"{line} of 12 videos\n" in said("p.zarr", "--bootstrap", "200")[1]
    assert report(said, "p.zarr", "--bootstrap", "200")["interval"] == interval
    assert report(said, "p.zarr", "--bootstrap", "200", "--bootstrap-seed", "1")["interval"] != interval
    assert report(said, "p.zarr")["interval"] is None
    assert report(said, "p.zarr")["score"] == found["score"]


def test_a_score_outside_its_own_interval_is_warned_of(said: Said) -> None:
    predicted_many(Path("p.zarr"), noise=1.0, seed=0)
    found = scoring.score_store(Path("p.zarr"), scoring.Question())
    for low, high, warned in ((found.score, 1.0, 0), (0.0, found.score, 0), (0.0, 0.01, 1), (0.99, 1.0, 1)):
        warnings = with_interval(found, Interval(low, high, 10, 12)).warnings
        assert ["outside its interval" in warning for warning in warnings] == [True] * warned


def test_two_runs_are_compared_on_the_same_draws(said: Said) -> None:
    predicted_many(Path("good.zarr"), noise=0.6, seed=0)
    predicted_many(Path("bad.zarr"), noise=4.0, seed=1)
    found = report(said, "good.zarr", "--compare", "bad.zarr", "--bootstrap", "300")
    good, bad = found["reports"]
    assert found["difference"] == good["score"] - bad["score"]
    assert 0 < found["interval"]["low"] < found["difference"] < found["interval"]["high"]
    assert found["p_value"] == pytest.approx(2 / 301)  # no draw of videos turns it around
    turned = report(said, "bad.zarr", "--compare", "good.zarr", "--bootstrap", "300")
    assert turned["interval"]["low"] == pytest.approx(-found["interval"]["high"])
    assert good["interval"] == report(said, "good.zarr", "--bootstrap", "300")["interval"]
    code, out, _ = said("good.zarr", "--compare", "bad.zarr")
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "good.zarr")
    assert lines.index("bad.zarr") < len(lines) - 3
    assert lines[-2].startswith(f"map        +{found['difference']:.4f} [")
    assert "95 % over 1000 resamples of 12 videos" in lines[-2]
    assert lines[-1] == f"{'p':10} {2 / 1001:.4f}  (two-sided)"
    same = report(said, "good.zarr", "--compare", "good.zarr")
    assert (same["difference"], same["interval"]["low"], same["p_value"]) == (0.0, 0.0, 1.0)


def test_the_order_of_videos_in_a_store_changes_no_comparison(said: Said) -> None:
    scores = predicted_many(Path("a.zarr"), noise=1.0, seed=0)
    predicted_many(Path("b.zarr"), noise=1.0, seed=0, expected=sorted(scores, reverse=True))
    found = report(said, "a.zarr", "--compare", "b.zarr")
    assert (found["interval"]["low"], found["interval"]["high"], found["p_value"]) == (0.0, 0.0, 1.0)


def test_runs_that_answer_different_questions_are_not_compared(said: Said) -> None:
    scores = predicted_many(Path("a.zarr"), noise=1.0, seed=0)
    names = sorted(scores)
    predicted_many(Path("fewer.zarr"), noise=1.0, seed=0, expected=names[:-1])
    predicted_many(Path("other.zarr"), noise=1.0, seed=0, classes=("jump", "run")[1:], split="val")
    short = Labels(("run",), {name: VideoLabels.of([(0, 0.0, 1.0)]) for name in names})
    predicted_many(Path("relabelled.zarr"), noise=1.0, seed=0, labels=short.to_dict())
    wide = {name: np.repeat(table, 2, axis=1) for name, table in scores.items()}
    predicted(Path("wide.zarr"), wide, classes=("run", "jump"), expected=names, labels=short.to_dict())
    videos = {name: table.max(axis=0, keepdims=True) for name, table in scores.items()}
    predicted(Path("video.zarr"), videos, classes=("run",), expected=names, labels=short.to_dict(), level="video")
    for other, message in (
        ("fewer", "only a.zarr has the video 'v11'"),
        ("other", "split test and val"),
        ("relabelled", "the labels of 'v00' differ"),
        ("wide", "only wide.zarr has the class 'jump'"),
        ("video", "protocol frame-map and video-map"),
    ):
        code, out, err = said("a.zarr", "--compare", f"{other}.zarr")
        assert (code, out, err.count("\n"), message in err) == (2, "", 1, True), (other, err)


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
