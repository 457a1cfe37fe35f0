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


@pytest.mark.parametrize("options", [{"dropout": 1.0}, {"fixed_alpha": 1.5}, {"embed": 0}, {"num_layers": -1}])
def test_impossible_options_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(HeadError):
        small(**options)
