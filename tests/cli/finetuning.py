"""Five short videos with labels for `vl finetune`, and what became of the weights of a run."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from torch import Tensor

from tests.extract.test_clips import picture
from tests.extract.video_files import write_video

SUBSETS = ("train", "train", "train", "val", "test")


def write_videos(folder: Path) -> Path:
    """v0.mp4 to v4.mp4 of 14, 23, .. 50 frames at 12 a second, with labels.csv."""
    folder.mkdir()
    lines = ["video,start,end,label,subset"]
    for number, subset in enumerate(SUBSETS):
        write_video(folder / f"v{number}.mp4", fps=12, frames=14 + 9 * number, draw=picture)
        lines += [f"v{number},0,0.5,{label},{subset}" for label in ("odd" if number % 2 else "even", "all")]
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder


def weights(run: Path, name: str) -> dict[str, Tensor]:
    """Those of a file of a run."""
    return safetensors.torch.load_file(run / f"{name}.safetensors")


def changed(run: Path, name: str, other: dict[str, Tensor]) -> set[str]:
    """Which parts of the model have other weights."""
    own = weights(run, name)
    return {
        ".".join(key.split(".")[:2]) for key, tensor in own.items() if key in other and not tensor.equal(other[key])
    }
