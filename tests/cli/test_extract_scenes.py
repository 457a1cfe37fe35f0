"""`vl extract --level scene`, and what `vl train-head stan` makes of it, as their user meets them."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from extract.synthetic import encode_video
from stores import open_store

ROOT = Path(__file__).parents[2]


def vl(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four labelled clips of 0.8 s in `videos/`, the first of two shots."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "videos").mkdir()
    for index in range(4):
        shots = np.random.default_rng(index).integers(0, 256, (2, 6, 8, 3)).astype(np.uint8)
        pictures = np.kron(shots, np.ones((1, 8, 8, 1), np.uint8))
        frames = (pictures[int(index == 0 and frame >= 13)] for frame in range(20))
        encode_video(folder / "videos" / f"{index}.mp4", frames, fps=25)
    subsets = ("train", "train", "val", "test")
    lines = [f"{index}.mp4,{'ab'[index % 2]},{subset}" for index, subset in enumerate(subsets)]
    (folder / "videos" / "labels.csv").write_text("\n".join(["video,label,subset", *lines]))
    return folder


@pytest.mark.slow
def test_scenes_without_a_backbone_are_a_store_for_stan(place: Path) -> None:
    done = vl("extract", "videos", "--level", "scene", "--weights", "random", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "resnet18.rgb.scene: rows (512,) float16, one a scene (intensity), random" in done.stderr
    store = open_store(place / "store.zarr")
    assert list(store) == ["r2plus1d_18.rgb.scene", "resnet18.rgb.scene"]
    for name in store:
        np.testing.assert_allclose(store[name].times("0.mp4"), [(0, 0.52), (0.52, 0.8)])
        np.testing.assert_allclose(store[name].times("1.mp4"), [(0, 0.8)])
    small = ("--set", "num_layers=1", "--set", "embed=8", "--set", "ffn=8", "--set", "steps=3")
    trained = vl("train-head", "stan", "--features", "store.zarr", *small, cwd=place)
    assert trained.returncode == 0, trained.stderr
    assert "resnet18.rgb.scene + r2plus1d_18.rgb.scene" in trained.stdout + trained.stderr
    assert (place / "runs" / "stan-001" / "test.zarr").is_dir()


def test_settings_of_scenes_reach_the_store(place: Path, tmp_path: Path) -> None:
    words = ("--backbone", "efficientnet_lite0", "--level", "scene", "--min-scene", "0.1", "--max-scene", "0.4")
    done = vl("extract", place / "videos", *words, "--scene-detector", "intensity", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    scenes = open_store(tmp_path / "store.zarr")["efficientnet_lite0.rgb.scene"]
    assert (scenes.spec.settings["min_scene"], scenes.spec.settings["max_scene"]) == (0.1, 0.4)
    np.testing.assert_allclose(scenes.times("0.mp4"), [(0, 0.4), (0.4, 0.52), (0.52, 0.8)])
    np.testing.assert_allclose(scenes.times("1.mp4"), [(0, 0.4), (0.4, 0.8)])
    dry = vl("extract", place / "videos", *words, "--dry-run", "--out", "other.zarr", cwd=tmp_path)
    assert "efficientnet_lite0.rgb.scene: about 0.0 MB" in dry.stdout, dry.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name at least one --backbone"),
        (("--level", "clip,scene"), "name at least one --backbone"),
        (("--level", "scene", "--scene-detector", "eyes"), "there is no scene detector 'eyes'"),
        (("--level", "scene", "--min-scene", "-1"), "--min-scene -1"),
        (("--backbone", "logmel", "--max-scene", "5"), "--level scene"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_2(place: Path, words: tuple[str, ...], said: str) -> None:
    done = vl("extract", "videos", *words, "--out", "none.zarr", cwd=place)
    assert (done.returncode, said in done.stderr, done.stderr.count("\n")) == (2, True, 1), done.stderr
    assert not (place / "none.zarr").exists()
