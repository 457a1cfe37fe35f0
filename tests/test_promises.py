"""What the project promises as a whole, from videos to a score."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from extract.extract_options import ExtractOptions
from extract.plan import make_plan
from extract.synthetic import generate
from extract.transform import resize_and_crop
from heads.checkpoint import load_run
from heads.head import Batch
from stores import open_store
from stores.spec import Granularity

ROOT = Path(__file__).parents[1]


def vl(*words: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small labelled videos in `videos/`."""
    folder = tmp_path_factory.mktemp("place")
    generate(folder / "videos", clips=10, seconds=3.0, seed=3, size=(64, 64))
    return folder


def test_three_bare_commands_give_a_score(place: Path) -> None:
    extracted = vl("extract", "--backbone", "logmel", "videos/", cwd=place)
    assert "10 done" in extracted
    trained = vl("train-head", "linear", "--features", "store.zarr", "--set", "steps=30", cwd=place)
    assert "frame-map" in trained
    scored = vl("score", cwd=place)
    assert scored.splitlines()[0] == "runs/linear-001/test.zarr"
    assert "2 of 2 videos scored" in scored
    assert "frame-map" in scored
    vl("predict", "store.zarr", "--head", "runs/linear-001", cwd=place)
    scores = open_store(place / "predictions.zarr")["scores"]
    assert len(scores) == 10


@pytest.mark.parametrize("head", ["mlad", "tconv", "meanpool"])
def test_stored_features_and_head_give_the_whole_models_scores(place: Path, tmp_path: Path, head: str) -> None:
    """Frames through network and head in one go, in float32, against extract, store and predict in float16."""
    backbone = ("--backbone", "efficientnet_lite0", "--fps", "4")
    vl("extract", *backbone, place / "videos", "--out", tmp_path / "s.zarr", cwd=tmp_path)
    small = ("--set", "embed=8", "--set", "num_layers=1", "--set", "window=64") if head == "mlad" else ()
    more = ("--set", "steps=20", "--batch-size", "2", "--out", "run")
    vl("train-head", head, "--features", "s.zarr", *small, *more, cwd=tmp_path)
    vl("predict", "s.zarr", "--head", "run", cwd=tmp_path)
    predicted = open_store(tmp_path / "predictions.zarr")["scores"]
    network = make_plan(ExtractOptions(("efficientnet_lite0",), fps={"": 4.0}, device="cpu")).networks[0].backbone
    model = load_run(tmp_path / "run").model
    for video in list(predicted)[:3]:
        with av.open(str(place / "videos" / video)) as container:
            shown = [(frame.time or 0.0, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
        end = shown[-1][0] + 1 / 25
        seconds = [k / 4 for k in range(int(np.ceil(end * 4 - 1e-6)))]
        wanted = [[image for time, image in shown if time <= second + 0.001][-1] for second in seconds]
        frames = resize_and_crop(torch.from_numpy(np.stack(wanted)), 256, 224)
        with torch.inference_mode():
            x_BND = network(frames[None], frozenset({Granularity.FRAME}))[Granularity.FRAME]
            mask = torch.ones(x_BND.shape[:2], dtype=torch.bool)
            batch = Batch({"x": x_BND}, {"x": mask}, torch.zeros(*x_BND.shape[:2], 2))
            expected = model(batch).probabilities()[0].numpy()
        found = predicted.read(video).features
        assert np.ptp(expected) > 0.01, "the head says the same of everything: the test would show nothing"
        np.testing.assert_allclose(found.reshape(expected.shape), expected, atol=2e-3)
