"""Metrics against scikit-learn where it defines them, and else against loops that spell out the definition."""

import functools
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as oracle
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from heads import metrics
from heads.metrics_thresholds import best_thresholds
from stores.label_files import read_labels

Table = NDArray[Any]


@st.composite
def tables(draw: st.DrawFn, rows: int = 8, classes: int = 4) -> tuple[Table, Table]:
    """Probabilities full of ties, and labels; classes and rows without positives occur."""
    shape = (draw(st.integers(1, rows)), draw(st.integers(1, classes)))
    scores = draw(arrays.arrays(np.float64, shape, elements=st.sampled_from([0.0, 0.2, 0.4, 0.5, 0.7, 1.0])))
    return scores, draw(arrays.arrays(np.int8, shape, elements=st.integers(0, 1)))


def untied(rng: np.random.Generator, rows: int, classes: int, positive: float = 0.3) -> tuple[Table, Table]:
    order = rng.permutation(rows * classes).reshape(rows, classes)
    return (order + 1) / (rows * classes + 1), (rng.random((rows, classes)) < positive).astype(np.int8)


def sklearn_ap(scores: Table, labels: Table) -> float:
    return float(oracle.average_precision_score(labels, scores)) if labels.any() else math.nan


def ranked_ap(scores: Table, labels: Table) -> float:
    """Precision at each positive's rank, entries of equal score in the order given."""
    if not labels.any():
        return math.nan
    found, total = 0, 0.0
    ranking = sorted(range(len(scores)), key=lambda index: -scores[index])
    for passed, index in enumerate(ranking, 1):
        if labels[index]:
            found += 1
            total += found / passed
    return total / found


def mean_known(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def same(left: float, right: float) -> bool:
    return (math.isnan(left) and math.isnan(right)) or math.isclose(left, right, abs_tol=1e-12)


def test_average_precision_by_hand() -> None:
    # positives at ranks 1 and 3: (1/1 + 2/3) / 2
    assert metrics.average_precision([0.9, 0.8, 0.7, 0.6], [1, 0, 1, 0]) == pytest.approx(5 / 6, abs=1e-15)


def test_tied_entries_enter_together() -> None:
    # one threshold takes all four, two of them positive
    assert metrics.average_precision([0.5] * 4, [1, 0, 0, 1]) == 0.5


@settings(deadline=None)
@given(tables())
def test_average_precision_is_scikit_learns(table: tuple[Table, Table]) -> None:
    scores, labels = table
    expected = [sklearn_ap(s, y) for s, y in zip(scores.T, labels.T, strict=True)]
    assert all(map(same, metrics.class_average_precision(scores, labels), expected))
    assert same(metrics.average_precision(scores[:, 0], labels[:, 0]), expected[0])
    assert same(metrics.frame_map(scores, labels), mean_known(expected))
    assert same(metrics.video_map(scores, labels), mean_known(expected))


@settings(deadline=None)
@given(tables(), st.randoms(use_true_random=False))
def test_only_the_order_of_scores_counts_and_not_that_of_rows(table: tuple[Table, Table], random: Any) -> None:
    scores, labels = table
    order = random.sample(range(len(scores)), len(scores))
    moved = np.exp(3 * scores[order]) - 50
    assert same(metrics.frame_map(moved, labels[order]), metrics.frame_map(scores, labels))


@settings(deadline=None)
@given(tables(), st.data())
def test_unknown_labels_are_left_out_of_their_class(table: tuple[Table, Table], data: st.DataObject) -> None:
    scores, labels = table
    unknown = data.draw(arrays.arrays(np.bool_, labels.shape))
    expected = [sklearn_ap(s[~u], y[~u]) for s, y, u in zip(scores.T, labels.T, unknown.T, strict=True)]
    found = metrics.class_average_precision(scores, np.where(unknown, -1, labels))
    assert all(map(same, found, expected))


def test_classes_in_blocks_give_what_one_by_one_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = untied(np.random.default_rng(0), 50, 7)
    whole = metrics.class_average_precision(scores, labels)
    monkeypatch.setattr("heads.metrics_ranking.BLOCK", 150)  # three columns at a time
    np.testing.assert_array_equal(metrics.class_average_precision(scores, labels), whole)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int64, np.uint8])
