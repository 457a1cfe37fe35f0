"""`vl finetune`: from videos to scored predictions, resumable to the bit; wrong input gets one line."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stores import open_store
from tests.cli.commands import Said, runner
from tests.cli.finetuning import assert_commands_give_the_scores, assert_cut_off_ends_alike, changed, weights, work_in
from tests.extract.labelled import labelled_videos

QUICK = ("--set", "embed=16", "--set", "ffn=16", "--set", "num_layers=1", "--lr", "0.001", "--workers", "1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short videos with labels."""
    return labelled_videos(tmp_path_factory.mktemp("finetune") / "videos", [14, 23, 32, 41, 50])


@pytest.fixture(autouse=True)
def _narrow_networks(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    work_in(folder.parent, monkeypatch)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return runner(capsys)


def test_head_then_small_then_large_each_from_the_one_before(said: Said, tmp_path: Path) -> None:
    cut = ("--level", "scene", "--min-scene", "0.3")
    code, _, err = said("extract", *cut, "videos", "--weights", "random:5", "--out", tmp_path / "scenes.zarr")
    assert code == 0, err
    code, _, err = said(
        "train-head", "stan", "--features", tmp_path / "scenes.zarr", "--out", tmp_path / "head", "--epochs", "1",
        *QUICK[:6],
    )  # fmt: skip
    assert code == 0, err
    words = ("--epochs", "1", "--workers", "1", "--set", "checkpoint_seconds=0")
    code, out, err = said(
        "finetune", "stan-small", "videos", "--init", tmp_path / "head", "--out", tmp_path / "s", *words
    )
    assert code == 0, err
    commands = [line.strip() for line in out.splitlines() if line.startswith("  vl ")]
    assert "--min-scene 0.3" in commands[0]
    assert "--weights r2plus1d_18=random:5" in commands[0]
    assert_commands_give_the_scores(said, commands, tmp_path / "s", tmp_path)
    for line in (
        "resnet18: 702,096 weights learn",
        "r2plus1d_18: stays as it came",
        "memory plan in GiB: weights ",
        "end to end, 3 videos have the logits of stored features: largest difference ",
        "begins with the weights of",
    ):
        assert line in err
    assert changed(tmp_path / "s", "best", weights(tmp_path / "head", "best")) >= {"head.streams", "head.classify"}
    code, out, err = said(
        "finetune", "stan-large", "videos", "--init", tmp_path / "s", "--out", tmp_path / "l", *words,
        "--chunk-scenes", "2", "--json",
    )  # fmt: skip
    assert code == 0, err
    moved = changed(tmp_path / "l", "best", weights(tmp_path / "s", "best"))
    assert moved == {"head.streams", "head.classify", "trunks.resnet18-rgb-scene", "trunks.r2plus1d_18-rgb-scene"}
    (result,) = json.loads(out)["runs"]
    assert set(open_store(Path(result["predictions"]["test"]))["scores"]) == {"v4.mp4"}
    assert result["cost"]["parameters"] > 702_096 + 1_900_000
    with (tmp_path / "l" / "metrics.csv").open() as file:
        assert [line["epoch"] for line in csv.DictReader(file)] == ["1"]
    code, out, _ = said("score", tmp_path / "l")
    assert code == 0
    assert "video-map" in out
    code, _, err = said("train-head", "--resume", tmp_path / "s")
    assert code == 2
    code, _, err = said("predict", tmp_path / "scenes.zarr", "--head", tmp_path / "l", "--out", tmp_path / "p.zarr")
    assert code == 2
    assert "was trained end to end" in err
    (tmp_path / "of-large").mkdir()
    assert_commands_give_the_scores(said, result["commands_for_new_videos"], tmp_path / "l", tmp_path / "of-large")


def test_a_run_cut_off_within_an_epoch_ends_with_the_weights_of_one_that_was_not(said: Said, tmp_path: Path) -> None:
    words = (*QUICK, "--epochs", "2", "--batch-size", "1", "--set", "checkpoint_seconds=0", "--augment", "stan")
    code, _, err = said("finetune", "stan-large", "videos", "--out", tmp_path / "whole", *words, "--chunk-scenes", "2")
    assert code == 0, err
    assert_cut_off_ends_alike(said, tmp_path / "whole", tmp_path / "cut")


@pytest.mark.parametrize(("head", "extra"), [("mlad", ("--set", "embed=4", "--window", "2")), ("meanpool", ())])
def test_other_heads_learn_with_clips_of_a_network(
    said: Said, tmp_path: Path, head: str, extra: tuple[str, ...]
) -> None:
    code, _, err = said(
        "finetune", head, "videos", "--backbone", "r2plus1d_18", "--out", tmp_path / "r", "--epochs", "1",
        "--fps", "12", "--stride", "8", "--workers", "1", *extra,
    )  # fmt: skip
    assert code == 0, err
    assert "features: r2plus1d_18.rgb.clip" in err
    assert "r2plus1d_18: 1,967,961 weights learn" in err
    assert said("score", tmp_path / "r")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("finetune",), "give a HEAD and videos"),
        (("finetune", "stan", "videos"), "which networks learn? stan-small"),
        (("finetune", "mlad", "videos"), "name the network that learns below mlad"),
        (("finetune", "stan-small", "videos", "--backbone", "i3d"), "leave --backbone out"),
        (("finetune", "stan-small", "videos", "--freeze", "layer9"), "--freeze layer9 names no weight"),
        (("finetune", "stan-small", "videos", "--batch-norm", "off"), "batch_norm is frozen or tuned, not 'off'"),
        (("finetune", "stan-small", "videos", "--augment", "all"), "--augment is none, jitter, stan, not 'all'"),
        (("finetune", "stan-small", "videos", "--backbone-lr", "0"), "backbone_lr is a positive number"),
        (("finetune", "stan-large", "videos", "--batch-norm", "tuned", "--chunk-scenes", "4"), "--chunk-scenes 0"),
        (("finetune", "stan-small", "videos", "--labels", "none.csv"), "none.csv"),
        (("finetune", "stan-small", "elsewhere"), "elsewhere' cannot be read: No such file"),
        (("finetune", "stan-small", "--resume", "r"), "--resume RUN takes everything"),
        (("finetune", "--resume", "nothing"), "nothing is no training run"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line_and_makes_no_run(
    said: Said, words: tuple[str, ...], message: str
) -> None:
    code, _, err = said(*words)
    assert code == 2
    assert message in err.splitlines()[-1]
    assert not list(Path().glob("runs/stan-*"))


def test_a_signal_saves_the_run_and_leaves_no_process(folder: Path, tmp_path: Path) -> None:
    words = ["finetune", "stan-small", str(folder), "--out", str(tmp_path / "r"), *QUICK, "--epochs", "500"]
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    command = [sys.executable, "-m", "tests.cli.narrow_vl", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}) as child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("epoch"):
                break
        child.send_signal(signal.SIGTERM)
        rest = child.stderr.read()
        assert child.wait(timeout=60) == 75
    assert f"'vl finetune --resume {tmp_path / 'r'}' goes on" in rest
    assert (tmp_path / "r" / "last.safetensors").is_file()
    deadline = time.monotonic() + 10
    while workers_of(child.pid):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers_of(parent: int) -> list[str]:
    """Decode processes whose parent that was."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            text = status.read_text()
        except OSError:
            continue
        if f"PPid:\t{parent}\n" in text:
            found.append(text.splitlines()[0])
    return found
