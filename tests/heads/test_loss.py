"""The loss counts what is known, once."""

import math

import numpy as np
import pytest
import torch

from heads.head import Batch, Scores
from heads.loss import balancing_weights, known_labels, scores_loss


def row_batch(labels: list[list[list[int]]], mask: list[list[bool]]) -> Batch:
    rows = torch.tensor(mask)
    return Batch({}, {"x": rows}, torch.zeros(*rows.shape, 2), torch.tensor(labels, dtype=torch.int8))


def test_loss_is_the_mean_over_known_labels_of_real_rows() -> None:
    batch = row_batch([[[1, -1], [0, 1], [1, 1]]], [[True, True, False]])
    logits = torch.tensor([[[2.0, 50.0], [-1.0, 0.0], [-70.0, -70.0]]])
    expected = (math.log1p(math.exp(-2)) + math.log1p(math.exp(-1)) + math.log(2)) / 3
    assert float(scores_loss(Scores(logits), batch)) == pytest.approx(expected, rel=1e-6)


def test_double_logits_give_a_double_loss() -> None:
    """A third has no exact float32, in which the loss would be wrong from the eighth digit on."""
    batch = row_batch([[[1], [0]]], [[True, True]])
    logits = torch.tensor([[[1 / 3], [-1 / 7]]], dtype=torch.float64)
    expected = (math.log1p(math.exp(-1 / 3)) + math.log1p(math.exp(-1 / 7))) / 2
    assert float(scores_loss(Scores(logits), batch)) == pytest.approx(expected, rel=1e-15)
    assert known_labels(batch, logits)[0].dtype == torch.float64
    assert known_labels(batch, logits.bfloat16())[0].dtype == torch.float32


def test_earlier_logits_add_their_own_loss() -> None:
    batch = row_batch([[[1], [0]]], [[True, True]])
    zero = torch.zeros(1, 2, 1)
    assert float(scores_loss(Scores(zero, earlier=(zero, zero)), batch)) == pytest.approx(3 * math.log(2))


def test_nothing_known_gives_no_loss_and_no_gradient() -> None:
    batch = row_batch([[[-1, -1]]], [[True]])
    logits = torch.randn(1, 1, 2, requires_grad=True)
    loss = scores_loss(Scores(logits), batch)
    torch.autograd.backward(loss)
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_video_labels_ignore_the_mask_of_rows() -> None:
    batch = Batch(
        {}, {"x": torch.tensor([[True, False, False]])}, torch.zeros(1, 3, 2), torch.tensor([[1, 0]], dtype=torch.int8)
    )
    assert float(scores_loss(Scores(torch.zeros(1, 2)), batch)) == pytest.approx(math.log(2))


def test_a_positive_label_counts_by_the_weight_of_its_class() -> None:
    batch = row_batch([[[1, 0], [0, 1]]], [[True, True]])
    batch.class_weights = torch.tensor([3.0, 0.5])
    logits = torch.tensor([[[2.0, 1.0], [-1.0, 0.5]]])
    one, other = math.log1p(math.exp(-2)), math.log1p(math.exp(-0.5))  # positives of the two classes
    negatives = math.log1p(math.exp(1.0)) + math.log1p(math.exp(-1.0))
    expected = (3 * one + 0.5 * other + negatives) / (3 + 0.5 + 2)
    assert float(scores_loss(Scores(logits), batch)) == pytest.approx(expected, rel=1e-6)


def test_balancing_gives_positives_the_weight_of_negatives() -> None:
    # 1 of 5; 4 of 5; 1 of 1001, cut at 100; none
    positives, known = np.array([1, 4, 1, 0]), np.array([5, 5, 1001, 9])
    assert balancing_weights(positives, known).tolist() == [4.0, 0.25, 100.0, 1.0]