def test_scores_of_any_kind_keep_their_order(dtype: type) -> None:
    scores: Table = np.array([5, 250, 1, 0]).astype(dtype)
    assert metrics.average_precision(scores, [0, 1, 0, 1]) == pytest.approx((1 + 2 / 4) / 2)


def test_minus_infinity_is_the_lowest_score() -> None:
    assert metrics.average_precision([-np.inf, 0.1, -np.inf], [1, 0, 0]) == pytest.approx(1 / 3)


@settings(deadline=None)
@given(tables())
def test_charades_video_map_puts_unlabelled_videos_last_and_keeps_ties_in_order(table: tuple[Table, Table]) -> None:
    scores, labels = table
    masked = [s if y.any() else np.full_like(s, -np.inf) for s, y in zip(scores, labels, strict=True)]
    expected = mean_known([ranked_ap(s, y) for s, y in zip(np.array(masked).T, labels.T, strict=True)])
    assert same(metrics.charades_video_map(scores, labels), expected)


def test_charades_video_map_by_hand() -> None:
    scores = np.array([[0.9], [0.8], [0.7]])
    # the first video has the highest score and no action at all: it goes last, so the positive comes first
    assert metrics.charades_video_map(np.repeat(scores, 2, 1), [[0, 0], [1, 0], [0, 1]]) == (1 + 1 / 2) / 2


@settings(deadline=None)
@given(tables())
def test_apmeter_counts_classes_without_positives_as_0(table: tuple[Table, Table]) -> None:
    scores, labels = table
    values = [ranked_ap(s, y) if y.any() else 0.0 for s, y in zip(scores.T, labels.T, strict=True)]
    assert same(metrics.apmeter_map(scores, labels), sum(values) / len(values))


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 10_000))
def test_ms_tct_samples_25_rows_of_longer_videos_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for lengths in ([26, 25, 0], [49, 50, 51], [7, 100, 999], [3, 25]):
        scores = [rng.permutation(n * 2).reshape(n, 2) / (2 * n + 1) + rng.random() for n in lengths]
        labels = [(rng.random((n, 2)) < [0.4, 0.0]).astype(int) for n in lengths]
        pool = [
            (table[t], truth[t])
            for table, truth in zip(scores, labels, strict=True)
            if len(table) > 25
            for t in list(range(1, len(table), int(len(table) / 25.0)))[:25]
        ]
        if not pool:
            assert math.isnan(metrics.mstct_25_map(scores, labels))
            continue
        of_class = ranked_ap(np.array([s[0] for s, _ in pool]), np.array([y[0] for _, y in pool]))
        assert same(metrics.mstct_25_map(scores, labels), of_class / 2)  # the second class has no positive
    with pytest.raises(ValueError, match="1 videos have scores, 2 have labels"):
        metrics.mstct_25_map(scores[:1], labels)


def test_top1_takes_the_first_of_the_highest() -> None:
    scores = np.array([[0.1, 0.9], [0.5, 0.5], [0.5, 0.5], [0.7, 0.2]])
    assert metrics.top1_accuracy(scores, [1, 0, 1, 0]) == 0.75
    assert math.isnan(metrics.top1_accuracy(np.empty((0, 3)), np.empty(0, int)))
    with pytest.raises(ValueError, match="0 to 1"):
        metrics.top1_accuracy(scores, [0, 0, 0, 2])


