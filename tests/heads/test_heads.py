"""What every head promises, and what each baseline is."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from heads.baselines import ConvolutionConfig, Linear, LinearConfig, MeanPool, TemporalConvolution
from heads.head import HEADS, Batch, Head, HeadError, head_class
from heads.options import TrainOptions, full_config, split_settings
from heads.standardise import Model
from stores.spec import Granularity

B, N, D, C = 2, 9, 8, 3
SMALL: Mapping[str, Mapping[str, Any]] = {  # options that make the large heads quick
    "asf": {"groups": 2, "embed": 8, "num_observations": 4},
    "gated": {"ffn": 16, "hidden": 8},
    "stan": {"embed": 16, "ffn": 16, "num_layers": 1},
    "stld": {"hidden": 16, "nhead": 2, "dim_feedforward": 16, "num_layers": 1},
}


def shapes(kind: type[Head]) -> dict[str, tuple[int, ...]]:
    """Role to the shape of a row, for what the head accepts."""
    return {role: (2, 3, D) if kind.accepts == {Granularity.MAP} else (D,) for role in kind.roles}


@pytest.fixture(params=sorted(HEADS))
def head(request: pytest.FixtureRequest) -> Head:
    torch.manual_seed(0)
    kind = head_class(request.param)
    return kind(kind.config_class(**full_config(kind, shapes(kind), C, SMALL.get(kind.name, {})))).double().eval()


def features(rows: int, padding: int = 0, filler: float = 0.0, kind: type[Head] = Linear) -> Batch:
    torch.manual_seed(1)
    given = {}
    for role, shape in shapes(kind).items():
        real = torch.randn(B, rows, *shape, dtype=torch.double)
        given[role] = torch.cat([real, torch.full((B, padding, *shape), filler, dtype=torch.double)], dim=1)
    mask_BN = (torch.arange(rows + padding) < rows).expand(B, -1)
    return Batch(given, dict.fromkeys(given, mask_BN), torch.zeros(B, rows + padding, 2))


def real_rows(logits: Tensor, rows: int) -> Tensor:
    return logits[:, :rows] if logits.dim() == 3 else logits


@pytest.mark.parametrize("filler", [0.0, 1e3])
def test_padding_changes_nothing(head: Head, filler: float) -> None:
    alone = head(features(N, kind=type(head)))
    padded = head(features(N, padding=4, filler=filler, kind=type(head)))
    torch.testing.assert_close(real_rows(padded.logits, N), alone.logits)
    for earlier, other in zip(padded.earlier, alone.earlier, strict=True):
        torch.testing.assert_close(real_rows(earlier, N), other)


def test_padding_changes_neither_loss_nor_gradients(head: Head) -> None:
    gradients = []
    for padding in (0, 4):
        batch = features(N, padding, filler=1e3, kind=type(head))
        shape = (B, N + padding, C) if head.level == "row" else (B, C)
        batch.labels = torch.zeros(shape, dtype=torch.int8)
        batch.labels[:, :2] = 1
        head.zero_grad()
        loss = head.loss(head(batch), batch)
        torch.autograd.backward(loss)
        gradients.append([loss.detach(), *(parameter.grad for parameter in head.parameters())])
    for alone, padded in zip(*gradients, strict=True):
        torch.testing.assert_close(padded, alone)


def test_scores_have_the_shape_of_the_level(head: Head) -> None:
    scores = head(features(N, kind=type(head)))
    assert scores.logits.shape == ((B, N, C) if head.level == "row" else (B, C))
    probabilities = scores.probabilities()
    assert probabilities.dtype == torch.float32
    torch.testing.assert_close(probabilities.double(), 1 / (1 + torch.exp(-scores.logits)), atol=1e-6, rtol=1e-6)


def test_recipe_is_made_of_training_options(head: Head) -> None:
    _, training = split_settings(type(head), [])
    assert training == TrainOptions(**head.recipe)


def test_unknown_head_is_told_the_known_ones() -> None:
    with pytest.raises(HeadError, match="linear, meanpool, mlad, stan, stld, tconv"):
        head_class("mlda")


def test_meanpool_is_the_mean_of_real_rows() -> None:
    head = MeanPool(LinearConfig(2, 1)).eval()
    with torch.no_grad():
        head.last.weight.copy_(torch.tensor([[1.0, 10.0]]))
        head.last.bias.fill_(0.5)
    x_BND = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [99.0, 99.0]]])
    mask_BN = torch.tensor([[True, True, False]])
    logits = head(Batch({"x": x_BND}, {"x": mask_BN}, torch.zeros(1, 3, 2))).logits
    assert logits.tolist() == [[2.0 + 40.0 + 0.5]]


def test_temporal_convolution_sees_four_rows_to_each_side() -> None:
    torch.manual_seed(2)
    head = TemporalConvolution(ConvolutionConfig(D, C)).double().eval()
    batch = features(20)
    before = head(batch).logits
    batch.features["x"][:, 10] += 1
    changed = (head(batch).logits != before).any(-1)[0]
    assert changed.nonzero().ravel().tolist() == list(range(6, 15))


def test_temporal_convolution_is_the_sum_over_neighbours() -> None:
    torch.manual_seed(3)
    head = TemporalConvolution(ConvolutionConfig(D, C, width=5)).double().eval()
    batch = features(7)
    x_ND = batch.features["x"][0]
    for layer in head.layers:
        assert isinstance(layer, nn.Conv1d)
        reach = layer.kernel_size[0] // 2
        assert layer.bias is not None
        rows = []
        for n in range(7):
            row_W = layer.bias
            for k in range(max(-reach, -n), min(reach, 6 - n) + 1):
                row_W = row_W + layer.weight[:, :, k + reach] @ x_ND[n + k]
            rows.append(torch.relu(row_W))
        x_ND = torch.stack(rows)
    torch.testing.assert_close(head(batch).logits[0], x_ND @ head.last.weight.T + head.last.bias)


def test_standardised_features_have_mean_0_and_deviation_1_and_padding_stays_zero() -> None:
    kind = head_class("linear")
    model = Model(kind(LinearConfig(2, 1)), {"x": 2})
    model.standardise.set_statistics({"x": (torch.tensor([1.0, -2.0]), torch.tensor([2.0, 4.0]))})
    x_BND = torch.tensor([[[3.0, -2.0], [1.0, 6.0], [0.0, 0.0]]])
    batch = Batch({"x": x_BND}, {"x": torch.tensor([[True, True, False]])}, torch.zeros(1, 3, 2))
    assert model.standardise(batch).features["x"].tolist() == [[[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]]
