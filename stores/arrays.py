"""Reading one array of a segment: by file offset where it lies raw and in order.

Nothing is trusted before it is checked: the metadata has the digest that the record names and says what the spec says,
every file is regular, inside the store and as long as the record says, and the index of a shard shows where its chunks
are. Arrays laid out otherwise than this project does are left to zarr-python, under guards.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.errors import DamageError
from stores.files import FilePool, ReadFile
from stores.foreign import ForeignArray, require_declared, require_proportion
from stores.names import printable
from stores.segments import Layout, raw_index, read_index

METADATA_LIMIT = 16 << 20  # bytes of one zarr.json


class ArrayReader:
    """Rows of one array of one segment.

    Args:
        pool: the open files of the store.
        base: the segment's folder, relative to the store.
        key: the array's folder inside it.
        files: size and sha256 of every file of the segment, from the record.
        shape: (N, *row) that the spec and the record ask for.
        dtype: of the elements, as the spec names it.

    Raises:
        DamageError: the files are not what the record says.
    """

    def __init__(
        self,
        pool: FilePool,
        base: str,
        key: str,
        files: Mapping[str, tuple[int, str]],
        shape: tuple[int, ...],
        dtype: str,
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self._pool = pool
        self._path = f"{base}/{key}"
        self._row_bytes = math.prod(shape[1:]) * self.dtype.itemsize
        self._sizes = {path: size for path, (size, _) in files.items() if path.startswith(f"{key}/")}
        fields = self._metadata(files.get(f"{key}/zarr.json"))
        for path, size in self._sizes.items():
            if (found := pool.open(f"{base}/{path}").size) != size:
                raise self._damage(f"{path} has {found} bytes, not {size}")
        require_proportion(f"{pool.root}/{self._path}", shape[0] * self._row_bytes, sum(self._sizes.values()))
        self._foreign: ForeignArray | None = None
        self._layout = self._recognise(fields)
        if self._layout is None:
            self._foreign = ForeignArray(pool, base, key, fields, shape, self.dtype, self._sizes)
            return
        self._shard = self._layout.shard
        self._names = [f"{self._path}/{self._layout.key(i)}" for i in range(self._layout.num_shards)]
        if missing := [name for name in self._names if name.removeprefix(f"{base}/") not in self._sizes]:
            raise self._damage(f"{len(missing)} of {len(self._names)} shards are missing")
        self._indices: dict[int, NDArray[np.uint64]] = {}  # of compressed shards

    def read_into(self, start: int, out: NDArray[Any]) -> None:
        """Fill the contiguous `out` (n, *row) of the array's dtype with rows from `start` on."""
        if self._foreign is not None:
            self._foreign.read_into(start, out)
            return
        number, at = divmod(start, self._shard)
        if self._raw and 0 < len(out) <= self._shard - at:
            self._file(number).read_into(out, at * self._row_bytes)
            return
        while len(out):
            part, out = out[: self._shard - at], out[self._shard - at :]
            if self._raw:
                self._file(number).read_into(part, at * self._row_bytes)
            else:
                self._decompress(number, at, part)
            number, at = number + 1, 0

    @property
    def compressed(self) -> bool:
        """Whether the rows are compressed as this project does."""
        return self._layout is not None and not self._raw

    def check(self) -> None:
        """DamageError unless the index of every shard is right."""
        for number in range(len(self._names) if self._layout is not None else 0):
            self._file(number)

    def _metadata(self, entry: tuple[int, str] | None) -> dict[str, Any]:
        """The parsed `zarr.json`; its digest is checked now, since that is cheap."""
        if entry is None:
            raise self._damage("the record names no zarr.json")
        size, sha256 = entry
        file = self._pool.open(f"{self._path}/zarr.json")
        if file.size != size or size > METADATA_LIMIT:
            raise self._damage(f"zarr.json has {file.size} bytes, not {size}")
        data = file.read(size)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise self._damage("zarr.json is not what was committed")
        try:
            fields = dict(json.loads(data))
        except (ValueError, TypeError, RecursionError) as error:
            raise self._damage(f"zarr.json is no JSON object: {error}") from error
        if fields.get("shape") != list(self.shape) or fields.get("data_type") != self.dtype.name:
            found = f"{fields.get('data_type')} {fields.get('shape')}"
            raise self._damage(f"the array is {found}, the spec says {self.dtype.name} {list(self.shape)}")
        return fields

    def _recognise(self, fields: Mapping[str, Any]) -> Layout | None:
        """The layout, if the array is laid out as this project does."""
        try:
            shard = int(fields["chunk_grid"]["configuration"]["chunk_shape"][0])
            chunk = int(fields["codecs"][0]["configuration"]["chunk_shape"][0])
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        if chunk < 1 or shard < chunk or shard % chunk:
            return None
        plain = {key: value for key, value in fields.items() if key != "attributes"}
        for compress in (None, "zstd"):
            layout = Layout(self.shape, self.dtype, chunk, shard, compress)
            if plain == layout.to_dict():
                self._raw = compress is None
                return layout
        return None

    def _file(self, number: int) -> ReadFile:
        """The file of a shard, its index checked when it is opened."""
        name = self._names[number]
        file = self._pool.held(name)
        if file is None:
            file = self._pool.open(name)
            self._check(number, file)
            self._pool.keep(name, file)
        return file

    def _check(self, number: int, file: ReadFile) -> None:
        layout = self._layout
        assert layout is not None, "only recognised layouts have shards"
        present = layout.chunks_in(number)
        body = file.size - layout.index_bytes
        if body < 0:
            raise self._damage(f"shard {number} has no room for its index")
        tail = file.read(layout.index_bytes, body)
        if self._raw:
            if body != present * layout.chunk * self._row_bytes or tail != raw_index(layout, present):
                raise self._damage(f"the index of shard {number} is not that of {present} chunks in order")
            return
        index = read_index(layout, tail)
        if index is None or (index[:present].sum(1) > body).any() or (index[:present] > body).any():
            raise self._damage(f"the index of shard {number} is damaged")
        self._indices[number] = index

    def _decompress(self, number: int, at: int, out: NDArray[Any]) -> None:
        """Fill `out` with rows of one shard from its row `at` on."""
        from numcodecs.zstd import Zstd

        layout = self._layout
        assert layout is not None, "only recognised layouts have shards"
        file = self._file(number)
        decoded = np.empty((layout.chunk, *self.shape[1:]), self.dtype)
        while len(out):
            chunk, skip = divmod(at, layout.chunk)
            offset, length = (int(value) for value in self._indices[number][chunk])
            packed = file.read(length, offset)
            try:
                require_declared("zstd", packed, decoded.nbytes)
                Zstd().decode(packed, decoded)
            except (RuntimeError, ValueError) as error:
                raise self._damage(f"chunk {chunk} of shard {number}: {error}") from error
            part, out = out[: layout.chunk - skip], out[layout.chunk - skip :]
            part[:] = decoded[skip : skip + len(part)]
            at += len(part)

    def _damage(self, what: str) -> DamageError:
        where = printable(f"{self._pool.root}/{self._path}")
        return DamageError(f"{where}: {what}. 'vl verify' lists all damage, 'vl repair' puts it aside.")
