"""What became of a run of `vl finetune`: its weights, and whether one that was cut off ends alike."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from cli.finetune_videos import Asked, open_videos
from heads.checkpoint import read_config
from heads.run import carry_out
from tests.cli.commands import Said
from tests.heads.feature_stores import Killed, Killer


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
