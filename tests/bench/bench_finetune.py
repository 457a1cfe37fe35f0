"""A step of stan-large in chunks: its peak memory and its time a scene, for videos of 8 to 128 scenes.

Narrow networks of the same code, in chunks of 8 scenes, against everything at once; the frames themselves, which lie
beside the device, are left out of the memory. `python -m tests.bench.bench_finetune full` makes one step of
stan-large and of stan-small at true size instead, on random frames, which takes minutes.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial

import torch

from extract.r2plus1d import R2Plus1d18
from extract.resnet import ResNet18
from heads.cost import PeakMemory
from heads.end_to_end import ClipBatch, ClipNetwork, EndToEnd, TuneOptions
from heads.optimise import make_optimizer
from heads.options import TrainOptions
from heads.stan import Stan, StanConfig
from heads.tuning_checks import memory_plan
from stores.spec import Granularity
from tests.bench.table import least_seconds, line, peak_bytes
from tests.extract.narrow import NarrowR2Plus1d18, NarrowResNet18

SCENES = (8, 32, 128)
FRAMES = 12


def model_of(chunk: int, narrow: bool, learning: tuple[str, ...] = ("spatial", "temporal")) -> EndToEnd:
    """stan-large, or with fewer networks that learn; always with the same weights."""
    torch.manual_seed(0)
    image, clip = (NarrowResNet18(), NarrowR2Plus1d18()) if narrow else (ResNet18(), R2Plus1d18())
    width = 128 if narrow else 512
    head = Stan(StanConfig(width, width, 20, embed=64, ffn=64) if narrow else StanConfig(width, width, 20))
    networks = {
        "spatial": ClipNetwork(image, image.name, Granularity.FRAME, (1, image.clip.crop, image.clip.crop, 3)),
        "temporal": ClipNetwork(clip, clip.name, Granularity.CLIP, (FRAMES, clip.clip.crop, clip.clip.crop, 3)),
    }
    widths = {"spatial": width, "temporal": width}
    return EndToEnd(head, widths, networks, learning, TuneOptions(learning, chunk=chunk)).train()


def video_of(model: EndToEnd, scenes: int) -> ClipBatch:
    """One video of noise."""
    clips = {}
    for role in model.roles:
        frames, *shape = model.trunk(role).form.clip_shape
        pixels = torch.randint(0, 256, (scenes * frames, *shape), dtype=torch.uint8)
        one_row = torch.tensor([[0, 1]]).expand(scenes, 2)
        clips[role] = (pixels, torch.arange(scenes * frames).view(scenes, frames).unbind(), one_row)
    mask = dict.fromkeys(clips, torch.ones(1, scenes, dtype=torch.bool))
    return ClipBatch({}, mask, torch.zeros(1, scenes, 2), torch.zeros(1, 20, dtype=torch.int8), clips=clips)


def learn(model: EndToEnd, batch: ClipBatch) -> None:
    """Forward and backward; the gradients are dropped."""
    torch.autograd.backward(model.head.loss(model(batch), batch))
    model.zero_grad(set_to_none=True)


def learn_again(model: EndToEnd, batch: ClipBatch, times: int) -> None:
    """The same step several times."""
    for _ in range(times):
        learn(model, batch)


def main() -> None:
    torch.set_num_threads(1)
    chunked, wider, whole = (model_of(chunk, narrow=True) for chunk in (8, 16, 0))
    batches = {scenes: video_of(chunked, scenes) for scenes in SCENES}
    # As many scenes in each: the least time of a short work is one that nobody disturbed, of a long one it is not.
    works: list[Callable[[], object]] = [
        partial(learn_again, chunked, batch, SCENES[-1] // scenes) for scenes, batch in batches.items()
    ]
    # PyTorch in one thread takes oneDNN for the convolutions over time from 16 clips on: 8 are slower by themselves.
    works += [partial(learn, wider, batches[32]), partial(learn, whole, batches[32])]
    *seconds, halves, plain = least_seconds(works, turns=4)
    bytes_of = [peak_bytes(partial(learn, chunked, batch)) for batch in batches.values()]
    bytes_of += [peak_bytes(work) for work in works[len(SCENES) :]]
    for scenes, taken, peak in zip(SCENES[1:], seconds[1:], bytes_of[1:], strict=False):
        ratio = peak / bytes_of[0]
        line(
            f"stan-large, {scenes} scenes against 8, memory",
            f"{peak / 2**20:.0f} MiB",
            f"{bytes_of[0] / 2**20:.0f} MiB",
            ratio,
            "<= 1.1",
        )
        each, first = taken / SCENES[-1], seconds[0] / SCENES[-1]
        line("the same, time a scene", f"{1e3 * each:.0f} ms", f"{1e3 * first:.0f} ms", each / first, "<= 1.35")
    line(
        "32 scenes in chunks of 16 against all at once, memory",
        f"{bytes_of[3] / 2**20:.0f} MiB",
        f"{bytes_of[4] / 2**20:.0f} MiB",
        bytes_of[3] / bytes_of[4],
        "-",
    )
    line("the same, time", f"{halves:.2f} s", f"{plain:.2f} s", halves / plain, "<= 1.33")


def full() -> None:
    """One step at true size: 13 scenes, in chunks of 4, with AdamW."""
    torch.set_num_threads(1)
    for name, learning in (("stan-small", ("spatial",)), ("stan-large", ("spatial", "temporal"))):
        memory = PeakMemory(torch.device("cpu"))
        model = model_of(4, narrow=False, learning=learning)
        batch, options = video_of(model, 13), TrainOptions()
        count = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        optimizer = make_optimizer(model, options, torch.device("cpu"))
        began, cpu = time.perf_counter(), time.process_time()
        torch.autograd.backward(model.head.loss(model(batch), batch))
        optimizer.step()
        taken = time.perf_counter() - began, time.process_time() - cpu
        print(f"{name}: {count:,} weights learn; {memory_plan(model, options, 13).words()}")
        seconds = f"{taken[0]:.0f} s ({taken[1]:.0f} s of CPU time)"
        print(f"  one step over 13 scenes: {seconds}, {memory.highest / 2**30:.2f} GiB", flush=True)


if __name__ == "__main__":
    full() if sys.argv[1:] == ["full"] else main()
