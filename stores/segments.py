"""One segment: a small Zarr v3 group, written once by one writer, read by file offset.

A segment holds, for each feature set, `features` (N, *row), `times` (N, 2) and `offsets` (K + 1,), the rows where its K
videos begin and end. Arrays are split along time only, into chunks inside large shards; without compression a
shard is then one raw array in order, followed by an index, which is what makes positioned reads possible while any
Zarr reader still opens it.

Source: the Zarr specification, version 3, with the sharding_indexed codec; an index entry is the offset and the
length of a chunk as two little-endian uint64, all ones where there is none, and crc32c of the index ends the file.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
from numpy.typing import DTypeLike, NDArray

from stores import disk
from stores.errors import StoreError
from stores.names import new_segment_name
from stores.records import Record, record_path
from stores.remote import RemoteFile, is_remote
from stores.spec import FeatureSpec

SHARD_BYTES = 256 << 20
SHARD_CHUNKS = 1024  # while nobody knows how many rows come: the index is written whole
CHUNK_ROWS = 128
NO_CHUNK = (1 << 64) - 1
GROUP: Mapping[str, Any] = {"zarr_format": 3, "node_type": "group"}
COMPRESSIONS = ("zstd",)


class Layout(NamedTuple):
    """How an array lies in its files."""

    shape: tuple[int, ...]  # (N, *row)
    dtype: np.dtype[Any]
    chunk: int  # rows
    shard: int  # rows, a multiple of chunk
    compress: str | None = None

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def index_bytes(self) -> int:
        """Bytes at the end of every shard."""
        return self.shard // self.chunk * 16 + 4

    @property
    def num_shards(self) -> int:
        """Files of the array, besides its metadata."""
        return -(-self.shape[0] // self.shard)

    def key(self, shard: int) -> str:
        """File name of a shard."""
        return "c" + f".{shard}" + ".0" * (len(self.shape) - 1)

    def chunks_in(self, shard: int) -> int:
        """How many chunks of this shard hold rows."""
        rows = min(self.shape[0] - shard * self.shard, self.shard)
        return -(-rows // self.chunk)

    def to_dict(self) -> dict[str, Any]:
        """The array's `zarr.json`, attributes left out."""
        rest = list(self.shape[1:])
        little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
        inner = [little if self.dtype.itemsize > 1 else {"name": "bytes"}]
        if self.compress is not None:
            inner.append({"name": "zstd", "configuration": {"level": 1, "checksum": True}})
        sharding = {
            "chunk_shape": [self.chunk, *rest],
            "codecs": inner,
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype.name,
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [self.shard, *rest]}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": "NaN" if self.dtype.kind == "f" else 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "storage_transformers": [],
        }


def raw_index(layout: Layout, num_chunks: int) -> bytes:
    """The index of a shard whose chunks lie uncompressed and in order."""
    size = layout.chunk * layout.row_bytes
    return pack_index(layout, [(i * size, size) for i in range(num_chunks)])