def slow_localize(scores: list[Table], segments: list[list[tuple[int, float, float]]], durations: list[float]) -> float:
    num_classes = scores[0].shape[1]
    conf: list[list[float]] = [[] for _ in range(num_classes)]
    truth: list[list[int]] = [[] for _ in range(num_classes)]
    for table, spans, duration in zip(scores, segments, durations, strict=True):
        for j in range(25):
            moment = j / 25 * duration
            for c in range(num_classes):
                conf[c].append(table[j * len(table) // 25][c] if len(table) else -math.inf)
                truth[c].append(int(any(k == c and start <= moment <= end for k, start, end in spans)))
    return mean_known([ranked_ap(np.array(conf[c]), np.array(truth[c])) for c in range(num_classes)])


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10_000))
def test_charades_localisation_on_ragged_videos_is_what_the_definition_says(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(3):
        lengths = rng.integers(0, 60, 4)
        scores = [np.round(rng.random((length, 3)), 1) for length in lengths]
        durations = rng.integers(5, 40, 4).astype(float).tolist()
        segments = [
            [
                (int(rng.integers(3)), float(rng.integers(-2, duration + 3)), float(rng.integers(-2, duration + 3)))
                for _ in range(rng.integers(0, 5))
            ]
            for duration in durations
        ]  # reversed ones and such past the end among them
        assert same(
            metrics.charades_localize_map(scores, segments, durations), slow_localize(scores, segments, durations)
        )


def test_charades_localisation_counts_both_ends_of_a_segment() -> None:
    scores = np.zeros((25, 1))
    scores[5:11] = 1.0  # times 5 to 10 s of 25 s
    assert metrics.charades_localize_map([scores], [[(0, 5.0, 10.0)]], [25.0]) == 1.0


def slow_conditional(
    probs: list[Table], labels: list[Table], tau: int, threshold: float, window: str
) -> dict[str, float]:
    pairs: list[tuple[float, float, float, float]] = []
    num_classes = labels[0].shape[1]
    for i in range(num_classes):
        for j in range(num_classes):
            p, y = [], []
            for of_video, truth in zip(probs, labels, strict=True):
                for t in range(len(truth)):
                    first = max(0, t - tau if window == "paper" else t - tau + 1)
                    before = any(truth[s][j] for s in range(first, t + 1))
                    if (truth[t][j] == 1) if tau == 0 else (truth[t][j] == 0 and before):
                        p.append(of_video[t][i])
                        y.append(truth[t][i])
            if i != j and sum(y) > 0:
                predicted = [value >= threshold for value in p]
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    precision, recall, f1, _ = oracle.precision_recall_fscore_support(
                        y, predicted, average="binary", zero_division=0
                    )
                pairs.append((precision, recall, f1, float(oracle.average_precision_score(y, p))))
    means = [sum(column) / len(pairs) for column in zip(*pairs, strict=True)] if pairs else [math.nan] * 4
    return {**dict(zip(("precision", "recall", "f1", "map"), means, strict=True)), "num_pairs": len(pairs)}


@pytest.mark.parametrize(
    ("tau", "window"), [(0, "paper"), (1, "paper"), (4, "paper"), (0, "official"), (3, "official")]
)
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_action_conditional_on_ragged_videos_is_what_the_definition_says(tau: int, window: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = [*rng.integers(1, 9, 3), 0]
    probs = [np.round(rng.random((length, 4)), 1) for length in lengths]
    labels = [(rng.random((length, 4)) < 0.3).astype(int) for length in lengths]
    found = metrics.action_conditional(probs, labels, tau, 0.6, window)
    expected = slow_conditional(probs, labels, tau, 0.6, window)
    assert found.keys() == expected.keys()
    assert all(same(found[name], expected[name]) for name in expected)


def test_a_window_of_the_official_code_is_that_of_the_paper_one_shorter() -> None:
    rng = np.random.default_rng(5)
    probs, labels = [rng.random((30, 5))], [(rng.random((30, 5)) < 0.2).astype(int)]
    official = metrics.action_conditional(probs, labels, 6, window="official")
    assert official == metrics.action_conditional(probs, labels, 5)


def test_a_condition_never_reaches_into_the_next_video() -> None:
    first, second = np.array([[0, 1]]), np.array([[1, 0]])  # class 1 ends one video, class 0 begins the next
    probs = [np.full((1, 2), 0.9)] * 2
    assert metrics.action_conditional(probs, [first, second], tau=3)["num_pairs"] == 0
    joined = metrics.action_conditional([np.full((2, 2), 0.9)], [np.concatenate([first, second])], tau=3)
    assert joined["num_pairs"] == 1


def test_f1_is_the_mean_over_pairs_and_not_the_harmonic_mean_of_means() -> None:
    # (0 given 2): precision 1, recall 1/2, f1 2/3;  (1 given 2): 1/2, 1, 2/3;  the others, given 0 or 1, have 2 always
    labels = np.array([[1, 0, 1], [1, 0, 1], [0, 1, 1], [0, 0, 1]])
    probs = np.array([[0.9, 0.9, 0.9], [0.1, 0.1, 0.9], [0.1, 0.9, 0.9], [0.1, 0.1, 0.9]])
    found = metrics.action_conditional([probs], [labels])
    assert found["num_pairs"] == 4
    assert found["f1"] == pytest.approx((2 / 3 + 2 / 3 + 1 + 1) / 4)


def test_one_pair_is_the_ap_on_the_rows_of_the_condition() -> None:
    rng = np.random.default_rng(2)
    probs, labels = [rng.random((40, 3))], [(rng.random((40, 3)) < 0.4).astype(int)]
    rows = labels[0][:, 2] == 1
    expected = sklearn_ap(probs[0][rows, 0], labels[0][rows, 0])
    assert same(metrics.action_conditional_pair(probs, labels, 0, 2), expected)
    assert math.isnan(metrics.action_conditional_pair(probs, [np.zeros((40, 3))], 0, 2))


@pytest.mark.parametrize(("tau", "window"), [(-1, "paper"), (1, "official"), (0, "mine")])
def test_windows_that_mean_nothing_are_refused(tau: int, window: Any) -> None:
    with pytest.raises(ValueError, match="window"):
        metrics.action_conditional([np.zeros((3, 2))], [np.zeros((3, 2))], tau, window=window)


def test_the_real_multithumos_has_as_many_pairs_that_co_occur_as_the_field_says(shared_data: Path) -> None:
    """1336 on the grid of metrics.md section 2; the paper counts 1322 on a grid that it does not give."""
    labels = read_labels(shared_data / "labels/multithumos.json")
    test = {video: entry for video, entry in labels.videos.items() if entry.subset == "test"}
    truth = [labels.rows(v, np.zeros((math.floor(3 * (e.duration or 0)), 2))) for v, e in test.items()]
    found = metrics.action_conditional([table.astype(np.float32) for table in truth], truth)
    assert (found["num_pairs"], found["map"], found["f1"]) == (1336, 1.0, 1.0)


def slow_gap(scores: Table, labels: Table, top_k: int) -> float:
    pool = []
    for row, truth in zip(scores, labels, strict=True):
        best = sorted(range(len(row)), key=lambda c: -row[c])[:top_k]
        pool += [(row[c], truth[c]) for c in best]
    return found_ap(pool, labels.sum())


def slow_yt8m_map(scores: Table, labels: Table, top_k: int) -> float:
    kept = [set(sorted(range(len(row)), key=lambda c: -row[c])[:top_k]) for row in scores]
    values = []
    for c in range(scores.shape[1]):
        pool = [(scores[v, c], labels[v, c]) for v in range(len(scores)) if c in kept[v]]
        values.append(found_ap(pool, labels[:, c].sum()))
    return mean_known(values)


def found_ap(pool: list[tuple[float, int]], positives: int) -> float:
    """Sum of precision at the positives of the pool, over all positives there are."""
    found, total = 0, 0.0
    for passed, (_, hit) in enumerate(sorted(pool, reverse=True), 1):
        found += hit
        total += hit * found / passed
    return total / positives if positives else math.nan


@pytest.mark.parametrize("top_k", [1, 3, 20])
@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10_000))
def test_the_youtube_metrics_are_what_the_definition_says(top_k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for positive in (0.0, 0.1, 0.4):
        scores, labels = untied(rng, 12, 6, positive)
        assert same(metrics.global_average_precision(scores, labels, top_k), slow_gap(scores, labels, top_k))
        assert same(metrics.yt8m_map(scores, labels, top_k), slow_yt8m_map(scores, labels, top_k))
    with pytest.raises(ValueError, match="top_k"):
        metrics.global_average_precision(scores, labels, 0)


@settings(deadline=None)
@given(tables())
def test_precision_at_equal_recall_is_what_the_definition_says(table: tuple[Table, Table]) -> None:
    scores, labels = table
    shares, hits = [], []
    for row, truth in zip(scores, labels, strict=True):
        best = sorted(range(len(row)), key=lambda c: -row[c])
        top = best[: truth.sum()]
        shares.append(sum(truth[c] for c in top if row[c] > 0) / len(top) if top else 0.0)
        hits.append(truth[best[0]])
    assert same(metrics.precision_at_equal_recall(scores, labels), sum(shares) / len(shares))
    assert same(metrics.hit_at_1(scores, labels), sum(hits) / len(hits))


@settings(deadline=None)
@given(tables())
def test_the_multilabel_metrics_are_scikit_learns(table: tuple[Table, Table]) -> None:
    probs, labels = table
    if probs.shape[1] == 1:  # scikit-learn takes one column for a binary problem
        probs, labels = np.repeat(probs, 2, 1), np.repeat(labels, 2, 1)
    predicted = (probs >= 0.5).astype(int)
    jaccard = functools.partial(oracle.jaccard_score, labels, predicted, zero_division=0)
    expected = {
        "hamming": oracle.hamming_loss(labels, predicted),
        "zero_one": oracle.zero_one_loss(labels, predicted),
        "ranking": oracle.label_ranking_loss(labels, probs),
        "coverage": oracle.coverage_error(labels, probs),
        "jaccard_samples": jaccard(average="samples"),
        "jaccard_macro": jaccard(average="macro"),
        "jaccard_micro": jaccard(average="micro"),
        "lrap": oracle.label_ranking_average_precision_score(labels, probs),
    }
    found = metrics.multilabel_metrics(probs, labels)
    assert found.keys() == expected.keys()
    assert all(same(found[name], float(expected[name])) for name in expected), (found, expected)


def test_rows_in_blocks_give_what_all_at_once_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    probs, labels = untied(np.random.default_rng(0), 50, 7)
    whole = metrics.multilabel_metrics(probs, labels)
    monkeypatch.setattr("heads.metrics_tagging.BLOCK", 21)  # three rows at a time
    assert metrics.multilabel_metrics(probs, labels) == whole


@settings(deadline=None)
@given(tables(), st.sampled_from([0.3, 0.5]))
def test_the_weighted_metrics_are_scikit_learns(table: tuple[Table, Table], threshold: float) -> None:
    probs, labels = table
    if probs.shape[1] == 1:
        probs, labels = np.repeat(probs, 2, 1), np.repeat(labels, 2, 1)
    found = metrics.weighted_metrics(probs, labels, threshold)
    if not labels.any():
        assert all(math.isnan(value) for value in found.values())
        return
    precision, recall, f1, _ = oracle.precision_recall_fscore_support(
        labels, probs >= threshold, average="weighted", zero_division=0
    )
    present = labels.any(axis=0)
    weighted = oracle.average_precision_score(labels[:, present], probs[:, present], average="weighted")
    macro = oracle.average_precision_score(labels[:, present], probs[:, present], average="macro")
    expected = {"map_weighted": weighted, "map_macro": macro, "precision": precision, "recall": recall, "f1": f1}
    assert all(same(found[name], float(expected[name])) for name in expected), (found, expected)


def test_all_ones_have_the_f1_that_stans_table_gives_its_random_row() -> None:
    """F1 = 2s / (N + s) of a class with s positives among N: metrics.md section 5."""
    labels = np.zeros((754, 2), np.int8)
    labels[:200, 0] = 1
    found = metrics.weighted_metrics(np.ones((754, 2)), labels)
    assert found["f1"] == pytest.approx(400 / 954)
    assert found["precision"] == pytest.approx(200 / 754)


def test_stans_random_row_follows_from_its_counts_alone() -> None:
    """Table 3 of the paper, support and F1 of 19 genres: spec/heads.md section 5.4, metrics.md section 5."""
    support = [130, 197, 46, 13, 224, 102, 87, 267, 117, 115, 44, 104, 41, 86, 107, 30, 45, 12, 21]
    printed = [0.29, 0.41, 0.11, 0.03, 0.46, 0.24, 0.21, 0.52, 0.27, 0.26, 0.11, 0.24, 0.1, 0.2, 0.25, 0.08, 0.11]
    printed += [0.03, 0.05]
    labels = (np.arange(754)[:, None] < np.array(support)).astype(np.int8)
    ones = np.ones(labels.shape)
    alone = [metrics.weighted_metrics(ones[:, [c]], labels[:, [c]])["f1"] for c in range(19)]
    np.testing.assert_allclose(alone, printed, rtol=0, atol=0.00501)
    found = metrics.weighted_metrics(ones, labels)
    assert (round(found["precision"], 3), found["recall"], round(found["f1"], 3)) == (0.194, 1.0, 0.313)


@settings(deadline=None)
@given(tables())
def test_best_thresholds_are_those_of_the_best_f1(table: tuple[Table, Table]) -> None:
    scores, labels = table
    found = best_thresholds(scores, labels)
    for of_class, truth, threshold in zip(scores.T, labels.T, found, strict=True):
        if not truth.any():
            assert math.isnan(threshold)
            continue
        f1 = {cut: float(oracle.f1_score(truth, of_class >= cut)) for cut in sorted(set(of_class))}
        best = max(f1.values())
        assert threshold == max(cut for cut, value in f1.items() if value >= best - 1e-12)


def test_of_two_best_thresholds_the_higher_is_taken() -> None:
    scores = np.array([[0.9], [0.7], [0.6], [0.5]])  # from .9 on: 1 of 1, of two; from .5 on: 2 of 4, of two
    assert best_thresholds(scores, np.array([[1], [0], [0], [1]])).tolist() == [0.9]


@settings(deadline=None, max_examples=50)
@given(tables(), st.data())
def test_a_threshold_for_each_class_is_as_if_each_were_scored_alone(
    table: tuple[Table, Table], data: st.DataObject
) -> None:
    scores, labels = table
    cuts = np.array(
        data.draw(st.lists(st.sampled_from([0.2, 0.5, 0.7]), min_size=len(scores[0]), max_size=len(scores[0])))
    )
    shifted = (scores >= cuts).astype(float)  # at 0.5 these are the same predictions
    for metric in (metrics.multilabel_metrics, metrics.weighted_metrics):
        ours, theirs = metric(scores, labels, cuts), metric(shifted, labels)
        for name in {"hamming", "zero_one", "jaccard_macro", "precision", "recall", "f1"} & set(ours):
            assert same(ours[name], theirs[name])
    ours = metrics.action_conditional([scores], [labels], threshold=cuts)
    theirs = metrics.action_conditional([shifted], [labels])
    assert all(same(ours[name], theirs[name]) for name in ("precision", "recall", "f1"))


@pytest.mark.parametrize("metric", [metrics.global_average_precision, metrics.yt8m_map])
def test_minus_infinity_is_no_prediction_for_the_youtube_metrics(metric: Callable[..., Any]) -> None:
    """A submission lists some classes: a positive that is not listed is never found, wherever it would stand."""
    listed = np.array([[0.9, -np.inf, -np.inf], [-np.inf, 0.6, -np.inf], [0.5, -np.inf, 0.4]])
    labels = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0]])
    # GAP: hits at ranks 1 and 2 of four positives; MAP: class 0 finds one of two first, 1 all, 2 none of one
    expected = 2 / 4 if metric is metrics.global_average_precision else (1 / 2 + 1 + 0) / 3
    assert metric(listed, labels) == pytest.approx(expected)


