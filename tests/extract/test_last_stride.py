"""Spatial stride 1 in the last stage: twice the grid from the same weights, as SlowFast has it for detection."""

from typing import Any

import pytest
import torch
from torch import nn

from extract.backbone import BACKBONES, Backbone, BackboneError, backbone_class
from extract.extract_options import ExtractOptions
from extract.hub import HubBackbone, pytorchvideo
from extract.plan import make_plan
from extract.resnet import ResNet18
from extract.scenes import SceneCutting
from stores.spec import Granularity
from tests.extract.networks import narrow, noise, on_meta, randomised
from tests.extract.test_backbone_contract import expected_shapes, full_size

CLIP, MAP = Granularity.CLIP, Granularity.MAP
BOTH = frozenset({CLIP, MAP})
HAVING = {
    "c2d_r50", "csn_152", "csn_r101", "i3d_r50", "nonlocal_r101", "nonlocal_r50", "r2plus1d_18", "r2plus1d_r50",
    "resnet18", "slow_r50", "slowfast_r101", "slowfast_r50", "x3d_l", "x3d_m", "x3d_s", "x3d_xs",
}  # fmt: skip


def networks(last_stage: bool) -> list[str]:
    kinds = {name: backbone_class(name) for name in sorted(BACKBONES)}
    seeing = {name: kind for name, kind in kinds.items() if issubclass(kind, Backbone)}
    return [name for name, kind in seeing.items() if bool(kind.last_stage) == last_stage]


def test_residual_networks_have_it() -> None:
    assert set(networks(last_stage=True)) >= HAVING


@pytest.mark.parametrize("name", networks(last_stage=True))
@torch.inference_mode()
def test_maps_are_twice_as_high_and_wide_from_the_same_tensors(name: str) -> None:
    network = on_meta(name)
    before = {key: value.shape for key, value in network.state_dict().items()}
    strided = strided_layers(network)
    height, width, channels = network.row_shapes[MAP]
    network.unstride_last_stage()
    assert network.row_shapes[MAP] == (2 * height, 2 * width, channels)
    assert type(network).row_shapes[MAP] == (height, width, channels), "other networks of the class changed, too"
    assert {key: value.shape for key, value in network.state_dict().items()} == before
    frames = full_size(network)
    rows = network(frames, frozenset(network.row_shapes))
    assert {level: tuple(x.shape) for level, x in rows.items()} == expected_shapes(network, frames)
    assert network.settings() == {"last_stride": 1}
    assert network.last_stage is not None
    changed = [layer for layer in strided if layer not in strided_layers(network)]
    assert changed == [layer for layer in strided if layer.startswith(network.last_stage)]
    assert strided[-1] in changed, "it is not the last stage"


