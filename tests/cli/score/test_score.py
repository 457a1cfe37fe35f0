"""`vl score`: the number, the name of its protocol, and what it stands on; wrong input gets one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heads import metrics
from heads.protocols import PROTOCOLS
from stores.labels import Labels, VideoLabels
from tests.cli.commands import Said, report
from tests.cli.score.stores import TEST, predicted, score_store, scores_of


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
