"""TranSTL against its paper's numbers, against loops that spell it out, and against PyTorch's decoder layer."""

import math
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from heads.head import Batch, HeadError, Scores
from heads.options import TrainOptions, full_config, split_settings
from heads.stld import Stld, StldConfig, StldLayer, asymmetric_loss
from stores.spec import FeatureSpec, Granularity

B, T, H, W, K, C = 2, 4, 2, 3, 5, 3
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**options: object) -> StldConfig:
    sizes = {"num_features": K, "num_classes": C, "hidden": 8, "nhead": 2, "dim_feedforward": 12}
    return StldConfig(**{**sizes, **options})  # type: ignore[arg-type]


def shaken(module: nn.Module) -> nn.Module:
    """Every parameter moved off its first value, so that no bias is 0 and no norm is the identity."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return module


def head_of(dtype: torch.dtype = torch.float64, **options: object) -> Stld:
    torch.manual_seed(0)
    head = shaken(Stld(small(**options))).to(dtype).eval()
    assert isinstance(head, Stld)
    return head


def batch_of(x_BTHWK: Tensor, mask_BT: Tensor | None = None, labels_BC: Tensor | None = None) -> Batch:
    shape_BT = x_BTHWK.shape[:2]
    mask_BT = x_BTHWK.new_ones(shape_BT, dtype=torch.bool) if mask_BT is None else mask_BT
    return Batch({"map": x_BTHWK}, {"map": mask_BT}, torch.zeros(*shape_BT, 2), labels_BC)


def videos(dtype: torch.dtype = torch.float64) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(B, T, H, W, K, dtype=dtype)


def assert_close(found: Tensor, expected: Tensor) -> None:
    """1e-12 in float64, 1e-5 in float32, of the largest value expected or of 1."""
    tolerance = TOLERANCE[expected.dtype]
    scale = max(1.0, float(expected.detach().abs().max()))
    torch.testing.assert_close(found, expected, atol=tolerance * scale, rtol=tolerance)


def test_whole_head_has_as_many_parameters_as_the_paper_with_slowfast_on_charades() -> None:
    with torch.device("meta"):
        assert count(Stld(StldConfig(2304, 157))) == 53_244_218
        assert count(StldLayer(StldConfig(2304, 157))) == 12_600_320


def test_defaults_are_those_of_the_paper_or_of_pytorch() -> None:
    config = StldConfig(2304, 157)
    assert (config.hidden, config.num_layers, config.gamma_pos, config.gamma_neg) == (1024, 2, 1, 4)
    assert (config.nhead, config.dim_feedforward, config.dropout, config.margin) == (8, 2048, 0.1, 0.05)


@pytest.mark.parametrize("num_layers", [1, 2, 3, 4])
def test_ablations_have_only_what_they_use(num_layers: int) -> None:
    outside = (2304 * 1024 + 1024) + (1024 * 157 + 157)
    with torch.device("meta"):
        both = Stld(StldConfig(2304, 157, num_layers=num_layers))
        spatial = Stld(StldConfig(2304, 157, num_layers=num_layers, branches="spatial"))
        temporal = Stld(StldConfig(2304, 157, num_layers=num_layers, branches="temporal"))
    assert count(both) == outside + 2 * num_layers * 12_600_320 + 157 * 2049
    assert count(spatial) == count(temporal) == outside + num_layers * 12_600_320 + 157 * 1025
    assert spatial.temporal is None
    assert temporal.spatial is None


def test_layer_is_pytorchs_decoder_layer() -> None:
    torch.manual_seed(2)
    oracle = nn.TransformerDecoderLayer(8, 2, 12, batch_first=True).double().eval()
    shaken(oracle)
    layer = StldLayer(small()).double().eval()
    layer.load_state_dict(oracle.state_dict())
    e_BCD, memory_BLD = torch.randn(B, C, 8, dtype=torch.double), torch.randn(B, 5, 8, dtype=torch.double)
    padded_BL = torch.arange(5) >= torch.tensor([5, 3])[:, None]
    expected = oracle(e_BCD, memory_BLD, memory_key_padding_mask=padded_BL)
    for with_maps in (False, True):
        found = layer(e_BCD, memory_BLD, padded_BL, with_maps)
        assert_close(found.e_BCD, expected)
        assert (found.labels_BCC is not None) == (found.memory_BCL is not None) == with_maps


def attended(
    attention: nn.MultiheadAttention, heads: int, queries_CD: Tensor, memory_LD: Tensor
) -> tuple[Tensor, Tensor]:
    """(C, D) that a loop over heads, queries and memory gives, and the mean weights (C, L)."""
    width = queries_CD.shape[1]
    size = width // heads
    weight, bias = attention.in_proj_weight, attention.in_proj_bias
    q, k, v = (
        values @ weight[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width]
        for i, values in enumerate((queries_CD, memory_LD, memory_LD))
    )
    rows, weights = [], []
    for c in range(len(q)):
        parts, of_heads = [], []
        for h in range(heads):
            mine = slice(h * size, (h + 1) * size)
            powers = torch.stack([torch.exp(q[c, mine] @ key[mine] / math.sqrt(size)) for key in k])
            shares = powers / powers.sum()
            parts.append(sum((share * value[mine] for share, value in zip(shares, v, strict=True)), torch.zeros(())))
            of_heads.append(shares)
        rows.append(torch.cat(parts))
        weights.append(torch.stack(of_heads).mean(0))
    return torch.stack(rows) @ attention.out_proj.weight.T + attention.out_proj.bias, torch.stack(weights)


def normed(norm: nn.LayerNorm, x_CD: Tensor) -> Tensor:
    centred = x_CD - x_CD.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt() * norm.weight + norm.bias


def spelled_out_layer(layer: StldLayer, heads: int, e_CD: Tensor, memory_LD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mixed, label_map = attended(layer.self_attn, heads, e_CD, e_CD)
    e_CD = normed(layer.norm1, e_CD + mixed)
    found, memory_map = attended(layer.multihead_attn, heads, e_CD, memory_LD)
    e_CD = normed(layer.norm2, e_CD + found)
    wide = torch.relu(e_CD @ layer.linear1.weight.T + layer.linear1.bias)
    return normed(layer.norm3, e_CD + wide @ layer.linear2.weight.T + layer.linear2.bias), label_map, memory_map


def spelled_out(head: Stld, x_THWK: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits (C,) and maps of one video without padding, by section 2 of the paper."""
    steps, height, width, _ = x_THWK.shape
    a = {
        (t, h, w): head.project.weight @ x_THWK[t, h, w] + head.project.bias
        for t in range(steps)
        for h in range(height)
        for w in range(width)
    }
    places = [(h, w) for h in range(height) for w in range(width)]
    f_s = torch.stack([torch.stack([a[t, h, w] for t in range(steps)]).amax(0) for h, w in places])
    f_t = torch.stack([torch.stack([a[t, h, w] for h, w in places]).amax(0) for t in range(steps)])
    f = torch.stack(list(a.values())).mean(0)
    weight, bias = head.first.weight, head.first.bias
    y_m = torch.stack([sum((weight[c] * f).unbind(), bias[c]) for c in range(len(weight))])
    refined, maps = [], {}
    for name, branch, memory in (("spatial", head.spatial, f_s), ("temporal", head.temporal, f_t)):
        if branch is None:
            continue
        e_CD = torch.stack([f * weight[c] for c in range(len(weight))])
        for layer in branch.layers:
            assert isinstance(layer, StldLayer)
            e_CD, maps[f"{name}_labels"], maps[name] = spelled_out_layer(layer, head.config.nhead, e_CD, memory)
        refined.append(e_CD)
    e_CE = torch.cat(refined, dim=1)
    y_r = [sum((head.last.weight[c] * e_CE[c]).unbind(), head.last.bias[c]) for c in range(len(e_CE))]
    return y_m + torch.stack(y_r), maps


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "options", [{}, {"nhead": 1, "branches": "spatial"}, {"num_layers": 3, "branches": "temporal"}]
)
def test_head_and_its_gradients_are_those_of_the_loops(dtype: torch.dtype, options: dict[str, object]) -> None:
    head = head_of(dtype, **options)
    lengths = (T, T - 1)
    mask_BT = torch.arange(T) < torch.tensor(lengths)[:, None]
    x_BTHWK = videos(dtype).requires_grad_()
    wanted = [x_BTHWK, *head.parameters()]
    found = head(batch_of(x_BTHWK, mask_BT)).logits
    shown = head.attention(batch_of(x_BTHWK, mask_BT))
    literal = [spelled_out(head, x_BTHWK[b, :length]) for b, length in enumerate(lengths)]
    expected = torch.stack([logits for logits, _ in literal])
    assert_close(found, expected)
    assert_close(shown.logits, expected)
    for name, found_map in shown.maps.items():
        for b, (_, maps) in enumerate(literal):
            assert_close(found_map[b, :, : maps[name].shape[1]], maps[name])
            assert not found_map[b, :, maps[name].shape[1] :].any()
    assert shown.maps.keys() == literal[0][1].keys()
    weights_BC = torch.tensor([[1.0, -2.0, 0.5], [0.3, 1.5, -1.0]], dtype=dtype)
    for mine, theirs in zip(
        torch.autograd.grad((found * weights_BC).sum(), wanted),
        torch.autograd.grad((expected * weights_BC).sum(), wanted),
        strict=True,
    ):
        assert_close(mine, theirs)


