"""Statistics of labels against loops that spell out their definitions, and against what the field knows."""

import csv
import math
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores import label_tables
from stores.label_files import read_labels
from stores.label_stats import follows, statistics, together
from stores.labels import IGNORED, LabelError, Labels, VideoLabels

NAMES = ("run", "jump", "fall", "sit")
# Times on a grid of quarters: sums and comparisons are exact.
quarters = st.integers(0, 40).map(lambda number: number / 4)
segments = st.lists(st.tuples(st.integers(-1, 3), quarters, quarters), max_size=9)
videos = st.lists(segments, min_size=1, max_size=3)


def labels_of(found: list[list[tuple[int, float, float]]]) -> Labels:
    return Labels(NAMES, {f"v{at}": VideoLabels.of(part, duration=10.0) for at, part in enumerate(found)})


def slow_together(found: list[list[tuple[int, float, float]]]) -> list[list[float]]:
    """By counting the cells of an eighth of a second whose middle a segment holds."""
    seconds = [[0.0] * 4 for _ in range(4)]
    for part in found:
        for cell in range(80):
            middle = (cell + 0.5) / 8
            active = {index for index, start, end in part if index >= 0 and start < middle < end}
            for i in active:
                for j in active:
                    seconds[i][j] += 1 / 8
    return [[seconds[i][j] / seconds[i][i] if seconds[i][i] else math.nan for j in range(4)] for i in range(4)]


def slow_follows(found: list[list[tuple[int, float, float]]], within: float) -> list[list[float]]:
    followed = [[0] * 4 for _ in range(4)]
    count = [0] * 4
    for part in found:
        real = [segment for segment in part if segment[0] >= 0 and segment[2] > segment[1]]
        for i, _, end in real:
            count[i] += 1
            for j in {j for j, start, _ in real if 0 <= start - end <= within}:
                followed[i][j] += 1
    return [[followed[i][j] / count[i] if count[i] else math.nan for j in range(4)] for i in range(4)]


@settings(max_examples=80, deadline=None)
@given(videos)
def test_what_occurs_together_is_what_a_loop_over_time_counts(found: list[list[tuple[int, float, float]]]) -> None:
    labels = labels_of(found)
    if labels.timed:
        np.testing.assert_allclose(together(labels), slow_together(found), atol=1e-12)


@settings(max_examples=80, deadline=None)
@given(videos, quarters)
def test_what_follows_what_is_what_a_loop_over_pairs_counts(
    found: list[list[tuple[int, float, float]]], within: float
) -> None:
    np.testing.assert_allclose(follows(labels_of(found), within), slow_follows(found, within), atol=1e-12)


def test_long_videos_are_counted_in_parts_that_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    starts = rng.integers(0, 4000, 300) / 4
    found = zip(rng.integers(0, 4, 300).tolist(), starts.tolist(), (starts + 3).tolist(), strict=True)
    labels = Labels(NAMES, {"v": VideoLabels.of(found)})
    whole = together(labels)
    monkeypatch.setattr("stores.label_stats.MAX_PART", 40)
    np.testing.assert_allclose(together(labels), whole, atol=1e-12)


def test_counts_by_hand() -> None:
    labels = Labels(
        NAMES,
        {
            "a": VideoLabels.of([(0, 0, 2), (0, 4, 5), (1, 1, 9), (IGNORED, 9, 10)], duration=10.0, subset="train"),
            "b": VideoLabels.of([(0, 3, 1)], duration=26.0, subset="test", video_level=(2,)),
            "c": VideoLabels.of([], subset="test"),
        },
    )
    stats = statistics(labels, rate=1.0, within=2.0)
    train, test, every = stats.subsets
    assert (train.name, train.videos, train.empty, train.segments, train.max_classes) == ("train", 1, 0, 3, 2)
    assert (test.name, test.videos, test.empty, test.segments, test.segments_per_video) == ("test", 2, 1, 1, 0.5)
    assert (every.name, every.videos, every.hours) == ("all", 3, 0.01)
    # Rows at 0 to 9 s, ends open: run at 1; jump at 2 to 8. Row 9 is not yet ignored, for its start is open too.
    assert train.labels_per_row == pytest.approx(8 / 10)
    assert stats.videos_CU.tolist() == [[1, 1, 2], [1, 0, 1], [0, 1, 1], [0, 0, 0]]
    assert stats.segments_CU.tolist() == [[2, 1, 3], [1, 0, 1], [0, 0, 0], [0, 0, 0]]
    assert stats.total_C.tolist() == [3, 8, 0, 0]
    assert stats.mean_C[:2].tolist() == stats.median_C[:2].tolist() == [1.5, 8.0]
    assert np.isnan(stats.mean_C[2:]).all()
    assert stats.together_CC is not None
    assert stats.follows_CC is not None
    assert stats.together_CC[0, 1] == pytest.approx(2 / 3)  # of run's three seconds jump has [1, 2) and [4, 5)
    assert stats.follows_CC[0].tolist() == [0.5, 0.0, 0.0, 0.0]  # a run at 4 follows the one that ends at 2


