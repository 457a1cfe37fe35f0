"""What position alone gives."""

import numpy as np
import pytest

from heads import metrics
from heads.position import position_only_scores


def seconds(rows: int, of: float = 1.0) -> np.ndarray:
    return np.stack([np.arange(rows), np.arange(1, rows + 1)], axis=1) * of


def test_a_class_scores_how_often_it_is_present_at_that_time() -> None:
    first = np.array([[1, 0], [0, 1], [0, 1]])
    second = np.array([[1, 0], [1, 0], [0, 1]])
    found = position_only_scores([first, second], [seconds(3), seconds(3)], seconds(3), bins=3)
    shares = np.array([[1, 0], [0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(found, (2 * shares + 0.5) / 3)  # two rows a second, and one at the overall share


def test_relative_positions_compare_videos_of_different_length() -> None:
    labels = np.array([[1], [0]])
    found = position_only_scores([labels], [seconds(2, of=10.0)], seconds(2, of=1.0), relative=True, bins=2)
    np.testing.assert_allclose(found[:, 0], [0.75, 0.25])
    absolute = position_only_scores([labels], [seconds(2, of=10.0)], seconds(2, of=1.0), bins=2)
    np.testing.assert_allclose(absolute[:, 0], [0.75, 0.75])


def test_unknown_labels_and_unseen_times_take_the_overall_share() -> None:
    found = position_only_scores([np.array([[1], [-1], [0]])], [seconds(3)], seconds(5), bins=3)
    np.testing.assert_allclose(found[:, 0], [0.75, 0.5, 0.25, 0.25, 0.25])
    with pytest.raises(ValueError, match="0 training videos"):
        position_only_scores([], [], seconds(2))


def test_position_alone_beats_chance_where_order_is_fixed() -> None:
    rng = np.random.default_rng(0)
    labels = [np.repeat(np.eye(3, dtype=int), rng.integers(2, 5, 3), axis=0) for _ in range(40)]
    times = [seconds(len(table)) for table in labels]
    scores = [position_only_scores(labels[:30], times[:30], rows, relative=True) for rows in times[30:]]
    truth = np.concatenate(labels[30:])
    assert metrics.frame_map(np.concatenate(scores), truth) > 0.8 > 2 * truth.mean()