TABLE_METRICS: list[Callable[..., Any]] = [
    metrics.class_average_precision,
    metrics.frame_map,
    metrics.video_map,
    metrics.charades_video_map,
    metrics.apmeter_map,
    metrics.global_average_precision,
    metrics.yt8m_map,
    metrics.precision_at_equal_recall,
    metrics.hit_at_1,
    metrics.multilabel_metrics,
    metrics.weighted_metrics,
]


@pytest.mark.parametrize("metric", TABLE_METRICS)
def test_nan_unequal_shapes_and_strange_labels_are_refused(metric: Callable[..., Any]) -> None:
    scores, labels = np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[0, 1], [1, 0]])
    with pytest.raises(ValueError, match="1 of 4 scores are nan"):
        metric(np.where(scores == 0.3, np.nan, scores), labels)
    with pytest.raises(ValueError, match="alike"):
        metric(scores, labels[:1])
    with pytest.raises(ValueError, match="not 2"):
        metric(scores, labels * 2)


@pytest.mark.parametrize("metric", TABLE_METRICS)
def test_no_row_and_no_positive_give_nan_and_no_warning(metric: Callable[..., Any]) -> None:
    def numbers(found: Any) -> list[float]:
        return list(found.values()) if isinstance(found, dict) else np.ravel(found).tolist()

    assert all(map(math.isnan, numbers(metric(np.empty((0, 3)), np.empty((0, 3))))))
    without = metric(np.full((2, 3), 0.1), np.zeros((2, 3)))
    if metric is metrics.apmeter_map:
        assert without == 0.0
    elif metric not in (metrics.precision_at_equal_recall, metrics.hit_at_1, metrics.multilabel_metrics):
        assert all(map(math.isnan, numbers(without)))


