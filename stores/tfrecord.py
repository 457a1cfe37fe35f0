"""TFRecord files: length, checksum of the length, payload, checksum of the payload.

Source: tensorflow/core/lib/io/record_writer.h; checksums are crc32c, rotated and shifted by a constant ("masked").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

import google_crc32c

from stores.array_layouts import Unusable

MAX_RECORD = 256 << 20  # bytes
HEAD, TAIL = 12, 4  # bytes before and after a payload
_DELTA = 0xA282EAD8


def masked_crc(data: bytes) -> int:
    """The checksum of `data` as it is written.

    >>> hex(masked_crc(b"123456789"))  # its crc32c is 0xe3069283
    '0xc78ab0e5'
    """
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + _DELTA) & 0xFFFFFFFF


def read_records(file: BinaryIO, size: int) -> Iterator[bytes | Unusable]:
    """The payloads of a file of `size` bytes; in place of one whose checksum is wrong, what is wrong.

    Raises:
        Unusable: the length of a record is damaged, or the file ends within one: what follows cannot be found.
    """
    at = 0
    while at < size:
        head = file.read(HEAD)
        if len(head) < HEAD:
            raise Unusable("partial", f"it ends within the record at byte {at}")
        length, crc = struct.unpack("<QI", head)
        if masked_crc(head[:8]) != crc:
            raise Unusable("decode_error", f"the length at byte {at} has another checksum: the rest cannot be read")
        if length > MAX_RECORD:
            raise Unusable("too_large", f"the record at byte {at} declares {length} bytes, more than {MAX_RECORD}")
        if at + HEAD + length + TAIL > size:
            raise Unusable("partial", f"the record at byte {at} has {length} bytes and the file ends before")
        payload = file.read(length)
        tail = file.read(TAIL)
        if len(payload) != length or len(tail) != TAIL:
            raise Unusable("changed_while_reading", f"it ends within the record at byte {at}")
        wrong = masked_crc(payload) != struct.unpack("<I", tail)[0]
        yield Unusable("decode_error", f"the record at byte {at} has another checksum") if wrong else payload
        at += HEAD + length + TAIL


def framed(payload: bytes) -> bytes:
    """A record as it lies in a file."""
    length = struct.pack("<Q", len(payload))
    return b"".join((length, struct.pack("<I", masked_crc(length)), payload, struct.pack("<I", masked_crc(payload))))