def test_whole_videos_occur_together_by_their_number() -> None:
    levels = [(0, 1), (0,), (1,), (0, 1, 2)]
    labels = Labels(NAMES, {str(at): VideoLabels.of([], video_level=level) for at, level in enumerate(levels)})
    stats = statistics(labels)
    assert stats.together_CC is not None
    assert stats.together_CC[0, :3].tolist() == pytest.approx([1, 2 / 3, 1 / 3])
    assert stats.follows_CC is None
    assert stats.subsets[0].labels_per_row is None
    assert "labels a row" in label_tables.text(stats)


@pytest.mark.parametrize("name", ["rate", "within"])
def test_numbers_must_be_positive(name: str) -> None:
    with pytest.raises(LabelError, match=f"{name} must be positive"):
        statistics(labels_of([[]]), **{name: 0.0})


def test_a_video_without_end_is_refused() -> None:
    labels = Labels(NAMES, {"v": VideoLabels.of([(0, 0, 1e300)])})
    with pytest.raises(LabelError, match=r"'v' lasts 1e\+300 s"):
        statistics(labels)


# formats.md section 1 and metrics.md section 2: 3 rows a second, times k * duration / T, ends open.


def test_the_real_multithumos(shared_data: Path) -> None:
    train, test, every = statistics(read_labels(shared_data / "labels/multithumos.json")).subsets
    assert (train.videos, test.videos, every.segments, every.max_classes) == (200, 213, 38_690, 25)
    assert train.labels_per_row is not None
    assert test.labels_per_row is not None
    assert (round(train.labels_per_row, 3), round(test.labels_per_row, 3)) == (1.447, 1.556)


def test_the_real_charades(shared_data: Path) -> None:
    train, test, every = statistics(read_labels(shared_data / "labels/charades.json")).subsets
    assert (train.videos, test.videos, train.empty, test.empty) == (7985, 1863, 174, 49)
    assert (every.segments, round(every.segments_per_video, 2)) == (66_500, 6.75)


def test_the_tables_as_csv(tmp_path: Path) -> None:
    entry = VideoLabels.of([(0, 0, 2), (1, 1, 3)], subset="train")
    stats = statistics(Labels(("=run", "jump"), {"v": entry}))
    files = label_tables.write_csv(stats, tmp_path / "x.csv")
    assert files == (tmp_path / "x.csv", tmp_path / "x_pairs.csv")
    with files[0].open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[0] == {
        "class": "'=run",
        "videos_train": "1",
        "videos_all": "1",
        "segments_train": "1",
        "segments_all": "1",
        "seconds": "2.0",
        "mean": "2.0",
        "median": "2.0",
    }
    with files[1].open(newline="") as file:
        assert [row["together"] for row in csv.DictReader(file)] == ["0.5", "0.5"]


@pytest.mark.parametrize("count", [1, 65])
def test_the_picture_has_room_for_every_name(tmp_path: Path, count: int) -> None:
    """A class takes 0.15 inches at 110 dots an inch, in the bars and in both squares."""
    names = tuple(f"class number {index}" for index in range(count))
    labels = Labels(names, {"v": VideoLabels.of([(index, index, index + 2) for index in range(count)])})
    assert label_tables.write_picture(statistics(labels), tmp_path / "x.png") == count
    height, width, _ = matplotlib.image.imread(tmp_path / "x.png").shape
    assert height >= count * 16
    assert width >= 2 * count * 16


def test_of_very_many_classes_the_most_frequent_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_tables, "MOST", 3)
    names = tuple(f"$c_{index}$ \u00e9" for index in range(9))  # dollar signs are no formula here
    labels = Labels(names, {"v": VideoLabels.of([(index, 0, 1) for index in range(9)])})
    assert label_tables.write_picture(statistics(labels), tmp_path / "x.png") == 3
