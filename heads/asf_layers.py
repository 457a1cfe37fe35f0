"""Pieces that ASF's networks are made of.

Source: Zhang et al., "Multi-Label Activity Recognition using Activity-specific Features and Activity Correlations",
CVPR 2021; equation numbers are the paper's.

Shape letters: B videos, G groups, I entries of a group of the input, O of the output; `...` stands for axes that
both sides have.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from heads.layers import at_least_float32


class GroupLinear(nn.Module):
    """A linear map from each group of the input to the same group of the output, without bias (equation 13)."""

    def __init__(self, num_in: int, num_out: int, groups: int) -> None:
        super().__init__()
        self.weight_GOI = group_weight(groups, num_out // groups, num_in // groups)

    def forward(self, x: Tensor) -> Tensor:
        """(..., G I) to (..., G O)."""
        x_GI = grouped(x, len(self.weight_GOI))
        return torch.einsum("...gi,goi->...go", x_GI, self.weight_GOI).flatten(-2)


def group_weight(*shape: int) -> nn.Parameter:
    """A weight whose last axis is summed over, with nn.Linear's first values."""
    bound = 1 / math.sqrt(shape[-1])
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def grouped(x: Tensor, groups: int) -> Tensor:
    """(..., G I) to (..., G, I)."""
    return x.reshape(*x.shape[:-1], groups, -1)


def forth(weight: Tensor, x: Tensor) -> Tensor:
    """Many small matrices (..., O, I), each times the vectors of its own: (B, ..., I) to (B, ..., O).

    One video is multiplied and added up element by element: a product of small matrices with a single vector has a
    gradient that libraries are slow at.
    """
    if len(x) == 1:
        return (weight * x.unsqueeze(-2)).sum(-1)
    return (weight @ x.movedim(0, -1)).movedim(-1, 0)


def back(weight: Tensor, x: Tensor) -> Tensor:
    """The same matrices transposed: (B, ..., O) to (B, ..., I); one video goes with a second one of zeros."""
    if len(x) == 1:
        return back(weight, torch.cat([x, torch.zeros_like(x)]))[:1]
    return (x.movedim(0, -2) @ weight).movedim(-2, 0)


def softmax(scores: Tensor, mask: Tensor | None = None) -> Tensor:
    """Over the last axis, in float32 or wider; 0 where the mask is False, all alike where it is all False."""
    scores = at_least_float32(scores)
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores.softmax(-1)
