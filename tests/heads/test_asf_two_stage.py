"""ASF's two-stage transformer against its definition, position by position."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from heads import asf_two_stage
from heads.asf import Asf, AsfConfig
from heads.asf_layers import GroupLinear
from heads.head import Batch, HeadError
from heads.metrics import video_map

Grads = list[Tensor]
B, T, H, W, D, C = 3, 4, 2, 3, 12, 5


def small(**options: object) -> Asf:
    sizes = {"num_features": D, "num_classes": C, "embed": 8, "groups": 2, "dropout": 0.0}
    return Asf(AsfConfig(**{**sizes, "network": "two_stage_transformer", **options}))  # type: ignore[arg-type]


def batch_of(x_BTHWD: Tensor, mask_BT: Tensor | None = None, labels: Tensor | None = None) -> Batch:
    mask_BT = torch.ones(x_BTHWD.shape[:2], dtype=torch.bool, device=x_BTHWD.device) if mask_BT is None else mask_BT
    return Batch({"map": x_BTHWD}, {"map": mask_BT}, torch.zeros(*x_BTHWD.shape[:2], 2), labels)


def group_linear(linear: GroupLinear, x_PD: Tensor) -> Tensor:
    """Equation 13, group by group."""
    return torch.cat([x_PI @ w_OI.T for w_OI, x_PI in zip(linear.weight_GOI, x_PD.chunk(2, dim=1), strict=True)], 1)


def spelled_out(head: Asf, x_PD: Tensor) -> Tensor:
    """(C,) of one video whose positions are all real: two layers, the mean, the classifier."""
    stages = head.stages
    assert stages is not None
    for to_query, to_key in ((stages.query1, stages.key1), (stages.query2, stages.key2)):
        q_PE, k_PE = group_linear(to_query, x_PD), group_linear(to_key, x_PD)
        x_PD = torch.stack([torch.softmax(k_PE @ q_E, dim=0) @ x_PD for q_E in q_PE])
    mean_D = sum(x_PD) / len(x_PD)
    return head.first.weight @ mean_D + head.first.bias


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_it_has_two_pairs_of_maps_and_a_classifier() -> None:
    with torch.device("meta"):
        head = Asf(AsfConfig(2048, 157, network="two_stage_transformer"))
        whole = Asf(AsfConfig(2048, 157, network="two_stage_transformer", groups=1))
    assert count(head) == 4 * 2048 * 128 // 32 + 2048 * 157 + 157 == 354_461
    assert count(whole) == 4 * 2048 * 128 + 2048 * 157 + 157


def test_it_needs_a_fifth_of_the_multiplications_of_its_definition() -> None:
    positions, features, embed = 4 * 7 * 7, 2048, 128
    with torch.device("meta"):
        head = Asf(AsfConfig(features, 157, network="two_stage_transformer"))
    with FlopCounterMode(display=False) as counter:
        head(batch_of(torch.empty(1, 4, 7, 7, features, device="meta")))
    maps, classifier = 4 * positions * features * embed // 32, features * 157
    ours = maps + 5 * positions**2 * embed + 2 * positions**2 + positions * features + classifier
    literal = maps + 2 * positions**2 * embed + 2 * positions**2 * features + classifier
    assert counter.get_total_flops() // 2 == ours
    assert literal == 173_930_496
    assert literal / ours == pytest.approx(5.5, abs=0.05)


@pytest.mark.parametrize("elements", [2**22, 3 * 24 * 5], ids=["whole", "in parts"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_scores_and_gradients_are_those_of_the_definition(
    dtype: torch.dtype, tolerance: float, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asf_two_stage, "MAP_ELEMENTS", elements)
    torch.manual_seed(1)
    head = small().to(dtype)
    mask_BT = torch.tensor([[True] * 4, [True, True, False, False], [True, False, True, False]])
    x_BTHWD = torch.randn(B, T, H, W, D, dtype=dtype, requires_grad=True)
    found_BC = head(batch_of(x_BTHWD, mask_BT)).logits
    right_BC = torch.stack(
        [spelled_out(head, x_THWD[mask].reshape(-1, D)) for x_THWD, mask in zip(x_BTHWD, mask_BT, strict=True)]
    )
    weight_BC = torch.randn(B, C, dtype=dtype)
    inputs = [x_BTHWD, *head.parameters()]
    results = [[z, *torch.autograd.grad((weight_BC * z).sum(), inputs)] for z in (found_BC, right_BC)]
    for mine, right in zip(*results, strict=True):
        assert float(right.detach().abs().sum()) > 0
        torch.testing.assert_close(mine, right, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("filler", [0.0, 1e3])
def test_padding_changes_neither_scores_nor_loss_nor_gradients(filler: float) -> None:
    torch.manual_seed(2)
    head = small().double()
    x_BTHWD = torch.randn(2, 3, H, W, D, dtype=torch.double)
    padded = torch.cat([x_BTHWD, torch.full((2, 4, H, W, D), filler, dtype=torch.double)], dim=1)
    labels = torch.tensor([[1, 0, 1, -1, 0], [0, 0, 1, 1, 0]])
    results: list[Grads] = []
    for x in (x_BTHWD, padded):
        batch = batch_of(x, (torch.arange(x.shape[1]) < 3).expand(2, -1), labels)
        scores = head(batch)
        loss = head.loss(scores, batch)
        results.append([scores.logits, loss, *torch.autograd.grad(loss, list(head.parameters()))])
    for alone, other in zip(*results, strict=True):
        torch.testing.assert_close(other, alone)


def test_positions_in_any_order_give_the_same_scores() -> None:
    torch.manual_seed(3)
    head = small().double().eval()
    x_BPD = torch.randn(1, T * H * W, D, dtype=torch.double)
    logits, turned = (head(batch_of(x.reshape(1, T, H, W, D))).logits for x in (x_BPD, x_BPD.flip(1)))
    torch.testing.assert_close(turned, logits)


def test_many_positions_keep_no_attention_map(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(4)
    head = small()
    positions = T * H * W

    def kept() -> int:
        """Maps, whole or in part, that wait for the backward pass."""
        found: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point() and tensor.dim() == 3 and tensor.shape[-1] == positions:
                found.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            head(batch_of(torch.randn(B, T, H, W, D)))
        return len([tensor for tensor in found if tensor.shape[1] > 1])

    assert kept() > 0
    monkeypatch.setattr(asf_two_stage, "MAP_ELEMENTS", 5 * B * positions)
    assert kept() == 0


def test_shares_of_positions_come_on_request_and_add_up_to_one() -> None:
    torch.manual_seed(5)
    head = small().double().eval()
    x_BTHWD, mask_BT = torch.randn(2, T, H, W, D, dtype=torch.double), torch.tensor([[True] * 4, [True] + [False] * 3])
    batch = batch_of(x_BTHWD, mask_BT)
    assert head(batch).maps == {}
    scores = head.attention(batch)
    share_BTHW = scores.maps["position"].detach()
    assert share_BTHW.shape == (2, T, H, W)
    assert float(share_BTHW[1, 1:].abs().max()) == 0
    torch.testing.assert_close(share_BTHW.sum((1, 2, 3)), torch.ones(2, dtype=torch.double))
    mean_BD = (share_BTHW[..., None] * x_BTHWD).sum((1, 2, 3))
    torch.testing.assert_close(scores.logits, head.first(mean_BD))


def test_video_without_a_real_step_has_finite_scores_and_gradients() -> None:
    head = small()
    logits = head(batch_of(torch.zeros(1, 3, H, W, D), torch.zeros(1, 3, dtype=torch.bool))).logits
    torch.testing.assert_close(logits[0], head.first.bias)
    assert all(bool(grad.isfinite().all()) for grad in torch.autograd.grad(logits.sum(), list(head.parameters())))


def test_half_precision_scores_alike_and_trains() -> None:
    torch.manual_seed(6)
    head = small()
    batch = batch_of(torch.randn(2, T, H, W, D), labels=torch.ones(2, C, dtype=torch.int8))
    plain = head(batch).probabilities()
    with torch.autocast("cpu", torch.bfloat16):
        half = head.attention(batch)
    assert half.maps["position"].dtype == torch.float32
    torch.testing.assert_close(half.probabilities(), plain, atol=0.03, rtol=0)
    torch.autograd.backward(head.loss(half, batch))
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())


def test_dropout_stands_before_the_classifier() -> None:
    torch.manual_seed(7)
    head = small(dropout=0.5)
    batch = batch_of(torch.randn(2, T, H, W, D))
    training, evaluation = head.train().attention(batch), head.eval().attention(batch)
    torch.testing.assert_close(training.maps["position"], evaluation.maps["position"])
    assert float((training.logits - evaluation.logits).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("options", [{"num_observations": 32}, {"correlation": False}, {"activity_specific": False}])
def test_options_of_the_other_network_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(HeadError, match="are options of network=observations"):
        small(**options)


def test_labels_of_the_training_videos_are_nothing_to_it() -> None:
    head = small()
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.learn_labels(torch.ones(4, C, dtype=torch.int8))
    assert all(torch.equal(tensor, before[name]) for name, tensor in head.state_dict().items())


def learned(freeze: bool) -> float:
    """Mean average precision on videos not seen, of classes that are one pattern in one of 32 noisy positions.

    With frozen maps all queries and keys are zero, and what is left is the mean.
    """
    torch.manual_seed(8)
    patterns_CD = 2 * torch.randn(3, 16)

    def videos(number: int) -> tuple[Tensor, Tensor]:
        labels_BC = torch.rand(number, 3) < 0.4
        x_BPD = torch.randn(number, 32, 16)
        for b, c in labels_BC.nonzero().tolist():
            x_BPD[b, torch.randint(32, ())] += patterns_CD[c]
        return x_BPD.reshape(number, 8, 2, 2, 16), labels_BC.to(torch.int8)

    x_BTHWD, labels_BC = videos(256)
    head = Asf(AsfConfig(16, 3, embed=16, groups=4, dropout=0.0, network="two_stage_transformer"))
    assert head.stages is not None
    if freeze:
        for parameter in head.stages.parameters():
            nn.init.zeros_(parameter.requires_grad_(False))
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
    for step in range(200):
        part = slice(step % 8 * 32, (step % 8 + 1) * 32)
        batch = batch_of(x_BTHWD[part], labels=labels_BC[part])
        optimizer.zero_grad()
        torch.autograd.backward(head.loss(head(batch), batch))
        optimizer.step()
    x_BTHWD, labels_BC = videos(256)
    with torch.no_grad():
        return video_map(head.eval()(batch_of(x_BTHWD)).probabilities().numpy(), labels_BC.numpy())


def test_it_learns_where_to_look() -> None:
    assert learned(freeze=False) > 0.9
    assert learned(freeze=True) < 0.75
