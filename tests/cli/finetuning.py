"""What became of a run of `vl finetune`: its weights, and whether one that was cut off ends alike."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from cli.finetune_videos import Asked, open_videos
from heads.checkpoint import read_config
from heads.run import carry_out
from stores import open_store
from tests.cli.commands import Said
from tests.extract.narrow import stand_in
from tests.heads.feature_stores import Killed, Killer


def work_in(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `folder` the current one, and let the names of networks stand for narrow ones."""
    stand_in(monkeypatch)
    monkeypatch.chdir(folder)


def weights(run: Path, name: str) -> dict[str, Tensor]:
    """Those of a file of a run."""
    return safetensors.torch.load_file(run / f"{name}.safetensors")


def changed(run: Path, name: str, other: dict[str, Tensor]) -> set[str]:
    """Which parts of the model have other weights."""
    own = weights(run, name)
    return {
        ".".join(key.split(".")[:2]) for key, tensor in own.items() if key in other and not tensor.equal(other[key])
    }


def assert_cut_off_ends_alike(said: Said, whole: Path, cut: Path, batches: int = 2) -> None:
    """A run begun as `whole`, cut off after so many batches were saved, and resumed has its weights to the bit."""
    cut.mkdir()
    for name in ("config.json", "labels.json", "init.safetensors"):  # as a run that has not begun
        if (whole / name).exists():
            shutil.copy(whole / name, cut / name)
    finetune = read_config(cut).finetune
    assert finetune is not None
    videos, _, _ = open_videos(Asked.from_dict(finetune["clips"]), "cpu", 2, cut.parent)
    with pytest.raises(Killed):
        carry_out(cut, device=torch.device("cpu"), observer=Killer(at=batches + 1), clips=videos)
    code, _, err = said("finetune", "--resume", cut, "--workers", "3")
    assert code == 0, err
    assert f"going on after 0 epochs and {batches} batches" in err
    for name in ("best", "last"):
        one, other = weights(whole, name), weights(cut, name)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def scores(path: Path) -> NDArray[np.float32]:
    """Those of the test video of `labelled_videos`."""
    found: NDArray[np.float32] = open_store(path)["scores"].read("v4.mp4").features
    return found


def assert_commands_give_the_scores(said: Said, commands: Sequence[str], run: Path, folder: Path) -> None:
    """The commands for new videos, carried out on those of the run, give its scores up to the store's rounding."""
    extract, predict = map(shlex.split, commands)
    place = {"NEW_VIDEOS": "videos", "new.zarr": folder / "again.zarr"}
    for words in (extract, [*predict, "--out", str(folder / "p.zarr")]):
        code, _, err = said(*(place.get(word, word) for word in words[1:]))
        assert code == 0, err
    np.testing.assert_allclose(scores(folder / "p.zarr"), scores(run / "test.zarr"), atol=1e-3)


def extracted_then_tuned(
    said: Said,
    folder: Path,
    head: tuple[str, ...],
    rows: tuple[str, ...],
    tuning: tuple[str, ...],
    files: tuple[str, ...],
    chosen: tuple[str, ...] = (),
) -> str:
    """Extract videos/, train a head, fine-tune it in `folder`/tuned; the commands that it names give the same scores.

    Args:
        head: with its options, as `vl train-head` has them.
        rows: of `vl extract`.
        tuning: of `vl finetune`, which takes from the head's run what it does not say.
        files: networks whose weights the second extraction takes from the run.
        chosen: weights of the first one.

    Returns:
        What `vl finetune` said.
    """
    run, quick = folder / "tuned", ("--epochs", "1")
    code, _, err = said("extract", *rows, *chosen, "videos", "--out", folder / "rows.zarr")
    assert code == 0, err
    stored = ("--features", folder / "rows.zarr", "--labels", "videos/labels.csv", "--out", folder / "head")
    code, _, err = said("train-head", *head, *stored, *quick)
    assert code == 0, err
    begun = ("--init", folder / "head", "--out", run, "--workers", "1", "--set", "checkpoint_seconds=0")
    code, out, told = said("finetune", head[0], "videos", *tuning, *begun, *quick)
    assert code == 0, told
    (line,) = (line for line in told.splitlines() if line.startswith("end to end, 3 videos have the logits"))
    assert float(line.split()[-1]) < 1e-2  # the stored rows were rounded to half precision
    commands = [line.strip() for line in out.splitlines() if line.startswith("  vl ")]
    assert [f"{name}={run}/{name}.safetensors" in commands[0].split() for name in files] == [True] * len(files)
    assert_commands_give_the_scores(said, commands, run, folder)
    found = scores(run / "test.zarr")
    assert np.abs(found - scores(folder / "head" / "test.zarr")).max() > 1e-4
    return told