def test_with_one_head_and_no_projections_attention_is_equations_3_and_4() -> None:
    torch.manual_seed(3)
    layer = StldLayer(small(nhead=1)).double().eval()
    with torch.no_grad():
        for attention in (layer.self_attn, layer.multihead_attn):
            attention.in_proj_weight.copy_(torch.eye(8, dtype=torch.double).repeat(3, 1))
            attention.in_proj_bias.zero_()
            attention.out_proj.weight.copy_(torch.eye(8))
            attention.out_proj.bias.zero_()
    e_CD, memory_LD = torch.randn(C, 8, dtype=torch.double), torch.randn(5, 8, dtype=torch.double)
    equation_3 = torch.softmax(e_CD @ e_CD.T / math.sqrt(8), dim=1)
    e1_CD = equation_3 @ e_CD
    shown = layer(e_CD[None], memory_LD[None], None, True)
    assert_close(shown.labels_BCC[0], equation_3)
    refined, _ = layer.self_attn(e_CD[None], e_CD[None], e_CD[None])
    assert_close(refined[0], e1_CD)
    query_CD = layer.norm1(e_CD + e1_CD)  # the decoder's residual and norm, which equation 4 leaves out
    equation_4 = torch.softmax(query_CD @ memory_LD.T / math.sqrt(8), dim=1)
    assert_close(shown.memory_BCL[0], equation_4)
    layer.norm1.register_forward_hook(lambda norm, given, out: given[0] - e_CD)  # and without both
    equation_4 = torch.softmax(e1_CD @ memory_LD.T / math.sqrt(8), dim=1)
    shown = layer(e_CD[None], memory_LD[None], None, True)
    assert_close(shown.memory_BCL[0], equation_4)


