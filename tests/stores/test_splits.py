"""Splits: whole videos, by lists, subsets or a hash; never in two places."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stores.labels import LabelError, Labels, VideoLabels
from stores.splits import split_videos

MANY = [f"{index:04}.mp4" for index in range(1000)]


def with_subsets(**subsets: str | None) -> Labels:
    return Labels(("run",), {video: VideoLabels.of([], subset=subset) for video, subset in subsets.items()})


def listed(folder: Path, name: str, videos: Sequence[str]) -> Path:
    path = folder / f"{name}.txt"
    path.write_text("\n".join(videos) + "\n")
    return path


def test_the_hash_splits_seventy_ten_twenty() -> None:
    split = split_videos(MANY, None, seed=0)
    assert sorted(video for videos in split.values() for video in videos) == MANY
    assert [len(split[name]) for name in ("train", "val", "test")] == pytest.approx([700, 100, 200], abs=45)  # 3 sd


def test_a_place_is_the_sha256_of_seed_and_id() -> None:
    split = split_videos(MANY, None, seed=7)
    for video in MANY:
        share = int(hashlib.sha256(f"7:{video}".encode()).hexdigest()[:12], 16) / 16**12
        place = "train" if share < 0.7 else "val" if share < 0.8 else "test"
        assert video in split[place]


def test_adding_videos_moves_no_other() -> None:
    before = split_videos(MANY[::2], None, seed=3)
    after = split_videos(MANY, None, seed=3)
    for name, videos in before.items():
        assert set(videos) <= set(after[name])


def test_another_seed_splits_otherwise() -> None:
    assert split_videos(MANY, None, seed=0) != split_videos(MANY, None, seed=1)


@given(st.integers(0, 10_000), st.integers(3, 12))
def test_three_videos_are_enough_for_three_splits(seed: int, count: int) -> None:
    split = split_videos(MANY[:count], None, seed=seed)
    assert all(split.values())
    assert sorted(video for videos in split.values() for video in videos) == MANY[:count]


def test_subsets_go_before_the_hash() -> None:
    labels = with_subsets(a="train", b="validation", c="Testing", d="training")
    split = split_videos(["a.mp4", "x/b.mp4", "c.mp4", "d.mp4", "unlabelled.mp4"], labels, seed=0)
    assert split == {"train": ["a.mp4", "d.mp4"], "val": ["x/b.mp4"], "test": ["c.mp4"]}


def test_validation_comes_from_train_where_nobody_named_any() -> None:
    labels = with_subsets(**{video: "test" if index < 300 else "train" for index, video in enumerate(MANY)})
    split = split_videos(MANY, labels, seed=0)
    assert split["test"] == MANY[:300]
    assert sorted(split["train"] + split["val"]) == MANY[300:]
    assert len(split["val"]) == pytest.approx(0.15 * 700, abs=30)
    small = split_videos(MANY[298:302], labels, seed=0)
    assert [len(small[name]) for name in ("train", "val", "test")] == [1, 1, 2]


@pytest.mark.parametrize(
    ("labels", "message"),
    [(with_subsets(a="train", b=None), "1 videos have no subset"), (with_subsets(a="train", b="fold3"), "'fold3'")],
)
def test_unclear_subsets_are_refused(labels: Labels, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        split_videos(["a", "b"], labels, seed=0)


def test_lists_go_before_subsets(tmp_path: Path) -> None:
    lists = {
        "train": listed(tmp_path, "train", ["# the good ones", "a", "", "sub/b.mp4  # shaky"]),
        "val": listed(tmp_path, "val", ["c"]),
        "test": listed(tmp_path, "test", ["d.mp4"]),
    }
    split = split_videos(["a.mp4", "sub/b.mp4", "c.mp4", "d.mp4", "e.mp4"], with_subsets(a="test"), seed=0, lists=lists)
    assert split == {"train": ["a.mp4", "sub/b.mp4"], "val": ["c.mp4"], "test": ["d.mp4"]}


def test_all_that_no_list_names_trains_where_train_has_no_list(tmp_path: Path) -> None:
    lists = {"val": listed(tmp_path, "val", ["b"]), "test": listed(tmp_path, "test", ["a"])}
    split = split_videos(["a.mp4", "b.mp4", "c.mp4", "d.mp4"], None, seed=0, lists=lists)
    assert split == {"train": ["c.mp4", "d.mp4"], "val": ["b.mp4"], "test": ["a.mp4"]}


def test_lists_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    good = listed(tmp_path, "good", ["a"])
    for lists, message in (
        ({"test": listed(tmp_path, "unknown", ["z"])}, "1 videos that are not among the 2 with labels: 'z'"),
        ({"train": good, "test": listed(tmp_path, "again", ["a.mp4"])}, "listed for train and again for test"),
        ({"holdout": good}, "no split 'holdout'"),
        ({"test": listed(tmp_path, "empty", ["# nobody"])}, "lists no video"),
        ({"test": tmp_path / "absent.txt"}, "cannot be read"),
    ):
        with pytest.raises(LabelError, match=message):
            split_videos(["a.mp4", "b.mp4"], None, seed=0, lists=lists)
