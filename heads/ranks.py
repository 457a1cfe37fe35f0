"""Several processes that train one model: torchrun starts them, each takes its share of every batch.

All have the same weights and the same plan of batches. Of a batch of B samples, process r of W takes samples r, r + W,
and so on; a gradient is the sum over all processes, divided by the number of labels that count in the whole batch. So
W processes do what one does with the same batches, up to the order of additions. A process whose share is empty
computes the first sample of the batch and counts it as nothing.

Process 0 alone writes. All agree at every update on whether to save or to stop. Where one ends too early, the others
notice as soon as they wait for it, and end with a line that says so; torchrun starts all of them anew, from the last
checkpoint.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from heads.head import HeadError
from heads.plan import Crops
from stores.errors import InterruptedRunError
from stores.names import printable

T = TypeVar("T")
POLL_S = 0.05
ROUND = 8  # results that each process gives at a time
# So long a process may wait for others: while the first looks through all videos, say. Who has died is noticed at once
# on the same machine, and on others by torchrun.
PATIENCE = timedelta(days=7)


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
            with others_wanted(self.rank, self.world):
                dist.all_reduce(x)
        return x

    def add_up_gradients(self, weights: Iterable[Tensor]) -> None:
        """Every gradient becomes its sum over all processes; one that no process has stays None."""
        if self.world == 1:
            return
        weights = [weight for weight in weights if weight.requires_grad]
        there = torch.tensor([weight.grad is not None for weight in weights], dtype=torch.uint8)
        with others_wanted(self.rank, self.world):
            dist.all_reduce(there, dist.ReduceOp.MAX, group=self.control)
        wanted = [weight for weight, has in zip(weights, there.tolist(), strict=True) if has]
        for weight in wanted:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        for dtype in dict.fromkeys(weight.dtype for weight in wanted):  # one message for all of a kind
            gradients = [weight.grad for weight in wanted if weight.dtype is dtype and weight.grad is not None]
            flat = self.add_up(torch.cat([gradient.reshape(-1) for gradient in gradients]))
            parts = flat.split([gradient.numel() for gradient in gradients])  # type: ignore[no-untyped-call]
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def highest(self, values: list[int]) -> list[int]:
        """Of each number the highest that any process gives."""
        if self.world == 1:
            return values
        found = torch.tensor(values)
        with others_wanted(self.rank, self.world):
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.control)
        highest: list[int] = found.tolist()
        return highest

    def gather(self, value: T) -> list[T]:
        """What every process gives, in order of their ranks, on all of them."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        with others_wanted(self.rank, self.world):
            dist.all_gather_object(found, value, group=self.control)
        return found

    def collect(self, own: Iterable[T]) -> Iterator[T]:
        """What all processes have, for the first of them; the others give theirs away as they go, and get nothing."""
        if self.world == 1:
            yield from own
            return
        left = iter(own)
        while any(parts := self.gather(list(islice(left, ROUND)))):
            if self.first:
                for part in parts:
                    yield from part

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Give every tensor the values that it has in the first process."""
        if self.world > 1:
            with others_wanted(self.rank, self.world):
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def wait(self) -> None:
        """Go on when all have come here."""
        if self.world > 1:
            with others_wanted(self.rank, self.world):
                dist.barrier(group=self.control)


@contextmanager
def others_wanted(rank: int, world: int) -> Iterator[None]:
    """Inside, a process waits for the others of `world`; that one of them is gone is no bug of those that waited."""
    try:
        yield
    except RuntimeError as error:
        reason = printable(str(error).partition("] ")[2].partition(". ")[0][:100] or str(error)[:100])
        raise InterruptedRunError(
            f"process {rank} of {world} ends because it lost another one ({reason}); where that one had something to "
            "say, it said so."
        ) from error


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
    with others_wanted(rank, world):
        fresh = fresh_part(store, rank, world)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=fresh, rank=rank, world_size=world, timeout=PATIENCE)
    try:
        own = device.type == "cuda"  # else the group of all will do
        control = dist.new_group(backend="gloo", timeout=PATIENCE) if own else None
        yield Ranks(dist.get_rank(), dist.get_world_size(), control)
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process among those of its machine, where torchrun started it and no GPU is named."""
    local = os.environ.get("LOCAL_RANK")
    if local is None or device != torch.device("cuda"):  # the CPU, or a GPU by its number
        return device
    if processes_here() > torch.cuda.device_count():  # all of them say so: one alone would be waited for
        raise HeadError(f"torchrun started {processes_here()} processes here for {torch.cuda.device_count()} GPUs.")
    return torch.device("cuda", int(local))


def processes_here() -> int:
    """How many processes torchrun started on this machine, which share its processors; 1 without torchrun."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def fresh_part(store: Store, rank: int, world: int) -> PrefixStore:
    """A part of a store for these processes alone, once all of them have come.

    torchrun keeps one store over all restarts, with the addresses of processes that are dead, and its agents may count
    restarts differently. So every process asks under a name that nobody had before, and the first answers each.
    """
    own = uuid.uuid4().hex
    if rank:
        store.set(f"vl/{rank}/asks", own)
        while not store.check([f"vl/{own}/answer"]):  # and not `get`, inside which no signal is heard
            time.sleep(POLL_S)
        own = store.get(f"vl/{own}/answer").decode()
        store.set(f"vl/{own}/{rank}", "here")
    left = [] if rank else list(range(1, world))
    while left:
        for other in left:
            if store.check([f"vl/{other}/asks"]):  # perhaps of one that is dead: it is asked again
                store.set(f"vl/{store.get(f'vl/{other}/asks').decode()}/answer", own)
        left = [other for other in left if not store.check([f"vl/{own}/{other}"])]
        time.sleep(POLL_S)
    return PrefixStore(f"vl/{own}", store)
