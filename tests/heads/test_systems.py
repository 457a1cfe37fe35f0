"""The published systems through the whole second stage: stored rows in, a trained head, stored scores out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from heads.asf import Asf, cooccurrence
from heads.checkpoint import create_run, load_run
from heads.head import Batch, HeadError, Scores, head_class
from heads.mlad import Mlad
from heads.options import split_settings
from heads.plan import Crops
from heads.run import carry_out
from heads.run_plan import RunPlan, plan_run
from heads.score_store import predict_store
from heads.scoring import Question, score_store
from heads.sources import choose_sources
from heads.windows import Windows
from stores import open_store
from stores.labels import Labels
from stores.spec import FeatureSpec, Granularity
from stores.zarr_store import ZarrStore
from tests.heads.feature_stores import Silent, planted, write_store

CPU = torch.device("cpu")
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "asf": ("groups=2", "embed=8", "num_observations=4", "optimizer=adam", "lr=0.01"),
    "gated": ("ffn=16", "hidden=16", "num_steps=40", "lr=0.005"),
    "stan": ("embed=16", "ffn=16", "num_layers=1", "dropout=0", "lr=0.005"),
    "stld": ("hidden=16", "nhead=2", "dim_feedforward=16", "num_layers=1", "lr=0.005"),
}
SPECS = {
    "cnn.rgb.map": FeatureSpec(Granularity.MAP, (2, 2, 8), "float32", backbone="cnn", stream="rgb"),
    "cnn.rgb.frame": FeatureSpec(Granularity.FRAME, (8,), "float32", backbone="cnn", stream="rgb"),
    "mel.audio.frame": FeatureSpec(Granularity.FRAME, (8,), "float32", backbone="mel", stream="audio"),
    "cnn.rgb.scene": FeatureSpec(Granularity.SCENE, (8,), "float32", backbone="cnn", stream="rgb"),
    "clips.rgb.scene": FeatureSpec(Granularity.SCENE, (8,), "float32", backbone="clips", stream="rgb", window=12),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[ZarrStore, Labels]:
    """One planted problem, seen by five sets."""
    features, labels = planted(videos=40, rows=12)
    rng = np.random.default_rng(5)
    noisy = {video: rows + 0.3 * rng.normal(size=rows.shape).astype("float32") for video, rows in features.items()}
    maps = {
        video: np.stack([rows, 0 * rows, 0 * rows, rows], axis=1).reshape(-1, 2, 2, 8)
        for video, rows in features.items()
    }
    sets = {name: maps if "map" in name else noisy if "mel" in name else features for name in SPECS}
    path = tmp_path_factory.mktemp("systems") / "f.zarr"
    return write_store(path, sets, specs=SPECS), labels


def trained(head: str, world: tuple[ZarrStore, Labels], run: Path, *more: str) -> dict[str, Any]:
    store, labels = world
    options, training = split_settings(head_class(head), [*OPTIONS[head], *more])
    plan = plan_run(head, [store], labels, options=options, training=training)
    create_run(run, plan.config, plan.labels)
    return carry_out(run, device=CPU, observer=Silent())


@pytest.mark.parametrize("head", sorted(OPTIONS))
def test_a_system_trains_predicts_and_is_scored(head: str, world: tuple[ZarrStore, Labels], tmp_path: Path) -> None:
    result = trained(head, world, tmp_path / "run", "epochs=12", "batch_size=8")
    report = score_store(tmp_path / "run" / "test.zarr", Question())
    assert (report.protocol, report.missing) == ("video-map", ())
    assert result["val"]["protocol"] == ("gap" if head == "gated" else "video-map")
    again = tmp_path / "again.zarr"
    assert predict_store(load_run(tmp_path / "run"), [world[0]], again, device=CPU) == []
    test, whole = open_store(tmp_path / "run" / "test.zarr")["scores"], open_store(again)["scores"]
    assert len(whole) == 40
    for video in test:
        ours, theirs = test.read(video), whole.read(video)
        np.testing.assert_allclose(ours.features, theirs.features, atol=1e-5)
        assert ours.times.tolist() == [[0.0, world[0]["cnn.rgb.frame"].times(video)[-1, 1]]]


def test_asf_knows_which_classes_go_together_in_training(world: tuple[ZarrStore, Labels], tmp_path: Path) -> None:
    trained("asf", world, tmp_path / "run", "epochs=1")
    run = load_run(tmp_path / "run")
    assert isinstance(run.model.head, Asf)
    assert run.model.head.correlate is not None
    labels_VC = np.stack([world[1].video(run.config.matched[video]) for video in run.config.split["train"]])
    expected = np.zeros((3, 3))
    for j in range(3):
        of_j = labels_VC[labels_VC[:, j] == 1]
        for k in range(3):
            expected[j, k] = (of_j[:, k] == 1).mean()
    np.testing.assert_allclose(run.model.head.correlate.cooccurrence_CC.numpy(), expected, atol=1e-6)
    assert not np.allclose(expected, cooccurrence(torch.zeros(1, 3)).numpy())


def test_gated_works_from_pictures_alone_and_says_when_sound_is_missing(
    world: tuple[ZarrStore, Labels], tmp_path: Path
) -> None:
    features, labels = planted(videos=40, rows=12)
    silent = write_store(
        tmp_path / "s.zarr", {"cnn.rgb.frame": features}, specs={"cnn.rgb.frame": SPECS["cnn.rgb.frame"]}
    )
    with pytest.raises(HeadError, match=r"needs a set of clip, frame rows for audio; .* --set modalities=visual\.$"):
        trained("gated", (silent, labels), tmp_path / "both", "epochs=1")
    trained("gated", (silent, labels), tmp_path / "silent", "epochs=1", "modalities=visual")
    trained("gated", world, tmp_path / "chosen", "epochs=1", "modalities=audio")
    config = load_run(tmp_path / "chosen").config
    assert [entry["set"] for entry in config.features] == ["mel.audio.frame"]
    assert (config.options["num_visual"], config.options["num_audio"]) == (0, 8)
    assert score_store(tmp_path / "silent" / "test.zarr", Question()).missing == ()


def test_stan_reads_one_stream_alone_and_refuses_scenes_that_differ(
    world: tuple[ZarrStore, Labels], tmp_path: Path
) -> None:
    features, labels = planted(videos=40, rows=12)
    one = write_store(tmp_path / "one.zarr", {"cnn.rgb.scene": features}, specs=SPECS)
    with pytest.raises(HeadError, match=r"stan needs a set of scene rows for temporal; .* --set streams=spatial\.$"):
        trained("stan", (one, labels), tmp_path / "both", "epochs=1")
    trained("stan", (one, labels), tmp_path / "one", "epochs=1", "streams=spatial")
    assert score_store(tmp_path / "one" / "test.zarr", Question()).missing == ()
    sets = {"cnn.rgb.scene": features, "clips.rgb.scene": features}
    other = write_store(tmp_path / "other.zarr", sets, specs=SPECS, rates={"clips.rgb.scene": 4.0})
    with pytest.raises(HeadError, match=r"'v00\.mp4' has other times in clips\.rgb\.scene than in cnn"):
        trained("stan", (other, labels), tmp_path / "differ", "epochs=1")
    trained("stan", world, tmp_path / "equal", "epochs=1")
    with pytest.raises(HeadError, match=r"has other times in clips\.rgb\.scene"):
        predict_store(load_run(tmp_path / "equal"), [other], tmp_path / "p.zarr", device=CPU)


def two_streams(path: Path) -> tuple[ZarrStore, Labels]:
    """Clip rows of motion (5 features) and of pictures (8), 80 and more rows a video."""
    pictures, labels = planted(videos=20, rows=80)
    rng = np.random.default_rng(6)
    motion = {video: rng.normal(size=(len(rows), 5)).astype("float32") for video, rows in pictures.items()}
    specs = {
        f"i3d.{stream}.clip": FeatureSpec(Granularity.CLIP, (width,), "float32", backbone="i3d", stream=stream)
        for stream, width in (("flow", 5), ("rgb", 8))
    }
    return write_store(path, {"i3d.flow.clip": motion, "i3d.rgb.clip": pictures}, specs=specs), labels


def planned(world: tuple[ZarrStore, Labels], *settings: str) -> RunPlan:
    options, training = split_settings(Mlad, ["embed=8", "num_layers=1", "window=64", "batch_size=4", *settings])
    return plan_run("mlad", [world[0]], world[1], options=options, training=training)


def test_mlad_reads_pictures_and_motion_side_by_side_and_says_so(tmp_path: Path) -> None:
    world = two_streams(tmp_path / "f.zarr")
    plan = planned(world, "epochs=1")
    assert plan.notes[0] == "features: i3d.rgb.clip + i3d.flow.clip; rows and times of the first"
    assert plan.config.options["num_features"] == 13
    windows = Windows(choose_sources(Mlad, [world[0]]), ["v00.mp4"], device=CPU)
    pictures, motion = (world[0][f"i3d.{stream}.clip"].read("v00.mp4").features for stream in ("rgb", "flow"))
    found = windows.batch(Crops(np.array([0]), np.array([0]), len(pictures))).features["x"][0]
    assert np.array_equal(found.numpy(), np.concatenate([pictures, motion], axis=1))


@pytest.mark.parametrize(("setting", "lengths"), [("true", {16, 32, 48, 64}), ("false", {64})])
def test_mlad_trains_on_windows_of_one_length_or_of_several(
    setting: str, lengths: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = two_streams(tmp_path / "f.zarr")
    plan = planned(world, "epochs=8", f"variable_length={setting}")
    seen: set[int] = set()
    forward = Mlad.forward

    def watched(head: Mlad, batch: Batch) -> Scores:
        if head.training:
            seen.add(batch.features["x"].shape[1])
        return forward(head, batch)

    monkeypatch.setattr(Mlad, "forward", watched)
    create_run(tmp_path / "run", plan.config, plan.labels)
    carry_out(tmp_path / "run", device=CPU, observer=Silent())
    assert seen == lengths
