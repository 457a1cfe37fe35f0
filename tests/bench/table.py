"""What all benchmarks share: both sides by turns in one process, and one table of ratios."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import torch

HEADER = ("what", "ours", "reference", "ratio", "target", "limit")


def least_seconds(works: list[Callable[[], object]], turns: int) -> list[float]:
    """The least CPU time of each of some works, which take turns."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(turns):
        for work, times in zip(works, taken, strict=True):
            start = time.process_time()
            work()
            times.append(time.process_time() - start)
    return [min(times) for times in taken]


def peak_bytes(work: Callable[[], object]) -> int:
    """The most that tensors made in some work take at once, on the CPU."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        work()
    assert profile.profiler is not None
    events = profile.profiler.kineto_results.events()
    changes: list[tuple[int, int]] = sorted(
        (event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"
    )
    return max(itertools.accumulate(size for _, size in changes))


def line(what: str, ours: str, reference: str, ratio: float | str, target: str, limit: str = "-") -> None:
    """One row of the table."""
    shown = ratio if isinstance(ratio, str) else f"{ratio:.2f}"
    print(f"{what:46} | {ours:>12} | {reference:>12} | {shown:>7} | {target:>7} | {limit:>5}", flush=True)