def test_maps_come_only_when_asked_for_and_change_no_score() -> None:
    head = head_of()
    batch = batch_of(videos())
    assert head(batch).maps == {}
    shown = head.attention(batch)
    assert_close(shown.logits, head(batch).logits)
    labels = (B, C, C)
    shapes = {name: tuple(values.shape) for name, values in shown.maps.items()}
    assert shapes == {
        "spatial": (B, C, H * W),
        "spatial_labels": labels,
        "temporal": (B, C, T),
        "temporal_labels": labels,
    }
    for values in shown.maps.values():
        assert_close(values.sum(-1), torch.ones(B, C, dtype=torch.double))
    assert set(head_of(branches="temporal").attention(batch).maps) == {"temporal", "temporal_labels"}


def test_time_reversed_gives_the_same_scores_and_the_reversed_map() -> None:
    head, x_BTHWK = head_of(), videos()
    forward, backward = head.attention(batch_of(x_BTHWK)), head.attention(batch_of(x_BTHWK.flip(1)))
    assert_close(backward.logits, forward.logits)
    assert_close(backward.maps["temporal"], forward.maps["temporal"].flip(2))
    assert_close(backward.maps["spatial"], forward.maps["spatial"])


def test_places_in_any_order_give_the_same_scores_and_the_map_in_that_order() -> None:
    head, x_BTHWK = head_of(), videos()
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    moved = x_BTHWK.flatten(2, 3)[:, :, order].reshape(x_BTHWK.shape)
    before, after = head.attention(batch_of(x_BTHWK)), head.attention(batch_of(moved))
    assert_close(after.logits, before.logits)
    assert_close(after.maps["spatial"], before.maps["spatial"][:, :, order])
    assert_close(after.maps["temporal"], before.maps["temporal"])