def test_nan_unequal_shapes_and_strange_labels_are_refused_in_lists_of_videos_too() -> None:
    probs, labels = np.array([[0.1, 0.2], [0.3, 0.4]]), np.array([[0, 1], [1, 0]])
    for metric in (metrics.action_conditional, metrics.mstct_25_map):
        with pytest.raises(ValueError, match="1 of 4 scores are nan"):
            metric([np.where(probs == 0.3, np.nan, probs)], [labels])
        with pytest.raises(ValueError, match="alike"):
            metric([probs], [labels[:1]])
        with pytest.raises(ValueError, match="not 2"):
            metric([probs], [labels * 2])
        with pytest.raises(ValueError, match="1 videos have"):
            metric([probs], [])
    with pytest.raises(ValueError, match="differ in classes"):
        metrics.action_conditional([probs, probs[:, :1]], [labels, labels[:, :1]])
    with pytest.raises(ValueError, match="of 50 scores are nan"):
        metrics.charades_localize_map([np.full((4, 2), np.nan)], [[]], [3.0])
    with pytest.raises(ValueError, match=r"\(T, 2\) for all videos"):
        metrics.charades_localize_map([probs, probs[:, :1]], [[], []], [3.0, 3.0])
    with pytest.raises(ValueError, match="0 to 1"):
        metrics.charades_localize_map([probs], [[(2, 0.0, 1.0)]], [3.0])
    with pytest.raises(ValueError, match="1 videos have scores, 1 segments, 2 durations"):
        metrics.charades_localize_map([probs], [[]], [3.0, 3.0])


