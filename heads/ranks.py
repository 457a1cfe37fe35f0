"""Several processes that train one model: torchrun starts them, each takes its share of every batch.

All have the same weights and the same plan of batches. Of a batch of B samples, process r of W takes samples r, r + W,
and so on; a gradient is the sum over all processes, divided by the number of labels that count in the whole batch. So
W processes do what one does with the same batches, up to the order of additions. A process whose share is empty
computes the first sample of the batch and counts it as nothing.

Process 0 alone writes. All agree at every update on whether to save or to stop, and after a crash torchrun starts all
of them anew, from the last checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from heads.head import HeadError
from heads.plan import Crops

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One process among those that train together."""

    rank: int = 0
    world: int = 1
    control: Any = None  # the group for what the CPU has to say: without the device's queue

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, crops: Crops) -> Crops:
        """The samples of a batch that are this process's; the first one where it has none."""
        if self.world == 1:
            return crops
        mine = slice(self.rank, None, self.world) if self.rank < len(crops.video_B) else slice(0, 1)
        return crops._replace(video_B=crops.video_B[mine], start_B=crops.start_B[mine])

    def has_share(self, crops: Crops) -> bool:
        """Whether the samples of `share` count."""
        return self.rank < len(crops.video_B)

    def own(self, items: Iterable[T]) -> list[T]:
        """The part of some items that is this process's."""
        return list(items)[self.rank :: self.world]

    def add_up(self, x: Tensor) -> Tensor:
        """`x` becomes its sum over all processes."""
        if self.world > 1:
            dist.all_reduce(x)
        return x

    def add_up_gradients(self, weights: Iterable[Tensor]) -> None:
        """Every gradient becomes its sum over all processes; one that no process has stays None."""
        if self.world == 1:
            return
        weights = [weight for weight in weights if weight.requires_grad]
        there = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8)
        dist.all_reduce(there, dist.ReduceOp.MAX, group=self.control)
        wanted = [weight for weight, has in zip(weights, there.tolist(), strict=True) if has]
        for weight in wanted:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        for dtype in {weight.dtype for weight in wanted}:  # one message for all of a kind
            gradients = [weight.grad for weight in wanted if weight.dtype is dtype and weight.grad is not None]
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            dist.all_reduce(flat)
            parts = flat.split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def highest(self, values: list[int]) -> list[int]:
        """Of each number the highest that any process gives."""
        if self.world == 1:
            return values
        found = torch.tensor(values)
        dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        highest: list[int] = found.tolist()
        return highest

    def gather(self, value: T) -> list[T]:
        """What every process gives, in order of their ranks, on all of them."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, value, group=self.control)
        return found

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.world > 1:
            dist.barrier(group=self.control)


ALONE = Ranks()


@contextmanager
def joined(device: torch.device) -> Iterator[Ranks]:
    """The process among those that torchrun started; alone where it was started by itself.

    Args:
        device: of this process, as `local_device` gives it.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield ALONE
        return
    store, rank, world = next(rendezvous("env://"))
    # torchrun keeps its store over a restart, with the addresses of processes that are dead.
    fresh = PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=world)
    try:
        control = dist.new_group(backend="gloo") if device.type == "cuda" else None  # None: that of all
        yield Ranks(dist.get_rank(), dist.get_world_size(), control)
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process among those of its machine, where torchrun started it and no GPU is named."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or device != torch.device("cuda"):  # the CPU, or a GPU by its number
        return device
    if int(local) >= torch.cuda.device_count():
        raise HeadError(f"torchrun started process {local} here, but there are {torch.cuda.device_count()} GPUs.")
    return torch.device("cuda", int(local))
