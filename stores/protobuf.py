"""As much of the protobuf wire format as TensorFlow's Example and SequenceExample need.

Source: the encoding page of the protobuf documentation; tensorflow/core/example/example.proto and feature.proto.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stores.array_layouts import Unusable

BYTES = 2  # the wire type of what carries its length
_VARINT, _FIXED64, _FIXED32 = 0, 1, 5
_FIRST = 1 << 3 | BYTES  # the key of field 1 with its length
MAX_VALUES = 1 << 24  # of one list; labels of a video are a few


class Field(NamedTuple):
    """One field of a message."""

    number: int
    wire: int
    value: int  # of a number; 0 where there are bytes
    data: memoryview  # of what carries its length, and of fixed-width numbers


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, place after it); Unusable where it does not end within ten bytes."""
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Unusable("decode_error", "a number of the record does not end")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def fields(data: memoryview) -> Iterator[Field]:
    """The fields of a message, in their order; Unusable where they do not fill it."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        number, wire = key >> 3, key & 7
        value, length = 0, 0
        if wire == _VARINT:
            value, at = varint(data, at)
        elif wire == BYTES:
            length, at = varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise Unusable("decode_error", f"the record has a field of wire type {wire}")
        if not number or at + length > len(data):
            raise Unusable("decode_error", "a field of the record is longer than the record")
        yield Field(number, wire, value, data[at : at + length])
        at += length


def members(data: memoryview, number: int) -> Iterator[memoryview]:
    """The bytes of every field of this number that carries its length; others are passed over, as protobuf does."""
    for found in fields(data):
        if found.number == number and found.wire == BYTES:
            yield found.data


def entries(data: memoryview) -> list[tuple[str, memoryview]]:
    """The keys and values of a map, in the order in which they lie there."""
    found = []
    for entry in members(data, 1):
        key, value = b"", memoryview(b"")
        for part in fields(entry):
            if part.wire == BYTES and part.number in (1, 2):
                key, value = (bytes(part.data), value) if part.number == 1 else (key, part.data)
        found.append((key.decode("utf-8", "replace"), value))
    return found


def bytes_list(feature: memoryview) -> list[bytes]:
    """The values of a Feature that holds bytes; none if it holds something else."""
    return [bytes(value) for values in members(feature, 1) for value in members(values, 1)]


def floats(feature: memoryview) -> NDArray[np.float32]:
    """The values of a Feature that holds floats, packed or one by one."""
    parts = [found.data for values in members(feature, 2) for found in fields(values) if found.number == 1]
    data = b"".join(parts)
    if len(data) % 4:
        raise Unusable("decode_error", "floats of the record are cut off")
    return np.frombuffer(data, "<f4")


def integers(feature: memoryview) -> list[int]:
    """The values of a Feature that holds int64, packed or one by one."""
    found: list[int] = []
    for values in members(feature, 3):
        for part in fields(values):
            if part.number != 1:
                continue
            if part.wire == _VARINT:
                found.append(part.value)
            at = 0
            while part.wire == BYTES and at < len(part.data):
                value, at = varint(part.data, at)
                found.append(value)
            if len(found) > MAX_VALUES:
                raise Unusable("too_large", f"the record has more than {MAX_VALUES} numbers in one list")
    return [value - (1 << 64) if value >> 63 else value for value in found]


def byte_rows(feature_list: memoryview) -> NDArray[np.uint8]:
    """(T, D) of a FeatureList whose T Features hold D bytes each.

    Where all Features are encoded alike, as every writer does, they are one table of equal rows, header and bytes; else
    they are read one by one.
    """
    total = len(feature_list)
    if not total:
        return np.zeros((0, 0), np.uint8)
    length, body = varint(feature_list, 1) if feature_list[0] == _FIRST else (0, 0)
    row = body + length
    if length and row <= total and total % row == 0:
        table = np.frombuffer(feature_list, np.uint8).reshape(-1, row)
        first = bytes_list(feature_list[body:row])
        head = np.frombuffer(_head(len(first[0])) if len(first) == 1 else b"", np.uint8)
        if len(head) and len(head) + len(first[0]) == row and (table[:, : len(head)] == head).all():
            return table[:, len(head) :]
    rows = [bytes_list(feature) for feature in members(feature_list, 1)]
    if any(len(values) != 1 for values in rows) or len({len(values[0]) for values in rows}) > 1:
        raise Unusable("decode_error", "frames of the record have features of different lengths")
    return np.frombuffer(b"".join(values[0] for values in rows), np.uint8).reshape(len(rows), -1)


def pack_varint(value: int) -> bytes:
    """The shortest encoding of a number below 2^64; a negative one is taken as its two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def pack(number: int, data: bytes) -> bytes:
    """A field that carries its length."""
    return pack_varint(number << 3 | BYTES) + pack_varint(len(data)) + data


def pack_map(values: Iterable[tuple[str, bytes]]) -> bytes:
    """A map whose values are messages, in this order."""
    return b"".join(pack(1, pack(1, key.encode()) + pack(2, value)) for key, value in values)


def pack_bytes(values: Iterable[bytes]) -> bytes:
    """A Feature that holds bytes."""
    return pack(1, b"".join(pack(1, value) for value in values))


def pack_integers(values: Iterable[int]) -> bytes:
    """A Feature that holds int64, packed as proto3 does."""
    packed = b"".join(map(pack_varint, values))
    return pack(3, pack(1, packed) if packed else b"")


def pack_floats(values: NDArray[np.float32]) -> bytes:
    """A Feature that holds floats, packed as proto3 does."""
    return pack(2, pack(1, values.astype("<f4").tobytes()))


def pack_byte_rows(table: NDArray[np.uint8]) -> bytes:
    """A FeatureList with one Feature of D bytes for each of T rows."""
    if not len(table):
        return b""
    head = np.frombuffer(_head(table.shape[1]), np.uint8)
    return np.concatenate([np.broadcast_to(head, (len(table), len(head))), table], axis=1).tobytes()


@functools.lru_cache(maxsize=64)
def _head(length: int) -> bytes:
    """What stands before `length` bytes in the Feature of a FeatureList."""
    whole = pack(1, pack_bytes([bytes(length)]))
    return whole[: len(whole) - length]
