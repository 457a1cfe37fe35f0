"""Names, shapes and counts of the clip networks, against lists made from the reference implementations."""

import itertools
import re
from pathlib import Path

import pytest
from torch.utils.flop_counter import FlopCounterMode

from extract.backbone import backbone_class
from tests.extract.networks import on_meta
from tests.extract.test_backbone_contract import full_size

NORM = ("weight", "bias", "running_mean", "running_var")

# Millions of parameters, as published: pytorchvideo's model zoo (docs/source/model_zoo.md); X3D-L of SlowFast's; MViT-B
# of its paper, table 4. Then multiply-adds of one clip in units of 10^9 at the published crop: Slow and SlowFast-R50 of
# the same zoo, at 256; X3D of SlowFast's zoo; MViT of its paper; csn_152 of VMZ's zoo, whose 108.8 are at 256 though it
# says 224.
PARAMETERS = {
    "c2d_r50": "24.33",
    "csn_r101": "22.21",
    "i3d_r50": "28.04",
    "mvit_b_16x4": "36.6",
    "mvit_b_32x3": "36.6",
    "r2plus1d_r50": "28.11",
    "slow_r50": "32.45",
    "slowfast_r101": "62.83",
    "slowfast_r50": "34.57",
    "x3d_l": "6.2",
    "x3d_m": "3.79",
    "x3d_s": "3.79",
    "x3d_xs": "3.79",
}
MULTIPLY_ADDS = {
    "csn_152": 108.8 * (224 / 256) ** 2,
    "mvit_b_16x4": 70.5,
    "mvit_b_32x3": 170,
    "slow_r50": 54.52,
    "slowfast_r50": 65.71,
    "x3d_l": 18.37,
    "x3d_m": 4.73,
    "x3d_s": 1.96,
    "x3d_xs": 0.60,
}


def expand(pattern: str) -> list[str]:
    """Names that "a.{0..2,5}.b" stands for.

    >>> expand("a.{0..1,5}.b.{3}")
    ['a.0.b.3', 'a.1.b.3', 'a.5.b.3']
    """
    parts = re.split(r"\{([^}]*)\}", pattern)
    choices = [numbers(part) if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def numbers(text: str) -> list[str]:
    spans = [[int(number) for number in span.split("..")] for span in text.split(",")]
    return [str(number) for span in spans for number in range(span[0], span[-1] + 1)]


def published() -> dict[str, dict[str, tuple[int, ...]]]:
    """Tensor names and their shapes, by network."""
    networks: dict[str, dict[str, tuple[int, ...]]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for line in Path(__file__).with_name("clip_checkpoints.txt").read_text().splitlines():
        if line.startswith("["):
            shapes = {}
            networks |= dict.fromkeys(line.strip("[]").split(), shapes)
        elif not line.startswith("#"):
            pattern, *norm, size = line.split()
            shape = tuple(int(side) for side in size.split("x"))
            for name in expand(pattern):
                if norm:
                    shapes |= {f"{name}.{part}": shape for part in NORM} | {f"{name}.num_batches_tracked": ()}
                else:
                    shapes[name] = shape
    return networks


PUBLISHED = published()


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_names_and_shapes_are_those_of_the_published_checkpoint(name: str) -> None:
    ours = {key: tuple(value.shape) for key, value in on_meta(name).state_dict().items()}
    assert ours == PUBLISHED[name]


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameters_are_as_many_as_published(name: str) -> None:
    count = sum(parameter.numel() for parameter in on_meta(name).parameters())
    decimals = len(PARAMETERS[name].partition(".")[2])
    assert f"{count / 1e6:.{decimals}f}" == PARAMETERS[name]


def test_parameters_of_csn_152_are_the_published_ones_and_the_batch_norms() -> None:
    """VMZ's 32.8 million leave out the weights and biases of the batch norms."""
    network = on_meta("csn_152")
    counts = {name: parameter.numel() for name, parameter in network.named_parameters()}
    statistics = set(network.state_dict())
    norms = {name for name in counts if f"{name.rpartition('.')[0]}.running_mean" in statistics}
    assert f"{sum(count for name, count in counts.items() if name not in norms) / 1e6:.1f}" == "32.8"


@pytest.mark.parametrize(("name", "plain"), [("nonlocal_r50", "i3d_r50"), ("nonlocal_r101", None)])
def test_non_local_blocks_add_the_parameters_of_their_convolutions(name: str, plain: str | None) -> None:
    """Five blocks, two on 512 and three on 1024 channels: four convolutions with bias, and a batch norm, each."""
    count = sum(parameter.numel() for parameter in on_meta(name).parameters())
    blocks = sum(n * (4 * c * c // 2 + 3 * c // 2 + c + 2 * c) for n, c in ((2, 512), (3, 1024)))
    if plain is None:  # I3D on a ResNet-101: 17 blocks more in s4, every second of which has a kernel of 3 in time
        extra = 17 * (1024 * 256 + 256 * 256 * 9 + 256 * 1024 + 2 * (256 + 256 + 1024)) + 9 * 2 * 1024 * 256
        plain = "i3d_r50"
        count -= extra
    assert count - blocks == sum(parameter.numel() for parameter in on_meta(plain).parameters())


@pytest.mark.parametrize("name", sorted(MULTIPLY_ADDS))
def test_multiply_adds_are_those_published(name: str) -> None:
    network = on_meta(name)
    with FlopCounterMode(display=False) as counter:
        network.classify(full_size(network))
    found = counter.get_total_flops() / 4 / 1e9  # of two clips, and two operations for each
    assert found == pytest.approx(MULTIPLY_ADDS[name], rel=0.003, abs=0.006)


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_list_stands_for_a_backbone(name: str) -> None:
    assert backbone_class(name).name == name
