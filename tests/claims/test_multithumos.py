"""The synthesised store has the grid and the labels that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from stores import open_store
from stores.label_files import read_labels
from stores.labels import Labels
from tests.claims.multithumos import SET_NAME, grid, write_store


@pytest.fixture
def labels(tmp_path: Path) -> Labels:
    """`run` in the rows that start at 0.5 and 0.75 s of a second of video; `jump` nowhere in it."""
    path = tmp_path / "labels.csv"
    path.write_text("video,start,end,label,duration\na,0.4,0.9,run,1.3\nb,0,1.2,jump,1.3\n")
    return read_labels(path)


def test_the_grid_has_whole_rows_that_fill_the_video() -> None:
    assert grid(1.3).tolist() == pytest.approx(np.array([[0, 1.3 / 3], [1.3 / 3, 2.6 / 3], [2.6 / 3, 1.3]]))


def test_without_noise_equal_labels_are_equal_rows(labels: Labels, tmp_path: Path) -> None:
    assert write_store(labels, tmp_path / "s.zarr", width=8, noise=0.0) == 6
    features = open_store(tmp_path / "s.zarr")[SET_NAME]
    none, run, after = features.read("a").features  # they start at 0, .433 and .867 seconds; run lasts from .4 to .9
    assert not none.any()
    assert run.any()
    assert np.array_equal(run, after)
    jump = features.read("b").features
    assert np.array_equal(jump[0] * 0, none)
    assert not np.array_equal(jump[1], run)
    assert features.spec.weights == "made from the labels"


def test_noise_is_of_the_stated_size_in_the_sight_of_a_label(labels: Labels, tmp_path: Path) -> None:
    """With as many features as classes the map can be undone; the noise of 2 classes in 3 rows is then plain."""
    for noise in (0.0, 0.5):
        write_store(labels, tmp_path / f"{noise}.zarr", width=2, noise=noise)
    clean, noisy = (open_store(tmp_path / f"{noise}.zarr")[SET_NAME] for noise in (0.0, 0.5))
    a, b = clean.read("a").features[1].astype(float), clean.read("b").features[1].astype(float)
    undo = np.linalg.inv(np.stack([a, b]))  # rows of the map: a sight of run alone, and of jump alone
    drawn = np.concatenate([(noisy.read(v).features - clean.read(v).features.astype(float)) @ undo for v in "ab"])
    assert drawn.std() == pytest.approx(0.5, rel=0.5)


def test_on_this_grid_the_paper_s_pairs_of_classes_meet(shared_data: Path) -> None:
    """1,336 ordered pairs of classes share a row of a test video of MultiTHUMOS, which has 413 videos."""
    labels = read_labels(shared_data / "labels" / "multithumos.json")
    assert len(labels.videos) == 413
    together = np.zeros((65, 65), np.int64)
    for video, entry in labels.videos.items():
        if entry.subset == "test" and entry.duration:
            present = (labels.rows(video, grid(entry.duration), "start", "strict") == 1).astype(np.int64)
            together += present.T @ present
    np.fill_diagonal(together, 0)
    assert np.count_nonzero(together) == 1336
