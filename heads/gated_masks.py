"""Which frames a frame attends to locally: the block-diagonal, Toeplitz and dilated Toeplitz masks.

Source: Sahu and Goyal, "Leveraging Local Temporal Information for Multimodal Scene Classification", ICASSP 2022,
section 2.2 and Table 1. A Toeplitz mask is 2W + 1 frames wide, as the text says; the paper's figure draws fewer.

Shape letters: T steps of time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from heads.head import HeadError

Kind = Literal["bd", "tp", "td"]
Variant = Literal["global", "share", "gate_att", "gate_op"]


class LocalMask(NamedTuple):
    """One neighbourhood: of W frames (bd), or of every L-th frame up to W to each side (tp: L = 1; td)."""

    kind: Kind
    width: int  # W, frames
    dilation: int = 1  # L, frames; not for bd

    @property
    def reach(self) -> int:
        """How far, in frames, a frame attends to either side at most."""
        return self.width - 1 if self.kind == "bd" else self.width

    def allowed(self, steps: int, device: torch.device) -> Tensor:
        """(T, T) True where the row's frame attends to the column's; a frame always attends to itself."""
        at_T = torch.arange(steps, device=device)
        if self.kind == "bd":
            block_T = at_T // self.width
            return block_T[:, None] == block_T
        offset_TT = at_T[:, None] - at_T
        return (offset_TT.abs() <= self.width) & (offset_TT % self.dilation == 0)


SHARED: Mapping[Kind, tuple[LocalMask, ...]] = {  # one for each of the local half of eight heads
    "bd": tuple(LocalMask("bd", width) for width in (10, 20, 30, 60)),
    "tp": tuple(LocalMask("tp", width) for width in (10, 30, 60, 80)),
    "td": (LocalMask("td", 10, 2), LocalMask("td", 30, 3), LocalMask("td", 60, 4), LocalMask("td", 80, 5)),
}
GATED: Mapping[tuple[str, Kind], LocalMask] = {  # one for all heads: the columns of Table 1
    ("gate_att", "bd"): LocalMask("bd", 10),
    ("gate_att", "tp"): LocalMask("tp", 10),
    ("gate_att", "td"): LocalMask("td", 80, 5),
    ("gate_op", "bd"): LocalMask("bd", 20),
    ("gate_op", "tp"): LocalMask("tp", 30),
    ("gate_op", "td"): LocalMask("td", 60, 4),
}


def local_masks(variant: Variant, kind: Kind, width: int | None, dilation: int | None) -> tuple[LocalMask, ...]:
    """The masks of a variant's local attention: none, one for all heads, or one for each local head.

    Args:
        variant: gate_att and gate_op have one mask; share has the paper's four; global has none.
        kind: of neighbourhood.
        width: W in frames; None: the paper's for variant and kind.
        dilation: L in frames; None: the paper's.

    Raises:
        HeadError: a width or dilation that is not positive, or that the variant or kind has no use for.
    """
    if variant in ("global", "share"):
        if width is not None or dilation is not None:
            why = "attends nowhere locally" if variant == "global" else "has the paper's mask for each local head"
            raise HeadError(f"width and dilation are for gate_att and gate_op: {variant} {why}.")
        return SHARED[kind] if variant == "share" else ()
    if dilation is not None and kind != "td":
        raise HeadError(f"dilation is for local=td; {kind} has every frame of its neighbourhood.")
    paper = GATED[variant, kind]
    mask = LocalMask(kind, paper.width if width is None else width, paper.dilation if dilation is None else dilation)
    if min(mask.width, mask.dilation) < 1:
        raise HeadError(f"width and dilation are positive numbers of frames, not {mask.width} and {mask.dilation}.")
    return (mask,)


def stacked(masks: tuple[LocalMask, ...], steps: int, device: torch.device) -> Tensor:
    """(1, number of masks, T, T) True where a head attends."""
    return torch.stack([mask.allowed(steps, device) for mask in masks])[None]
