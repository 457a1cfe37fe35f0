"""`vl finetune` in several processes: one folder and one voice; they end together, and go on together."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
from pathlib import Path

import pytest

from stores import open_store
from tests.cli.finetuning import weights
from tests.extract.labelled import labelled_videos
from tests.heads.processes import LIMIT_S, TORCHRUN, environment, together

VL = "tests.cli.narrow_vl"
RUN = ("finetune", "stan-small", "videos", "--out", "r", "--epochs", "3", "--batch-size", "2", "--workers", "1")
QUICK = ("--set", "embed=16", "--set", "ffn=16", "--set", "num_layers=1")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("ranks")
    labelled_videos(made / "videos", [14, 23, 32, 41, 50], sound=True)
    return made


def test_a_run_of_two_is_stopped_and_fails_and_is_finished(place: Path) -> None:
    command = [*TORCHRUN, "--nproc-per-node", "2", "-m", VL, *RUN, *QUICK]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=place, env=environment()) as child:
        assert child.stderr is not None
        said = []
        for line in child.stderr:
            said.append(line)
            if line.startswith("epoch"):
                break
        child.send_signal(signal.SIGTERM)
        said += child.stderr
        assert child.wait(timeout=LIMIT_S) != 0
    text = "".join(said)
    for once in ("5 of 5 videos are looked through", "run r on cpu, 2 processes", "memory plan", "have the logits of"):
        assert text.count(once) == 1, text
    assert text.count("vl: stopped by SIGTERM. 'vl finetune --resume r' goes on.") == 2, text
    assert (place / "r" / "last.safetensors").is_file()
    assert not left_in(place)

    video, status = place / "videos" / "v1.mp4", (place / "videos" / "v1.mp4").stat()
    sound = video.read_bytes()
    video.write_bytes(bytes(len(sound)))  # it may be any process's turn to read it
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    ended = sorted(together(place, VL, "finetune", "--resume", "r", "--workers", "1"), key=lambda process: process.code)
    assert [process.code for process in ended] == [2, 75], ended
    for process, words in zip(ended, ("'v1.mp4' could be decoded before", "it lost another one"), strict=True):
        assert words in process.err.splitlines()[-1]
        assert "Traceback" not in process.err
    assert not left_in(place)

    video.write_bytes(sound)
    os.utime(video, ns=(status.st_atime_ns, status.st_mtime_ns))
    first, second = together(place, VL, "finetune", "--resume", "r", "--workers", "1", "--json")
    assert (first.code, second.code) == (0, 0), (first, second)
    assert "going on after" in first.err
    assert second.out == second.err == ""
    with (place / "r" / "metrics.csv").open() as file:
        assert [line["epoch"] for line in csv.DictReader(file)] == ["1", "2", "3"]
    for part, videos in (("val", ["v3.mp4"]), ("test", ["v4.mp4"])):
        assert list(open_store(place / "r" / f"{part}.zarr")["scores"]) == videos


def test_two_processes_train_pictures_and_sound_as_one_does(place: Path) -> None:
    """In double precision, by SGD; v0.mp4 has no sound, so that one of the two may have none in a batch."""
    words = ("finetune", "gated", "videos", "--backbone", "resnet18,vggish", "--fps", "resnet18=4", "--epochs", "2")
    exact = ("--precision", "fp64", "--optimizer", "sgd", "--lr", "0.1", "--backbone-lr", "0.1", "--augment", "none")
    small = ("--set", "ffn=16", "--set", "hidden=8", "--set", "dropout=0", "--set", "patience=0", "--batch-size", "2")
    always = (*words, *exact, *small, "--chunk-scenes", "2", "--workers", "1")
    (one,) = together(place, VL, *always, "--out", "one", processes=1)
    assert one.code == 0, one
    first, second = together(place, VL, *always, "--out", "two")
    assert (first.code, second.code) == (0, 0), (first, second)
    alone, shared = (weights(place / name, "best") for name in ("one", "two"))
    learned = [name for name in alone if alone[name].is_floating_point() and not name.startswith("optim")]
    assert any(name.startswith("trunks.vggish-audio-frame") for name in learned)
    for name in learned:
        scale = max(1.0, float(alone[name].abs().max()))
        assert float((alone[name] - shared[name]).abs().max()) <= 1e-12 * scale, name


def left_in(place: Path) -> list[str]:
    """Processes that still work there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == place:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found


def test_what_the_first_process_refuses_ends_all(place: Path) -> None:
    first, second = together(place, VL, "finetune", "stan-small", "videos", "--out", "x", "--batch-norm", "tuned")
    assert (first.code, second.code) == (2, 75)
    assert first.err.startswith("vl: batch_norm=tuned takes its statistics from all clips of a batch, and each process")
    assert second.err.startswith("vl: process 1 of 2 ends because it lost another one")
    assert first.err.count("\n") == second.err.count("\n") == 1
    assert not (place / "x").exists()
