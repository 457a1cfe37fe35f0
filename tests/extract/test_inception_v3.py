"""Inception-v3: names of the published checkpoints, and the same numbers from a functional re-implementation."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from extract.inception_v3 import InceptionV3, InceptionV3Of2015
from extract.state_dict import load_into
from stores.spec import Granularity
from tests.extract.networks import batch_norm, noise, randomised

FRAME, MAP = Granularity.FRAME, Granularity.MAP
BOTH = frozenset({FRAME, MAP})
KINDS = [InceptionV3, InceptionV3Of2015]


def published(kind: type[InceptionV3]) -> dict[str, str]:
    """torchvision's names and shapes; the training of 2015 has no side classifier and 1008 classes (pytorch-fid)."""
    lines = Path(__file__).with_name("inception_v3_checkpoint.txt").read_text().splitlines()
    found = dict(line.split() for line in lines)
    if kind is InceptionV3Of2015:
        found = {name: shape for name, shape in found.items() if not name.startswith("AuxLogits.")}
        found |= {"fc.weight": "1008x2048", "fc.bias": "1008"}
    return found


class Reference:
    """The paper's table 1 and figures 5, 6, 7 and 10, one operation after the other.

    `counts` is whether zeros around a map count in a mean, `last` the pool of the last block.
    """

    def __init__(self, state: dict[str, Tensor], counts: bool, last: str) -> None:
        self.state, self.counts, self.last = state, counts, last

    def conv(self, x: Tensor, *names: str, stride: int = 1, pad: bool = True) -> Tensor:
        for name in names:
            weight = self.state[f"{name}.conv.weight"]
            height, width = weight.shape[2:]
            x = F.conv2d(x, weight, stride=stride, padding=(height // 2, width // 2) if pad else 0)
            x = batch_norm(self.state, x, f"{name}.bn", eps=1e-3).clamp(min=0)
        return x

    def mean(self, x: Tensor) -> Tensor:
        total = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum((-1, -2))
        cells = F.pad(torch.ones_like(x), (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).sum((-1, -2))
        return total / (9 if self.counts else cells)

    def shrink(self, x: Tensor) -> Tensor:
        return x.unfold(2, 3, 2).unfold(3, 3, 2).amax((-1, -2))

    def block(self, x: Tensor, name: str) -> Tensor:
        def branch(start: Tensor, *parts: str) -> Tensor:
            return self.conv(start, *(f"{name}.{part}" for part in parts))

        if name in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            parts = [
                branch(x, "branch1x1"),
                branch(x, "branch5x5_1", "branch5x5_2"),
                branch(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
                branch(self.mean(x), "branch_pool"),
            ]
        elif name == "Mixed_6a":
            twice = branch(x, "branch3x3dbl_1", "branch3x3dbl_2")
            parts = [
                self.conv(x, "Mixed_6a.branch3x3", stride=2, pad=False),
                self.conv(twice, "Mixed_6a.branch3x3dbl_3", stride=2, pad=False),
                self.shrink(x),
            ]
        elif name == "Mixed_7a":
            long = branch(x, "branch7x7x3_1", "branch7x7x3_2", "branch7x7x3_3")
            parts = [
                self.conv(branch(x, "branch3x3_1"), "Mixed_7a.branch3x3_2", stride=2, pad=False),
                self.conv(long, "Mixed_7a.branch7x7x3_4", stride=2, pad=False),
                self.shrink(x),
            ]
        elif name.startswith("Mixed_6"):
            parts = [
                branch(x, "branch1x1"),
                branch(x, *(f"branch7x7_{i}" for i in (1, 2, 3))),
                branch(x, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5))),
                branch(self.mean(x), "branch_pool"),
            ]
        else:
            once, twice = branch(x, "branch3x3_1"), branch(x, "branch3x3dbl_1", "branch3x3dbl_2")
            largest = F.pad(x, (1, 1, 1, 1), value=-torch.inf).unfold(2, 3, 1).unfold(3, 3, 1).amax((-1, -2))
            around = largest if name == "Mixed_7c" and self.last == "max" else self.mean(x)
            parts = [
                branch(x, "branch1x1"),
                branch(once, "branch3x3_2a"),
                branch(once, "branch3x3_2b"),
                branch(twice, "branch3x3dbl_3a"),
                branch(twice, "branch3x3dbl_3b"),
                branch(around, "branch_pool"),
            ]
        return torch.cat(parts, 1)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.conv(x, "Conv2d_1a_3x3", stride=2, pad=False)
        x = self.conv(self.conv(x, "Conv2d_2a_3x3", pad=False), "Conv2d_2b_3x3")
        x = self.conv(self.shrink(x), "Conv2d_3b_1x1")
        x = self.shrink(self.conv(x, "Conv2d_4a_3x3", pad=False))
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = self.block(x, f"Mixed_{name}")
        return x


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_shapes_are_those_of_the_checkpoint(kind: type[InceptionV3]) -> None:
    with torch.device("meta"):
        ours = {key: "x".join(map(str, value.shape)) or "-" for key, value in kind().state_dict().items()}
    assert ours == published(kind)


def test_parameters_are_as_many_as_published() -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in InceptionV3().parameters()) == 27_161_264
        # Without the side classifier's 3,326,696, and with 8 classes of 2048 weights and a bias more.
        assert sum(p.numel() for p in InceptionV3Of2015().parameters()) == 27_161_264 - 3_326_696 + 8 * 2049


@pytest.mark.parametrize(
    ("kind", "middle", "spread", "counts", "last"),
    [(InceptionV3, 127.5, 127.5, True, "mean"), (InceptionV3Of2015, 128, 128, False, "max")],
)
def test_numbers_are_those_of_the_reference(
    kind: type[InceptionV3], middle: float, spread: float, counts: bool, last: str
) -> None:
    network = randomised(kind())
    frames = noise(1, 2, 139, 139)
    x = (frames[0].double().permute(0, 3, 1, 2) - middle) / spread
    expected = Reference(network.state_dict(), counts, last)(x)
    assert expected.shape == (2, 2048, 3, 3)
    rows = network(frames, BOTH)
    torch.testing.assert_close(rows[MAP][0].permute(0, 3, 1, 2), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rows[FRAME][0], expected.mean((2, 3)), rtol=1e-9, atol=1e-9)
    logits = expected.mean((2, 3)) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network.classify(frames)[0], logits.mean(0), rtol=1e-9, atol=1e-9)
    alone = network(frames[:, 1:], BOTH)
    for level in BOTH:
        torch.testing.assert_close(alone[level][0, 0], rows[level][0, 1], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_have_the_declared_shapes(kind: type[InceptionV3]) -> None:
    with torch.device("meta"):
        rows = kind()(torch.empty(1, 2, 299, 299, 3, dtype=torch.uint8), BOTH)
    assert {level: tuple(x.shape[2:]) for level, x in rows.items()} == {FRAME: (2048,), MAP: (8, 8, 2048)}
    assert kind.row_shapes == {FRAME: (2048,), MAP: (8, 8, 2048)}


def test_a_checkpoint_with_the_side_classifier_loads_and_that_changes_nothing(tmp_path: Path) -> None:
    source, network = randomised(InceptionV3()), InceptionV3()
    torch.save(source.state_dict(), tmp_path / "w.pth")
    load_into(network, tmp_path / "w.pth", "inception_v3")
    frames = noise(1, 1, 91, 91)
    expected = network(frames, BOTH)[FRAME]
    for parameter in network.AuxLogits.parameters():
        parameter.data.fill_(torch.nan)
    assert torch.equal(network(frames, BOTH)[FRAME], expected)
