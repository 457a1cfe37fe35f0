"""Gated attention against its paper's sizes, its equations spelled out, and PyTorch's own encoder layer."""

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from heads import gated
from heads.gated import Block, Gated, GatedConfig, Seen, see
from heads.gated_masks import SHARED, LocalMask
from heads.head import Batch, HeadError
from heads.options import TrainOptions, split_settings
from stores.spec import FeatureSpec, Granularity

VARIANTS = ("global", "share", "gate_att", "gate_op")
MIB = 2**20
B, T, V, A, C, M = 3, 9, 16, 8, 5, 8


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def config_of(**options: Any) -> GatedConfig:
    small = {
        "num_visual": V,
        "num_audio": A,
        "num_classes": C,
        "num_steps": 12,
        "ffn": 20,
        "hidden": 32,
        "dropout": 0.0,
    }
    return GatedConfig(**{**small, **options})


def head_of(**options: Any) -> Gated:
    """A small head with every weight drawn anew, larger than at first, so that gates and maps are far from even."""
    head = Gated(config_of(**options)).double().eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(
                torch.randn_like(parameter) * (1.0 if parameter.dim() == 1 else parameter.shape[-1] ** -0.5)
            )
        for name, parameter in head.named_parameters():
            if "gate_" in name or "project" in name:
                parameter.mul_(3)
    return head


def batch_of(lengths: tuple[int, ...] = (T, T - 3, 4), steps: int = T, filler: float = 0.0) -> Batch:
    """Videos of some lengths, padded with `filler` up to `steps`."""
    random = torch.Generator().manual_seed(7)
    mask_BT = torch.arange(steps) < torch.tensor(lengths)[:, None]
    features = {}
    for role, width in (("visual", V), ("audio", A)):
        x_BTD = torch.full((len(lengths), steps, width), filler, dtype=torch.double)
        for x_TD, length in zip(x_BTD, lengths, strict=True):
            x_TD[:length] = torch.randn(length, width, dtype=torch.double, generator=random)
        features[role] = x_BTD
    masks = {"visual": mask_BT, "audio": mask_BT.clone()}
    return Batch(features, masks, torch.zeros(len(lengths), steps, 2))


def attention_of(head: Gated, role: str = "visual") -> Any:
    block = head.blocks[role]
    assert isinstance(block, Block)
    return block.attention


def gradients_of(head: Gated, batch: Batch) -> list[Tensor]:
    """The logits, and the gradient of a weighted sum of them at every parameter."""
    head.zero_grad()
    logits = head(batch).logits
    torch.autograd.backward((logits * weights_of(logits)).sum())
    return [logits.detach(), *(parameter.grad.clone() for parameter in head.parameters() if parameter.grad is not None)]


def weights_of(logits: Tensor) -> Tensor:
    return torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).reshape(logits.shape)


# The masks


@pytest.mark.parametrize(
    ("mask", "pairs"),
    [
        (LocalMask("bd", 10), 3_000),
        (LocalMask("bd", 20), 6_000),
        (LocalMask("bd", 30), 9_000),
        (LocalMask("bd", 60), 18_000),
        (LocalMask("tp", 10), 6_190),
        (LocalMask("tp", 30), 17_370),
        (LocalMask("tp", 60), 32_640),
        (LocalMask("tp", 80), 41_820),
        (LocalMask("td", 10, 2), 3_240),
        (LocalMask("td", 30, 3), 5_970),
        (LocalMask("td", 60, 4), 8_340),
        (LocalMask("td", 80, 5), 8_540),
    ],
)
def test_masks_allow_as_many_pairs_as_counted_by_hand(mask: LocalMask, pairs: int) -> None:
    assert int(mask.allowed(300, torch.device("cpu")).sum()) == pairs
    assert mask in SHARED[mask.kind]


def drawn(mask: LocalMask, steps: int) -> list[str]:
    return ["".join("#" if seen else "." for seen in row) for row in mask.allowed(steps, torch.device("cpu")).tolist()]