def test_maps_of_any_height_and_width_fit_one_head() -> None:
    head = head_of()
    torch.manual_seed(4)
    for height, width in ((1, 1), (5, 2)):
        scores = head.attention(batch_of(torch.randn(B, T, height, width, K, dtype=torch.double)))
        assert scores.maps["spatial"].shape == (B, C, height * width)


def test_without_weights_per_class_the_first_classifier_stays() -> None:
    head, x_BTHWK = head_of(), videos()
    with torch.no_grad():
        head.last.weight.zero_()
        head.last.bias.zero_()
    expected = head.first(head.project(x_BTHWK).mean((1, 2, 3)))
    assert_close(head(batch_of(x_BTHWK)).logits, expected)


def padded(x_BTHWK: Tensor, filler: float) -> tuple[Tensor, Tensor]:
    """Two padded steps at the end and one in the middle, with the mask."""
    fill = torch.full_like(x_BTHWK[:, :1], filler)
    x = torch.cat([x_BTHWK[:, :2], fill, x_BTHWK[:, 2:], fill, fill], dim=1)
    return x, torch.tensor([True, True, False, True, True, False, False]).expand(B, -1)


@pytest.mark.parametrize("filler", [0.0, 1e3])
def test_padding_changes_neither_scores_nor_maps_nor_loss_nor_gradients(filler: float) -> None:
    head = head_of()
    labels_BC = torch.tensor([[1, 0, -1], [0, 1, 1]], dtype=torch.int8)
    results = []
    for x_BTHWK, mask_BT in ((videos(), None), padded(videos(), filler)):
        batch = batch_of(x_BTHWK, mask_BT, labels_BC)
        scores, maps = head(batch), head.attention(batch).maps
        if mask_BT is not None:
            assert not maps["temporal"][..., ~mask_BT[0]].any()
            maps["temporal"] = maps["temporal"][..., mask_BT[0]]
        loss = head.loss(scores, batch)
        gradients = torch.autograd.grad(loss, list(head.parameters()))
        results.append([scores.logits, loss, *maps.values(), *gradients])
    for alone, other in zip(*results, strict=True):
        assert_close(other, alone)


