"""Dense I3D features: one convolution over the video against 64-frame windows every 8 frames.

Frames are small, so that it takes under a minute on one core.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from extract.i3d import InceptionI3d
from extract.tiling import Tiler, Windower
from extract.weights import fill_randomly
from stores.spec import Granularity
from tests.bench.table import least_seconds, line

LEVELS = frozenset({Granularity.CLIP})
SIZE = 32  # pixels
FRAMES = 256  # of the video that is timed
LONG = 7200  # five minutes, of which the multiply-adds are counted
TURNS = 5


def whole(net: InceptionI3d, video: Tensor) -> int:
    """Rows of the video in one pass."""
    return int(net(video.unsqueeze(0), LEVELS, convolutional=True)[Granularity.CLIP].shape[1])


def tiled(net: InceptionI3d, video: Tensor, length: int) -> int:
    tiler = Tiler(length=length, stride=net.clip.stride, halo=net.clip.halo)
    tiles = tiler.push(video) + tiler.finish()
    for tile in tiles:
        net(tile.frames.unsqueeze(0), LEVELS, convolutional=True)
    return sum(tile.num_rows for tile in tiles)


def windowed(net: InceptionI3d, video: Tensor) -> int:
    windower = Windower(window=net.clip.window, stride=net.clip.stride)
    tiles = windower.push(video) + windower.finish()
    for start in range(0, len(tiles), 4):
        net(torch.stack([tile.frames for tile in tiles[start : start + 4]]), LEVELS)
    return len(tiles)


def channels_last(net: InceptionI3d, video: Tensor) -> int:
    return len(net.trunk(net.normalise(video.unsqueeze(0))))


def channels_first(net: InceptionI3d, video: Tensor) -> int:
    """The same pass with time, height and width innermost in memory."""
    return len(net.trunk(net.normalise(video.unsqueeze(0)).contiguous()))


def multiply_adds(run: Callable[[InceptionI3d, Tensor], int], frames: int) -> float:
    """Of the convolutions, for each row."""
    with torch.device("meta"):
        net = InceptionI3d()
    total = 0

    def count(layer: nn.Module, _: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(layer, nn.Conv3d)
        total += output.numel() * layer.weight[0].numel()

    for module in net.modules():
        if isinstance(module, nn.Conv3d):
            module.register_forward_hook(count)
    rows = run(net, torch.zeros(frames, SIZE, SIZE, 3, dtype=torch.uint8, device="meta"))
    return total / rows


@torch.inference_mode()
def main() -> None:
    naive = multiply_adds(windowed, FRAMES)
    runs: dict[str, Callable[[InceptionI3d, Tensor], int]] = {"whole video": whole}
    runs |= {f"tiles of {length}": partial(tiled, length=length) for length in (768, 1024)}  # on a CPU, on a GPU
    for name, run in runs.items():
        ours = multiply_adds(run, LONG)
        line(f"I3D MACs a row, {name}", f"{ours:.4g}", f"{naive:.4g}", naive / ours, ">= 7", "8")

    torch.set_num_threads(1)
    net = InceptionI3d()
    fill_randomly(net, 0)
    video = torch.randint(0, 256, (FRAMES, SIZE, SIZE, 3), dtype=torch.uint8)
    ours, naive = (
        seconds / run(net, video)
        for run, seconds in zip(
            (whole, windowed),
            least_seconds([partial(whole, net, video), partial(windowed, net, video)], TURNS),
            strict=True,
        )
    )
    line("I3D CPU s a row, whole video", f"{ours:.4g}", f"{naive:.4g}", naive / ours, ">= 6", "8")

    clip = torch.randint(0, 256, (16, 112, 112, 3), dtype=torch.uint8)
    first = InceptionI3d()
    fill_randomly(first, 0)
    for parameter in first.parameters():
        parameter.data = parameter.data.contiguous()
    last, before = least_seconds([partial(channels_last, net, clip), partial(channels_first, first, clip)], TURNS)
    line("I3D CPU s a clip, channels last in memory", f"{last:.4g}", f"{before:.4g}", before / last, "-")