@pytest.mark.parametrize("mask", [LocalMask("bd", 4), LocalMask("tp", 3), LocalMask("td", 4, 2), LocalMask("bd", 1)])
def test_no_frame_attends_further_than_the_reach(mask: LocalMask) -> None:
    allowed_TT = mask.allowed(13, torch.device("cpu"))
    furthest = max(abs(i - j) for i, j in allowed_TT.nonzero().tolist())
    assert mask.reach == furthest


def test_masks_look_as_the_paper_draws_them() -> None:
    assert drawn(LocalMask("bd", 3), 5) == ["###..", "###..", "###..", "...##", "...##"]
    assert drawn(LocalMask("tp", 1), 4) == ["##..", "###.", ".###", "..##"]
    assert drawn(LocalMask("td", 4, 2), 11)[5] == ".#.#.#.#.#."
    assert drawn(LocalMask("td", 4, 2), 11)[0] == "#.#.#......"


def test_default_masks_are_those_of_the_table() -> None:
    found = {
        (variant, kind): GatedConfig(8, 8, 1, variant=variant, local=kind).masks
        for variant in ("gate_att", "gate_op")
        for kind in ("bd", "tp", "td")
    }
    assert found["gate_att", "bd"] == (("bd", 10, 1),)
    assert found["gate_att", "tp"] == (("tp", 10, 1),)
    assert found["gate_att", "td"] == (("td", 80, 5),)
    assert found["gate_op", "bd"] == (("bd", 20, 1),)
    assert found["gate_op", "tp"] == (("tp", 30, 1),)
    assert found["gate_op", "td"] == (("td", 60, 4),)
    shared = {kind: config_of(variant="share", local=kind).masks for kind in ("bd", "tp", "td")}
    assert shared["bd"] == (("bd", 10, 1), ("bd", 20, 1), ("bd", 30, 1), ("bd", 60, 1))
    assert shared["tp"] == (("tp", 10, 1), ("tp", 30, 1), ("tp", 60, 1), ("tp", 80, 1))
    assert shared["td"] == (("td", 10, 2), ("td", 30, 3), ("td", 60, 4), ("td", 80, 5))
    assert config_of(variant="gate_op", local="td", width=7, dilation=3).masks == (("td", 7, 3),)


# The sizes


def whole(**options: Any) -> int:
    with torch.device("meta"):
        return count(Gated(GatedConfig(1024, 128, 3862, **options)))


@pytest.mark.parametrize(
    ("variant", "parameters", "paper"),
    [
        ("global", 12_848_278, 48.9),
        ("share", 12_848_278, 48.9),
        ("gate_att", 13_208_278, 50.2),
        ("gate_op", 16_044_310, 61),
    ],
)
def test_heads_have_the_sizes_of_the_paper(variant: str, parameters: int, paper: float) -> None:
    assert whole(variant=variant) == parameters
    assert abs(4 * parameters / MIB - paper) <= 0.25


def test_gates_add_what_the_paper_says() -> None:
    baseline = whole(variant="global")
    assert whole(variant="share") - baseline == 0
    assert whole(variant="gate_att") - baseline == 4 * 300**2
    assert whole(variant="gate_op") - baseline == 3 * (1024**2 + 128**2) + (1024 + 128)
    assert round(4 * (whole(variant="gate_att") - baseline) / MIB, 3) == 1.373
    assert round(4 * (whole(variant="gate_op") - baseline) / MIB, 2) == 12.19


def test_one_modality_has_its_own_block_alone() -> None:
    def alone(width: int) -> int:
        attention, feed_forward = 4 * (width**2 + width), 2 * width * 2048 + 2048 + width
        return attention + feed_forward + 4 * width + width * 768 + 768 + 768 * 3862 + 3862

    assert whole(variant="global", modalities="visual") == alone(1024)
    assert whole(variant="global", modalities="audio") == alone(128)


# The equations


def spelled_mask(kind: str, width: int, dilation: int, steps: int) -> Tensor:
    """True where attended, pair by pair."""
    mask_TT = torch.zeros(steps, steps, dtype=torch.bool)
    for i in range(steps):
        for j in range(steps):
            same_block = i // width == j // width
            near = abs(i - j) <= width and abs(i - j) % dilation == 0
            mask_TT[i, j] = same_block if kind == "bd" else near
    return mask_TT


