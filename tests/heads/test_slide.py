"""MLAD's slide mode: what windows gave is kept, and scored as a loop over the windows spells it out."""

from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as oracle
import torch
from numpy.typing import NDArray

from cli.main import run as vl
from heads.baselines import MeanPool
from heads.checkpoint import create_run, load_run
from heads.head import Batch, HeadError
from heads.mlad import Mlad
from heads.options import split_settings
from heads.plan import sliding_windows
from heads.predict import Reading, score_windows
from heads.protocols import ScoringError
from heads.run import carry_out
from heads.run_plan import plan_run
from heads.score_store import predict_store
from heads.scoring import Question, score_store
from heads.sources import choose_sources
from heads.standardise import Model
from heads.windows import Windows
from stores import open_store
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrWriter
from tests.heads.feature_stores import Silent, grid_times, planted, write_store
from tests.heads.test_predict import PlaceInWindow

CPU = torch.device("cpu")
LENGTHS = (3, 8, 9, 21)


def slide(rows: int, window: int, rate: int) -> list[list[int]]:
    """Rows of each window as the authors' val_epoch cuts them; -1 for a padded step."""
    steps = list(range(rows))
    if rows < window:
        return [steps + [-1] * (window - rows)]
    steps += [-1] * (rate - rows % rate)
    return [steps[first : first + window] for first in range(0, len(steps) - window + 1, rate)]


def test_windows_are_those_of_the_authors_code() -> None:
    for rows in range(1, 40):
        for window, rate in ((8, 4), (8, 3), (16, 8), (5, 2)):
            plan = sliding_windows(np.array([rows]), [0], window=window, stride=rate, batch_size=2)
            found = [
                [start + place if start + place < rows else -1 for place in range(crops.length)]
                for crops in plan
                for start in crops.start_B.tolist()
            ]
            assert found == slide(rows, window, rate), (rows, window, rate)


def test_a_window_of_padding_alone_is_left_out() -> None:
    (crops,) = sliding_windows(np.array([8]), [0], window=4, stride=4, batch_size=9)
    assert crops.start_B.tolist() == [0, 4]  # the authors' code would begin a third at the end


def features_of(width: int = 2) -> dict[str, NDArray[np.float32]]:
    return {f"{n}": np.random.default_rng(n).normal(size=(n, width)).astype(np.float32) for n in LENGTHS}


@pytest.mark.parametrize("resident", [True, False])
def test_every_window_keeps_what_it_gave_and_padded_steps_come_last(tmp_path: Path, resident: bool) -> None:
    features = features_of()
    store = write_store(tmp_path / "f.zarr", {"one": features})
    windows = Windows(choose_sources(PlaceInWindow, [store]), list(features), device=CPU, resident=resident)
    found = score_windows(Model(PlaceInWindow(), {"x": 2}), windows, range(4), Reading("row", 8, 4, batch_size=3))
    for (index, scores, row_N), (name, values) in zip(found, features.items(), strict=True):
        seen = []
        for of_window in slide(len(values), 8, 4):
            for place, row in enumerate(of_window):
                value = float(values[row, 0]) if row >= 0 else 0.0  # padded steps are zeros
                seen.append((row if row >= 0 else len(values), 1 / (1 + np.exp(-(value + place)))))
        seen.sort(key=lambda entry: entry[0])
        assert windows.videos[index] == name
        assert row_N.tolist() == [row for row, _ in seen]
        np.testing.assert_allclose(scores[:, 0], [score for _, score in seen], rtol=1e-5)


@pytest.fixture
def scored_run(tmp_path: Path) -> Path:
    """A run of mlad with the scores of its windows."""
    features, labels = planted()
    store = write_store(tmp_path / "f.zarr", {"one": features})
    words = ["embed=4", "num_layers=1", "epochs=1", "window=12", "stride=4", "keep_windows=true"]
    options, training = split_settings(Mlad, words)
    plan = plan_run("mlad", [store], labels, options=options, training=training)
    create_run(tmp_path / "run", plan.config, plan.labels)
    carry_out(tmp_path / "run", device=CPU, observer=Silent())
    return tmp_path / "run"


