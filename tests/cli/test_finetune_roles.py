"""`vl finetune` of heads on maps, and of heads some of whose rows no network of the run makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from stores import open_store
from stores.spec import FeatureSpec, Granularity
from tests.cli.commands import Said, runner
from tests.cli.finetuning import assert_cut_off_ends_alike, changed, extracted_then_tuned, scores, weights, work_in
from tests.extract.labelled import labelled_videos
from tests.heads.feature_stores import write_store

CLIPS = ("--backbone", "r2plus1d_18", "--frames", "16", "--fps", "12")  # 2 maps a clip, for 8 frames each
ASF = ("--set", "groups=4", "--set", "embed=8", "--set", "num_observations=2")
STLD = ("--set", "hidden=8", "--set", "nhead=2", "--set", "dim_feedforward=8", "--set", "num_layers=1")
GATED = ("--set", "ffn=16", "--set", "hidden=8")
PICTURES = ("--backbone", "resnet18", "--fps", "4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos, a store of sound for all but the first of them, and a store without any."""
    made = tmp_path_factory.mktemp("roles")
    labelled_videos(made / "videos", [14, 23, 32, 41, 50])
    random = np.random.default_rng(3)
    mel = {f"v{number}.mp4": random.normal(size=(40, 8)).astype(np.float32) for number in range(1, 5)}
    spec = FeatureSpec(Granularity.FRAME, (8,), dtype="float32", backbone="mel", stream="audio")
    other = FeatureSpec(Granularity.FRAME, (8,), dtype="float32", backbone="cnn")
    both = {"mel.audio.frame": spec, "resnet18.rgb.frame": other}  # the second as the network of the run would make it
    write_store(made / "sound.zarr", dict.fromkeys(both, mel), specs=both, rates=dict.fromkeys(both, 10.0))
    write_store(made / "pictures.zarr", {"cnn": mel})
    return made