def softmax_where(scores_TT: Tensor, allowed_TT: Tensor) -> Tensor:
    """Row by row over the allowed columns, 0 elsewhere; a row with none is all 0."""
    rows = []
    for scores_T, allowed_T in zip(scores_TT, allowed_TT, strict=True):
        exps_T = torch.where(allowed_T, torch.exp(scores_T - scores_T.max().detach()), torch.zeros_like(scores_T))
        rows.append(exps_T / exps_T.sum() if allowed_T.any() else exps_T)
    return torch.stack(rows)


def spelled_attention(head: Gated, role: str, x_TD: Tensor, real_T: Tensor) -> Tensor:
    """Equations 1 to 13 for one video, with whole maps, head by head."""
    config, attention, width = head.config, attention_of(head, role), x_TD.shape[1]
    steps, size = len(x_TD), width // M
    wq, wk, wv = attention.project.weight.chunk(3)
    bq, bk, bv = attention.project.bias.chunk(3)
    masks = [spelled_mask(mask.kind, mask.width, mask.dilation, steps) for mask in config.masks]
    outputs: list[Tensor] = []
    others: list[Tensor] = []
    for m in range(M):
        own = slice(m * size, (m + 1) * size)
        q, k, v = (x_TD @ w[own].T + b[own] for w, b in ((wq, bq), (wk, bk), (wv, bv)))
        scores_TT = q @ k.T / math.sqrt(size)
        keys_TT = real_T.expand(steps, steps)
        everywhere_TT = softmax_where(scores_TT, keys_TT)
        if config.variant == "share" and m < 4:
            outputs.append(softmax_where(scores_TT, keys_TT & masks[m]) @ v)
        elif config.variant in ("global", "share"):
            outputs.append(everywhere_TT @ v)
        else:
            nearby_TT = softmax_where(scores_TT, keys_TT & masks[0])
            if config.variant == "gate_att":
                given = torch.stack([everywhere_TT @ attention.gate_global, nearby_TT @ attention.gate_local])
                gates = torch.exp(given) / torch.exp(given).sum(0)
                outputs.append((gates[0] * everywhere_TT + gates[1] * nearby_TT) @ v)
            else:
                outputs.append(everywhere_TT @ v)
                others.append(nearby_TT @ v)
    o_TD = torch.cat(outputs, dim=1)
    y_TD: Tensor = o_TD @ attention.out.weight.T + attention.out.bias
    if config.variant == "gate_op":
        o_local_TD = torch.cat(others, dim=1)
        y_local_TD = o_local_TD @ attention.out_local.weight.T + attention.out_local.bias
        given = torch.stack([o_TD @ attention.gate_global.weight.T, o_local_TD @ attention.gate_local.weight.T])
        gates = torch.exp(given) / torch.exp(given).sum(0)
        y_TD = gates[0] * y_TD + gates[1] * y_local_TD
    return y_TD


def spelled_head(head: Gated, batch: Batch) -> Tensor:
    """Section 2 of the paper, video by video; each video is padded with zeros to num_steps, as the paper's are."""
    rows = []
    for b in range(len(next(iter(batch.mask.values())))):
        means = []
        for role, block in head.blocks.items():
            assert isinstance(block, Block)
            real_T = torch.zeros(head.config.num_steps, dtype=torch.bool)
            real_T[: batch.mask[role].shape[1]] = batch.mask[role][b]
            x_TD = torch.zeros(head.config.num_steps, batch.features[role].shape[2], dtype=batch.features[role].dtype)
            x_TD[real_T] = batch.features[role][b][batch.mask[role][b]]
            if not head.config.pad_mask:
                real_T = torch.ones_like(real_T)
            y_TD = block.norm1(x_TD + spelled_attention(head, role, x_TD, real_T))
            y_TD = block.norm2(y_TD + block.narrow(block.widen(y_TD).relu()))
            means.append(y_TD[real_T].sum(0) / max(1, int(real_T.sum())))
        hidden = torch.cat(means) @ head.hidden.weight.T + head.hidden.bias
        rows.append(hidden.clamp(min=0) @ head.last.weight.T + head.last.bias)
    return torch.stack(rows)


