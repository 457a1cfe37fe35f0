"""ASF against its paper's numbers, and against loops that spell its equations out."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from heads.asf import Asf, AsfConfig, cooccurrence
from heads.head import Batch, HeadError
from heads.layers import mean_log_odds
from heads.metrics import video_map
from heads.options import TrainOptions, full_config, split_settings

STEPS, HEIGHT, WIDTH = 4, 7, 7  # of the paper: 196 positions of 2048 features
Grads = list[Tensor]


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**options: object) -> Asf:
    sizes = {"num_features": 12, "num_classes": 5, "num_observations": 6, "embed": 8, "groups": 2, "dropout": 0.0}
    head = Asf(AsfConfig(**{**sizes, **options}))  # type: ignore[arg-type]
    head.learn_labels(torch.tensor([[1, 1, 0, 0, 1], [1, 0, 0, 0, 1], [0, 1, 1, 0, 0]]))
    return head


def batch_of(x_BTHWD: Tensor, mask_BT: Tensor | None = None, labels: Tensor | None = None) -> Batch:
    mask_BT = torch.ones(x_BTHWD.shape[:2], dtype=torch.bool, device=x_BTHWD.device) if mask_BT is None else mask_BT
    return Batch({"map": x_BTHWD}, {"map": mask_BT}, torch.zeros(*x_BTHWD.shape[:2], 2), labels)


def group_linear(weight_GOI: Tensor, x_DP: Tensor) -> Tensor:
    """Equation 13, (D, P) to (E, P), as PyTorch's convolution over one position in groups."""
    return functional.conv1d(x_DP[None], weight_GOI.flatten(0, 1)[..., None], groups=len(weight_GOI))[0]


def spelled_out(head: Asf, x_PD: Tensor) -> tuple[Tensor, Tensor]:
    """Equations 1 to 13 for one video, whose positions are all real: z_A and z_C, (C,) each."""
    assert head.observe is not None
    assert head.correlate is not None
    assert head.second is not None
    observations = []
    for k in range(head.config.num_observations):
        alpha_EP = group_linear(head.observe.value_KGOI[k], x_PD.T)
        beta_EP = group_linear(head.observe.query_GKOI[:, k], x_PD.T)
        gamma_EP = group_linear(head.observe.key_KGOI[k], x_PD.T)
        attention_1P = torch.softmax(beta_EP[:, -1:].T @ gamma_EP, dim=1)
        observations.append(attention_1P @ alpha_EP.T)
    obs_KE = torch.cat(observations)
    own_CE = torch.softmax(head.activity_CE @ obs_KE.T, dim=1) @ obs_KE
    query_CE = group_linear(head.correlate.query.weight_GOI, own_CE.T).T
    key_CE = group_linear(head.correlate.key.weight_GOI, own_CE.T).T
    correlation_CC = torch.softmax(query_CE @ key_CE.T, dim=1) + head.correlate.cooccurrence_CC
    correlated_CE = correlation_CC @ own_CE
    z_A = own_CE @ head.first.weight.T + head.first.bias
    z_C = correlated_CE @ head.second.weight.T + head.second.bias
    return z_A[:, 0], z_C[:, 0]


@pytest.mark.parametrize(
    ("classes", "observations", "groups", "expected"),
    [
        (157, 64, 1, 50_384_770),
        (157, 64, 8, 6_315_906),
        (157, 64, 32, 1_594_242),
        (157, 64, 64, 807_298),
        (157, 16, 32, 414_594),
        (157, 32, 32, 807_810),
        (157, 128, 32, 3_167_106),
        (1024, 64, 32, 1_705_218),
    ],
)
def test_head_has_as_many_parameters_as_the_paper_counts(
    classes: int, observations: int, groups: int, expected: int
) -> None:
    with torch.device("meta"):
        head = Asf(AsfConfig(2048, classes, num_observations=observations, groups=groups))
    assert count(head) == expected