def test_loss_of_one_label_by_hand() -> None:
    p = torch.tensor([0.2, 0.04], dtype=torch.double)
    logits, known = torch.logit(p), torch.ones(1)
    one, none = torch.ones(1), torch.zeros(1)

    def loss(at: int, label: Tensor, margin: float) -> float:
        return float(asymmetric_loss(logits[at : at + 1], label, known, (1.0, 4.0), margin))

    assert loss(0, one, 0.05) == pytest.approx(0.8 * math.log(5), rel=1e-12)  # -(1 - .2) log .2
    assert loss(0, none, 0.0) == pytest.approx(0.0016 * math.log(1.25), rel=1e-12)  # -.2^4 log .8
    assert loss(0, none, 0.05) == pytest.approx(0.15**4 * -math.log(0.85), rel=1e-12)  # .2 - .05 = .15
    assert loss(1, none, 0.05) == 0.0  # below the margin


def spelled_out_loss(config: StldConfig, logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
    terms = []
    for logit, label in zip(logits_BC.flatten(), labels_BC.flatten(), strict=True):
        p = 1 / (1 + torch.exp(-logit))
        if label == 1:
            terms.append(-((1 - p) ** config.gamma_pos) * torch.log(p))
        elif label == 0:
            kept = torch.clamp(1 - p + config.margin, max=1.0)
            terms.append(-((1 - kept) ** config.gamma_neg) * torch.log(kept))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{}, {"margin": 0.0}, {"gamma_pos": 2.0, "gamma_neg": 3.0, "margin": 0.2}])
def test_loss_and_its_gradient_are_those_of_equation_6(dtype: torch.dtype, options: dict[str, object]) -> None:
    head = head_of(dtype, **options)
    torch.manual_seed(5)
    logits_BC = (2 * torch.randn(4, 6, dtype=dtype)).requires_grad_()
    labels_BC = torch.randint(-1, 2, (4, 6))
    batch = batch_of(torch.zeros(4, T, H, W, K), labels_BC=labels_BC)
    found, expected = head.loss(Scores(logits_BC), batch), spelled_out_loss(head.config, logits_BC, labels_BC)
    assert_close(found, expected)
    (mine,), (theirs,) = torch.autograd.grad(found, logits_BC), torch.autograd.grad(expected, logits_BC)
    assert_close(mine, theirs)


def test_loss_without_powers_and_margin_is_the_cross_entropy() -> None:
    torch.manual_seed(6)
    logits, labels = torch.randn(5, 4, dtype=torch.double), torch.randint(0, 2, (5, 4)).double()
    found = asymmetric_loss(logits, labels, torch.ones(5, 4), (0.0, 0.0), 0.0)
    assert_close(found, nn.functional.binary_cross_entropy_with_logits(logits, labels))


