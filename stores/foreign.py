"""Arrays laid out otherwise than this project does, left to zarr-python under guards.

A chunk that is missing would read as the fill value, one that is a link would read another file, and one of a few bytes
can declare gigabytes: each is checked before zarr-python sees the array.
"""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.errors import DamageError, StoreError
from stores.files import FilePool
from stores.names import printable

ALLOWED_CODECS = frozenset({"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "zstd"})
COMPRESSORS = frozenset({"blosc", "gzip", "zstd"})
MAX_RATIO = 1000
MAX_BYTES = 256 << 20


def require_proportion(what: str, declared: int, stored: int) -> None:
    """StoreError if few bytes claim to be very many."""
    if declared > MAX_BYTES and declared > MAX_RATIO * stored:
        raise StoreError(f"{printable(what)} declares {declared} bytes in {stored}: this is not read.")


def require_declared(codec: str, packed: bytes, expected: int) -> None:
    """ValueError unless a compressed chunk unpacks to `expected` bytes, which is seen without unpacking it in memory.

    Source: RFC 8878 (zstd frame header), RFC 1952 (gzip), c-blosc's README_CHUNK_FORMAT.
    """
    if codec == "zstd":
        declared = _zstd_size(packed)
    elif codec == "blosc":
        declared = int.from_bytes(packed[4:8], "little") if len(packed) >= 16 else -1
    else:
        unpacker = zlib.decompressobj(31)
        try:
            declared = len(unpacker.decompress(packed, expected + 1))
        except zlib.error as error:
            raise ValueError(str(error)) from error
    if declared != expected:
        raise ValueError(f"it declares {declared} bytes, not {expected}")


def _zstd_size(packed: bytes) -> int:
    """Content size in the header of a zstd frame; -1 where there is none."""
    if packed[:4] != b"\x28\xb5\x2f\xfd" or len(packed) < 6:
        return -1
    flag, single = packed[4] >> 6, packed[4] >> 5 & 1
    at = 5 + (1 - single) + (0, 1, 2, 4)[packed[4] & 3]
    width = (single, 2, 4, 8)[flag]
    size = int.from_bytes(packed[at : at + width], "little")
    return (size + 256 if flag == 1 else size) if width else -1


class ForeignArray:
    """Rows of an unsharded Zarr v3 array whose chunks are all there."""

    def __init__(
        self,
        pool: FilePool,
        base: str,
        key: str,
        fields: Mapping[str, Any],
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        sizes: Mapping[str, int],
    ) -> None:
        self._pool = pool
        self._path = f"{base}/{key}"
        self._shape = shape
        try:
            if fields["zarr_format"] != 3 or fields["chunk_grid"]["name"] != "regular":
                raise ValueError("it is not a regular Zarr v3 array")
            self._chunks = tuple(int(size) for size in fields["chunk_grid"]["configuration"]["chunk_shape"])
            encoding = fields["chunk_key_encoding"]
            separator = {"default": "/", "v2": "."}[encoding["name"]]
            self._separator = str(encoding.get("configuration", {}).get("separator", separator))
            self._prefix = "c" + self._separator if encoding["name"] == "default" else ""
            self._compressor, self._checksum = _codecs([codec["name"] for codec in fields["codecs"]])
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"{self._where()} is not read: {error}.") from error
        if len(self._chunks) != len(shape) or min(self._chunks) < 1 or self._separator not in {"/", "."}:
            raise StoreError(f"{self._where()} is not read: chunks {self._chunks} of {shape}.")
        self._chunk_bytes = math.prod(self._chunks) * dtype.itemsize
        for chunk in self._cells(0, shape[0]):
            if f"{key}/{chunk}" not in sizes:
                raise DamageError(f"{self._where()} lacks the chunk {chunk}.")
            require_proportion(self._where(), self._chunk_bytes, sizes[f"{key}/{chunk}"])

    def read_into(self, start: int, out: NDArray[Any]) -> None:
        """Fill `out` (n, *row) with rows from `start` on."""
        for chunk in self._cells(start, start + len(out)):
            file = self._pool.open(f"{self._path}/{chunk}")
            if self._compressor is None:
                continue
            try:
                packed = file.read(max(0, file.size - self._checksum))
                require_declared(self._compressor, packed, self._chunk_bytes)
            except ValueError as error:
                raise DamageError(f"{self._where()}, chunk {chunk}: {error}.") from error
        array = self._pool.open_zarr(self._path)
        try:
            out[...] = np.asarray(array[start : start + len(out)])
        except (RuntimeError, ValueError) as error:
            raise DamageError(f"{self._where()}: {error}.") from error

    def _cells(self, start: int, stop: int) -> Iterator[str]:
        """Keys of the chunks that rows `start` to `stop` lie in."""
        grid = [range(start // self._chunks[0], -(-stop // self._chunks[0]))]
        grid += [range(-(-size // chunk)) for size, chunk in zip(self._shape[1:], self._chunks[1:], strict=True)]
        for cell in itertools.product(*grid):
            yield self._prefix + self._separator.join(map(str, cell))

    def _where(self) -> str:
        return printable(f"{self._pool.root}/{self._path}")


def _codecs(codecs: list[str]) -> tuple[str | None, int]:
    """The one compressor of a chain, and the bytes of a checksum after it; ValueError for any other chain."""
    if unknown := sorted(set(codecs) - ALLOWED_CODECS):
        raise ValueError(f"codec {', '.join(unknown)} is not allowed, only {', '.join(sorted(ALLOWED_CODECS))}")
    if "sharding_indexed" in codecs:
        raise ValueError("it is sharded in a way that this project does not write")
    packed = codecs[codecs.index("bytes") + 1 :]
    checksum = 4 if packed[-1:] == ["crc32c"] else 0
    packed = packed[:-1] if checksum else packed
    if not packed:
        return None, checksum
    if len(packed) > 1 or packed[0] not in COMPRESSORS:
        raise ValueError(f"chunks go through {' and '.join(packed)}; at most one of {', '.join(COMPRESSORS)} is read")
    return packed[0], checksum
