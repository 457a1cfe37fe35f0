"""Pieces that several heads are made of.

Shape letters: N rows, C classes, E features of a class; `...` stands for whatever comes before.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class ClassifierPerClass(nn.Module):
    """One linear map from a class's features to its logit, none shared.

    Args:
        num_classes: C.
        width: E.
        bound: weights begin uniform in [-bound, bound], biases in `nn.Linear`'s +-1 / sqrt(E).
    """

    def __init__(self, num_classes: int, width: int, bound: float) -> None:
        super().__init__()
        of_bias = 1 / math.sqrt(width)
        self.weight = nn.Parameter(torch.empty(num_classes, width).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(num_classes).uniform_(-of_bias, of_bias))

    def forward(self, x_CE: Tensor) -> Tensor:
        """(..., C, E) to logits (..., C)."""
        return torch.einsum("...ce,ce->...c", x_CE, self.weight) + self.bias


def position_code(rows: int, width: int, device: torch.device) -> Tensor:
    """(rows, width) sinusoids of wavelengths 2 pi to 10000 x 2 pi: sines in even columns, cosines in odd ones.

    Source: Vaswani et al., "Attention Is All You Need", section 3.5.
    """
    rate_H = torch.exp(torch.arange(0, width, 2, device=device) * (-math.log(10_000.0) / width))
    angle_NH = torch.arange(rows, device=device)[:, None] * rate_H
    return torch.stack((angle_NH.sin(), angle_NH.cos()), dim=-1).flatten(1)[:, :width]


def at_least_float32(x: Tensor) -> Tensor:
    """For norms, gates and softmax under autocast, where halves lose too much; float64 stays."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def mean_log_odds(a: Tensor, b: Tensor) -> Tensor:
    """The logit of the mean of two logits' probabilities, in float32 or wider; exact however sure they are.

    >>> mean_log_odds(torch.tensor(200.0), torch.tensor(200.0)).item()
    200.0
    """
    a, b = at_least_float32(a), at_least_float32(b)
    yes = torch.logaddexp(functional.logsigmoid(a), functional.logsigmoid(b))
    return yes - torch.logaddexp(functional.logsigmoid(-a), functional.logsigmoid(-b))
