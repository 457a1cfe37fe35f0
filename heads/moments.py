"""Mean and deviation of features, gathered piece by piece.

Shape letters: D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class Moments(NamedTuple):
    """What is kept of rows to give their mean and deviation."""

    rows: int
    mean: NDArray[np.float64]  # (D,)
    squares: NDArray[np.float64]  # (D,) sum of the squared differences from the mean

    def joined(self, other: Moments) -> Moments:
        """Of the rows of both (Chan et al., 1979)."""
        total = self.rows + other.rows
        if not total:
            return self
        between = (other.mean - self.mean) ** 2 * self.rows * other.rows / total
        mean = self.mean + (other.mean - self.mean) * other.rows / total
        return Moments(total, mean, self.squares + other.squares + between)


def deviations(of_sets: Sequence[Moments]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (D,) of a role from the moments of its sets; 1 for what never changes."""
    mean = np.concatenate([moments.mean for moments in of_sets])
    variance = np.concatenate([moments.squares / max(moments.rows, 1) for moments in of_sets])
    std = np.where(variance > 0, np.sqrt(variance), 1.0)
    return torch.from_numpy(mean).float(), torch.from_numpy(std).float()
