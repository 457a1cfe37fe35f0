"""Freed memory that the process keeps for itself, instead of giving it back to the system after every layer.

glibc returns the end of its heap as soon as some tens of megabytes of it are free. A network on a CPU frees and asks
for that much at each layer, and the system then maps and clears the same pages again, over and over: a quarter
of the CPU time of an EfficientNet.
"""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc, malloc.h
LARGEST = 32 << 20  # bytes; older versions of glibc take no more. What is larger goes back to the system at once
KEPT = 1 << 30  # bytes that may stay free at the end of the heap


def keep_freed_memory() -> None:
    """Let this process use freed memory of up to `LARGEST` bytes apiece again; nothing where there is no glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # other C libraries have no such function
        return
    # In this order: a threshold for trimming alone would leave LARGEST at 128 KiB, which is far worse than nothing.
    if mallopt(MMAP_THRESHOLD, LARGEST):
        mallopt(TRIM_THRESHOLD, KEPT)
