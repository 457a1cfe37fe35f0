"""ResNet-18 and -50: names of the published checkpoints, and the same numbers from a functional re-implementation."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from extract.backbone import BackboneError
from extract.resnet import ResNet, ResNet18, ResNet50
from stores.spec import Granularity
from tests.extract.networks import batch_norm, noise, randomised

FRAME, MAP = Granularity.FRAME, Granularity.MAP
BOTH = frozenset({FRAME, MAP})


@pytest.fixture(scope="module", params=[ResNet18, ResNet50])
def network(request: pytest.FixtureRequest) -> ResNet:
    kind: type[ResNet] = request.param
    return randomised(kind())


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """(N, 3, H, W) normalised to (N, C, H / 32, W / 32): the paper's table 1, 18 or 50 layers, post-activation."""
    deep = "layer1.0.conv3.weight" in state

    norm = partial(batch_norm, state)

    x = norm(F.conv2d(x, state["conv1.weight"], stride=2, padding=3), "bn1").relu()
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, 2)
    for layer in range(1, 5):
        for block in range((3, 4, 6, 3)[layer - 1] if deep else 2):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            if deep:
                y = norm(F.conv2d(x, state[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
                y = F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1)
                y = norm(y, f"{name}.bn2").relu()
                y = norm(F.conv2d(y, state[f"{name}.conv3.weight"]), f"{name}.bn3")
            else:
                y = F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1)
                y = norm(y, f"{name}.bn1").relu()
                y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
            if f"{name}.downsample.0.weight" in state:
                x = norm(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
    return x


def test_names_and_shapes_are_those_of_torchvision(network: ResNet) -> None:
    text = Path(__file__).with_name(f"{network.name}_checkpoint.txt").read_text()
    published = dict(line.split() for line in text.splitlines())
    ours = {key: "x".join(map(str, value.shape)) or "-" for key, value in network.state_dict().items()}
    assert ours == published


@pytest.mark.parametrize(
    ("kind", "all_of_it", "trunk"), [(ResNet18, 11_689_512, 11_176_512), (ResNet50, 25_557_032, 23_508_032)]
)
def test_parameters_are_as_many_as_published(kind: type[ResNet], all_of_it: int, trunk: int) -> None:
    with torch.device("meta"):
        counts = {name: p.numel() for name, p in kind().named_parameters()}
    assert sum(counts.values()) == all_of_it
    assert sum(count for name, count in counts.items() if not name.startswith("fc.")) == trunk


@pytest.mark.parametrize("size", [(64, 64), (97, 130)])
def test_numbers_are_those_of_the_reference(network: ResNet, size: tuple[int, int]) -> None:
    frames = noise(1, 2, *size)
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]], dtype=torch.double)
    x = ((frames[0].double() / 255 - mean) / std).permute(0, 3, 1, 2)
    expected = reference(network.state_dict(), x)
    rows = network(frames, BOTH)
    torch.testing.assert_close(rows[MAP][0].permute(0, 3, 1, 2), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rows[FRAME][0], expected.mean((2, 3)), rtol=1e-9, atol=1e-9)
    logits = expected.mean((2, 3)) @ network.fc.weight.T + network.fc.bias
    torch.testing.assert_close(network.classify(frames)[0], logits.mean(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("kind", "width"), [(ResNet18, 512), (ResNet50, 2048)])
def test_rows_have_the_declared_shapes(kind: type[ResNet], width: int) -> None:
    with torch.device("meta"):
        rows = kind()(torch.empty(2, 3, 224, 224, 3, dtype=torch.uint8), BOTH)
    assert {level: tuple(x.shape) for level, x in rows.items()} == {FRAME: (2, 3, width), MAP: (2, 3, 7, 7, width)}
    assert kind.row_shapes == {FRAME: (width,), MAP: (7, 7, width)}


def test_only_the_levels_that_were_asked_for_are_given(network: ResNet) -> None:
    assert network(noise(1, 1, 64, 64), frozenset({FRAME})).keys() == {FRAME}


def test_a_row_depends_on_its_own_frame_alone(network: ResNet) -> None:
    frames = noise(2, 5, 64, 64)
    together = network(frames, BOTH)
    for clip, frame in ((0, 0), (1, 4)):
        alone = network(frames[clip : clip + 1, frame : frame + 1], BOTH)
        for level in BOTH:
            torch.testing.assert_close(alone[level][0, 0], together[level][clip, frame], rtol=1e-10, atol=1e-10)


def test_there_is_no_flow_stream() -> None:
    with pytest.raises(BackboneError, match="resnet18 sees single RGB frames; it has no stream 'flow'"):
        ResNet18("flow")