def test_unknown_labels_count_in_neither_sum_nor_mean() -> None:
    logits = torch.tensor([[0.3, -1.2, 50.0]], dtype=torch.double, requires_grad=True)
    labels, known = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    found = asymmetric_loss(logits, labels, known, (1.0, 4.0), 0.05)
    alone = asymmetric_loss(logits[:, :2], labels[:, :2], known[:, :2], (1.0, 4.0), 0.05)
    assert_close(found, alone)
    assert torch.autograd.grad(found, logits)[0][0, 2] == 0
    assert asymmetric_loss(logits, labels, torch.zeros(1, 3), (1.0, 4.0), 0.05) == 0


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 4.0])
@pytest.mark.parametrize("margin", [0.0, 0.05])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_gradient_are_finite_at_any_logit(gamma: float, margin: float, dtype: torch.dtype) -> None:
    logits = torch.tensor([-6e4, -100.0, -20.0, -3.0, 0.0, 3.0, 20.0, 100.0, 6e4], dtype=dtype, requires_grad=True)
    for label in (0.0, 1.0):
        labels = torch.full((9,), label)
        loss = asymmetric_loss(logits, labels, torch.ones(9), (gamma, gamma), margin)
        assert loss.dtype == torch.float32
        assert loss.isfinite()
        assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_under_autocast_scores_are_close_and_maps_and_norms_are_float32() -> None:
    head = head_of(torch.float32)
    mask_BT = torch.arange(T) < torch.tensor([T, T - 1])[:, None]
    batch = batch_of(videos(torch.float32), mask_BT, torch.ones(B, C, dtype=torch.int8))
    dtypes: list[torch.dtype] = []
    for module in head.modules():
        if isinstance(module, nn.LayerNorm):
            module.register_forward_hook(lambda module, given, out: dtypes.append(out.dtype))
    exact = head(batch)
    with torch.autocast("cpu", torch.bfloat16):
        scores = head(batch)
        shown = head.attention(batch)
    torch.testing.assert_close(scores.logits.float(), exact.logits, atol=0.1, rtol=0.1)
    torch.testing.assert_close(shown.maps, head.attention(batch).maps)
    assert {values.dtype for values in shown.maps.values()} == {torch.float32}
    assert set(dtypes) == {torch.float32}
    loss = head.loss(scores, batch)
    torch.autograd.backward(loss)
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_scores_without_gradients_are_the_same() -> None:
    head = head_of()
    x_BTHWK, mask_BT = padded(videos(), 1e3)
    expected = head.attention(batch_of(x_BTHWK, mask_BT))
    with torch.inference_mode():  # PyTorch attends by another kernel here
        found = head.attention(batch_of(x_BTHWK, mask_BT))
        assert_close(head(batch_of(x_BTHWK, mask_BT)).logits, expected.logits)
    for name, values in expected.maps.items():
        assert_close(found.maps[name], values)


def test_every_parameter_learns() -> None:
    head = head_of().train()
    batch = batch_of(videos(), labels_BC=torch.tensor([[1, 0, 1], [0, 1, 0]]))
    torch.autograd.backward(head.loss(head(batch), batch))
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_no_step_of_training_waits_for_a_value() -> None:
    with torch.device("meta"):  # where there are none
        head = Stld(small())
        batch = batch_of(torch.randn(B, T, H, W, K), labels_BC=torch.ones(B, C, dtype=torch.int8))
    loss = head.loss(head(batch), batch)
    torch.autograd.backward(loss)
    assert loss.device.type == "meta"


def test_dropout_acts_in_training_alone() -> None:
    head, batch = head_of(dropout=0.5), batch_of(videos())
    assert torch.equal(head(batch).logits, head(batch).logits)
    head.train()
    assert not torch.equal(head(batch).logits, head(batch).logits)