CASES = [
    {"variant": "global"},
    {"variant": "share", "local": "bd", "num_steps": 13},
    {"variant": "share", "local": "td", "num_steps": 13},
    {"variant": "gate_att", "local": "bd", "width": 4},
    {"variant": "gate_att", "local": "tp", "width": 2},
    {"variant": "gate_att", "local": "td", "width": 4, "dilation": 2},
    {"variant": "gate_op", "local": "bd", "width": 4},
    {"variant": "gate_op", "local": "tp", "width": 2},
    {"variant": "gate_op", "local": "td", "width": 4, "dilation": 2, "modalities": "audio"},
]


@pytest.mark.parametrize("pad_mask", [True, False])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.double, 1e-12), (torch.float, 1e-5)])
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_scores_and_gradients_are_those_of_the_equations(
    case: dict[str, Any], dtype: torch.dtype, limit: float, pad_mask: bool
) -> None:
    torch.manual_seed(0)
    head = head_of(**case, pad_mask=pad_mask)
    batch = batch_of((13, 6, 4), steps=13) if case["variant"] == "share" else batch_of()
    batch.mask["audio"][0, 2:5] = False  # sound is missing within one video
    batch.features["audio"][0, 2:5] = 0
    expected_logits = spelled_head(head, batch)
    torch.autograd.backward((expected_logits * weights_of(expected_logits)).sum())
    expected = [expected_logits.detach()]
    for parameter in head.parameters():
        assert parameter.grad is not None
        expected.append(parameter.grad.clone())
    batch.features = {role: x_BTD.to(dtype) for role, x_BTD in batch.features.items()}
    found = gradients_of(head.to(dtype), batch)
    assert len(found) == len(expected)
    for mine, right in zip(found, expected, strict=True):
        error = (mine.double() - right.double()).abs().max() / right.abs().max().clamp(min=1)
        assert float(error) <= limit


def test_baseline_block_is_pytorchs_encoder_layer() -> None:
    torch.manual_seed(1)
    head = head_of(variant="global")
    block = head.blocks["visual"]
    assert isinstance(block, Block)
    oracle = nn.TransformerEncoderLayer(V, M, 20, dropout=0.0, batch_first=True).double()
    oracle.load_state_dict(
        {
            "self_attn.in_proj_weight": block.attention.project.weight,
            "self_attn.in_proj_bias": block.attention.project.bias,
            "self_attn.out_proj.weight": block.attention.out.weight,
            "self_attn.out_proj.bias": block.attention.out.bias,
            "linear1.weight": block.widen.weight,
            "linear1.bias": block.widen.bias,
            "linear2.weight": block.narrow.weight,
            "linear2.bias": block.narrow.bias,
            "norm1.weight": block.norm1.weight,
            "norm1.bias": block.norm1.bias,
            "norm2.weight": block.norm2.weight,
            "norm2.bias": block.norm2.bias,
        }
    )
    batch = batch_of()
    x_BTD, mask_BT = batch.features["visual"], batch.mask["visual"]
    found = block(x_BTD, see(head.config, mask_BT, T))
    expected = oracle(x_BTD, src_key_padding_mask=~mask_BT)
    torch.testing.assert_close(found[mask_BT], expected[mask_BT], rtol=1e-12, atol=1e-12)
    for own in (*block.modules(), *oracle.modules()):  # the same draws drop the same things in the same places
        if isinstance(own, nn.Dropout):
            own.p = 0.3
    block.attention.dropout = oracle.self_attn.dropout = 0.4
    x_BTD, mask_BT = x_BTD[1:2], mask_BT[1:2]  # one video: PyTorch's layer turns the axes of a batch, and its draws
    torch.manual_seed(20)
    found = block.train()(x_BTD, see(head.config, mask_BT, T))
    torch.manual_seed(20)
    expected = oracle.train()(x_BTD, src_key_padding_mask=~mask_BT)
    torch.testing.assert_close(found[mask_BT], expected[mask_BT], rtol=1e-12, atol=1e-12)


