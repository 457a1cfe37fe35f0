import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import BackboneError
from extract.i3d import InceptionI3d, Unit, max_pool_same, pad_same, same_padding
from extract.weights import fill_randomly
from stores.spec import Granularity
from tests.extract.networks import batch_norm

CLIP, MAP = frozenset({Granularity.CLIP}), frozenset({Granularity.MAP})
SIZE = 32  # pixels: one cell of the last grid


def lively(stream: str = "rgb", dtype: torch.dtype = torch.float64) -> InceptionI3d:
    """Random weights whose batch norms shift and scale, so that padding and order of layers show."""
    net = InceptionI3d(stream)
    fill_randomly(net, 1)
    torch.manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.weight, 0.8, 1.2)
            nn.init.uniform_(module.bias, -0.1, 0.3)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    return net.to(dtype)


@pytest.fixture(scope="module")
def net() -> InceptionI3d:
    return lively()


def clip(frames: int, size: int = SIZE, channels: int = 3, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(frames)
    shape = (batch, frames, size, size, channels)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def checkpoint(stream: str) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of the public checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}
    for line in Path(__file__).with_name("i3d_checkpoint.txt").read_text().splitlines():
        if line.startswith("#"):
            continue
        name, out, channels, kernel = line.replace("image", {"rgb": "3", "flow": "2"}[stream]).split()
        shapes[f"{name}.conv3d.weight"] = (int(out), int(channels), *[int(kernel)] * 3)
        if name == "logits":
            shapes[f"{name}.conv3d.bias"] = (int(out),)
            continue
        shapes |= {f"{name}.bn.{key}": (int(out),) for key in ("weight", "bias", "running_mean", "running_var")}
        shapes[f"{name}.bn.num_batches_tracked"] = ()
    return shapes


@pytest.mark.parametrize("stream", ["rgb", "flow"])
def test_parameters_have_the_names_and_shapes_of_the_public_checkpoint(stream: str) -> None:
    state = InceptionI3d(stream).state_dict()
    assert {name: tuple(x.shape) for name, x in state.items()} == checkpoint(stream)


def test_a_checkpoint_written_before_batches_were_counted_loads() -> None:
    """The published files are older than `num_batches_tracked`, for which PyTorch then fills in zero."""
    old = {k: torch.zeros(s) for k, s in checkpoint("rgb").items() if not k.endswith("num_batches_tracked")}
    InceptionI3d().load_state_dict(old)


def test_the_network_has_12_697_264_parameters() -> None:
    counted = sum(p.numel() for p in InceptionI3d().parameters())
    learned = (s for name, s in checkpoint("rgb").items() if "running" not in name and "tracked" not in name)
    assert counted == sum(int(np.prod(shape)) for shape in learned) == 12_697_264


