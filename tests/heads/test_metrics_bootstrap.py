"""The bootstrap over videos, against the metrics themselves on data in which drawn videos are written out again."""

import math
import time
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heads import metrics_bootstrap as bootstrap
from heads.metrics_bootstrap import Interval, draw_videos, precision_sums, resampled_map, two_sided_p
from heads.metrics_ranking import Ties, average_precisions
from heads.protocols import PROTOCOLS, Answers, conditional

CLASSES = ("run", "jump", "fall", "rest")


def some_answers(protocol: str, seed: int, videos: int = 7) -> Answers:
    """Probabilities, tied within and between videos where the protocol lets ties in together; rare positives."""
    rng = np.random.default_rng(seed)
    level = PROTOCOLS[protocol].level
    rows = [1 if level == "video" else int(n) for n in rng.integers(1, 9, videos)]
    if PROTOCOLS[protocol].rows == "points":
        rows = [25] * videos
    if protocol == "mstct-25":
        rows = [int(n) for n in rng.integers(20, 60, videos)]
    num = sum(rows)
    ranks = rng.permutation(num * 4).reshape(num, 4)
    tied = protocol in ("frame-map", "video-map", "mlad-slide", "weighted", "action-conditional", "multilabel")
    scores = (ranks // (3 if tied else 1) + 1) / (num * 4 + 1)
    labels = (rng.random((num, 4)) < [0.3, 0.2, 0.05, 0.5]).astype(np.int8)
    if protocol == "top1":
        labels = np.eye(4, dtype=np.int8)[rng.integers(4, size=num)]
    if PROTOCOLS[protocol].unknown:
        labels[rng.random(labels.shape) < 0.1] = -1
    ends = np.cumsum(rows)[:-1]
    truth = np.split(labels, ends)
    segments = [[(int(c), j - 0.4, j + 0.4) for j, c in zip(*np.nonzero(table == 1), strict=True)] for table in truth]
    names = [f"v{index}" for index in range(videos)]
    return Answers(CLASSES, names, np.split(scores, ends), truth, segments, [25.0] * videos)


def written_out(answers: Answers, counts_V: NDArray[Any]) -> Answers:
    """The answers of a replicate: every video as often as it was drawn."""
    drawn = np.repeat(np.arange(len(counts_V)), counts_V.astype(int))
    return Answers(
        answers.classes,
        [answers.videos[video] for video in drawn],
        [answers.scores[video] for video in drawn],
        [answers.labels[video] for video in drawn],
        [answers.segments[video] for video in drawn],
        [answers.durations[video] for video in drawn],
    )


def main_score(protocol: str, answers: Answers) -> float:
    return float(next(iter(PROTOCOLS[protocol].measure(answers).values())))


@pytest.mark.parametrize("protocol", sorted(set(PROTOCOLS) - {"detection"}))  # segments: see test_detection.py
def test_a_replicate_is_the_metric_of_the_drawn_videos_written_out(protocol: str) -> None:
    for seed in range(4):
        answers = some_answers(protocol, seed)
        counts_VR = draw_videos(len(answers.videos), 12, seed)
        found_R = PROTOCOLS[protocol].resample(answers, counts_VR)
        expected = [main_score(protocol, written_out(answers, counts_V)) for counts_V in counts_VR.T]
        np.testing.assert_allclose(found_R, expected, rtol=0, atol=1e-9)
        once = np.ones((len(answers.videos), 1), np.float32)
        np.testing.assert_allclose(PROTOCOLS[protocol].resample(answers, once), main_score(protocol, answers))


@pytest.mark.parametrize("window", ["paper", "official"])
def test_replicates_of_later_taus_are_their_metric_too(window: Any) -> None:
    protocol = conditional((3, 0), window)
    answers = some_answers("action-conditional", 5)
    counts_VR = draw_videos(7, 12, 1)
    expected = [protocol.measure(written_out(answers, counts_V))["map_tau3"] for counts_V in counts_VR.T]
    np.testing.assert_allclose(protocol.resample(answers, counts_VR), expected)


@pytest.mark.parametrize("ties", ["together", "in order"])
@pytest.mark.parametrize(("block", "product_rows"), [(1 << 22, 256), (7, 256), (7, 0), (1 << 22, 0)])
def test_every_way_of_counting_gives_the_same(
    ties: Ties, block: int, product_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    scores, labels = rng.integers(0, 9, 60).astype(float), rng.integers(-1, 2, 60).astype(np.int8)
    video_N = np.sort(rng.integers(5, size=60))
    counts_VR = draw_videos(5, 11)
    monkeypatch.setattr(bootstrap, "BLOCK", block)
    monkeypatch.setattr(bootstrap, "PRODUCT_ROWS", product_rows)
    sums_R, positives_R = precision_sums(scores, labels, video_N, counts_VR, ties)
    for replicate in range(11):
        copies = counts_VR[video_N, replicate].astype(int)
        of_copies, truth = np.repeat(scores, copies), np.repeat(labels, copies)
        assert positives_R[replicate] == (truth == 1).sum()
        expected = average_precisions(of_copies[None], truth[None], ties)[0]
        assert sums_R[replicate] / positives_R[replicate] == pytest.approx(expected, abs=1e-12)


def test_counts_beyond_what_float32_holds_stay_exact() -> None:
    rng = np.random.default_rng(4)
    scores, labels = rng.random(50), rng.integers(0, 2, 50).astype(np.int8)
    video_N, counts_VR = np.arange(50) // 10, np.array([[1], [2], [0], [3], [1]], np.float32)
    few = precision_sums(scores, labels, video_N, counts_VR)
    many = precision_sums(scores, labels, video_N, counts_VR * np.float32(4_194_301))  # odd, so that sums need more
    assert many[1] == few[1] * 4_194_301
    np.testing.assert_allclose(many[0] / many[1], few[0] / few[1], rtol=1e-12)  # AP of all copies is the same


def test_videos_are_drawn_with_replacement_and_never_rows() -> None:
    counts_VR = draw_videos(6, 2000, seed=1)
    assert (counts_VR.sum(axis=0) == 6).all()
    assert counts_VR.mean(axis=1) == pytest.approx(np.ones(6), abs=0.1)
    assert (counts_VR == 0).mean() == pytest.approx((1 - 1 / 6) ** 6, abs=0.02)  # of being drawn by none of the six
    np.testing.assert_array_equal(draw_videos(6, 2000, seed=1), counts_VR)
    assert (draw_videos(6, 2000, seed=2) != counts_VR).any()
    # one video holds the only error: rows drawn alone would nearly always bring it in
    scores, labels = np.linspace(1, 0, 40)[:, None], np.zeros((40, 1), np.int8)
    labels[::2] = 1
    video_N = np.arange(40) // 20
    labels[video_N == 0] = 1  # the first video is all positive, the second every other row
    found = set(np.round(resampled_map(scores, labels, video_N, draw_videos(2, 50)), 6))
    second = average_precisions(scores[20:].T, labels[20:].T)[0]
    both = average_precisions(scores.T, labels.T)[0]
    assert found == {1.0, round(float(second), 6), round(float(both), 6)}


def test_a_class_that_loses_its_positives_leaves_the_mean_of_that_replicate() -> None:
    scores = np.array([[0.9, 0.1], [0.8, 0.9]])
    labels = np.array([[0, 1], [1, 0]], np.int8)  # class 0 in the second video alone, class 1 in the first alone
    counts_VR = np.array([[2, 0, 1], [0, 2, 1]], np.float32)
    found = resampled_map(scores, labels, np.arange(2), counts_VR)
    np.testing.assert_allclose(found, [1.0, 1.0, 0.5])
    np.testing.assert_allclose(resampled_map(scores, labels, np.arange(2), counts_VR, empty=0.0), [0.5, 0.5, 0.5])
    nothing = resampled_map(scores, labels * 0, np.arange(2), counts_VR)
    interval = Interval.of(np.concatenate([nothing, [0.25]]), videos=2)
    assert (interval.low, interval.high, interval.resamples, interval.undefined) == (0.25, 0.25, 4, 3)
    assert math.isnan(Interval.of(nothing, 2).low)


def test_the_interval_holds_the_middle_95_percent() -> None:
    interval = Interval.of(np.random.default_rng(0).permutation(1001) / 1000, videos=9)
    assert [interval.low, interval.high] == pytest.approx([0.025, 0.975])
    with pytest.raises(ValueError, match="1 videos say nothing"):
        draw_videos(1)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """The mean of hits over videos: 95 % intervals of samples from a known distribution, 30 videos each."""
    rng = np.random.default_rng(2)
    held = 0
    for trial in range(300):
        hits_V = (rng.random(30) < 0.6).astype(float)
        values_R = bootstrap.resampled_mean(hits_V, np.ones(30), draw_videos(30, 300, trial))
        interval = Interval.of(values_R, 30)
        held += interval.low <= 0.6 <= interval.high
    assert 0.88 <= held / 300 <= 0.99


def test_the_p_value_is_two_sided_and_never_0() -> None:
    assert two_sided_p(np.zeros(9)) == 1.0
    assert two_sided_p(np.full(99, 0.3)) == two_sided_p(np.full(99, -0.3)) == 2 / 100
    assert two_sided_p(np.array([0.1] * 18 + [-0.1] * 1)) == 2 * 2 / 20
    assert math.isnan(two_sided_p(np.full(3, np.nan)))


def test_a_problem_of_grids_size_takes_seconds() -> None:
    rng = np.random.default_rng(0)
    video_N = np.repeat(np.arange(299), 38)
    scores = rng.random((299 * 38, 51), dtype=np.float32)
    labels = np.eye(51, dtype=np.int8)[rng.integers(51, size=len(scores))]
    began = time.process_time()
    found = resampled_map(scores, labels, video_N, draw_videos(299))
    assert time.process_time() - began < 15  # a second or so; every replicate sorted again takes minutes
    assert found.shape == (1000,)