def strided_layers(network: Backbone) -> list[str]:
    """Names of the convolutions with a spatial stride, in order."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d | nn.Conv3d)]
    return [name for name, layer in layers if layer.stride[-1] > 1]


DETECTION: dict[str, dict[str, Any]] = {  # strides and dilations as pytorchvideo's own builders of detection networks
    "slow_r50": {
        "stage_spatial_h_stride": (1, 2, 2, 1),
        "stage_spatial_w_stride": (1, 2, 2, 1),
        "stage_conv_b_dilation": ((1, 1, 1),) * 3 + ((1, 2, 2),),
    },
    "slowfast_r50": {
        "stage_spatial_strides": ((1, 2, 2, 1),) * 2,
        "stage_conv_b_dilations": (((1, 1, 1),) * 3 + ((1, 2, 2),),) * 2,
    },
}


@pytest.mark.parametrize("name", sorted(DETECTION))
@torch.inference_mode()
def test_maps_are_those_of_pytorchvideos_detection_network(name: str) -> None:
    width = {"stem_dim_out": 8} if name == "slow_r50" else {"stem_dim_outs": (8, 1)}
    network = randomised(narrow(name, **width))
    assert isinstance(network, HubBackbone)
    network.unstride_last_stage()
    reference = getattr(pytorchvideo("pytorchvideo.models.hub"), name)(**width, **DETECTION[name]).double().eval()
    reference.load_state_dict(network.state_dict())
    frames = noise(1, 8, 96, 64)
    x = network.normalise(frames)
    rows = network(frames, BOTH)[MAP].permute(0, 4, 1, 2, 3)
    if name == "slow_r50":
        for block in reference.blocks[:-1]:
            x = block(x)
        torch.testing.assert_close(rows, x, rtol=1e-9, atol=1e-9)
        assert rows.shape[-2:] == (6, 4)
        return
    pathways = [x[:, :, [0, 7]], x]
    for block in reference.blocks[:-2]:
        pathways = block(pathways)
    torch.testing.assert_close(rows[:, :256, ::4], pathways[0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rows[:, 256:], pathways[1], rtol=1e-9, atol=1e-9)


@torch.inference_mode()
def test_a_picture_that_is_one_colour_is_seen_as_before() -> None:
    """Far from the borders, where filters see padding, a stride changes nothing of it."""
    plain, dense = (randomised(ResNet18()).float() for _ in range(2))
    dense.unstride_last_stage()
    frames = torch.full((1, 1, 512, 512, 3), 90, dtype=torch.uint8)
    few, many = (network(frames, frozenset({MAP}))[MAP][0, 0] for network in (plain, dense))
    assert few.shape[:2] == (16, 16)
    assert many.shape[:2] == (32, 32)
    torch.testing.assert_close(many[16, 16], few[8, 8], rtol=1e-4, atol=1e-4)


def test_twice_is_a_bug_and_without_a_stage_an_error() -> None:
    network = on_meta("resnet18")
    network.unstride_last_stage()
    with pytest.raises(AssertionError, match="already"):
        network.unstride_last_stage()
    with pytest.raises(BackboneError, match="i3d has no last stage"):
        on_meta("i3d").unstride_last_stage()


def options(*names: str, **given: Any) -> ExtractOptions:
    weights = dict.fromkeys(names, "random")
    return ExtractOptions(names, levels=(MAP,), weights=weights, device="cpu", **given)


def test_a_plan_takes_it_into_shapes_and_spec() -> None:
    plan = make_plan(options("resnet18", "i3d", last_stride={"": 1}))
    assert plan.specs["resnet18.rgb.map"].row_shape == (14, 14, 512)
    assert plan.specs["resnet18.rgb.map"].settings == {"last_stride": 1}
    assert plan.specs["i3d.rgb.map"].settings == {}
    plain = make_plan(options("resnet18"))
    assert plain.specs["resnet18.rgb.map"].row_shape == (7, 7, 512)
    difference = plan.specs["resnet18.rgb.map"].difference(plain.specs["resnet18.rgb.map"])
    assert "last_stride" in difference


def test_a_scene_spec_says_it_too() -> None:
    given = ExtractOptions(
        ("resnet18",),
        levels=(Granularity.SCENE,),
        weights={"resnet18": "random"},
        device="cpu",
        scenes=SceneCutting(),
        last_stride={"resnet18": 1},
    )
    (spec,) = make_plan(given).specs.values()
    assert spec.settings["last_stride"] == 1


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (("i3d",), {"": 1}, "--last-stride: i3d has no residual last stage whose stride could be 1."),
        (("resnet18", "i3d"), {"i3d": 1}, "--last-stride: i3d has no residual last stage whose stride could be 1."),
        (("resnet18",), {"": 2}, "--last-stride is 1, or left out for the published network's own; it is not 2."),
    ],
)
def test_what_cannot_be_is_one_line(names: tuple[str, ...], given: dict[str, int], message: str) -> None:
    with pytest.raises(BackboneError) as caught:
        make_plan(options(*names, last_stride=given))
    assert str(caught.value) == message