def test_a_clip_of_64_frames_takes_111_billion_multiply_adds() -> None:
    """The figure of the literature for 64 x 224 x 224."""
    with torch.device("meta"):
        net = InceptionI3d()
    macs = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal macs
        assert isinstance(layer, nn.Conv3d)
        macs += output.numel() * layer.weight[0].numel()

    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(count)
    rows = net(torch.zeros(1, 64, 224, 224, 3, dtype=torch.uint8, device="meta"), CLIP | MAP)
    assert round(macs / 1e9) == 111
    assert rows[Granularity.MAP].shape == (1, 8, *net.row_shapes[Granularity.MAP])
    assert rows[Granularity.CLIP].shape == (1, 1, *net.row_shapes[Granularity.CLIP])


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding"),
    [
        (224, 7, 2, (2, 3)),  # 112 outputs reach over 111 * 2 + 7 = 229 elements, 5 too many
        (223, 7, 2, (3, 3)),  # the same 229, 6 too many
        (4, 3, 2, (0, 1)),
        (5, 3, 2, (1, 1)),
        (7, 2, 2, (0, 1)),
        (8, 2, 2, (0, 0)),
        (1, 7, 2, (3, 3)),
        (5, 1, 2, (0, 0)),  # reaches over exactly 5
        (6, 1, 2, (0, 0)),  # reaches over 5: nothing to add, one element is never seen
    ],
)
def test_same_padding_by_hand(size: int, kernel: int, stride: int, padding: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == padding


@pytest.mark.parametrize(
    ("values", "sums"),
    [
        ([1, 2, 3, 4], [1 + 2 + 3, 3 + 4 + 0]),
        ([1, 2, 3, 4, 5], [0 + 1 + 2, 2 + 3 + 4, 4 + 5 + 0]),
    ],
)
@pytest.mark.parametrize("dim", [2, 3, 4])
def test_same_convolution_by_hand(values: list[float], sums: list[float], dim: int) -> None:
    shape, kernel, stride = [1] * 5, [1] * 3, [1] * 3
    shape[dim], kernel[dim - 2], stride[dim - 2] = len(values), 3, 2
    padded = pad_same(torch.tensor(values).float().view(shape), tuple(kernel), tuple(stride), value=0.0)
    assert F.conv3d(padded, torch.ones(1, 1, *kernel), stride=stride).flatten().tolist() == sums


def tensorflow_windows(size: int, kernel: int, stride: int) -> list[list[tuple[int, int]]]:
    """For each output the (place in the kernel, place in the input) pairs that lie inside the input.

    The formula as TensorFlow's documentation of tf.nn.convolution states it for "SAME".
    """
    total = max(kernel - stride, 0) if size % stride == 0 else max(kernel - size % stride, 0)
    places = []
    for output in range((size + stride - 1) // stride):
        start = output * stride - total // 2
        places.append([(k, start + k) for k in range(kernel) if 0 <= start + k < size])
    return places


SHAPES = [(8, 6, 5), (7, 4, 9), (1, 1, 2)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 1), (1, 1)])
def test_a_unit_is_the_loop_that_spells_it_out(kernel: int, stride: int, shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    unit = Unit(2, 3, kernel, stride).double().eval()
    x = torch.randn(1, 2, *shape, dtype=torch.float64)
    weight, image = unit.conv3d.weight.detach().numpy(), x[0].numpy()
    windows = [tensorflow_windows(size, kernel, stride) for size in shape]
    sums = [
        sum(weight[:, :, kt, kh, kw] @ image[:, t, h, w] for (kt, t), (kh, h), (kw, w) in itertools.product(*taps))
        for taps in itertools.product(*windows)
    ]
    expected = np.stack(sums, axis=1).reshape(3, *map(len, windows))
    expected = np.maximum(expected / np.sqrt(1 + 1e-3), 0)  # batch norm at mean 0 and variance 1, then ReLU
    with torch.no_grad():
        np.testing.assert_allclose(unit(x)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))],
)
def test_a_pool_is_the_loop_that_spells_it_out(
    kernel: tuple[int, int, int], stride: tuple[int, int, int], shape: tuple[int, int, int]
) -> None:
    x = torch.randn(1, 2, *shape, generator=torch.Generator().manual_seed(0))
    windows = [tensorflow_windows(*each) for each in zip(shape, kernel, stride, strict=True)]
    image = x[0].numpy()
    largest = [
        np.max([image[:, t, h, w] for (_, t), (_, h), (_, w) in itertools.product(*taps)], axis=0)
        for taps in itertools.product(*windows)
    ]
    expected = np.stack(largest, axis=1).reshape(2, *map(len, windows))
    np.testing.assert_array_equal(max_pool_same(x, kernel, stride)[0].numpy(), expected)


