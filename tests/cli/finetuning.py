"""What became of the weights of a run of `vl finetune`."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
from torch import Tensor


def weights(run: Path, name: str) -> dict[str, Tensor]:
    """Those of a file of a run."""
    return safetensors.torch.load_file(run / f"{name}.safetensors")


def changed(run: Path, name: str, other: dict[str, Tensor]) -> set[str]:
    """Which parts of the model have other weights."""
    own = weights(run, name)
    return {
        ".".join(key.split(".")[:2]) for key, tensor in own.items() if key in other and not tensor.equal(other[key])
    }