def test_a_single_video_is_a_data_set() -> None:
    probs, labels = np.array([[0.9, 0.2]]), np.array([[1, 0]])
    values = [metric(probs, labels) for metric in TABLE_METRICS if metric not in (metrics.multilabel_metrics,)]
    numbers = [
        value for found in values for value in np.ravel(list(found.values()) if isinstance(found, dict) else found)
    ]
    assert {value for value in numbers if not math.isnan(value)} == {1.0, 0.5}  # 0.5: apmeter counts the empty class
    assert metrics.multilabel_metrics(probs, labels)["zero_one"] == 0.0


def test_metrics_of_no_video_are_nan() -> None:
    assert math.isnan(metrics.mstct_25_map([], []))
    assert math.isnan(metrics.average_precision([], []))
    assert math.isnan(metrics.charades_localize_map([], [], []))
    found = metrics.action_conditional([], [])
    assert (found["num_pairs"], math.isnan(found["map"])) == (0, True)


@pytest.mark.parametrize("metric", [metrics.multilabel_metrics, metrics.weighted_metrics])
def test_logits_are_refused_where_a_threshold_needs_probabilities(metric: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="probabilities lie in"):
        metric(np.array([[-1.5, 2.0]]), np.array([[0, 1]]))
    with pytest.raises(ValueError, match="probabilities lie in"):
        metrics.action_conditional([np.array([[-1.5, 2.0]])], [np.array([[0, 1]])])