def pack_index(layout: Layout, chunks: Sequence[tuple[int, int]]) -> bytes:
    """Offset and length of each chunk as the end of a shard, with the checksum."""
    entries = np.full((layout.shard // layout.chunk, 2), NO_CHUNK, "<u8")
    entries[: len(chunks)] = np.asarray(chunks, "<u8").reshape(-1, 2)
    packed = entries.tobytes()
    return packed + int(google_crc32c.value(packed)).to_bytes(4, "little")


def read_index(layout: Layout, packed: bytes) -> NDArray[np.uint64] | None:
    """Offset and length (K, 2) of each chunk, as `pack_index` wrote them; None if the checksum differs."""
    if int(google_crc32c.value(packed[:-4])) != int.from_bytes(packed[-4:], "little"):
        return None
    return np.frombuffer(packed[:-4], "<u8").reshape(layout.shard // layout.chunk, 2)


def plan(num_rows: int | None, row_bytes: int) -> tuple[int, int]:
    """Rows a chunk and rows a shard; `num_rows` None while nobody knows.

    >>> plan(1000, 2048)  # one shard of eight equal chunks: nothing is padded
    (125, 1000)
    """
    chunk = CHUNK_ROWS if row_bytes * CHUNK_ROWS <= SHARD_BYTES // 32 else CHUNK_ROWS // 2
    if num_rows is None:
        return chunk, chunk * min(SHARD_CHUNKS, max(1, SHARD_BYTES // (chunk * row_bytes)))
    count = max(1, -(-num_rows // chunk))
    chunk = max(1, -(-num_rows // count))
    return chunk, chunk * min(count, max(1, SHARD_BYTES // (chunk * row_bytes)))


class ArrayWriter:
    """Writes the rows of one array in order; every byte once, in memory no more than a chunk."""

    def __init__(
        self,
        segment: SegmentWriter,
        key: str,
        row_shape: tuple[int, ...],
        dtype: DTypeLike,
        num_rows: int | None = None,
        compress: str | None = None,
    ) -> None:
        kind = np.dtype(dtype)
        chunk, shard = plan(num_rows, math.prod(row_shape) * kind.itemsize)
        self._segment = segment
        self._key = key
        self._layout = Layout((0, *row_shape), kind, chunk, shard, compress)
        self._streaming = num_rows is None
        self._file: disk.NewFile | RemoteFile | None = None
        self._shard = 0
        self._chunks: list[tuple[int, int]] = []  # of the shard that is being written, when compressed
        self._waiting: list[NDArray[Any]] = []  # rows that do not fill a chunk yet, when compressed
        self.rows = 0
        segment.make_directory(key)

    def append(self, rows: NDArray[Any]) -> None:
        """(n, *row_shape) contiguous rows of the array's dtype."""
        layout = self._layout
        assert rows.dtype == layout.dtype, f"{rows.dtype} is not {layout.dtype}"
        assert rows.shape[1:] == layout.shape[1:], f"{rows.shape} does not fit {layout.shape}"
        step = layout.shard if layout.compress is None else layout.chunk
        while len(rows):
            room = step - self.rows % step
            part, rows = rows[:room], rows[room:]
            if layout.compress is None:
                self._open().write(part)
            else:
                self._waiting.append(part.copy())
            self.rows += len(part)
            if layout.compress is not None and self.rows % step == 0:
                self._compress_chunk()
            if self.rows % layout.shard == 0:
                self._close_shard()

    def finish(self, attributes: Mapping[str, Any] | None = None) -> int:
        """End the array, write its metadata and return its number of rows."""
        layout = self._layout
        missing = -self.rows % layout.chunk
        if self.rows and missing:
            padding = np.full((missing, *layout.shape[1:]), np.nan if layout.dtype.kind == "f" else 0, layout.dtype)
            if layout.compress is None:
                self._open().write(padding)
            else:
                self._waiting.append(padding)
                self._compress_chunk()
        if self._file is not None:
            self._close_shard()
        self._layout = layout._replace(shape=(self.rows, *layout.shape[1:]))
        self._segment.write_json(
            f"{self._key}/zarr.json", {**self._layout.to_dict(), "attributes": dict(attributes or {})}
        )
        return self.rows

    def _open(self) -> disk.NewFile | RemoteFile:
        if self._file is None:
            self._file = self._segment.new_file(f"{self._key}/{self._layout.key(self._shard)}")
            self._shard += 1
        return self._file

    def _compress_chunk(self) -> None:
        from numcodecs.zstd import Zstd

        file = self._open()
        packed = Zstd(level=1, checksum=True).encode(np.concatenate(self._waiting))
        self._waiting = []
        self._chunks.append((file.size, len(packed)))
        file.write(packed)

    def _close_shard(self) -> None:
        """Write the index; shards of a long video become durable one by one, the others with their segment."""
        assert self._file is not None, "a shard is closed where one was written"
        layout = self._layout
        if layout.compress is None:
            self._file.write(raw_index(layout, self._file.size // (layout.chunk * layout.row_bytes)))
        else:
            self._file.write(pack_index(layout, self._chunks))
            self._chunks = []
        if self._streaming:
            self._file.sync()
        self._file = None


class SegmentWriter:
    """A segment that is being written: invisible until `commit`, and gone after `remove`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = new_segment_name()
        self.path = root / "segments" / self.name
        self._files: dict[str, disk.NewFile | RemoteFile] = {}
        with disk.reporting(self.path):
            disk.make_directory(self.path)
        self.write_json("zarr.json", GROUP)

    @property
    def num_bytes(self) -> int:
        """Bytes written so far."""
        return sum(file.size for file in self._files.values())

    def make_directory(self, key: str) -> None:
        """A directory inside the segment."""
        with disk.reporting(self.path / key):
            disk.make_directory(self.path / key)

    def new_file(self, key: str) -> disk.NewFile | RemoteFile:
        """A file inside the segment, to be covered by the record."""
        file = self._files[key] = disk.new_file(self.path / key)
        return file

    def write_json(self, key: str, document: Mapping[str, Any]) -> None:
        """A metadata file."""
        with disk.reporting(self.path / key):
            self.new_file(key).write(json.dumps(document, allow_nan=False).encode())

    def commit(self, record: Record) -> None:
        """Make the segment durable, then its record: the segment is part of the store when this returns.

        Raises:
            NoSpaceError: the disk or the quota is full; the segment is gone.
            StoreError: the disk refuses otherwise; the segment is gone.
        """
        named = False
        try:
            with disk.reporting(self.path):
                disk.sync_tree(self.path, self._files.values())
                disk.sync_directory(self.path.parent)
            files = {key: (file.size, file.sha256) for key, file in self._files.items()}
            complete = dataclasses.replace(record, files_json=json.dumps(files).encode())
            named = is_remote(self.root)  # a request without an answer may still have been carried out, or will be
            disk.write_atomically(record_path(self.root, self.name), complete.to_bytes())
        except BaseException:
            if not named and not self._published():
                self.remove()
            raise

    def _published(self) -> bool:
        """Whether the record has its name: from then on the segment must stay, even if the last sync failed."""
        try:
            record_path(self.root, self.name).lstat()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    def remove(self) -> None:
        """Take away everything written; without a record it was never part of the store."""
        for file in self._files.values():
            file.drop()
        disk.remove_tree(self.path)


class SetWriter:
    """Writes one feature set of a segment, video after video."""

    def __init__(
        self, segment: SegmentWriter, name: str, spec: FeatureSpec, num_rows: int | None, compress: str | None
    ) -> None:
        segment.make_directory(name)
        self._segment = segment
        self._name = name
        self._spec = spec
        self._features = ArrayWriter(segment, f"{name}/features", spec.row_shape, spec.dtype, num_rows, compress)
        self._times: list[NDArray[np.float64]] = []
        self._offsets = [0]
        self._videos: list[str] = []

    def append(self, features: NDArray[Any]) -> None:
        """(n, *row_shape) contiguous rows of the video that `end_video` will name."""
        self._features.append(features)

    def end_video(self, video: str, times: Sequence[NDArray[np.float64]]) -> int:
        """The rows since the last call are those of `video`; returns the first one's number."""
        self._times += times
        self._videos.append(video)
        self._offsets.append(self._features.rows)
        return self._offsets[-2]

    def finish(self) -> int:
        """Write what is known at the end, and return the number of rows."""
        rows = self._features.finish()
        times = ArrayWriter(self._segment, f"{self._name}/times", (2,), np.float64, rows)
        for part in self._times:
            times.append(part)
        times.finish({"unit": "seconds", "columns": ["start", "end"]})
        offsets = ArrayWriter(self._segment, f"{self._name}/offsets", (), np.int64, len(self._offsets))
        offsets.append(np.array(self._offsets))
        offsets.finish()
        attributes = {"videos": self._videos, "spec": self._spec.to_dict()}
        self._segment.write_json(f"{self._name}/zarr.json", {**GROUP, "attributes": attributes})
        return rows


def require_compression(name: str | None) -> str | None:
    """`name` itself; StoreError unless it is None or a compression that stores may have."""
    if name is not None and name not in COMPRESSIONS:
        raise StoreError(f"features are stored plain or with {', '.join(COMPRESSIONS)}, not with '{name}'.")
    return name
