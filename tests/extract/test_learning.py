"""Every family of networks learns below a head: its rows have a gradient for all weights but the classifier's."""

from __future__ import annotations

import pytest
import torch

from extract.backbone import Backbone, backbone_class
from extract.vggish import Vggish
from heads.end_to_end import ClipNetwork, Trunk, TuneOptions, clip_rows
from stores.spec import Granularity

AUXILIARY = 3_326_696  # of Inception-v3's second classifier, by torchvision's count: 27,161,264 - 23,834,568


@pytest.mark.parametrize(
    ("name", "classifier"),
    [
        ("csn_r101", 2049 * 400),
        ("efficientnet_lite0", 1281 * 1000),
        ("i3d", 1025 * 400),
        ("inception_v3", 2049 * 1000 + AUXILIARY),
        ("mvit_b_16x4", 769 * 400),
        ("nonlocal_r50", 2049 * 400),
        ("r2plus1d_18", 513 * 400),
        ("resnet50", 2049 * 1000),
        ("slowfast_r50", 2305 * 400),
        ("x3d_xs", 2049 * 400),
    ],
)
def test_all_weights_but_the_classifiers_learn(name: str, classifier: int) -> None:
    """At true size, on shapes alone; maps have the shape that extraction stores."""
    kind = backbone_class(name)
    assert issubclass(kind, Backbone)
    with torch.device("meta"):
        network = kind()
    shape = (network.clip.window, network.clip.crop, network.clip.crop, 3)
    level = Granularity.FRAME if network.clip.window == 1 else Granularity.CLIP
    trunk = Trunk(ClipNetwork(network, name, level, shape), TuneOptions((name,)), learns=True)
    still = sum(weight.numel() for weight in trunk.parameters() if not weight.requires_grad)
    assert still == classifier
    steps, *map_shape = clip_rows(Trunk(ClipNetwork(network, name, Granularity.MAP, shape), TuneOptions(), False))
    assert tuple(map_shape) == network.row_shapes[Granularity.MAP]
    assert steps == -(-network.clip.window // network.clip.output_stride)


def test_all_weights_of_vggish_learn() -> None:
    """It has no classifier; torchvggish's file holds 72,141,184 numbers."""
    with torch.device("meta"):
        network = Vggish()
    form = ClipNetwork(network, "vggish", Granularity.FRAME, (1, 96, 64), torch.float32)
    trunk = Trunk(form, TuneOptions(("vggish",)), learns=True)
    assert sum(weight.numel() for weight in trunk.parameters() if weight.requires_grad) == 72_141_184
    assert clip_rows(trunk) == (1, 128)