@pytest.mark.parametrize(
    "metric", [metric for metric in TABLE_METRICS if metric is not metrics.class_average_precision]
)
def test_a_million_rows_are_no_loop(metric: Callable[..., Any]) -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((500_000, 2), dtype=np.float32)  # a million numbers
    labels = rng.integers(0, 2, scores.shape, dtype=np.int8)
    began = time.process_time()
    metric(scores, labels)
    assert time.process_time() - began < 5  # a loop over rows takes half a minute


def test_a_million_rows_of_conditions_and_of_localisation_are_no_loop() -> None:
    rng = np.random.default_rng(0)
    probs = list(rng.random((100, 10_000, 2), dtype=np.float32))
    labels = list(rng.integers(0, 2, (100, 10_000, 2), dtype=np.int8))
    began = time.process_time()
    assert metrics.action_conditional(probs, labels, tau=20)["num_pairs"] == 2
    metrics.charades_localize_map(probs, [[(0, 1.0, 2.0)]] * 100, np.full(100, 30.0))
    metrics.mstct_25_map(probs, labels)
    assert time.process_time() - began < 10


def test_a_million_rows_take_seconds() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((1_000_000, 3), dtype=np.float32)
    labels = (rng.random(scores.shape, dtype=np.float32) < scores / 10).astype(np.int8)
    began = time.process_time()
    found = metrics.class_average_precision(scores, labels)
    assert time.process_time() - began < 10  # a loop over rows takes minutes
    assert found[0] == pytest.approx(sklearn_ap(scores[:, 0], labels[:, 0]), abs=1e-12)
