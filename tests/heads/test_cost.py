"""Multiply-adds against counts by hand, weights against the papers, memory against what was taken."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from extract.backbone import BACKBONES, backbone_class
from heads.asf import Asf
from heads.cost import PeakMemory, cost_of, multiply_adds, parameter_count
from heads.head import Head, HeadError, head_class
from heads.options import full_config
from heads.stan import R2PLUS1D_18, RESNET18

N, D, C = 11, 24, 5  # rows, features, classes


def counted(name: str, shapes: Mapping[str, tuple[int, ...]], rows: int = N, **options: Any) -> int:
    kind: type[Head] = head_class(name)
    return multiply_adds(kind, full_config(kind, shapes, C, options), shapes, rows)


def test_linear_maps_multiply_every_feature_by_every_class() -> None:
    assert counted("linear", {"x": (D,)}) == N * D * C
    assert counted("meanpool", {"x": (D,)}) == D * C
    assert counted("tconv", {"x": (D,)}, width=7) == N * (3 * D * 7 + 5 * 7 * 7 + 3 * 7 * 7 + 7 * C)


def test_mlad_is_its_projections_and_two_attentions() -> None:
    embed, layers = 6, 3
    both_attentions = 2 * N * C * C * embed + 2 * C * N * N * embed
    of_layer = 2 * N * C * (3 + 1 + 2) * embed**2 + both_attentions
    whole = N * D * C * embed + layers * of_layer + 2 * N * C * embed
    assert counted("mlad", {"x": (D,)}, embed=embed, num_layers=layers) == whole


@pytest.mark.parametrize("variant", ["global", "share", "gate_att", "gate_op"])
def test_gated_is_its_blocks_and_what_the_variant_adds(variant: str) -> None:
    heads, ffn, hidden, steps = 8, 9, 10, 11
    whole = (16 + 8) * hidden + hidden * C
    for width in (16, 8):
        whole += steps * (4 * width**2 + 2 * width * ffn) + 2 * steps**2 * width
        if variant == "gate_att":
            whole += 2 * heads * steps**3  # both maps times their weights
        if variant == "gate_op":
            whole += 3 * steps * width**2 + 2 * steps**2 * width  # second attention, its output, two gates
    shapes = {"visual": (16,), "audio": (8,)}
    assert counted("gated", shapes, steps, variant=variant, ffn=ffn, hidden=hidden) == whole


def test_stld_is_two_branches_over_places_and_over_times() -> None:
    steps, places, width, ffn = 3, 4 * 5, 8, 12
    whole = steps * places * D * width + width * C + C * 2 * width
    for memory in (places, steps):
        over_classes = C * 4 * width**2 + 2 * C * C * width
        over_memory = 2 * C * width**2 + 2 * memory * width**2 + 2 * C * memory * width
        whole += 2 * (over_classes + over_memory + 2 * C * width * ffn)
    options = {"hidden": width, "nhead": 2, "dim_feedforward": ffn}
    assert counted("stld", {"map": (4, 5, D)}, steps, **options) == whole


def test_stans_last_layer_asks_for_the_class_token_alone() -> None:
    width, ffn, tokens = 8, 6, N + 1
    whole = 2 * width * 128 * 2 + width * 512 + 512 * 128 + 128 * C
    for features in (D, 10):
        whole += N * features * width
        for rows in (tokens, 1):  # two layers; rows that are asked for
            whole += 2 * tokens * width**2 + rows * (2 * width**2 + 2 * width * ffn) + 2 * rows * tokens * width
    shapes = {"spatial": (D,), "temporal": (10,)}
    assert counted("stan", shapes, embed=width, ffn=ffn, num_layers=2) == whole


def test_an_lstm_is_counted() -> None:
    width = 8
    whole = N * D * width + N * 2 * 4 * width**2 + width * C
    assert counted("stan", {"spatial": (D,)}, aggregation="lstm", streams="spatial", embed=width) == whole


def test_asf_in_its_own_order_of_products() -> None:
    steps, places, groups, observations, embed = 2, 3 * 4, 4, 6, 8
    positions, maps = steps * places, observations * D * embed // groups
    whole = 3 * maps + 2 * observations * positions * D  # query, query through keys, values; where to look, the sum
    whole += 2 * C * observations * embed + 2 * C * embed**2 // groups + 2 * C * C * embed + 2 * C * embed
    options = {"groups": groups, "num_observations": observations, "embed": embed}
    assert counted("asf", {"map": (3, 4, D)}, steps, **options) == whole


def test_a_window_that_the_head_refuses_is_an_error() -> None:
    with pytest.raises(HeadError, match="num_steps=5"):
        counted("gated", {"visual": (16,), "audio": (8,)}, variant="gate_att", num_steps=5)


def test_parameters_are_those_that_learn_of_the_whole_or_of_a_part() -> None:
    options = {"num_features": 2048, "num_classes": 157}
    assert parameter_count(Asf, options) == 1_594_242
    shapes: dict[str, tuple[int, ...]] = {"spatial": (512,), "temporal": (512,)}
    kind = head_class("stan")
    free, frozen = (full_config(kind, shapes, 20, {"freeze_proj_t": value}) for value in (False, True))
    assert parameter_count(kind, free) - parameter_count(kind, frozen) == 512 * 896 + 896
    assert parameter_count(kind, free, "streams.spatial.layers") == 16_549_376


def test_the_trunk_of_r2plus1d_has_the_weights_that_its_paper_counts() -> None:
    """Convolutions of 1 x 3 x 3, then 3 x 1 x 1, as many channels between as a 3 x 3 x 3 one has weights for."""

    def pair(before: int, after: int, of: tuple[int, int] | None = None) -> int:
        first, last = of or (before, after)
        between = 27 * first * last // (9 * first + 3 * last)
        return before * between * 9 + 2 * between + between * after * 3 + 2 * after  # two weights of each batch norm

    stem = 3 * 45 * 49 + 2 * 45 + 45 * 64 * 3 + 2 * 64
    blocks, before = 0, 64
    for after in (64, 128, 256, 512):
        # Both pairs of a block have the channels between that its first one has; so has torchvision's.
        blocks += pair(before, after) + pair(after, after, (before, after)) + 2 * pair(after, after)
        blocks += before * after + 2 * after if before != after else 0
        before = after
    assert stem + blocks == R2PLUS1D_18


@pytest.mark.parametrize(("name", "expected"), [("resnet18", RESNET18), ("r2plus1d_18", R2PLUS1D_18)])
def test_trunks_have_the_weights_that_stans_sizes_add(name: str, expected: int) -> None:
    if name not in BACKBONES:
        pytest.skip(f"extract has no {name} yet")
    with torch.device("meta"):
        network = backbone_class(name)()
    classifier = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    weights = sum(tensor.numel() for tensor in network.parameters())
    assert weights - sum(tensor.numel() for layer in classifier for tensor in layer.parameters()) == expected


def test_memory_is_what_was_taken_since_and_stays_at_its_highest() -> None:
    memory = PeakMemory(torch.device("cpu"))
    before = memory.highest
    taken = np.ones(64 << 17)  # 64 MiB
    assert taken.sum() == 64 << 17
    del taken
    if memory.of == "growth of the process":
        assert 60 << 20 < memory.highest - before < 80 << 20
        assert before < 16 << 20
        assert PeakMemory(torch.device("cpu")).highest < 16 << 20  # begins anew
    else:
        assert memory.highest >= 64 << 20


def test_an_epoch_takes_the_median_of_their_seconds() -> None:
    cost = cost_of(head_class("linear"), {"num_features": D, "num_classes": C}, {"x": (D,)}, N, [9.0, 1.0, 2.0])
    assert cost == {
        "parameters": D * C + C,
        "multiply_adds": N * D * C,
        "rows": N,
        "seconds_per_epoch": 2.0,
    }