def spelled_out(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The published network, layer by layer from its tensors, with zero padding before every layer."""

    def pad(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        amounts: list[int] = []
        for size, k, s in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
            total = max((k - s) if size % s == 0 else (k - size % s), 0)
            amounts += [total // 2, total - total // 2]
        return F.pad(x, amounts)

    def unit(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{name}.conv3d.weight"]
        x = F.conv3d(pad(x, tuple(weight.shape[2:]), (stride,) * 3), weight, stride=stride)
        return batch_norm(state, x, f"{name}.bn", eps=1e-3).clamp(min=0)

    def pool(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
        return F.max_pool3d(pad(x, kernel, stride), kernel, stride)

    def mixed(name: str, x: Tensor) -> Tensor:
        branch = unit(f"{name}.b3b", pool(x, (3, 3, 3), (1, 1, 1)))
        b1, b2 = (unit(f"{name}.b{i}b", unit(f"{name}.b{i}a", x)) for i in (1, 2))
        return torch.cat([unit(f"{name}.b0", x), b1, b2, branch], dim=1)

    x = pool(unit("Conv3d_1a_7x7", x, stride=2), (1, 3, 3), (1, 2, 2))
    x = pool(unit("Conv3d_2c_3x3", unit("Conv3d_2b_1x1", x)), (1, 3, 3), (1, 2, 2))
    x = pool(mixed("Mixed_3c", mixed("Mixed_3b", x)), (3, 3, 3), (2, 2, 2))
    for letter in "bcdef":
        x = mixed(f"Mixed_4{letter}", x)
    return mixed("Mixed_5c", mixed("Mixed_5b", pool(x, (2, 2, 2), (2, 2, 2))))


@pytest.mark.parametrize(("frames", "size"), [(16, 40), (11, 33)])
@torch.no_grad()
def test_features_are_those_of_the_network_spelled_out(net: InceptionI3d, frames: int, size: int) -> None:
    x = clip(frames, size)
    expected = spelled_out(net.state_dict(), x.permute(0, 4, 1, 2, 3).double() / 127.5 - 1)
    rows = net(x, CLIP | MAP)
    torch.testing.assert_close(rows[Granularity.MAP], expected.permute(0, 2, 3, 4, 1), rtol=0, atol=1e-10)
    torch.testing.assert_close(rows[Granularity.CLIP][:, 0], expected.mean((2, 3, 4)), rtol=0, atol=1e-10)


@torch.no_grad()
def test_random_weights_tell_clips_apart_in_half_precision() -> None:
    """PyTorch's own initialisation fades by 0.4 a layer: to 1e-8 after twenty, nothing in float16."""
    net = InceptionI3d()
    fill_randomly(net, 0)
    rows = net(clip(8, batch=2), CLIP)[Granularity.CLIP].half().float()
    assert (rows[0] - rows[1]).abs().mean() > 0.01


@torch.no_grad()
def test_classes_are_the_mean_over_time_of_logits_of_two_steps_each(net: InceptionI3d) -> None:
    x = clip(32)
    map_TC = net(x, MAP)[Granularity.MAP][0].mean((1, 2))
    weight, bias = net.logits.conv3d.weight[:, :, 0, 0, 0], net.logits.conv3d.bias
    assert bias is not None
    logits = [weight @ ((map_TC[t] + map_TC[t + 1]) / 2) + bias for t in range(3)]
    torch.testing.assert_close(net.classify(x)[0], (logits[0] + logits[1] + logits[2]) / 3, rtol=0, atol=1e-12)
    assert net.classify(clip(5)).shape == (1, 400)  # one time step: nothing to average


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 17])
@torch.no_grad()
def test_convolutional_gives_a_row_for_every_8_frames_begun(net: InceptionI3d, frames: int) -> None:
    rows = net(clip(frames), CLIP | MAP, convolutional=True)
    assert rows[Granularity.CLIP].shape == (1, -(-frames // 8), 1024)
    torch.testing.assert_close(rows[Granularity.CLIP], rows[Granularity.MAP].mean((2, 3)))


@pytest.mark.parametrize("frames", [121, 124, 127])
@torch.no_grad()
def test_the_length_of_a_video_moves_no_row(net: InceptionI3d, frames: int) -> None:
    """Row i sees frames up to 8 i + 54, so rows 0 to 8 see none from 120 on."""
    x = clip(128)
    whole = net(x, CLIP, convolutional=True)[Granularity.CLIP]
    shorter = net(x[:, :frames], CLIP, convolutional=True)[Granularity.CLIP]
    torch.testing.assert_close(shorter[:, :9], whole[:, :9], rtol=0, atol=1e-12)
    assert (shorter[:, 10:] - whole[:, 10:]).abs().max() > 1e-6


def test_a_row_sees_the_99_frames_that_the_format_says() -> None:
    net = lively()
    pixels = (clip(160).permute(0, 4, 1, 2, 3).double() / 127.5 - 1).requires_grad_()
    row = 10
    (gradient,) = torch.autograd.grad(net.trunk(pixels)[:, :, row].sum(), pixels)
    seen = gradient.abs().sum((0, 1, 3, 4)).nonzero().flatten()
    assert (int(seen[0]), int(seen[-1])) == (8 * row - 44, 8 * row + 54)
    assert int(seen[-1] - seen[0]) + 1 == net.clip.receptive_field == 99
    assert net.clip.halo >= max(44, 54 - 7)
    assert net.clip.halo % net.clip.output_stride == 0


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(net: InceptionI3d) -> None:
    x = clip(8, batch=2)
    together = net(x, CLIP)[Granularity.CLIP]
    torch.testing.assert_close(together[1:], net(x[1:], CLIP)[Granularity.CLIP], rtol=0, atol=1e-12)


@torch.no_grad()
def test_flow_has_two_channels_in_minus_one_to_one() -> None:
    net = lively("flow", torch.float32)
    assert net.stream == "flow"
    extremes = torch.tensor([0, 255], dtype=torch.uint8).expand(1, 8, 4, 4, 2)
    assert net.normalise(extremes)[0, :, 0, 0, 0].tolist() == [-1.0, 1.0]
    assert net(clip(8, channels=2), CLIP)[Granularity.CLIP].shape == (1, 1, 1024)


def test_another_stream_is_refused() -> None:
    with pytest.raises(BackboneError, match="not for 'depth'"):
        InceptionI3d("depth")


@torch.no_grad()
def test_half_precision_gives_rows_of_the_parameters_dtype_close_to_full() -> None:
    net = lively(dtype=torch.float32)
    x = clip(16)
    full = net(x, CLIP)[Granularity.CLIP].flatten()
    with torch.autocast("cpu", torch.bfloat16):
        half = net(x, CLIP)[Granularity.CLIP].flatten()
    assert half.dtype == torch.float32
    assert (half - full).norm() < 0.05 * full.norm()  # 8 bits of mantissa through twenty layers
