"""What every backbone that sees frames promises: shapes, independence of clips, evaluation mode, dtypes."""

import copy
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from extract.backbone import BACKBONES, Backbone, backbone_class
from extract.class_names import class_names
from extract.weights import fill_randomly
from stores.spec import Granularity
from tests.extract.networks import noise, on_meta, small

SEEING = [name for name in sorted(BACKBONES) if issubclass(backbone_class(name), Backbone)]

Rows = dict[Granularity, Tensor]


class Case(NamedTuple):
    """A randomised network, two small clips, and what it makes of them."""

    network: Backbone
    frames: Tensor
    rows: Rows

    @property
    def levels(self) -> frozenset[Granularity]:
        return frozenset(self.network.row_shapes)


@pytest.fixture(scope="module", params=SEEING)
def case(request: pytest.FixtureRequest) -> Case:
    network, frames, side = small(request.param)
    clips = noise(2, frames, side, side)
    return Case(network, clips, network(clips, frozenset(network.row_shapes)))


@pytest.fixture(scope="module", params=SEEING)
def published(request: pytest.FixtureRequest) -> Backbone:
    return on_meta(request.param)


def full_size(network: Backbone) -> Tensor:
    """Two clips of the size that the network was published for; a network of images sees three a clip."""
    clip = network.clip
    frames = 3 if clip.window == 1 else clip.window
    return torch.empty(2, frames, clip.crop, clip.crop, 3, dtype=torch.uint8, device="meta")


def expected_shapes(network: Backbone, frames: Tensor) -> dict[Granularity, tuple[int, ...]]:
    steps = {
        Granularity.FRAME: frames.shape[1],
        Granularity.MAP: -(-frames.shape[1] // network.clip.output_stride),
        Granularity.CLIP: 1,
    }
    return {level: (2, steps[level], *shape) for level, shape in network.row_shapes.items()}


@torch.inference_mode()
def test_rows_have_the_declared_shapes_at_the_published_size(published: Backbone) -> None:
    frames = full_size(published)
    rows = published(frames, frozenset(published.row_shapes))
    assert {level: tuple(x.shape) for level, x in rows.items()} == expected_shapes(published, frames)


def test_every_layer_is_in_evaluation_mode(published: Backbone) -> None:
    assert not [name for name, module in published.named_modules() if module.training]


def test_a_clip_gives_the_same_rows_in_any_batch_and_beside_any_level(case: Case) -> None:
    for level in case.levels:
        alone = case.network(case.frames[1:], frozenset({level}))
        assert set(alone) == {level}
        torch.testing.assert_close(alone[level][0], case.rows[level][1], rtol=1e-9, atol=1e-9)


def test_classes_are_those_of_its_list(case: Case) -> None:
    if case.network.class_list is None:
        pytest.skip(f"{case.network.name} has no classifier")
    logits = case.network.classify(case.frames)
    assert logits.shape == (2, len(class_names(case.network.class_list)))
    torch.testing.assert_close(case.network.classify(case.frames[1:])[0], logits[1], rtol=1e-9, atol=1e-9)


def test_rows_show_what_the_clip_shows(case: Case) -> None:
    for level in case.levels:
        difference = (case.rows[level][0] - case.rows[level][1]).abs().max()
        assert difference > 1e-4 * case.rows[level].abs().max(), level


def test_rows_are_the_same_bits_every_time_and_keep_no_gradient(case: Case) -> None:
    before = case.frames.clone()
    for parameter in case.network.parameters():
        assert not parameter.requires_grad
    again = case.network(case.frames, case.levels)
    for level in case.levels:
        assert torch.equal(again[level], case.rows[level])
        assert again[level].grad_fn is None
    assert torch.equal(case.frames, before), "the frames were changed"


def test_rows_are_of_the_parameters_dtype_also_under_autocast(case: Case) -> None:
    assert {x.dtype for x in case.rows.values()} == {torch.float64}
    single = copy.deepcopy(case.network).float()
    with torch.autocast("cpu", torch.bfloat16):
        rows = single(case.frames[:1], case.levels)
    assert {x.dtype for x in rows.values()} == {torch.float32}
    for level in case.levels:
        scale = case.rows[level][:1].abs().mean()
        difference = (rows[level].double() - case.rows[level][:1]).abs().mean()
        assert difference < 0.2 * scale, level  # eight bits a value, through a hundred layers


def test_random_weights_give_rows_that_half_precision_holds(case: Case) -> None:
    network = copy.deepcopy(case.network).float()
    fill_randomly(network, 0)
    with torch.inference_mode():
        rows = network(case.frames[:1], case.levels)
    for level in case.levels:
        assert bool(torch.isfinite(rows[level].half()).all()), level
        assert rows[level].std() > 1e-4, level
