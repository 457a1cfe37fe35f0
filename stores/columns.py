"""Columns of numbers and of texts in one file, each under its own digest.

    length of the head in bytes (8, little-endian), the head (a sealed JSON document), column after column

Every part begins at a multiple of eight bytes. Nothing is copied when such a file is read: columns are views of its
bytes.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.errors import DamageError
from stores.files import RECORD_LIMIT
from stores.records import seal, unseal

Columns = Mapping[str, NDArray[Any]]


class Texts(Sequence[bytes]):
    """Byte strings that lie one after another."""

    def __init__(self, columns: Columns, name: str) -> None:
        data, ends = columns[name], columns[f"{name}/ends"]
        starts = np.concatenate([[0], ends])
        if (np.diff(starts) < 0).any() or starts[-1] != len(data):
            raise ValueError(f"{name} that end before they begin")
        self._data, self._starts = data.data, starts.data

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, at: Any) -> Any:
        return bytes(self._data[self._starts[at] : self._starts[at + 1]])


class NewTexts:
    """Byte strings that are put one after another, for `Texts`."""

    def __init__(self) -> None:
        self._data, self._ends = bytearray(), array("q")

    def append(self, text: bytes) -> int:
        """The number of the text, which is the last now."""
        self._data += text
        self._ends.append(len(self._data))
        return len(self._ends) - 1

    def columns(self, name: str) -> Columns:
        """What `Texts` reads."""
        return {name: np.frombuffer(self._data, np.uint8), f"{name}/ends": np.frombuffer(self._ends, np.int64)}


def pack(name: str, head: Mapping[str, Any], columns: Columns) -> NDArray[np.uint8]:
    """The bytes of a file called `name`; ValueError where the head is longer than any that is read."""
    listed = [[key, len(column), hashlib.sha256(column.data).hexdigest()] for key, column in columns.items()]
    sealed = seal(name, {**head, "columns": listed})
    if len(sealed) > RECORD_LIMIT:
        raise ValueError(f"a head of {len(sealed)} bytes")
    begin = len(sealed).to_bytes(8, "little") + sealed
    parts = [np.frombuffer(begin, np.uint8), *(column.view(np.uint8) for column in columns.values())]
    data = np.zeros(sum(aligned(part.size) for part in parts), np.uint8)
    at = 0
    for part in parts:
        data[at : at + part.size] = part
        at += aligned(part.size)
    return data


def unpack(name: str, data: NDArray[np.uint8], dtype_of: Callable[[str], str]) -> tuple[dict[str, Any], Columns]:
    """The head and the columns that `pack` was given; DamageError unless their digests are right.

    Args:
        name: of the file.
        data: its bytes.
        dtype_of: what the numbers of a column are, by its name: nothing of that is taken from the file.
    """
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > min(RECORD_LIMIT, len(data)):
        raise DamageError(f"{len(data)} bytes with a head of {length}")
    head = unseal(name, data[8 : 8 + length].tobytes())
    columns: dict[str, NDArray[Any]] = {}
    at = aligned(8 + length)
    for key, count, sha256 in head["columns"]:
        dtype = np.dtype(dtype_of(key))
        column = data[at : at + count * dtype.itemsize]
        if len(column) != count * dtype.itemsize or hashlib.sha256(column.data).hexdigest() != sha256:
            raise DamageError(f"the column {key!r} is not what was written")
        columns[key] = column.view(dtype)
        at += aligned(len(column))
    if at != len(data):
        raise DamageError(f"{len(data)} bytes, not {at}")
    return head, columns


def aligned(length: int) -> int:
    """The bytes that so many take up, so that numbers which follow lie as numpy likes them.

    >>> aligned(8), aligned(9)
    (8, 16)
    """
    return -(-length // 8) * 8
