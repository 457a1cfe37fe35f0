"""Decoders for tests of the pool, chosen as "tests.extract.bad_decoders:..."; what they do hangs on the file's name.

A file whose name begins with a case of `misbehave` has that accident after three pictures, or after 40 as `crash40_`
says; one whose name contains `once` has it only the first time. All other files decode as usual.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from extract.decode import Picture, Sound, SoundLost
from extract.decode_pyav import PyAvDecoder


def accident(path: Path) -> tuple[str, int]:
    """What happens to a file, and after how many pictures."""
    word = path.name.split("_")[0]
    kind = word.rstrip("0123456789")
    return kind, int(word[len(kind) :] or 3)


def misbehave(path: Path) -> None:
    match accident(path)[0]:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "sleep":
            signal.setitimer(signal.ITIMER_REAL, 0)  # this test is about the parent's clock
            time.sleep(3600)
        case "eat":
            eaten = []
            while True:
                eaten.append(bytearray(16 << 20))
        case "abort":
            raise ZeroDivisionError("a bug in the decoder")
        case "alloc":
            print("terminate called after throwing an instance of 'std::bad_alloc'", flush=True)
            os.abort()
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "change":
            path.write_bytes(path.read_bytes() + b"more")
        case "vanish":
            path.unlink()


class Misbehaving(PyAvDecoder):
    """PyAV's decoder with an accident."""

    def __iter__(self) -> Iterator[Picture | Sound | SoundLost]:
        path = Path(self._container.name.removeprefix("file:"))
        marker = path.with_suffix(".marker")
        for index, item in enumerate(super().__iter__()):
            if index == accident(path)[1] and not marker.exists():
                if "once" in path.name:
                    marker.touch()
                misbehave(path)
            yield item


class Slow(PyAvDecoder):
    """A tenth of a second for every frame."""

    def __iter__(self) -> Iterator[Picture | Sound | SoundLost]:
        for item in super().__iter__():
            time.sleep(0.1)
            yield item


class Backwards(PyAvDecoder):
    """Every so many pictures, two change places."""

    def __iter__(self) -> Iterator[Picture | Sound | SoundLost]:
        every = 30 if "often" in self._container.name else 150
        held: Picture | Sound | SoundLost | None = None
        for index, item in enumerate(super().__iter__()):
            if index % every == 10:
                held = item
                continue
            yield item
            if held is not None:
                yield held
                held = None
