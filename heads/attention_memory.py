"""Whether attention makes its matrices, what they take, and an error before they do not fit.

PyTorch's attention makes none where a fused kernel takes the inputs: on a CPU if nothing is dropped, on a GPU also
with dropout, unless in float64 or of a width that no kernel knows. Elsewhere it makes them whole and keeps them for
the backward pass. Which it will be, PyTorch is asked: it decides by the same function when it comes to it.

Shape letters: B windows, N rows, C classes, E features, L = N x C tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend

from heads.head import HeadError
from heads.windows import free_memory

KEPT = 3  # with dropout: what softmax gave, what was dropped, and their product
PASSING = 2  # of the layer at work, besides
GIB = 2**30


@dataclass(frozen=True)
class Matrices:
    """B x L x L numbers of one head's attention, in each of some layers."""

    windows: int  # B
    tokens: int  # L
    layers: int
    itemsize: int  # bytes of a number

    def kept(self, dropout: bool) -> int:
        """Bytes that wait for the backward pass."""
        return (KEPT if dropout else 1) * self.layers * self.once

    def most(self, dropout: bool, gradient: bool) -> int:
        """Bytes at once, at most."""
        return PASSING * self.once + (self.kept(dropout) if gradient else 0)

    @property
    def once(self) -> int:
        """Bytes of one layer's, without copies."""
        return self.windows * self.tokens**2 * self.itemsize


class MatrixGuard:
    """Looks whether the matrices of attention over all rows and classes fit, once for each new shape of batch."""

    def __init__(self, layers: int, dropout: float) -> None:
        self.layers = layers
        self.dropout = dropout
        self.known: set[tuple[object, ...]] = set()

    def check(self, x_BNCE: Tensor, training: bool) -> None:
        """Before the first layer.

        Raises:
            HeadError: the matrices take more than the device has free; says how much, and what to lower to what.
        """
        dropout, gradient = self.dropout if training else 0.0, torch.is_grad_enabled()
        case = (x_BNCE.shape, x_BNCE.dtype, x_BNCE.device, dropout, gradient)
        if case in self.known:
            return
        if makes_matrices(x_BNCE, dropout):
            self._require_room(x_BNCE, dropout, gradient)
        self.known.add(case)

    def _require_room(self, x_BNCE: Tensor, dropout: float, gradient: bool) -> None:
        windows, rows, classes, _ = x_BNCE.shape
        itemsize = max(4, x_BNCE.dtype.itemsize)  # halves are multiplied in float32
        matrices = Matrices(windows, rows * classes, self.layers, itemsize)
        most, free = matrices.most(dropout > 0, gradient), free_on(x_BNCE.device)
        if most <= free:
            return
        share = free / most
        ways = [f"window to {math.floor(rows * math.sqrt(share))} rows"]
        if windows * share >= 1:
            ways.append(f"batch_size to {math.floor(windows * share)}")
        fused = "" if not dropout or makes_matrices(x_BNCE, 0.0) else " dropout=0 makes none of them."
        raise HeadError(
            f"attention over {rows} rows x {classes} classes makes matrices of {rows * classes} x {rows * classes}: "
            f"a batch of {windows} through {self.layers} layers takes {most / GIB:.3g} GiB, and {x_BNCE.device.type} "
            f"has {free / GIB:.3g} GiB free. Lower {' or '.join(ways)}, or num_layers; embed does not matter.{fused}"
        )


def makes_matrices(x_BNCE: Tensor, dropout: float) -> bool:
    """Whether attention with one head over all rows and classes, padding masked, makes its matrices.

    Args:
        x_BNCE: of the shape, dtype and device of queries, keys and values.
        dropout: share of attention weights dropped.
    """
    windows, rows, classes, width = x_BNCE.shape
    like_B1LE = x_BNCE.new_empty(1, 1, 1, width).expand(windows, 1, rows * classes, width)
    like_B1LE.requires_grad_(torch.is_grad_enabled())
    mask = torch.empty(1, 1, 1, 1, dtype=torch.bool, device=x_BNCE.device).expand(windows, 1, 1, rows * classes)
    return torch._fused_sdp_choice(like_B1LE, like_B1LE, like_B1LE, mask, dropout) == SDPBackend.MATH.value


def free_on(device: torch.device) -> int:
    """Bytes that tensors on the device could still take, with what PyTorch holds there unused."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    return free_memory(device) + unused
