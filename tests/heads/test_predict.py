"""Scores of overlapping windows: averaged as probabilities, every real row once."""

from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch

from heads.checkpoint import Run, create_run, load_run
from heads.head import Batch, Head, HeadError, Scores
from heads.mlad import Mlad
from heads.options import split_settings
from heads.plan import window_starts
from heads.predict import Reading, score_videos
from heads.run import carry_out
from heads.run_plan import plan_run
from heads.score_store import predict_store
from heads.sources import choose_sources
from heads.standardise import Model
from heads.windows import Windows
from stores import open_store
from stores.errors import SpecMismatchError
from stores.spec import Granularity
from stores.zarr_store import ZarrWriter
from tests.heads.feature_stores import Silent, flat_spec, planted, write_store

CPU = torch.device("cpu")


class PlaceInWindow(Head):
    """A logit that depends on the row's place in its window, so that averaging shows."""

    name: ClassVar[str] = "place"
    level: ClassVar[Literal["row", "video"]] = "row"
    accepts: ClassVar[frozenset[Granularity]] = frozenset({Granularity.FRAME})
    config_class: ClassVar[type[Any]] = object

    def forward(self, batch: Batch) -> Scores:
        place_N = torch.arange(batch.features["x"].shape[1], dtype=torch.float32)
        return Scores(batch.features["x"][..., :1] + place_N[None, :, None])


def test_overlapping_windows_are_averaged_after_the_sigmoid(tmp_path: Path) -> None:
    lengths = [3, 8, 9, 21]
    features = {f"{n}": np.random.default_rng(n).normal(size=(n, 2)).astype(np.float32) for n in lengths}
    store = write_store(tmp_path / "f.zarr", {"one": features})
    windows = Windows(choose_sources(PlaceInWindow, [store]), list(features), device=CPU)
    model = Model(PlaceInWindow(), {"x": 2})
    found = dict(score_videos(model, windows, range(4), Reading("row", window=8, stride=3, batch_size=2)))
    assert set(found) == {0, 1, 2, 3}
    for index, rows in enumerate(lengths):
        values = features[str(rows)][:, 0].astype(np.float64)
        seen: list[list[float]] = [[] for _ in range(rows)]
        for start in window_starts(rows, 8, 3):
            for place in range(min(8, rows - start)):
                seen[start + place].append(1 / (1 + np.exp(-(values[start + place] + place))))
        assert found[index].dtype == np.float32
        np.testing.assert_allclose(found[index][:, 0], [np.mean(row) for row in seen], rtol=1e-5)


def test_scores_do_not_depend_on_the_batch(tmp_path: Path, trained: Run) -> None:
    features, _ = planted()
    store = write_store(tmp_path / "f.zarr", {"one": features})
    windows = Windows(choose_sources(type(trained.model.head), [store]), list(features), device=CPU)
    together = dict(score_videos(trained.model, windows, range(9), Reading("row", 12, 4, batch_size=16)))
    for video in range(9):
        alone = dict(score_videos(trained.model, windows, [video], Reading("row", 12, 4, batch_size=1)))
        np.testing.assert_allclose(alone[video], together[video], atol=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("trained")
    features, labels = planted()
    store = write_store(folder / "f.zarr", {"one": features})
    options, training = split_settings(Mlad, ["embed=4", "num_layers=1", "epochs=1", "window=12", "stride=4"])
    plan = plan_run("mlad", [store], labels, options=options, training=training)
    create_run(folder / "run", plan.config, plan.labels)
    carry_out(folder / "run", device=CPU, observer=Silent())
    return load_run(folder / "run")


def test_prediction_needs_no_labels_and_says_what_made_it(tmp_path: Path, trained: Run) -> None:
    features = {"new.mp4": np.random.default_rng(5).normal(size=(17, 8)).astype(np.float32)}
    store = write_store(tmp_path / "f.zarr", {"one": features})
    assert predict_store(trained, [store], tmp_path / "p.zarr", device=CPU) == []
    opened = open_store(tmp_path / "p.zarr")
    scores = opened["scores"]
    assert scores.spec.granularity is Granularity.SCORE
    assert scores.spec.classes == ("class0", "class1", "class2")
    rows = scores.read("new.mp4")
    assert rows.features.shape == (17, 3)
    assert rows.times.tolist() == store["one"].times("new.mp4").tolist()
    document = opened.attachment("prediction")
    assert document is not None
    assert document["level"] == "row"
    assert document["expected"] == ["new.mp4"]
    assert document["features"] == {"one": store["one"].spec.fingerprint}
    assert document["snapshot_id"] == store.snapshot_id


def test_prediction_refuses_features_of_other_settings(tmp_path: Path, trained: Run) -> None:
    features = {"v": np.zeros((9, 8), np.float32)}
    other = write_store(tmp_path / "f.zarr", {"one": features}, specs={"one": flat_spec(8, fps=25.0, backbone="one")})
    with pytest.raises(SpecMismatchError, match=r"fps 25.0 is not None"):
        predict_store(trained, [other], tmp_path / "p.zarr", device=CPU)
    assert not (tmp_path / "p.zarr").exists()


def test_prediction_overwrites_nothing(tmp_path: Path, trained: Run) -> None:
    store = write_store(tmp_path / "f.zarr", {"one": {"v": np.zeros((9, 8), np.float32)}})
    (tmp_path / "p.zarr").mkdir()
    with pytest.raises(HeadError, match="is there already"):
        predict_store(trained, [store], tmp_path / "p.zarr", device=CPU)


def test_a_prediction_that_breaks_leaves_nothing(tmp_path: Path, trained: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_store(tmp_path / "f.zarr", {"one": {"v": np.zeros((9, 8), np.float32)}})

    def broken(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ZarrWriter, "video", broken)
    with pytest.raises(KeyboardInterrupt):
        predict_store(trained, [store], tmp_path / "p.zarr", device=CPU)
    assert not (tmp_path / "p.zarr").exists()


def test_scores_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    store = write_store(tmp_path / "f.zarr", {"one": {"v": np.ones((9, 8), np.float32)}})
    windows = Windows(choose_sources(PlaceInWindow, [store]), ["v"], device=CPU)
    model = Model(PlaceInWindow(), {"x": 8})
    model.standardise.set_statistics({"x": (torch.full((8,), float("nan")), torch.ones(8))})
    with pytest.raises(HeadError, match="'v' scores that are no numbers"):
        list(score_videos(model, windows, [0], Reading("row", 8, 8, 1)))
