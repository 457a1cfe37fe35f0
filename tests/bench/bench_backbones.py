"""Frames a second of every network at its full size, and its share of what the device's matrix products reach.

On a GPU where there is one, in bf16; else on one core in fp32, and the lines say so.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from extract.backbone import BACKBONES, AudioBackbone, Backbone, backbone_class
from extract.weights import build_backbone
from stores.spec import Granularity
from tests.bench.table import line

SIDE = 2048  # of the matrices that set the limit
GPU_CLIPS, GPU_IMAGES, CPU_IMAGES = 8, 128, 4  # in one pass
TURNS = 3


def seconds(work: Callable[[], object], device: torch.device) -> float:
    """Least time of a few runs, the first of which does not count: of the wall on a GPU, else of the processor."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    taken = []
    for _ in range(1 + TURNS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
    return min(taken[1:])


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Multiply-adds a second of a large matrix product."""
    a, b = (torch.rand(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    return SIDE**3 / seconds(lambda: a @ b, device)


@torch.inference_mode()
def main() -> None:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    limit = matrix_rate(device, dtype)
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "one core, fp32; not measured on a GPU"
    print(f"frames/s and share of {limit / 1e12:.3f} T multiply-adds/s of a {SIDE} x {SIDE} product ({where})")
    for name in sorted(BACKBONES):
        kind = backbone_class(name)
        if issubclass(kind, AudioBackbone):
            continue
        network, _ = build_backbone(name, "random", device=device)
        assert isinstance(network, Backbone)
        level = frozenset({Granularity.FRAME if kind.clip.window == 1 else Granularity.CLIP})
        frames = batch(network, device)

        def run(network: Backbone = network, frames: Tensor = frames, level: frozenset[Granularity] = level) -> object:
            with torch.autocast(device.type, dtype, enabled=device.type == "cuda"):
                return network(frames, level)

        with FlopCounterMode(display=False) as counter:
            run()
        multiply_adds = counter.get_total_flops() / 2
        taken = seconds(run, device)
        shown = frames.shape[0] * frames.shape[1]
        each = multiply_adds / frames.shape[0] / 1e9
        line(f"{name}, frames/s", f"{shown / taken:.4g}", f"{each:.4g} GMAC", multiply_adds / taken / limit, "-", "1")


def batch(network: Backbone, device: torch.device) -> Tensor:
    """uint8 clips, or single images, as the network was published for."""
    clip = network.clip
    images = GPU_IMAGES if device.type == "cuda" else CPU_IMAGES
    count = images if clip.window == 1 else (GPU_CLIPS if device.type == "cuda" else 1)
    channels = len(clip.mean)
    return torch.randint(0, 256, (count, clip.window, clip.crop, clip.crop, channels), dtype=torch.uint8, device=device)
