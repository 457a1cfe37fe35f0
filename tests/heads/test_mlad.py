"""MLAD against its paper's numbers, against loops that spell it out, and against PyTorch's own attention."""

import math

import pytest
import torch
from torch import Tensor, nn

from heads import mlad
from heads.head import Batch, HeadError
from heads.layers import position_code
from heads.mlad import Branch, Mlad, MladConfig, MladLayer


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def small(**options: object) -> MladConfig:
    return MladConfig(**{"num_features": 6, "num_classes": 4, "embed": 8, "num_layers": 2, **options})  # type: ignore[arg-type]


def batch_of(x_BND: Tensor, mask_BN: Tensor | None = None) -> Batch:
    mask_BN = torch.ones(x_BND.shape[:2], dtype=torch.bool) if mask_BN is None else mask_BN
    return Batch({"x": x_BND}, {"x": mask_BN}, torch.zeros(*x_BND.shape[:2], 2))


@pytest.mark.parametrize(
    ("features", "classes", "expected"),
    [(2048, 65, 18_060_295), (2048, 157, 42_213_055), (1024, 65, 9_540_615), (1024, 157, 21_634_751)],
)
def test_whole_head_has_as_many_parameters_as_the_official_one(features: int, classes: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(Mlad(MladConfig(features, classes))) == expected


def test_layer_has_the_parameters_of_the_paper() -> None:
    config = MladConfig(1024, 65)
    assert count(Branch(config, "time")) == 99_584
    assert count(MladLayer(config)) == 199_169


def test_ablations_have_only_what_they_use() -> None:
    config = MladConfig(16, 5)
    for branches in ("cb", "tb"):
        assert count(MladLayer(MladConfig(16, 5, branches=branches))) == 99_584
    assert count(MladLayer(MladConfig(16, 5, fixed_alpha=0.5))) == 2 * 99_584
    features = (16 * 128 + 128) * 5
    assert count(Mlad(MladConfig(16, 5, num_layers=0))) == features + 5 * 129
    assert count(Mlad(MladConfig(16, 5, initial_loss=False))) == count(Mlad(config)) - 5 * 129


def test_no_layers_score_the_class_features_alone() -> None:
    head = Mlad(small(num_layers=0, pos_enc=False)).eval()
    x_BND = torch.randn(2, 5, 6)
    scores = head(batch_of(x_BND))
    features = head.embed(x_BND).relu().reshape(2, 5, 4, 8)
    torch.testing.assert_close(scores.logits, (features * head.last.weight).sum(-1) + head.last.bias)
    assert scores.earlier == ()


def attended(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One sequence: (L, E) each."""
    weights = torch.softmax(queries @ keys.T / math.sqrt(queries.shape[1]), dim=1)
    return weights @ values


def spelled_out_branch(branch: Branch, sequence_LE: Tensor) -> Tensor:
    """Section 1 of the definition, for one sequence."""
    size = sequence_LE.shape[1]
    weight, bias = branch.project.weight, branch.project.bias
    q, k, v = (sequence_LE @ weight[i * size : (i + 1) * size].T + bias[i * size : (i + 1) * size] for i in range(3))
    out = torch.relu(attended(q, k, v) @ branch.out.weight.T + branch.out.bias)
    x_LE = branch.norm1(sequence_LE + out)
    wide = torch.relu(x_LE @ branch.widen.weight.T + branch.widen.bias)
    result: Tensor = branch.norm2(x_LE + wide @ branch.narrow.weight.T + branch.narrow.bias)
    return result


def test_layer_is_the_loop_over_steps_and_classes() -> None:
    torch.manual_seed(1)
    layer = MladLayer(small()).double().eval()
    assert layer.alpha_logit is not None
    assert layer.over_classes is not None
    assert layer.over_time is not None
    with torch.no_grad():
        layer.alpha_logit.fill_(1.3)
    x_BNCE = torch.randn(2, 5, 4, 8, dtype=torch.double)
    lengths = (5, 3)
    mask_BN = torch.arange(5) < torch.tensor(lengths)[:, None]
    found = layer(x_BNCE, mask_BN)
    alpha = 1 / (1 + math.exp(-1.3))
    for b, length in enumerate(lengths):
        for n in range(length):
            for c in range(4):
                over_classes = spelled_out_branch(layer.over_classes, x_BNCE[b, n])[c]
                over_time = spelled_out_branch(layer.over_time, x_BNCE[b, :length, c])[n]
                torch.testing.assert_close(found[b, n, c], alpha * over_classes + (1 - alpha) * over_time)


def test_attention_is_pytorchs_with_one_head() -> None:
    torch.manual_seed(2)
    branch = Branch(small(), "time").double().eval()
    oracle = nn.MultiheadAttention(8, 1, batch_first=True).double()
    oracle.load_state_dict(
        {
            "in_proj_weight": branch.project.weight,
            "in_proj_bias": branch.project.bias,
            "out_proj.weight": branch.out.weight,
            "out_proj.bias": branch.out.bias,
        }
    )
    x_BNCE = torch.randn(3, 7, 1, 8, dtype=torch.double)
    mask_BN = torch.arange(7) < torch.tensor([7, 4, 2])[:, None]
    x_BNE = x_BNCE[:, :, 0]
    seen, _ = oracle(x_BNE, x_BNE, x_BNE, key_padding_mask=~mask_BN)
    x_BNE = branch.norm1(x_BNE + seen.relu())
    expected = branch.norm2(x_BNE + branch.narrow(branch.widen(x_BNE).relu()))
    torch.testing.assert_close(branch(x_BNCE, mask_BN)[:, :, 0][mask_BN], expected[mask_BN])


def moved(module: MladLayer, x_BNCE: Tensor) -> Tensor:
    """(N, C) whether an output moves when step 2 of class 1 moves."""
    mask_BN = torch.ones(x_BNCE.shape[:2], dtype=torch.bool)
    other = x_BNCE.clone()
    other[:, 2, 1] += 1
    differs: Tensor = module(other, mask_BN) != module(x_BNCE, mask_BN)
    return differs.any(-1)[0]


def test_branch_over_classes_sees_its_own_step_alone() -> None:
    torch.manual_seed(3)
    expected = torch.zeros(5, 4, dtype=torch.bool)
    expected[2] = True
    assert torch.equal(moved(MladLayer(small(branches="cb")).eval(), torch.randn(1, 5, 4, 8)), expected)


def test_branch_over_time_sees_its_own_class_alone() -> None:
    torch.manual_seed(4)
    expected = torch.zeros(5, 4, dtype=torch.bool)
    expected[:, 1] = True
    assert torch.equal(moved(MladLayer(small(branches="tb")).eval(), torch.randn(1, 5, 4, 8)), expected)


def test_alpha_weighs_the_branch_over_classes() -> None:
    torch.manual_seed(5)
    layer = MladLayer(small(fixed_alpha=1.0)).eval()
    assert layer.over_classes is not None
    x_BNCE, mask_BN = torch.randn(1, 5, 4, 8), torch.ones(1, 5, dtype=torch.bool)
    torch.testing.assert_close(layer(x_BNCE, mask_BN), layer.over_classes(x_BNCE, mask_BN))
    assert torch.as_tensor(MladLayer(small()).alpha).item() == 0.5


def test_fixed_alpha_stays_and_a_learned_one_moves() -> None:
    torch.manual_seed(13)
    for fixed, expected in ((None, 0.5), (0.25, 0.25), (0.0, 0.0)):
        head = Mlad(small(fixed_alpha=fixed, dropout=0.0))
        optimizer = torch.optim.SGD(head.parameters(), lr=0.5)
        torch.autograd.backward(head(batch_of(torch.randn(2, 5, 6))).logits.square().sum())
        optimizer.step()
        for layer in head.layers:
            assert isinstance(layer, MladLayer)
            assert (float(torch.as_tensor(layer.alpha).detach()) == expected) == (fixed is not None)


def test_without_the_initial_loss_only_the_last_scores_are_trained() -> None:
    torch.manual_seed(14)
    head = Mlad(small(initial_loss=False, dropout=0.0))
    batch = batch_of(torch.randn(2, 5, 6))
    batch.labels = torch.randint(0, 2, (2, 5, 4))
    scores = head(batch)
    assert scores.earlier == ()
    expected = nn.functional.binary_cross_entropy_with_logits(scores.logits, batch.labels.float())
    torch.testing.assert_close(head.loss(scores, batch), expected)
    both = Mlad(small(dropout=0.0))
    scores = both(batch)
    expected = sum(
        nn.functional.binary_cross_entropy_with_logits(logits, batch.labels.float())
        for logits in (scores.logits, *scores.earlier)
    )  # type: ignore[assignment]
    assert len(scores.earlier) == 1
    torch.testing.assert_close(both.loss(scores, batch), expected)


def test_every_parameter_learns() -> None:
    torch.manual_seed(6)
    head = Mlad(small(dropout=0.0))
    scores = head(batch_of(torch.randn(2, 5, 6)))
    (scores.logits.square().sum() + sum(earlier.square().sum() for earlier in scores.earlier)).backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_many_sequences_go_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(7)
    head = Mlad(small()).eval()
    x_BND = torch.randn(5, 6, 6)
    mask_BN = torch.arange(6) < torch.tensor([6, 5, 4, 3, 2])[:, None]
    whole = head(batch_of(x_BND, mask_BN)).logits
    calls = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def counted(q: Tensor, *rest: object) -> Tensor:
        calls.append(q.shape[0] * q.shape[1])
        return attention(q, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(mlad, "MAX_SEQUENCES", 9)
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counted)
    torch.testing.assert_close(head(batch_of(x_BND, mask_BN)).logits, whole)
    assert max(calls) <= 9
    assert len(calls) == 2 * (4 + 3)  # two layers: 30 steps in 4 parts of at most 9, 5 x 4 sequences in 3 of at most 8


def test_position_code_is_the_formula_of_the_transformer() -> None:
    code = position_code(4, 5, torch.device("cpu"))
    for step in range(4):
        for column in range(5):
            angle = step / 10_000 ** (2 * (column // 2) / 5)
            expected = math.sin(angle) if column % 2 == 0 else math.cos(angle)
            assert float(code[step, column]) == pytest.approx(expected, abs=1e-6)


def test_weights_start_as_kaiming_uniform() -> None:
    head = Mlad(MladConfig(600, 20, embed=64, num_layers=1))
    layer = head.layers[0]
    assert isinstance(layer, MladLayer)
    assert layer.over_time is not None
    for weight, fan_in in ((head.embed.weight, 600), (layer.over_time.project.weight, 64), (head.last.weight, 64)):
        bound = math.sqrt(6 / fan_in)
        assert float(weight.detach().abs().max()) == pytest.approx(bound, rel=0.05)
        assert float(weight.detach().abs().max()) <= bound
        assert float(weight.detach().std()) == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 1.0},
        {"fixed_alpha": 1.5},
        {"fixed_alpha": 0.5, "branches": "joint"},
        {"fixed_alpha": 0.5, "branches": "cb"},
        {"embed": 0},
        {"num_layers": -1},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(HeadError):
        small(**options)


# Every class at every step looks at all others


def test_joint_layer_has_one_branch() -> None:
    attention, feed_forward, norms = 4 * (128 * 128 + 128), 2 * (128 * 128 + 128), 2 * 2 * 128
    assert attention + feed_forward + norms == 99_584
    assert count(MladLayer(MladConfig(2048, 65, branches="joint"))) == 99_584
    with torch.device("meta"):
        head = Mlad(MladConfig(2048, 65, branches="joint"))
    assert count(head) == 18_060_295 - 5 * (99_584 + 1)


def spelled_out_joint(branch: Branch, x_NCE: Tensor) -> Tensor:
    """Token by token, over all tokens of one video without padding."""
    steps, classes, size = x_NCE.shape
    wq, wk, wv = branch.project.weight.chunk(3)
    bq, bk, bv = branch.project.bias.chunk(3)
    places = [(n, c) for n in range(steps) for c in range(classes)]
    keys = {place: wk @ x_NCE[place] + bk for place in places}
    values = {place: wv @ x_NCE[place] + bv for place in places}
    rows = []
    for place in places:
        query = wq @ x_NCE[place] + bq
        weights = {other: torch.exp(query @ keys[other] / math.sqrt(size)) for other in places}
        seen = sum(weights[other] * values[other] for other in places) / sum(weights.values())
        x_E = branch.norm1(x_NCE[place] + (branch.out.weight @ seen + branch.out.bias).clamp(min=0))
        wide_E = (branch.widen.weight @ x_E + branch.widen.bias).clamp(min=0)
        rows.append(branch.norm2(x_E + branch.narrow.weight @ wide_E + branch.narrow.bias))
    return torch.stack(rows).reshape(steps, classes, size)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.double, 1e-12), (torch.float, 1e-5)])
def test_joint_layer_and_its_gradients_are_the_loop_over_pairs_of_tokens(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(8)
    layer = MladLayer(small(branches="joint")).eval().to(dtype)
    assert layer.over_pairs is not None
    lengths = (5, 3)
    x_BNCE = torch.randn(2, 5, 4, 8, dtype=dtype, requires_grad=True)
    mask_BN = torch.arange(5) < torch.tensor(lengths)[:, None]
    weight_BNCE = torch.randn(2, 5, 4, 8, dtype=dtype)
    inputs = [x_BNCE, *layer.parameters()]
    fast = layer(x_BNCE, mask_BN)[mask_BN]
    slow = torch.cat([spelled_out_joint(layer.over_pairs, x_BNCE[b, :length]) for b, length in enumerate(lengths)])
    results = [[found, *torch.autograd.grad((found * weight_BNCE[mask_BN]).sum(), inputs)] for found in (fast, slow)]
    for mine, right in zip(*results, strict=True):
        assert float(right.detach().abs().sum()) > 0
        error = (mine - right).detach().abs().max() / right.detach().abs().max().clamp(min=1)
        assert float(error) <= tolerance


@pytest.mark.parametrize("filler", [0.0, 1e3])
def test_padding_changes_nothing_for_joint_attention(filler: float) -> None:
    torch.manual_seed(9)
    head = Mlad(small(branches="joint", dropout=0.0)).double()
    x_BND = torch.randn(2, 5, 6, dtype=torch.double)
    results = []
    for x in (x_BND, torch.cat([x_BND, torch.full((2, 3, 6), filler, dtype=torch.double)], dim=1)):
        scores = head(batch_of(x, (torch.arange(x.shape[1]) < 5).expand(2, -1)))
        logits = scores.logits[:, :5]
        results.append([logits, *torch.autograd.grad(logits.square().sum(), list(head.layers.parameters()))])
    for alone, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, alone)


def test_joint_attention_sees_every_class_at_every_step() -> None:
    torch.manual_seed(10)
    assert moved(MladLayer(small(branches="joint")).eval(), torch.randn(1, 5, 4, 8)).all()


def found_the_mark(branches: str) -> float:
    """Share of tokens that learn, from one layer, the sign that one token of their video carries.

    A token knows that of its own step or class through either branch: 2 x 6 - 1 of 36 tokens; the others guess.
    """
    torch.manual_seed(11)
    random = torch.Generator().manual_seed(12)
    layer = MladLayer(MladConfig(1, 6, embed=8, dropout=0.0, branches=branches))  # type: ignore[arg-type]
    last = nn.Linear(8, 1)
    optimizer = torch.optim.Adam([*layer.parameters(), *last.parameters()], lr=1e-2)

    def videos(number: int) -> tuple[Tensor, Tensor]:
        sign_B = 2.0 * torch.randint(2, (number,), generator=random) - 1
        x_BPE = 0.1 * torch.randn(number, 36, 8, generator=random)
        at_B = torch.randint(36, (number,), generator=random)
        x_BPE[torch.arange(number), at_B, 0] += 3 * sign_B
        x_BPE[torch.arange(number), at_B, 1] += 3
        return x_BPE.reshape(number, 6, 6, 8), sign_B

    for step in range(141):
        x_BNCE, sign_B = videos(64)
        z_BNC = last(layer(x_BNCE, torch.ones(64, 6, dtype=torch.bool))).squeeze(-1)
        if step < 140:
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.softplus(-z_BNC * sign_B[:, None, None]).mean())
            optimizer.step()
    return float((z_BNC * sign_B[:, None, None] > 0).float().mean())


def test_only_joint_attention_finds_one_token_of_all_in_one_layer() -> None:
    assert found_the_mark("joint") > 0.95
    assert 0.5 < found_the_mark("both") < 11 / 36 + 25 / 36 * 0.5 + 0.05