def test_mlad_slide_is_the_loop_over_windows_that_counts_padding(scored_run: Path) -> None:
    path = scored_run / "test.zarr"
    store, run = open_store(path), load_run(scored_run)
    config = run.config
    _, labels = planted()
    features = open_store(str(config.features[0]["store"]))["one"]
    truth, given = [], []
    for video in config.split["test"]:
        rows = features.read(video)
        values = torch.from_numpy(rows.features).float()
        table = labels.rows(config.matched[video], rows.times)
        for of_window in slide(len(values), 12, 4):
            real = np.array(of_window) >= 0
            x_ND, y_NC = np.zeros((12, values.shape[1]), np.float32), np.zeros((12, 3), int)
            x_ND[real], y_NC[real] = values.numpy()[of_window][real], table[of_window][real]
            batch = Batch(
                {"x": torch.from_numpy(x_ND[None])}, {"x": torch.from_numpy(real[None])}, torch.zeros(1, 12, 2)
            )
            with torch.inference_mode():
                given.append(run.model.eval()(batch).probabilities()[0].numpy())
            truth.append(y_NC)
    expected = oracle.average_precision_score(np.concatenate(truth), np.concatenate(given), average="macro")
    report = score_store(path, Question(protocol="mlad-slide", resamples=20))
    assert report.score == pytest.approx(expected, abs=1e-6)
    assert report.rows == sum(len(table) for table in truth)
    assert (report.rows, report.score) != (score_store(path, Question()).rows, score_store(path, Question()).score)
    assert report.interval is not None
    assert sorted(store) == ["scores", "windows"]
    assert store["windows"].spec.settings == {"window": 12, "stride": 4}
    assert score_store(path, Question()).protocol == "frame-map"  # the averages are what everything else scores


def test_predict_keeps_windows_on_request_alone(scored_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = scored_run.parent / "p.zarr"
    features = str(scored_run.parent / "f.zarr")
    assert vl(["predict", features, "--head", str(scored_run), "--out", str(out), "--keep-windows"]) == 0
    predicted, trained = open_store(out)["windows"], open_store(scored_run / "test.zarr")["windows"]
    for video in trained:
        np.testing.assert_allclose(predicted.read(video).features, trained.read(video).features, atol=1e-6)
        np.testing.assert_array_equal(predicted.times(video), trained.times(video))
    other = scored_run.parent / "q.zarr"
    assert vl(["predict", features, "--head", str(scored_run), "--out", str(other)]) == 0
    assert list(open_store(other)) == ["scores"]


def by_hand(path: Path, window_times: list[list[float]] | None) -> None:
    """Scores of two rows of a second each, and of the windows that saw them."""
    spec = FeatureSpec(Granularity.SCORE, (1,), dtype="float32", classes=("run",))
    labels = Labels(("run",), {"v": VideoLabels.of([(0, 1.0, 9.0)])})  # longer than the video
    with ZarrWriter(path, {"scores": spec} | ({"windows": spec} if window_times else {})) as writer:
        entry = writer.video("v", {})
        entry.append("scores", Rows(np.array([[0.5], [0.5]], np.float32), grid_times(2, 1.0)))
        if window_times:
            seen = np.array([[0.9], [0.8], [0.6], [0.7]], np.float32)
            entry.append("windows", Rows(seen, np.array(window_times)))
        entry.commit()
        writer.attach("prediction", {"level": "row", "labels": labels.to_dict()})


def test_padded_steps_are_negatives_even_where_a_label_goes_on(tmp_path: Path) -> None:
    by_hand(tmp_path / "p.zarr", [[0, 1], [1, 2], [1, 2], [2, 2]])
    # by score: row 0 (no), row 1 (yes), padded (no), row 1 again (yes): (1/2 + 2/4) / 2
    assert score_store(tmp_path / "p.zarr", Question(protocol="mlad-slide")).score == 0.5


def test_windows_of_other_times_are_refused(tmp_path: Path) -> None:
    by_hand(tmp_path / "p.zarr", [[0, 1], [1, 2], [1, 2.5], [2, 2]])
    with pytest.raises(ScoringError, match="the windows of 'v' have other times"):
        score_store(tmp_path / "p.zarr", Question(protocol="mlad-slide"))


def test_without_windows_the_error_says_how_to_get_them(tmp_path: Path) -> None:
    by_hand(tmp_path / "p.zarr", None)
    with pytest.raises(ScoringError, match=r"holds their averages alone. Predict with --keep-windows"):
        score_store(tmp_path / "p.zarr", Question(protocol="mlad-slide"))


def test_heads_of_whole_videos_have_no_windows(tmp_path: Path) -> None:
    features, labels = planted()
    store = write_store(tmp_path / "f.zarr", {"one": features})
    options, training = split_settings(MeanPool, ["epochs=1", "keep_windows=true"])
    with pytest.raises(HeadError, match="meanpool scores whole videos"):
        plan_run("meanpool", [store], labels, options=options, training=training)
    options, training = split_settings(MeanPool, ["epochs=1"])
    plan = plan_run("meanpool", [store], labels, options=options, training=training)
    create_run(tmp_path / "run", plan.config, plan.labels)
    carry_out(tmp_path / "run", device=CPU, observer=Silent())
    with pytest.raises(HeadError, match="no windows to keep"):
        predict_store(load_run(tmp_path / "run"), [store], tmp_path / "p.zarr", device=CPU, keep_windows=True)
    assert not (tmp_path / "p.zarr").exists()
