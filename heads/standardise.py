"""Features brought to mean 0 and deviation 1 before the head sees them, with the training rows' figures.

Differs from the papers, which give heads raw features: those of unlike networks and of sound lie orders of
magnitude apart, and one learning rate then suits none of them. `--set standardise=false` gives the papers' way.

Shape letters: B windows, N rows, D features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from heads.head import Batch, Head, Scores, wide


class Standardise(nn.Module):
    """A fixed shift and scale for each feature of each role; kept in the checkpoint."""

    def __init__(self, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.roles = tuple(widths)
        for role, width in widths.items():
            self.register_buffer(f"{role}_mean", torch.zeros(width))
            self.register_buffer(f"{role}_std", torch.ones(width))

    def set_statistics(self, found: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Take role to (mean, deviation), each (D,)."""
        for role, (mean, std) in found.items():
            self.get_buffer(f"{role}_mean").copy_(mean)
            self.get_buffer(f"{role}_std").copy_(std)

    @property
    def means(self) -> dict[str, Tensor]:
        """Role to mean (D,)."""
        return {role: self.get_buffer(f"{role}_mean") for role in self.roles}

    def forward(self, batch: Batch) -> Batch:
        """The same batch with standardised features; masked rows stay zero."""
        features = {}
        for role, values in batch.features.items():
            mean, std = self.get_buffer(f"{role}_mean"), self.get_buffer(f"{role}_std")
            features[role] = ((values - mean) / std).masked_fill(~wide(batch.mask[role], values), 0)
        return dataclasses.replace(batch, features=features)


class Model(nn.Module):
    """What is trained, kept and used: the standardisation and the head."""

    def __init__(self, head: Head, widths: Mapping[str, int]) -> None:
        super().__init__()
        self.standardise = Standardise(widths)
        self.head = head

    def forward(self, batch: Batch) -> Scores:
        """The head's scores of raw features."""
        scores: Scores = self.head(self.standardise(batch))
        return scores

    def parameter_groups(self) -> list[dict[str, Any]]:
        """What the optimiser takes; a group with a highest learning rate of its own has it as `lr`."""
        return [{"params": list(self.parameters())}]
