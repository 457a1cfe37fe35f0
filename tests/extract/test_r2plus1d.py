"""R(2+1)D-18: names of the published checkpoint, and the same numbers from a functional re-implementation."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from extract.backbone import BackboneError
from extract.r2plus1d import R2Plus1d18
from stores.spec import Granularity
from tests.extract.networks import assert_gives_rows_of, batch_norm, noise, randomised

CLIP, MAP = Granularity.CLIP, Granularity.MAP
BOTH = frozenset({CLIP, MAP})


@pytest.fixture(scope="module")
def network() -> R2Plus1d18:
    return randomised(R2Plus1d18())


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """(B, 3, T, H, W) normalised to (B, 512, T / 8, H / 16, W / 16): figure 1e and table 1 of the paper, 18 layers."""

    norm = partial(batch_norm, state)

    def split(x: Tensor, name: str, stride: int) -> Tensor:
        x = F.pad(x, (1,) * 4)  # zeros around every frame
        x = norm(F.conv3d(x, state[f"{name}.0.weight"], stride=(1, stride, stride)), f"{name}.1").relu()
        return F.conv3d(F.pad(x, (0, 0, 0, 0, 1, 1)), state[f"{name}.3.weight"], stride=(stride, 1, 1))

    x = F.conv3d(F.pad(x, (3,) * 4), state["stem.0.weight"], stride=(1, 2, 2))
    x = F.conv3d(F.pad(norm(x, "stem.1").relu(), (0, 0, 0, 0, 1, 1)), state["stem.3.weight"])
    x = norm(x, "stem.4").relu()
    for layer in range(1, 5):
        for block in range(2):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = norm(split(x, f"{name}.conv1.0", stride), f"{name}.conv1.1").relu()
            y = norm(split(y, f"{name}.conv2.0", 1), f"{name}.conv2.1")
            if f"{name}.downsample.0.weight" in state:
                x = F.conv3d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(x, f"{name}.downsample.1")
            x = (x + y).relu()
    return x


def test_names_and_shapes_are_those_of_torchvision() -> None:
    text = Path(__file__).with_name("r2plus1d_18_checkpoint.txt").read_text()
    published = dict(line.split() for line in text.splitlines())
    ours = {key: "x".join(map(str, value.shape)) or "-" for key, value in R2Plus1d18().state_dict().items()}
    assert ours == published


def test_parameters_are_as_many_as_published() -> None:
    counts = {name: p.numel() for name, p in R2Plus1d18().named_parameters()}
    assert sum(counts.values()) == 31_505_325  # torchvision's num_params
    assert sum(count for name, count in counts.items() if not name.startswith("fc.")) == 31_300_125


@pytest.mark.parametrize("size", [(12, 32, 32), (9, 21, 40)])
def test_numbers_are_those_of_the_reference(network: R2Plus1d18, size: tuple[int, int, int]) -> None:
    assert_gives_rows_of(network, reference, noise(1, *size), tolerance=1e-10)


def test_rows_have_the_declared_shapes(network: R2Plus1d18) -> None:
    rows = network(noise(1, 1, 112, 112), BOTH)
    assert {level: tuple(x.shape) for level, x in rows.items()} == {CLIP: (1, 1, 512), MAP: (1, 1, 7, 7, 512)}
    assert network(noise(2, 16, 16, 16), frozenset({MAP}))[MAP].shape == (2, 2, 1, 1, 512)


def test_a_row_depends_on_its_own_clip_alone(network: R2Plus1d18) -> None:
    frames = noise(2, 8, 24, 24)
    together = network(frames, BOTH)
    for level in BOTH:
        alone = network(frames[1:], BOTH)[level]
        torch.testing.assert_close(alone[0], together[level][1], rtol=1e-10, atol=1e-10)


def test_a_map_row_reaches_as_many_frames_as_declared(network: R2Plus1d18) -> None:
    """A change of the frame at the edge of row 7's field is seen by it, one frame further it is not."""
    frames = torch.full((1, 112, 8, 8, 3), 128, dtype=torch.uint8)
    reach = network.clip.receptive_field // 2
    plain = network(frames, frozenset({MAP}))[MAP][0, 7]
    for offset, seen in ((reach, True), (reach + 1, False), (-reach, True), (-reach - 1, False)):
        changed = frames.clone()
        changed[:, 56 + offset] = 255
        assert bool((network(changed, frozenset({MAP}))[MAP][0, 7] != plain).any()) == seen, offset


def test_there_is_no_flow_stream() -> None:
    with pytest.raises(BackboneError, match="r2plus1d_18 sees RGB frames; it has no stream 'flow'"):
        R2Plus1d18("flow")
