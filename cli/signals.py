"""SIGTERM and SIGUSR1 end a long command as Ctrl-C does: what is complete is kept, exit code 75."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from stores.errors import InterruptedRunError


def stop(number: int, _frame: FrameType | None) -> None:
    raise InterruptedRunError(f"stopped by {signal.Signals(number).name}; the same command resumes.")


@contextmanager
def resumable_signals() -> Iterator[None]:
    """Inside, SIGTERM (a scheduler's end) and SIGUSR1 (its warning) raise InterruptedRunError."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
