"""Detection mAP against a loop that spells out ActivityNet's definition, and segments made of rows."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heads.detections import segments_of_rows
from heads.metrics_bootstrap import draw_videos
from heads.metrics_detection import (
    TIOUS,
    Segments,
    detection_average_precision,
    match_detections,
    resampled_detection_map,
    temporal_iou,
)

Truth = list[list[tuple[int, float, float]]]


def segments(*entries: tuple[int, float, float, float]) -> Segments:
    return Segments(
        np.array([entry[0] for entry in entries], np.intp),
        np.array([entry[1:3] for entry in entries], np.float64).reshape(-1, 2),
        np.array([entry[3] for entry in entries], np.float64),
    )


def some(seed: int, videos: int = 4, classes: int = 3) -> tuple[list[Segments], Truth]:
    """Ragged videos, some without prediction or truth; scores without ties, overlaps of all sizes."""
    rng = np.random.default_rng(seed)
    truth: Truth = []
    for _ in range(videos):
        starts = rng.uniform(0, 20, rng.integers(0, 5))
        truth.append([(int(rng.integers(classes)), s, s + rng.uniform(1, 8)) for s in starts])
    ranks = iter(rng.permutation(1000) / 1000)
    found = []
    for of_video in truth:
        near = [(c, s + rng.normal(0, 1), e + rng.normal(0, 1)) for c, s, e in of_video * int(rng.integers(0, 4))]
        stray = [(int(rng.integers(classes)), s, s + 3) for s in rng.uniform(0, 20, rng.integers(0, 3))]
        found.append(segments(*[(c, s, max(s, e), next(ranks)) for c, s, e in near + stray]))
    return found, truth


def spelled_out(found: list[Segments], truth: Truth, index: int, tiou: float) -> float:
    """One class at one threshold: walk down the ranking, then down the precision-recall curve."""
    ground = [(video, s, e) for video, of_video in enumerate(truth) for c, s, e in of_video if c == index and e > s]
    if not ground:
        return math.nan
    ranking = []
    for video, of_video in enumerate(found):
        for c, (s, e), score in zip(*of_video, strict=True):
            if c == index:
                ranking.append((score, video, s, e))
    taken: set[int] = set()
    curve = [(0.0, 0.0)]  # recall, precision
    for passed, (_, where, s, e) in enumerate(sorted(ranking, key=lambda entry: -entry[0]), 1):
        best, best_iou = -1, 0.0
        for place, (holder, start, end) in enumerate(ground):
            shared = min(e, end) - max(s, start)
            iou = shared / ((e - s) + (end - start) - shared) if shared > 0 else 0.0
            if holder == where and place not in taken and iou >= tiou and iou > best_iou:
                best, best_iou = place, iou
        if best >= 0:
            taken.add(best)
        curve.append((len(taken) / len(ground), len(taken) / passed))
    total = 0.0
    for place in range(1, len(curve)):
        gain = curve[place][0] - curve[place - 1][0]
        total += gain * max(precision for _, precision in curve[place:])
    return total


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_the_average_precision_is_what_the_definition_says(seed: int) -> None:
    found, truth = some(seed)
    result = detection_average_precision(found, truth, 3)
    expected = [[spelled_out(found, truth, index, tiou) for index in range(3)] for tiou in TIOUS]
    np.testing.assert_allclose(result, expected, atol=1e-12)


def test_by_hand() -> None:
    """One ground truth of two is found twice; the second time it is taken already, and the other is too far."""
    truth: Truth = [[(0, 0.0, 10.0), (0, 20.0, 30.0)]]
    found = [segments((0, 0.0, 8.0, 0.9), (0, 0.0, 10.0, 0.8), (0, 24.0, 30.0, 0.7))]
    # tIoU .8, 1.0 (taken below .8; above it the first fails and this one takes it), .6
    result = detection_average_precision(found, truth, 1, [0.5, 0.7, 0.9])[:, 0]
    assert result.tolist() == pytest.approx([(1 + 2 / 3) / 2, 1 / 2, (1 / 2) / 2])


def test_precision_is_interpolated() -> None:
    truth: Truth = [[(0, 0.0, 1.0), (0, 2.0, 3.0), (0, 4.0, 5.0)]]
    found = [segments((0, 9.0, 10.0, 0.9), (0, 0.0, 1.0, 0.8), (0, 2.0, 3.0, 0.7), (0, 4.0, 5.0, 0.6))]
    # precisions 1/2, 2/3, 3/4 at the three hits: at each recall the highest to come is 3/4
    assert detection_average_precision(found, truth, 1, [0.5])[0, 0] == pytest.approx(3 / 4)


def test_a_taken_ground_truth_leaves_the_next_best_one() -> None:
    truth: Truth = [[(0, 0.0, 10.0), (0, 2.0, 12.0)]]
    found = [segments((0, 0.0, 10.0, 0.9), (0, 0.5, 10.5, 0.8))]
    assert detection_average_precision(found, truth, 1, [0.5])[0, 0] == 1.0


def test_no_prediction_scores_0_and_no_truth_nan() -> None:
    empty = segments()
    truth: Truth = [[(0, 0.0, 1.0), (1, 3.0, 3.0), (2, 5.0, 4.0)]]  # the last two hold no time
    result = detection_average_precision([empty], truth, 3, [0.5])[0]
    assert result[0] == 0.0
    assert np.isnan(result[1:]).all()


def test_empty_spans_overlap_nothing() -> None:
    assert temporal_iou(np.array([[1.0, 1.0]]), np.array([[1.0, 1.0], [0.0, 2.0]])).tolist() == [[0.0, 0.0]]


@pytest.mark.parametrize(
    ("found", "truth", "tious", "message"),
    [
        ([segments((0, 0.0, math.nan, 0.5))], [[]], [0.5], "finite"),
        ([segments((3, 0.0, 1.0, 0.5))], [[]], [0.5], "classes lie in 0 to 0, not 3, 3"),
        ([], [[]], [0.5], "0 videos have predictions, 1 have ground truth"),
        ([], [], [0.0], r"a tIoU lies in \(0, 1\]"),
        ([], [], [], r"a tIoU lies in \(0, 1\]"),
    ],
)
def test_what_means_nothing_is_refused(found: list[Segments], truth: Truth, tious: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        detection_average_precision(found, truth, 1, tious)


@pytest.mark.parametrize("seed", range(4))
def test_a_replicate_is_the_metric_of_the_drawn_videos_written_out(seed: int) -> None:
    found, truth = some(seed, videos=6)
    counts_VR = draw_videos(6, 12, seed)
    result_R = resampled_detection_map(match_detections(found, truth, 3), counts_VR)
    for counts_V, value in zip(counts_VR.T, result_R, strict=True):
        drawn = np.repeat(np.arange(6), counts_V.astype(int))
        ap_KC = detection_average_precision([found[v] for v in drawn], [truth[v] for v in drawn], 3)
        known = ~np.isnan(ap_KC[0])
        expected = ap_KC[:, known].mean() if known.any() else math.nan
        np.testing.assert_allclose(value, expected, atol=1e-9)


def test_a_challenge_of_many_segments_takes_seconds() -> None:
    import time

    rng = np.random.default_rng(0)
    found, truth = [], []
    for _ in range(500):
        starts = rng.uniform(0, 100, 200)
        spans = np.stack([starts, starts + rng.uniform(1, 20, 200)], axis=1)
        found.append(Segments(rng.integers(0, 20, 200), spans, rng.random(200)))
        truth.append([(int(c), s, s + 10) for c, s in zip(rng.integers(0, 20, 5), rng.uniform(0, 90, 5), strict=True)])
    began = time.process_time()
    detection_average_precision(found, truth, 20)
    assert time.process_time() - began < 10


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10_000))
def test_segments_are_runs_of_rows_from_the_threshold_on(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 12))
    scores = rng.choice([0.1, 0.4, 0.5, 0.9], (rows, 2))
    starts = np.cumsum(rng.choice([1.0, 1.0, 2.5], rows))  # a gap now and then
    times = np.stack([starts, starts + 1], axis=1)
    expected = []
    for index in range(2):
        run: list[int] = []
        for row in range(rows + 1):
            joined = bool(run) and row < rows and times[row, 0] == times[row - 1, 1]
            above = row < rows and scores[row, index] >= 0.5
            if run and not (above and joined):
                mean = float(scores[run, index].mean())
                expected.append((index, float(times[run[0], 0]), float(times[run[-1], 1]), mean))
                run = []
            if above:
                run.append(row)
    found = segments_of_rows(scores, times, 0.5)
    flat = [(int(c), float(s), float(e), float(p)) for c, (s, e), p in zip(*found, strict=True)]
    assert [entry[:3] for entry in flat] == [entry[:3] for entry in expected]
    np.testing.assert_allclose([entry[3] for entry in flat], [entry[3] for entry in expected])
