"""What training minimises: the mean over every score whose label is known.

Shape letters: B windows, N rows, C classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:  # a head's loss comes from here
    from heads.head import Batch, Scores


def known_labels(batch: Batch, logits: Tensor) -> tuple[Tensor, Tensor]:
    """Labels as floats of the logits' shape, and a float mask: 1 where the label counts.

    A label counts where it is 0 or 1 (not -1) and, for a row head, where the row is real.
    """
    assert batch.labels is not None, "a batch for training carries labels"
    known = batch.labels >= 0
    if logits.dim() == 3:  # row head: (B, N, C), on the grid of the first role
        known &= next(iter(batch.mask.values()))[..., None]
    return batch.labels.clamp(min=0).to(torch.float32), known.to(torch.float32)


def binary_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Mean over the known labels of the cross entropy of each score by itself, in float32.

    Args:
        logits: any shape.
        labels: 0 or 1, of that shape.
        known: 1 where the label counts, 0 where not; with none known the loss is 0.
    """
    each = functional.binary_cross_entropy_with_logits(logits.float(), labels, weight=known, reduction="sum")
    return each / known.sum().clamp(min=1)


def scores_loss(scores: Scores, batch: Batch) -> Tensor:
    """Sum, with weight 1 each, of the losses of the final logits and of the earlier ones that a head trains."""
    labels, known = known_labels(batch, scores.logits)
    losses = [binary_cross_entropy(logits, labels, known) for logits in (scores.logits, *scores.earlier)]
    return torch.stack(losses).sum()