@pytest.fixture(autouse=True)
def _narrow_networks(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    work_in(folder, monkeypatch)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return runner(capsys)


def test_a_head_of_stored_maps_goes_on_with_the_network_that_made_them(said: Said, tmp_path: Path) -> None:
    """A clip of 16 frames has 2 maps; the 14 frames of the shortest video have 2, the 23 of the next one 3."""
    told = extracted_then_tuned(
        said,
        tmp_path,
        ("stld", *STLD),
        ("--backbone", "r2plus1d_18", "--level", "map", "--fps", "12", "--window", "16"),
        (*CLIPS, "--chunk-scenes", "1", "--backbone-lr", "0.001"),
        ("r2plus1d_18",),
    )
    assert open_store(tmp_path / "rows.zarr")["r2plus1d_18.rgb.map"].entry("v1.mp4").num_rows == 3
    assert "features: r2plus1d_18.rgb.map" in told
    assert "activations of 1 clips" in told
    moved = changed(tmp_path / "tuned", "best", weights(tmp_path / "head", "best"))
    assert {"head.project", "head.spatial"} <= moved


@pytest.mark.parametrize(
    ("head", "words"),
    [("asf", (*CLIPS, *ASF, "--chunk-scenes", "1")), ("gated", (*PICTURES, *GATED, "--features", "sound.zarr"))],
)
def test_a_run_cut_off_within_an_epoch_ends_with_the_weights_of_one_that_was_not(
    said: Said, tmp_path: Path, head: str, words: tuple[str, ...]
) -> None:
    always = ("--epochs", "1", "--batch-size", "1", "--set", "checkpoint_seconds=0", "--augment", "jitter")
    code, _, err = said("finetune", head, "videos", "--out", tmp_path / "whole", *words, *always, "--workers", "1")
    assert code == 0, err
    assert_cut_off_ends_alike(said, tmp_path / "whole", tmp_path / "cut")


def test_sound_comes_from_a_store_beside_pictures_that_learn(said: Said, tmp_path: Path) -> None:
    run = tmp_path / "r"
    code, out, err = said(
        "finetune", "gated", "videos", *PICTURES, *GATED, "--features", "sound.zarr", "--out", run, "--epochs", "1",
        "--workers", "1", "--backbone-lr", "0.001", "--chunk-scenes", "3",
    )  # fmt: skip
    assert code == 0, err
    for line in (
        "features: resnet18.rgb.frame + mel.audio.frame; rows and times of the first",
        "mel.audio.frame: 1 videos lack it; nothing is seen in its place",
        "stored rows: mel.audio.frame of sound.zarr, which stay as they are; left out: resnet18.rgb.frame",
        "resnet18: 702,096 weights learn",
        "end to end, 3 videos have the logits of stored features: largest difference ",
    ):
        assert line in err
    assert out.splitlines()[-1].split() == f"vl predict new.zarr NEW_sound.zarr --head {run}/stored".split()
    code, _, err = said(
        "extract", "--backbone", "resnet18", "--fps", "4", "videos", "--out", tmp_path / "f.zarr", "--weights",
        run / "resnet18.safetensors",
    )  # fmt: skip
    assert code == 0, err
    store = write_only_sound(Path("sound.zarr"), tmp_path / "mel.zarr")
    code, _, err = said(
        "predict", tmp_path / "f.zarr", store, "--head", run / "stored", "--out", tmp_path / "p.zarr"
    )  # fmt: skip
    assert code == 0, err
    np.testing.assert_allclose(scores(tmp_path / "p.zarr"), scores(run / "test.zarr"), atol=1e-3)


def test_a_run_of_another_version_is_said_in_one_line(said: Said, tmp_path: Path) -> None:
    run = tmp_path / "r"
    code, _, err = said("finetune", "meanpool", "videos", *PICTURES, "--epochs", "1", "--workers", "1", "--out", run)
    assert code == 0, err
    (run / "result.json").unlink()
    config = json.loads((run / "config.json").read_text())
    config["finetune"]["clips"]["crops"] = 3
    (run / "config.json").write_text(json.dumps(config))
    code, _, err = said("finetune", "--resume", run)
    assert (code, err.count("\n")) == (2, 1), err
    assert "config.json is malformed or of another version of vl" in err


def write_only_sound(store: Path, out: Path) -> Path:
    """The sound of a store, in one of its own: two stores may not both hold a set."""
    mel = open_store(store)["mel.audio.frame"]
    rows = {video: np.asarray(mel.read(video).features) for video in mel}
    write_store(out, {mel.name: rows}, specs={mel.name: mel.spec}, rates={mel.name: 10.0})
    return out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("gated", *PICTURES),
            "needs a set of clip, frame rows for audio; there is resnet18.rgb.frame (frame). --feat",
        ),
        (("gated", *PICTURES, "--features", "pictures.zarr"), "pictures.zarr holds cnn (frame), and gated leaves its"),
        (("gated", *PICTURES, "--features", "none.zarr"), "none.zarr"),
        (("gated", *PICTURES, "--features", "sound.zarr", "--set", "modalities=visual"), "networks make all that gat"),
        (("gated", *PICTURES, "--features", "sound.zarr", "--set", "modalities=audio"), "gated reads no visual rows"),
        (("meanpool", *CLIPS, "--features", "sound.zarr"), "networks make all that meanpool reads, its x rows"),
        (("gated", "--backbone", "logmel", "--features", "pictures.zarr"), "logmel has nothing to learn: extract it"),
        (("stan-small", "--stream", "flow"), "sees the pictures of scenes: leave --dense, --stream and --flow out"),
        (("meanpool", "--backbone", "resnet18", "--stream", "flow"), "has the stream flow"),
        (("--resume", "r", "--features", "sound.zarr"), "--resume RUN takes everything"),
    ],
)
def test_rows_that_nobody_wants_or_gives_are_said_in_one_line(said: Said, words: tuple[str, ...], message: str) -> None:
    code, _, err = said("finetune", words[0], *(() if words[0] == "--resume" else ("videos",)), *words[1:])
    assert code == 2
    assert message in err.splitlines()[-1]
    assert not list(Path().glob("runs/*/config.json"))