def test_weights_start_as_xavier_and_as_the_width_says() -> None:
    torch.manual_seed(7)
    head = Stld(StldConfig(30, 40, hidden=64, dim_feedforward=96, num_layers=1))
    assert head.temporal is not None
    layer = head.temporal.layers[0]
    assert isinstance(layer, StldLayer)
    bounds: list[tuple[Tensor, float]] = [
        (layer.self_attn.in_proj_weight, math.sqrt(6 / (64 + 3 * 64))),
        (layer.multihead_attn.out_proj.weight, math.sqrt(6 / (64 + 64))),
        (layer.linear1.weight, math.sqrt(6 / (64 + 96))),
        (layer.linear2.weight, math.sqrt(6 / (64 + 96))),
        (head.last.weight, 1 / math.sqrt(2 * 64)),
    ]
    for weight, bound in bounds:
        assert float(weight.detach().abs().max()) == pytest.approx(bound, rel=0.02)
        assert float(weight.detach().abs().max()) <= bound
        assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert 0 < float(head.last.bias.detach().abs().max()) <= 1 / math.sqrt(2 * 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "positive"),
        ({"nhead": 0}, "positive"),
        ({"dim_feedforward": 0}, "positive"),
        ({"num_layers": 0}, "layers"),
        ({"hidden": 10, "nhead": 4}, "nhead divides hidden"),
        ({"branches": "neither"}, "branches is"),
        ({"dropout": 1.0}, "dropout"),
        ({"gamma_pos": -1.0}, "gamma_pos"),
        ({"gamma_neg": math.nan}, "gamma_neg"),
        ({"margin": 1.0}, "margin"),
        ({"margin": -0.1}, "margin"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        small(**options)


def test_only_maps_are_accepted_and_their_depth_is_the_width() -> None:
    for granularity in Granularity:
        shape = (7, 7, 1024) if granularity is Granularity.MAP else (1024,)
        role = Stld.role_of(FeatureSpec(granularity, row_shape=shape, dtype="float32", backbone="any", stream="rgb"))
        assert role == ("map" if granularity is Granularity.MAP else None)
    config = full_config(Stld, {"map": (7, 7, 1024)}, 157, {})
    assert (config["num_features"], config["num_classes"]) == (1024, 157)


def test_settings_go_to_the_head_and_the_recipe_to_the_trainer() -> None:
    options, training = split_settings(Stld, ["branches=spatial", "nhead=1", "margin=0", "num_layers=4"])
    assert options == {"branches": "spatial", "nhead": 1, "margin": 0.0, "num_layers": 4}
    assert training == TrainOptions(optimizer="adamw", lr=1e-4, weight_decay=1e-2, batch_size=32)


def meetings(amount: int, seed: int) -> tuple[Tensor, Tensor]:
    """Maps (amount, 4, 2, 2, 4) in which each of four marks lies once, and what is on in them (amount, 2).

    Class 0: marks 0 and 1 share a step; else they lie in different ones. They never share a place.
    Class 1: marks 2 and 3 share a place; else they lie in different ones. They never share a step.
    So the mean over the map is always the same, the maximum over time knows nothing of class 0, and that over the
    places nothing of class 1.
    """
    generator = torch.Generator().manual_seed(seed)
    x_BTSK = torch.zeros(amount, 4, 4, 4)
    labels_BC = torch.randint(0, 2, (amount, 2), generator=generator)
    for x_TSK, (same_step, same_place) in zip(x_BTSK, labels_BC.tolist(), strict=True):
        step, place = (torch.randperm(4, generator=generator) for _ in range(2))
        x_TSK[step[0], place[0], 0] = x_TSK[step[0 if same_step else 1], place[1], 1] = 4.0
        step, place = (torch.randperm(4, generator=generator) for _ in range(2))
        x_TSK[step[0], place[0], 2] = x_TSK[step[1], place[0 if same_place else 1], 3] = 4.0
    return x_BTSK.reshape(amount, 4, 2, 2, 4), labels_BC


def accuracy_on_meetings(branches: Literal["both", "spatial", "temporal"]) -> list[float]:
    """Share of right answers for each class on unseen maps, after some training."""
    torch.manual_seed(8)
    head = Stld(StldConfig(4, 2, hidden=32, num_layers=1, branches=branches, nhead=2, dim_feedforward=64, dropout=0))
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    x, labels = meetings(512, seed=0)
    for step in range(150):
        part = slice(step * 64 % 512, step * 64 % 512 + 64)
        batch = batch_of(x[part], labels_BC=labels[part])
        optimizer.zero_grad()
        torch.autograd.backward(head.loss(head(batch), batch))
        optimizer.step()
    x, labels = meetings(256, seed=1)
    with torch.no_grad():
        right = (head.eval()(batch_of(x)).logits > 0) == labels
    share: list[float] = right.double().mean(0).tolist()
    return share


def test_each_branch_learns_what_the_other_cannot_see() -> None:
    x, _ = meetings(64, seed=2)
    assert (x.mean((1, 2, 3)) == 4.0 / 16).all()  # nothing for the first classifier
    assert min(accuracy_on_meetings("both")) > 0.95
    steps, places = accuracy_on_meetings("spatial")
    assert steps < 0.65 < 0.95 < places
    steps, places = accuracy_on_meetings("temporal")
    assert places < 0.65 < 0.95 < steps
