"""What training minimises: the mean over every score whose label is known.

Shape letters: B windows, N rows, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from heads.layers import at_least_float32

if TYPE_CHECKING:  # a head's loss comes from here
    from heads.head import Batch, Scores

MOST_WEIGHT = 100.0


def known_labels(batch: Batch, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Labels as numbers of the logits' shape, in float32 or wider, and how much each counts: 0 where it does not.

    A label counts where it is 0 or 1 (not -1) and, for a row head, where the row is real: as 1, or for a positive
    one of a batch with class weights as the weight of its class.
    """
    assert batch.labels is not None, "a batch for training carries labels"
    known = batch.labels >= 0
    if logits.dim() == 3:  # row head: (B, N, C), on the grid of the first role
        known &= next(iter(batch.mask.values()))[..., None]
    dtype = torch.promote_types(logits.dtype, torch.float32)
    labels, weight = batch.labels.clamp(min=0).to(dtype), known.to(dtype)
    if batch.class_weights is not None:
        weight = weight * torch.where(labels == 1, batch.class_weights, 1.0)
    return labels, weight


def balancing_weights(positives_C: NDArray[np.integer], known_C: NDArray[np.integer]) -> NDArray[np.float32]:
    """(C,) weight of a positive label that lets the positives of a class count as much as its negatives.

    At most `MOST_WEIGHT`, so that one label of a rare class does not outweigh a batch; 1 for a class without positives.
    """
    ratio_C = (known_C - positives_C) / np.maximum(positives_C, 1)
    return np.where(positives_C > 0, np.clip(ratio_C, 1 / MOST_WEIGHT, MOST_WEIGHT), 1).astype(np.float32)


def binary_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Mean over the known labels of the cross entropy of each score by itself, in float32 or wider.

    Args:
        logits: any shape.
        labels: 0 or 1, of that shape.
        known: how much each label counts in the mean, 0 where not at all; with none known the loss is 0.
    """
    logits = at_least_float32(logits)
    each = functional.binary_cross_entropy_with_logits(logits, labels, weight=known, reduction="sum")
    return each / known.sum().clamp(min=1)


def scores_loss(scores: Scores, batch: Batch) -> Tensor:
    """Sum, with weight 1 each, of the losses of the final logits and of the earlier ones that a head trains."""
    labels, known = known_labels(batch, scores.logits)
    losses = [binary_cross_entropy(logits, labels, known) for logits in (scores.logits, *scores.earlier)]
    return torch.stack(losses).sum()
