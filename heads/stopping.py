"""Signals that end a long run where it can go on later, not where they happen to come."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from stores.errors import InterruptedRunError
from stores.names import printable

CTRL_C = 130  # exit code


class StopSignal:
    """Remembers a signal until the loop comes to a place where it can stop."""

    def __init__(self) -> None:
        self.number: int | None = None

    def take(self, number: int, _frame: FrameType | None) -> None:
        """Note the signal; a second one of its kind has its usual effect."""
        self.number = number
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    def error(self, run: Path, command: str = "train-head") -> InterruptedRunError:
        """What to raise once the run is saved: exit code 130 after Ctrl-C, else 75."""
        assert self.number is not None, "nobody asked to stop"
        name = signal.Signals(self.number).name
        error = InterruptedRunError(f"stopped by {name}. 'vl {command} --resume {printable(run)}' goes on.")
        if self.number == signal.SIGINT:
            error.exit_code = CTRL_C
        return error


@contextmanager
def stop_signal() -> Iterator[StopSignal]:
    """Inside, SIGINT, SIGTERM and SIGUSR1 are noted and end nothing; only the main thread gets signals."""
    stop = StopSignal()
    in_main = threading.current_thread() is threading.main_thread()
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1] if in_main else []
    before = {number: signal.signal(number, stop.take) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