def test_attention_starts_as_pytorchs() -> None:
    torch.manual_seed(2)
    with torch.no_grad():
        attention = gated.GateAtt(64, config_of(variant="gate_att", num_steps=40))
    oracle = nn.MultiheadAttention(64, M)
    bound = math.sqrt(6 / (64 + 192))
    for weight in (attention.project.weight, oracle.in_proj_weight):
        assert float(weight.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    assert not attention.project.bias.any()
    assert not attention.out.bias.any()
    assert not gated.GateOp(64, config_of()).out_local.bias.any()
    assert float(attention.gate_local.detach().abs().max()) == pytest.approx(1 / math.sqrt(40), rel=0.01)


# What does not matter


@pytest.mark.parametrize("filler", [1e3, math.nan])
@pytest.mark.parametrize("variant", VARIANTS)
def test_padding_changes_neither_scores_nor_gradients(variant: str, filler: float) -> None:
    torch.manual_seed(3)
    options = {} if variant in ("global", "share") else {"width": 2}
    head = head_of(variant=variant, num_steps=40, **options)
    alone = gradients_of(head, batch_of())
    padded = gradients_of(head, batch_of(steps=T + 24, filler=filler))  # some queries have padding alone nearby
    for mine, right in zip(padded, alone, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("variant", VARIANTS)
def test_masked_frame_within_a_video_changes_nothing(variant: str) -> None:
    torch.manual_seed(4)
    head = head_of(variant=variant)
    batch = batch_of()
    batch.mask["visual"][0, 3] = False
    before = head(batch).logits
    batch.features["visual"][0, 3] = 1e3
    torch.testing.assert_close(head(batch).logits, before)
    batch.mask["visual"][0, 3] = True
    assert not torch.allclose(head(batch).logits, before)


@pytest.mark.parametrize("variant", VARIANTS)
def test_video_without_sound_is_scored_from_its_pictures(variant: str) -> None:
    torch.manual_seed(5)
    head = head_of(variant=variant)
    batch = batch_of()
    batch.mask["audio"][1] = False
    found = gradients_of(head, batch)
    assert all(bool(tensor.isfinite().all()) for tensor in found)
    with torch.no_grad():
        mean_BV = head.mean(*head.frames(batch, "visual"), "visual")
        mean_BD = torch.cat([mean_BV, torch.zeros(B, A, dtype=torch.double)], dim=1)
        torch.testing.assert_close(found[0][1], head.last(head.hidden(mean_BD).relu())[1])


@pytest.mark.parametrize("variant", VARIANTS)
def test_without_pad_mask_frames_up_to_num_steps_are_zeros_that_take_part(variant: str) -> None:
    torch.manual_seed(6)
    head = head_of(variant=variant, pad_mask=False)
    short = head(batch_of(filler=math.nan)).logits
    full = batch_of(steps=12)
    full.mask = {role: torch.ones_like(mask_BT) for role, mask_BT in full.mask.items()}
    torch.testing.assert_close(short, head(full).logits)
    masked = head_of(variant=variant)
    masked.load_state_dict(head.state_dict())
    assert not torch.allclose(masked(batch_of()).logits, short)


def test_order_of_frames_does_not_matter_to_the_baseline_alone() -> None:
    for variant in VARIANTS:
        torch.manual_seed(7)
        options = {} if variant in ("global", "share") else {"width": 2}
        head = head_of(variant=variant, num_steps=30, **options)
        batch = batch_of((25, 25), steps=25)
        turned = dataclasses.replace(
            batch, features={role: x_BTD[:, torch.randperm(25)] for role, x_BTD in batch.features.items()}
        )
        assert torch.allclose(head(batch).logits, head(turned).logits) == (variant == "global")


# Where local and global meet


@pytest.mark.parametrize("mask", [{"local": "bd", "width": T}, {"local": "tp", "width": T - 1}])
@pytest.mark.parametrize("variant", ["gate_att", "gate_op"])
def test_neighbourhood_of_all_frames_makes_the_baseline(variant: str, mask: dict[str, Any]) -> None:
    torch.manual_seed(8)
    head, baseline = head_of(variant=variant, **mask), head_of(variant="global")
    if variant == "gate_op":  # whatever the gates, as long as both outputs go through one projection
        for attention in (attention_of(head, "visual"), attention_of(head, "audio")):
            attention.out_local.load_state_dict(attention.out.state_dict())
    shared = {name: tensor for name, tensor in head.state_dict().items() if name in baseline.state_dict()}
    baseline.load_state_dict(shared)
    expected = baseline(batch_of()).logits
    torch.testing.assert_close(head(batch_of()).logits, expected, rtol=1e-12, atol=1e-12)
    narrower = head_of(variant=variant, **{**mask, "width": mask["width"] - 1})
    narrower.load_state_dict(head.state_dict())
    assert not torch.allclose(narrower(batch_of()).logits, expected)


@pytest.mark.parametrize(("local", "most"), [("bd", 10), ("tp", 11)])
def test_shared_heads_are_the_baseline_where_every_mask_covers_the_video(local: str, most: int) -> None:
    torch.manual_seed(9)
    head, baseline = head_of(variant="share", local=local), head_of(variant="global")
    baseline.load_state_dict(head.state_dict())
    for steps in (most, most + 1):
        batch = batch_of((steps, steps), steps=steps)
        assert torch.allclose(head(batch).logits, baseline(batch).logits, rtol=1e-12) == (steps == most)


@pytest.mark.parametrize(("m", "block"), [(0, 10), (1, 20), (2, 30), (3, 60), (4, 70), (7, 70)])
def test_local_heads_come_first_and_see_their_own_block_alone(m: int, block: int) -> None:
    torch.manual_seed(10)
    head = head_of(variant="share", local="bd", num_steps=70)
    attention = attention_of(head)
    assert isinstance(attention, gated.ShareAtt)
    with torch.no_grad():  # the output shows head m alone
        other = torch.arange(V) // (V // M) != m
        attention.out.weight[:, other] = 0
    x_BTD = 0.1 * torch.randn(1, 70, V, dtype=torch.double)  # small scores: every key that is seen counts
    seen = see(head.config, torch.ones(1, 70, dtype=torch.bool), 70)
    moved_BTD = x_BTD.clone()
    moved_BTD[:, 54] += 0.1
    changed_T = (attention(moved_BTD, seen) != attention(x_BTD, seen)).any(-1)[0]
    assert changed_T.nonzero().ravel().tolist() == list(range(54 // block * block, 54 // block * block + block))


def test_mixed_rows_are_not_scaled_to_sum_to_one() -> None:
    """Two frames, a gate that keeps the global map of frame 0 and the local one of frame 1: 0.5 + 0, or 0.5 + 1."""
    attention = gated.GateAtt(8, config_of(variant="gate_att", local="bd", width=1, num_steps=2)).double().eval()
    with torch.no_grad():
        attention.gate_global.copy_(torch.tensor([[50.0, -50.0], [50.0, -50.0]]))
        attention.gate_local.zero_()
    q = torch.zeros(1, M, 2, 1, dtype=torch.double)
    nearby = torch.eye(2, dtype=torch.bool)[None, None]
    seen = attention.mixed(q, q, torch.ones_like(q), Seen(None, nearby), (attention.gate_global, attention.gate_local))
    torch.testing.assert_close(seen[0, 0, :, 0], torch.tensor([0.5, 1.5], dtype=torch.double))


# Parts


@pytest.mark.parametrize("rows", [1, 2, None])
def test_queries_in_parts_give_the_same_and_keep_no_map(rows: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(11)
    head = head_of(variant="gate_att", width=2, ffn=8, modalities="audio")
    made: list[int] = []
    softmax = Tensor.softmax

    def counted(x: Tensor, dim: int) -> Tensor:
        made.append(x.numel())
        return softmax(x, dim)

    def traced() -> tuple[list[Tensor], int]:
        """Scores and gradients; how many maps, whole or in part, wait for the backward pass."""
        kept: list[Tensor] = []

        def keep(tensor: Tensor) -> Tensor:
            if tensor.is_floating_point() and tensor.shape[-1] == T and tensor.numel() > B * M * T:
                kept.append(tensor)
            return tensor

        made.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            head(batch_of())
        return gradients_of(head, batch_of()), len(kept)

    monkeypatch.setattr(Tensor, "softmax", counted)
    with monkeypatch.context() as whole:
        whole.setattr(gated, "PARTS", 1)
        whole_result, _ = traced()
        assert max(made) == B * M * T * T
    if rows is None:
        rows = math.ceil(T / 4)  # unless maps are large
    else:
        monkeypatch.setattr(gated, "MAP_ELEMENTS", rows * B * M * T)
    result, kept = traced()
    assert kept == 0
    assert max(made) == rows * B * M * T
    for mine, right in zip(result, whole_result, strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_hold_under_dropout_also_in_parts(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated, "MAP_ELEMENTS", 2 * B * M * T)
    torch.manual_seed(12)
    options = {} if variant in ("global", "share") else {"width": 2}
    head = head_of(variant=variant, dropout=0.3, **options).train()
    batch = batch_of()

    def total() -> Tensor:
        torch.manual_seed(13)
        logits = head(batch).logits
        weighted: Tensor = logits * weights_of(logits)
        return weighted.sum()

    weight = attention_of(head).project.weight
    assert isinstance(weight, Tensor)
    torch.autograd.backward(total())
    direction = torch.randn_like(weight)
    assert weight.grad is not None
    slope = float((weight.grad * direction).sum())
    with torch.no_grad():
        values = []
        for step in (1e-6, -1e-6):
            weight.add_(direction, alpha=step)
            values.append(float(total()))
            weight.sub_(direction, alpha=step)
    assert (values[0] - values[1]) / 2e-6 == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_attention_weights_are_dropped_in_training_alone(variant: str) -> None:
    torch.manual_seed(14)
    head = head_of(variant=variant, dropout=0.5)
    attention = attention_of(head)
    batch = batch_of()
    seen = see(head.config, batch.mask["visual"], T)
    x_BTD = batch.features["visual"]
    assert isinstance(attention, gated.Attention)
    torch.testing.assert_close(attention(x_BTD, seen), attention(x_BTD, seen))
    attention.train()
    assert not torch.allclose(attention(x_BTD, seen), attention(x_BTD, seen))


@pytest.mark.parametrize("variant", VARIANTS)
def test_under_bfloat16_gates_and_norms_stay_float32(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(15)
    head = Gated(config_of(variant=variant)).eval()
    batch = batch_of()
    batch.features = {role: x_BTD.float() for role, x_BTD in batch.features.items()}
    dtypes = set()
    sigmoid, softmax = torch.sigmoid, Tensor.softmax

    def recorded(function: Any) -> Any:
        def call(x: Tensor, *rest: int) -> Tensor:
            dtypes.add(x.dtype)
            out: Tensor = function(x, *rest)
            return out

        return call

    monkeypatch.setattr(torch, "sigmoid", recorded(sigmoid))
    monkeypatch.setattr(Tensor, "softmax", recorded(softmax))
    head.blocks["audio"].register_forward_hook(lambda module, given, out: dtypes.add(out.dtype))
    with torch.no_grad():
        expected = head(batch).logits
        with torch.autocast("cpu", torch.bfloat16):
            found = head(batch).logits
    assert dtypes == {torch.float32}
    torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.03 * float(expected.abs().max()))


# Modalities, and what is refused


def test_sound_is_one_role_and_every_other_stream_the_other() -> None:
    def role(stream: str, granularity: Granularity = Granularity.FRAME) -> str | None:
        return Gated.role_of(FeatureSpec(granularity, (8,), stream=stream))

    assert [role("audio"), role("rgb"), role("flow"), role("")] == ["audio", "visual", "visual", "visual"]
    assert [role("rgb", Granularity.CLIP), role("rgb", Granularity.MAP)] == ["visual", None]


def test_batch_without_a_modality_is_refused_with_a_way_out() -> None:
    for missing, other in (("audio", "visual"), ("visual", "audio")):
        batch = batch_of()
        del batch.features[missing], batch.mask[missing]
        with pytest.raises(HeadError, match=f"none of {missing}.*modalities={other}"):
            head_of()(batch)


def test_one_modality_is_enough_where_the_option_says_so() -> None:
    for role, other in (("audio", "visual"), ("visual", "audio")):
        torch.manual_seed(16)
        head = head_of(modalities=role, **{f"num_{other}": 0})
        batch = batch_of()
        both = head(batch).logits
        del batch.features[other], batch.mask[other]
        torch.testing.assert_close(head(batch).logits, both)
        assert both.shape == (B, C)


@pytest.mark.parametrize("options", [{"variant": "gate_att"}, {"variant": "global", "pad_mask": False}])
def test_video_longer_than_the_weights_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(HeadError, match=r"13 visual rows, more than num_steps=12\. Set num_steps=13"):
        head_of(**options)(batch_of((13,), steps=13))
    assert head_of(**options)(batch_of((12,), steps=12)).logits.isfinite().all()
    assert head_of(variant="gate_op")(batch_of((13,), steps=13)).logits.isfinite().all()


@pytest.mark.parametrize(
    "options",
    [
        {"num_visual": 20},
        {"num_audio": 0},
        {"modalities": "audio", "num_audio": 0},
        {"num_steps": 0},
        {"heads": 0},
        {"hidden": 0},
        {"dropout": 1.0},
        {"variant": "share", "heads": 4},
        {"variant": "share", "width": 10},
        {"variant": "global", "width": 10},
        {"variant": "gate_op", "local": "bd", "dilation": 2},
        {"variant": "gate_op", "width": 0},
        {"variant": "gate_att", "local": "td", "dilation": 0},
    ],
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(HeadError):
        config_of(**options)


def test_training_is_the_papers() -> None:
    options, training = split_settings(Gated, ["variant=share", "width=none", "modalities=visual"])
    assert options == {"variant": "share", "width": None, "modalities": "visual"}
    assert training == TrainOptions(
        optimizer="adam",
        lr=2e-4,
        weight_decay=0.0,
        schedule="plateau",
        plateau_patience=3,
        select="gap",
        batch_size=64,
        patience=5,
    )


# The idea


def learned(variant: str) -> float:
    """Share of right answers to: do the two events of a video come within three frames of each other?

    All videos have the same frames but for noise, in some order, so that only a neighbourhood can tell.
    """
    torch.manual_seed(17)
    random = torch.Generator().manual_seed(18)

    def videos(number: int) -> tuple[Batch, Tensor]:
        close_B = torch.arange(number) % 2 == 0
        x_BTD = 0.1 * torch.randn(number, 24, 8, generator=random)
        for x_TD, close in zip(x_BTD, close_B.tolist(), strict=True):
            apart = int(
                torch.randint(1, 4, (), generator=random) if close else torch.randint(9, 15, (), generator=random)
            )
            first = int(torch.randint(0, 24 - apart, (), generator=random))
            x_TD[first, 0] += 3
            x_TD[first + apart, 1] += 3
        mask_BT = torch.ones(number, 24, dtype=torch.bool)
        return Batch({"visual": x_BTD}, {"visual": mask_BT}, torch.zeros(number, 24, 2)), close_B[:, None].float()

    options = {} if variant == "global" else {"local": "tp", "width": 3}
    head = Gated(GatedConfig(8, 0, 1, variant, modalities="visual", heads=2, ffn=16, hidden=16, dropout=0.0, **options))  # type: ignore[arg-type]
    optimizer = torch.optim.Adam(head.parameters(), lr=5e-3)
    for _ in range(150):
        batch, labels = videos(64)
        loss = functional.binary_cross_entropy_with_logits(head(batch).logits, labels)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    batch, labels = videos(400)
    with torch.no_grad():
        return float(((head(batch).logits > 0) == (labels > 0)).float().mean())


def test_only_a_neighbourhood_tells_close_events_from_distant_ones() -> None:
    assert learned("gate_op") > 0.9
    assert learned("gate_att") > 0.9
    assert 0.35 < learned("global") < 0.65
