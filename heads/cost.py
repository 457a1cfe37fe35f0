"""What a head costs: weights, multiply-adds of a forward pass, memory at its highest.

Shape letters: B windows, N rows.
"""

from __future__ import annotations

import ctypes
import resource
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from heads.head import Batch, Head

STATUS, CLEAR_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def multiply_adds(
    head: type[Head], options: Mapping[str, Any], row_shapes: Mapping[str, Sequence[int]], rows: int
) -> int:
    """Of one forward pass over one window or video, in matrix products, convolutions and attention; exact.

    Sums, means, norms and gates element by element are left out, as is the custom; padding has none.

    Args:
        options: the head's whole config.
        row_shapes: role -> shape of its rows.
        rows: N, of every role.

    Raises:
        HeadError: the head takes no window of so many rows.
    """
    # On the meta device attention, LSTMs and PyTorch's fast paths fall into the products that they are made of,
    # where a CPU runs whole kernels that the counter does not know.
    with torch.device("meta"):
        module = head(head.config_class(**options)).eval()
        # Of two, and halved: a product with a single video may go element by element, which the counter does not see.
        features = {role: torch.empty(2, rows, *shape) for role, shape in row_shapes.items()}
        masks = {role: torch.ones(2, rows, dtype=torch.bool) for role in features}
        batch = Batch(features, masks, torch.empty(2, rows, 2), videos=("one", "other"))
        with FlopCounterMode(display=False) as counter:
            module(batch)
    operations = counter.get_total_flops()
    assert operations % 4 == 0, "PyTorch counts two operations for every multiply-add"
    return int(operations // 4)


def parameter_count(head: type[Head], options: Mapping[str, Any], part: str = "") -> int:
    """Weights that training changes; nothing is allocated.

    Args:
        options: the head's whole config.
        part: name of a module inside, to count that alone.
    """
    with torch.device("meta"):
        module = head(head.config_class(**options)).get_submodule(part)
    return sum(weights.numel() for weights in module.parameters() if weights.requires_grad)


class PeakMemory:
    """The most memory that was taken at once since it was made, in bytes; `of` says which.

    On a GPU what PyTorch allocated there, rows and weights included; on a CPU by how much the process has grown.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._before = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.of = "tensors on the GPU"
            return
        self.of = "the whole process"
        _load_what_training_loads()
        with suppress(AttributeError, OSError):  # the C library of Linux alone has it
            ctypes.CDLL(None).malloc_trim(0)  # give back what is free, or the growth would begin below it
        with suppress(OSError):  # no Linux, or a container that hides this file
            CLEAR_PEAK.write_text("5")
            self._before = _status_bytes("VmRSS")
            self.of = "growth of the process"

    @property
    def highest(self) -> int:
        """Up to now."""
        if self.device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self.device))
        if self._before:
            return max(0, _status_bytes("VmHWM") - self._before)
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _load_what_training_loads() -> None:
    """PyTorch imports some 90 MiB of itself at the first update of a process, which no head is to blame for."""
    weight = torch.zeros(1, requires_grad=True)
    torch.autograd.backward(weight.sum())
    torch.optim.SGD([weight], lr=0.0).step()


def _status_bytes(name: str) -> int:
    """A line of Linux's own account of the process, which is in KiB."""
    return int(STATUS.read_text().partition(f"{name}:")[2].split()[0]) * 1024


def cost_of(
    head: type[Head],
    options: Mapping[str, Any],
    row_shapes: Mapping[str, Sequence[int]],
    rows: int,
    epochs: Sequence[float],
) -> dict[str, Any]:
    """What result.json keeps, without the memory.

    Args:
        rows: of the window or video that the multiply-adds are counted on.
        epochs: seconds of each.
    """
    return {
        "parameters": parameter_count(head, options),
        "multiply_adds": multiply_adds(head, options, row_shapes, rows),
        "rows": rows,
        "seconds_per_epoch": round(statistics.median(epochs), 4) if epochs else None,
    }