def test_defaults_are_those_of_the_papers_main_result() -> None:
    assert AsfConfig(2048, 157) == AsfConfig(2048, 157, num_observations=64, embed=128, groups=32, dropout=0.5)
    _, training = split_settings(Asf, [])
    assert training == TrainOptions(**Asf.recipe)
    assert (training.optimizer, training.lr, training.weight_decay) == ("sgd", 3.5e-2, 1.25e-5)
    assert (training.batch_size, training.steps) == (12, 50_000)
    assert full_config(Asf, {"map": (7, 7, 2048)}, 157, {})["num_features"] == 2048


def test_ablations_have_only_what_they_use() -> None:
    whole, correlation = count(small()), 2 * 8 * 8 // 2 + 9
    observations, share = 3 * 6 * 12 * 8 // 2, 12 * 8 // 2
    assert count(small(correlation=False)) == whole - correlation
    assert count(small(activity_specific=False)) == whole - observations + share
    assert count(small(activity_specific=False, correlation=False)) == share + 5 * 8 + 9


def multiply_adds(head: Asf, literally: bool) -> int:
    """Of one video of the paper's size, by walking the operations; PyTorch counts two for each.

    The head gets two, for products of one alone are not all matrix products, which are what is counted.
    """
    videos = 1 if literally else 2
    x_BTHWD = torch.empty(videos, STEPS, HEIGHT, WIDTH, head.config.num_features, device="meta")
    with FlopCounterMode(display=False) as counter:
        if literally:
            spelled_out(head, x_BTHWD.reshape(-1, head.config.num_features))
        else:
            head(batch_of(x_BTHWD))
    return int(counter.get_total_flops()) // 2 // videos


@pytest.mark.parametrize(
    ("classes", "observations", "groups", "paper"),
    [
        (157, 64, 1, 9.87),
        (157, 64, 8, 1.24),
        (157, 64, 32, 0.32),
        (157, 64, 64, 0.16),
        (157, 16, 32, 0.08),
        (157, 32, 32, 0.16),
        (157, 128, 32, 0.62),
        (1024, 64, 32, 0.33),
    ],
)
def test_equations_cost_what_the_paper_says(classes: int, observations: int, groups: int, paper: float) -> None:
    with torch.device("meta"):
        head = Asf(AsfConfig(2048, classes, num_observations=observations, groups=groups))
    positions, features, embed = STEPS * HEIGHT * WIDTH, 2048, 128
    maps = 3 * observations * positions * features * embed // groups
    attention = 2 * observations * positions * embed + 2 * classes * observations * embed + 2 * classes * embed
    correlation = 2 * classes**2 * embed + 2 * classes * embed**2 // groups  # the paper leaves these out
    assert multiply_adds(head, literally=True) == maps + attention + correlation
    assert (maps + attention) / 1e9 == pytest.approx(paper, abs=0.012)


def test_head_needs_a_sixth_of_the_multiplications() -> None:
    with torch.device("meta"):
        head = Asf(AsfConfig(2048, 157))
    sums, maps = 2 * 64 * 196 * 2048, 3 * 64 * 2048 * 128 // 32
    after = 2 * 157 * 64 * 128 + 2 * 157 * 128 + 2 * 157**2 * 128 + 2 * 157 * 128**2 // 32
    assert multiply_adds(head, literally=False) == sums + maps + after
    assert (multiply_adds(head, literally=True) - after) / (sums + maps) == pytest.approx(5.9, abs=0.05)


