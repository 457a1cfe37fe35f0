"""Curves of a run for TensorBoard, in one file that holds every point once, however often the run was cut off.

The file's records are few and plain, so they are written here: TensorBoard's own writers begin another file when a
run goes on, and then what was trained again stands in both. Ours is cut back to what the checkpoint knows of.

Source: records as in TensorFlow's `record_writer.cc`; fields of its `event.proto` and `summary.proto`.
"""

from __future__ import annotations

import struct
import time
from pathlib import Path

import google_crc32c
import torch
from torch import Tensor

from stores import disk

FILE_NAME = "events.out.tfevents.vl"  # TensorBoard looks for `tfevents`
LOSS_POINTS = 500  # of single updates; a run with more of them leaves some out


class Events:
    """Scalars at numbers of updates; losses wait on their device until they are written, which costs no step a stop.

    Args:
        folder: of the run.
        steps: updates that the run will have, at most.
    """

    def __init__(self, folder: Path, steps: int) -> None:
        self.path = folder / FILE_NAME
        self.every = -(-steps // LOSS_POINTS)
        self._size = 0  # bytes of the file that are ours
        self._waiting: list[tuple[float, int, str, float | Tensor]] = []  # seconds since 1970, update, tag, value

    def loss(self, step: int, loss: Tensor) -> None:
        """The loss of the batch that ended update `step`, from 1, if it is one of those to keep."""
        if step % self.every == 0:
            self._waiting.append((time.time(), step, "train/loss_of_update", loss))

    def epoch(self, step: int, loss: float, lr: float, score: float | None) -> None:
        """An epoch ended with update `step`; `score` where it was validated."""
        values = {"train/loss": loss, "train/lr": lr, "val/score": score}
        now = time.time()
        self._waiting += [(now, step, tag, value) for tag, value in values.items() if value is not None]

    def write(self) -> int:
        """Write what waits.

        Returns:
            How many bytes the file has: what `resume` wants to go on from here.
        """
        tensors = [value for *_, value in self._waiting if isinstance(value, Tensor)]
        read = iter(torch.stack(tensors).tolist() if tensors else ())  # waits for the device once
        data = b"".join(
            record(event(when, step, tag, next(read) if isinstance(value, Tensor) else value))
            for when, step, tag, value in self._waiting
        )
        if not self._held(self._size):
            self._size = 0
        if not self._size:
            data = record(first_event(self._waiting[0][0] if self._waiting else time.time())) + data
        if data:
            disk.write_from(self.path, data, self._size)
        self._size += len(data)
        self._waiting.clear()
        return self._size

    def resume(self, size: int) -> bool:
        """Go on after the first `size` bytes, dropping the rest; False if they are gone and the file begins anew."""
        self._size = size if self._held(size) else 0
        if self._size:
            disk.write_from(self.path, b"", self._size)
        return self._size > 0

    def _held(self, size: int) -> bool:
        return self.path.is_file() and self.path.stat().st_size >= size


def record(data: bytes) -> bytes:
    """Length, its checksum, data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + masked_checksum(length) + data + masked_checksum(data)


def masked_checksum(data: bytes) -> bytes:
    """CRC-32C, rotated and shifted so that a checksum of data with checksums in it is a sound one."""
    checksum = int(google_crc32c.value(data))
    return struct.pack("<I", (((checksum >> 15) | (checksum << 17)) + 0xA282EAD8) & 0xFFFFFFFF)


def first_event(when: float) -> bytes:
    """What says that events follow; `when` in seconds since 1970."""
    return field_of(1, when) + field_of(3, b"brain.Event:2")


def event(when: float, step: int, tag: str, value: float) -> bytes:
    """One scalar."""
    scalar = field_of(1, tag.encode()) + b"\x15" + struct.pack("<f", value)  # field 2, of four bytes
    return field_of(1, when) + field_of(2, step) + field_of(5, field_of(1, scalar))


def field_of(number: int, value: float | int | bytes) -> bytes:
    """A field of a protocol buffer: a double, a whole number that is not negative, or bytes with their length."""
    if isinstance(value, float):
        return bytes([number << 3 | 1]) + struct.pack("<d", value)
    if isinstance(value, int):
        return bytes([number << 3]) + varint(value)
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; all bytes but the last have their highest bit set.

    >>> varint(300).hex()
    'ac02'
    """
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