@pytest.mark.parametrize("videos", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_head_and_its_gradients_are_the_equations(dtype: torch.dtype, tolerance: float, videos: int) -> None:
    torch.manual_seed(1)
    head = small().to(dtype)
    mask_BT = torch.tensor([[True, False, True, False], [True, True, False, False], [True] * 4])[:videos]
    x_BTHWD = torch.randn(videos, 4, 2, 3, 12, dtype=dtype, requires_grad=True)
    weight_3BC = torch.randn(3, videos, 5, dtype=dtype)
    found = head(batch_of(x_BTHWD, mask_BT))
    pairs = [spelled_out(head, x_THWD[mask].reshape(-1, 12)) for x_THWD, mask in zip(x_BTHWD, mask_BT, strict=True)]
    z_A, z_C = (torch.stack(of_videos) for of_videos in zip(*pairs, strict=True))
    mean = (z_A.sigmoid() + z_C.sigmoid()) / 2
    grads: list[Grads] = []
    inputs = [x_BTHWD, *head.parameters()]
    for outputs in ((found.logits, *found.earlier), (torch.log(mean / (1 - mean)), z_A, z_C)):
        total = (weight_3BC * torch.stack(outputs)).sum()
        grads.append([*outputs, *torch.autograd.grad(total, inputs)])
    for fast, slow in zip(*grads, strict=True):
        assert slow.abs().sum() > 0
        torch.testing.assert_close(fast, slow, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("options", [{}, {"activity_specific": False}, {"correlation": False}])
@pytest.mark.parametrize("filler", [0.0, 1e3])
def test_padding_changes_neither_scores_nor_loss_nor_gradients(options: dict[str, bool], filler: float) -> None:
    torch.manual_seed(2)
    head = small(**options).double()
    x_BTHWD = torch.randn(2, 3, 2, 2, 12, dtype=torch.double)
    padded = torch.cat([x_BTHWD, torch.full((2, 4, 2, 2, 12), filler, dtype=torch.double)], dim=1)
    labels = torch.tensor([[1, 0, 1, -1, 0], [0, 0, 1, 1, 0]])
    results: list[Grads] = []
    for x in (x_BTHWD, padded):
        batch = batch_of(x, (torch.arange(x.shape[1]) < 3).expand(2, -1), labels)
        scores = head(batch)
        loss = head.loss(scores, batch)
        grads = torch.autograd.grad(loss, list(head.parameters()))
        results.append([scores.logits, *scores.earlier, loss, *grads])
    for alone, other in zip(*results, strict=True):
        torch.testing.assert_close(other, alone)


def test_order_of_positions_is_nothing_but_which_is_last() -> None:
    torch.manual_seed(3)
    head = small().double().eval()
    x_BPD = torch.randn(1, 12, 12, dtype=torch.double)
    order = torch.tensor([4, 2, 9, 0, 7, 1, 10, 3, 8, 5, 6, 11])
    logits, shuffled, turned = (
        head(batch_of(x.reshape(1, 3, 2, 2, 12))).logits for x in (x_BPD, x_BPD[:, order], x_BPD.flip(1))
    )
    torch.testing.assert_close(shuffled, logits)
    assert (turned - logits).abs().max() > 1e-3


def test_classes_in_another_order_score_alike() -> None:
    torch.manual_seed(4)
    head = small().double().eval()
    assert head.correlate is not None
    batch = batch_of(torch.randn(2, 3, 2, 2, 12, dtype=torch.double))
    logits, order = head(batch).logits, torch.tensor([3, 0, 4, 1, 2])
    with torch.no_grad():
        head.activity_CE.copy_(head.activity_CE[order])
        head.correlate.cooccurrence_CC.copy_(head.correlate.cooccurrence_CC[order][:, order])
    torch.testing.assert_close(head(batch).logits, logits[:, order])


def test_cooccurrence_is_the_share_of_known_videos() -> None:
    labels = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [1, -1, 1, 0], [0, 1, -1, 0]], dtype=torch.int8)
    expected = torch.tensor([[3 / 3, 1 / 2, 1 / 3, 0], [1 / 2, 2 / 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]).double()
    torch.testing.assert_close(cooccurrence(labels), expected, atol=1e-7, rtol=0)


def test_cooccurrence_stands_in_the_checkpoint_and_starts_as_each_class_alone() -> None:
    fresh = Asf(AsfConfig(12, 3, embed=8, groups=2))
    name = "correlate.cooccurrence_CC"
    assert torch.equal(fresh.state_dict()[name], torch.eye(3))
    fresh.learn_labels(torch.tensor([[1, 1, 0], [1, 0, 1]]))
    expected = torch.tensor([[1, 0.5, 0.5], [1, 1, 0], [1, 0, 1]])
    assert torch.equal(fresh.state_dict()[name], expected)
    assert name not in dict(fresh.named_parameters())


def test_no_correlation_scores_the_classs_own_features() -> None:
    torch.manual_seed(5)
    head, alone = small().double().eval(), small(correlation=False).double().eval()
    alone.load_state_dict(head.state_dict(), strict=False)
    batch = batch_of(torch.randn(2, 3, 2, 2, 12, dtype=torch.double))
    scores = alone(batch)
    torch.testing.assert_close(scores.logits, head(batch).earlier[0])
    assert len(scores.earlier) == 1


def test_no_activity_specific_features_is_one_mean_that_each_class_weighs() -> None:
    torch.manual_seed(6)
    head = small(activity_specific=False, correlation=False).double().eval()
    assert head.share is not None
    x_BTHWD = torch.randn(1, 3, 2, 2, 12, dtype=torch.double)
    mean_D = x_BTHWD[0, :2].reshape(-1, 12).mean(0)
    shared_E = group_linear(head.share.weight_GOI, mean_D[:, None])[:, 0]
    expected = (head.activity_CE * shared_E) @ head.first.weight[0] + head.first.bias
    logits = head(batch_of(x_BTHWD, torch.tensor([[True, True, False]]))).logits[0]
    torch.testing.assert_close(logits, expected)


def test_score_is_the_mean_of_two_probabilities_however_sure() -> None:
    a, b = (
        torch.tensor([0.3, -2.0, 5.0, 1000.0, 1000.0, -1000.0]),
        torch.tensor([-1.0, 4.0, 5.0, -1000.0, 1000.0, -80.0]),
    )
    found = mean_log_odds(a, b)
    mean = (a[:3].double().sigmoid() + b[:3].double().sigmoid()) / 2
    torch.testing.assert_close(found[:3].double(), torch.logit(mean), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(found[3:], torch.tensor([0.0, 1000.0, -80 - math.log(2)]))


def test_loss_is_of_both_outputs_where_the_label_is_known() -> None:
    torch.manual_seed(7)
    head = small()
    labels = torch.tensor([[1, 0, -1, 0, 1], [0, -1, -1, 1, 0]])
    batch = batch_of(torch.randn(2, 3, 2, 2, 12), labels=labels)
    scores = head(batch)
    expected = 0.0
    for z_BC in scores.earlier:
        known = [(z_BC[b, c].item(), labels[b, c].item()) for b in range(2) for c in range(5) if labels[b, c] >= 0]
        expected += sum(math.log1p(math.exp(-z if label else z)) for z, label in known) / len(known)
    assert head.loss(scores, batch).item() == pytest.approx(expected, rel=1e-5)


def test_dropout_stands_before_the_classifiers_alone() -> None:
    torch.manual_seed(8)
    head = small(dropout=0.5)
    batch = batch_of(torch.randn(2, 3, 2, 2, 12))
    training, evaluation = head.train().attention(batch), head.eval().attention(batch)
    for name, attention in evaluation.maps.items():
        torch.testing.assert_close(training.maps[name], attention)
    for noisy, plain in zip(training.earlier, evaluation.earlier, strict=True):
        assert (noisy - plain).abs().max() > 1e-3


def test_attention_comes_on_request_and_sees_real_steps_alone() -> None:
    torch.manual_seed(9)
    head = small().eval()
    batch = batch_of(torch.randn(2, 3, 2, 4, 12), torch.tensor([[True, True, True], [True, False, False]]))
    assert head(batch).maps == {}
    maps = head.attention(batch).maps
    shapes = {name: tuple(attention.shape) for name, attention in maps.items()}
    assert shapes == {"observation": (2, 6, 3, 2, 4), "class": (2, 5, 6), "correlation": (2, 5, 5)}
    assert maps["observation"][1, :, 1:].abs().max() == 0
    torch.testing.assert_close(maps["observation"].sum((2, 3, 4)), torch.ones(2, 6))
    torch.testing.assert_close(maps["class"].sum(2), torch.ones(2, 5))


def test_video_without_a_real_step_has_finite_scores() -> None:
    head = small().eval()
    scores = head(batch_of(torch.zeros(1, 3, 2, 2, 12), torch.zeros(1, 3, dtype=torch.bool)))
    assert scores.logits.isfinite().all()


def test_half_precision_keeps_attention_and_scores_in_float32() -> None:
    torch.manual_seed(10)
    head = small()
    batch = batch_of(torch.randn(2, 3, 2, 2, 12), labels=torch.ones(2, 5, dtype=torch.int8))
    plain = head(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = head.attention(batch)
    assert {attention.dtype for attention in half.maps.values()} == {torch.float32}
    torch.testing.assert_close(half.probabilities(), plain.probabilities(), atol=0.03, rtol=0)
    loss = head.loss(half, batch)
    torch.autograd.backward(loss)
    assert loss.dtype == half.logits.dtype == torch.float32
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in head.parameters())


@pytest.mark.parametrize(
    "options",
    [{"dropout": 1.0}, {"groups": 5}, {"groups": 3}, {"embed": 0}, {"num_observations": 0}, {"groups": 0}],
)
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(HeadError):
        small(**options)


def test_groups_that_do_not_divide_are_told_which_would() -> None:
    with pytest.raises(HeadError, match=r"does not divide 432 features .* --set groups=16 does"):
        AsfConfig(432, 157)


def planted(videos: int, seed: int) -> tuple[Tensor, Tensor]:
    """Each class is a pattern in one of 31 positions, in noise; the last position shows none."""
    torch.manual_seed(99)
    patterns_CD = 2 * torch.randn(3, 16)
    torch.manual_seed(seed)
    labels_BC = torch.rand(videos, 3) < 0.4
    x_BPD = 1 + torch.randn(videos, 32, 16)
    for b, c in labels_BC.nonzero().tolist():
        x_BPD[b, torch.randint(31, ())] += patterns_CD[c]
    return x_BPD.reshape(videos, 8, 2, 2, 16), labels_BC.to(torch.int8)


def learned(activity_specific: bool) -> float:
    """Mean average precision on videos not seen."""
    x_BTHWD, labels_BC = planted(256, seed=1)
    torch.manual_seed(11)
    config = AsfConfig(16, 3, num_observations=8, embed=16, groups=4, dropout=0.0, activity_specific=activity_specific)
    head = Asf(config)
    head.learn_labels(labels_BC)
    optimizer = torch.optim.SGD(head.parameters(), lr=3.5e-2, momentum=0.9)
    for step in range(400):
        part = slice(step % 8 * 32, (step % 8 + 1) * 32)
        batch = batch_of(x_BTHWD[part], labels=labels_BC[part])
        optimizer.zero_grad()
        torch.autograd.backward(head.loss(head(batch), batch))
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
    x_BTHWD, labels_BC = planted(256, seed=2)
    with torch.no_grad():
        probabilities = head.eval()(batch_of(x_BTHWD)).probabilities()
    return video_map(probabilities.numpy(), labels_BC.numpy())


def test_it_learns_patterns_that_a_mean_over_positions_drowns() -> None:
    assert learned(activity_specific=True) > 0.95
    assert learned(activity_specific=False) < 0.9
