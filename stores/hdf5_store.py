"""The HDF5 store: packed whole from another store, read by file offset, never modified.

    /index              (M,) uint8: one sealed JSON document with everything but the rows; what this project reads
    /sets/SET/features  (N, *row), contiguous
    /sets/SET/times     (N, 2) seconds
    /sets/SET/offsets   (K + 1,) rows where the videos begin and end } for other readers
    /sets/SET/videos    (K,) their ids, escaped to be printable      }

Links and datasets that lead to other files are refused (hdf5_files.py). The library only tells where the arrays lie;
the bytes are read by position, as in the Zarr store.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores import disk
from stores.copying import checked_rows
from stores.errors import DamageError, NoSpaceError, StoreError
from stores.feature_set import StoredSet
from stores.files import RECORD_LIMIT, ReadFile
from stores.hdf5_files import open_member, opened_hdf5
from stores.names import printable
from stores.records import Record, RecordReader, SetRecord, Span, parse_json, unseal_lines
from stores.remote import local_path
from stores.spec import Failure, FeatureStore

INDEX = "index"
SUFFIXES = (".h5", ".hdf5")
ARRAYS = ("features", "times")


class ByteRange:
    """An array that lies raw in a file."""

    def __init__(self, file: ReadFile, offset: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self._file = file
        self._offset = offset
        self._row_bytes = math.prod(shape[1:]) * dtype.itemsize

    def read_into(self, start: int, out: NDArray[Any]) -> None:
        """Fill the contiguous `out` (n, *row) of the array's dtype with rows from `start` on."""
        self._file.read_into(out, self.offset_of(start))

    def check(self) -> None:
        """DamageError unless the file still has the bytes."""
        if os.fstat(self._file.fd).st_size < self.offset_of(self.shape[0]):
            raise DamageError(f"{printable(self._file.path)} has lost its end since it was opened.")

    def offset_of(self, row: int) -> int:
        """Where in the file a row begins."""
        return self._offset + row * self._row_bytes


def _byte_range(file: ReadFile, hdf5: Any, path: str) -> ByteRange:
    """Where the dataset at `path` lies.

    Raises:
        DamageError: it is missing, or not in the file's own bytes, or not a raw array.
    """
    import h5py

    here = hdf5.id
    where = f"{printable(file.path)}: /{path}"
    *groups, last = path.split("/")
    for name in [*groups, last]:
        here = open_member(here, name.encode(), where)
        if not isinstance(here, h5py.h5d.DatasetID if name is last else h5py.h5g.GroupID):
            raise DamageError(f"{where} has something else at '{name}'.")
    stored = here.get_create_plist()
    shape = tuple(int(size) for size in here.shape)
    dtype = np.dtype(here.dtype)
    size = math.prod(shape) * dtype.itemsize
    if stored.get_layout() != h5py.h5d.CONTIGUOUS or stored.get_nfilters():
        raise DamageError(f"{where} is not contiguous.")
    offset = here.get_offset() if size else 0
    if offset is None or offset + size > file.size:
        raise DamageError(f"{where} declares {size} bytes that the file of {file.size} does not have.")
    return ByteRange(file, offset, shape, dtype)


class Hdf5Store:
    """A feature store in one HDF5 file.

    Raises:
        StoreError: the file is no store of this project.
        DamageError: its bytes are not those that were written.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        real = os.path.realpath(path)
        self._file = ReadFile(real)
        self._arrays: dict[tuple[str, str], ByteRange] = {}
        with opened_hdf5(Path(real)) as hdf5:
            if not hdf5.id.links.exists(INDEX.encode()):
                raise StoreError(f"{printable(path)} is HDF5, but no store of vl. 'vl import' takes foreign features.")
            index = _byte_range(self._file, hdf5, INDEX)
            if index.dtype != np.uint8 or len(index.shape) != 1 or index.shape[0] > RECORD_LIMIT:
                raise DamageError(f"{printable(path)}: the index is {index.dtype} {index.shape}.")
            document = np.empty(index.shape, np.uint8)
            index.read_into(0, document)
            self._read_index(document.tobytes())
            for name in self.record.sets:
                for kind in ARRAYS:
                    self._arrays[name, kind] = _byte_range(self._file, hdf5, f"sets/{name}/{kind}")
        self._sets = {name: StoredSet(name, self.record, self.path, self._open_array) for name in self.record.sets}
        for part in self._sets.values():
            part.add(self.record)

    def _read_index(self, document: bytes) -> None:
        try:
            self.record = RecordReader().parse(INDEX, document)
            members = unseal_lines(INDEX, document)
            self._failures = [Failure(**fields) for fields in parse_json(members["failures"])]
            self._attachments: dict[str, dict[str, Any]] = dict(parse_json(members["attachments"]))
        except (DamageError, KeyError, TypeError, ValueError) as error:
            raise DamageError(f"{printable(self.path)}: the index is damaged: {error}.") from error

    def _open_array(self, record: Record, name: str, kind: str, shape: tuple[int, ...], dtype: str) -> ByteRange:
        array = self._arrays[name, kind]
        if array.shape != shape or array.dtype != np.dtype(dtype):
            raise DamageError(
                f"{printable(self.path)}: {kind} of '{name}' are {array.dtype} {array.shape}, "
                f"the index says {dtype} {shape}."
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._sets))

    def __len__(self) -> int:
        return len(self._sets)

    def __contains__(self, set_name: object) -> bool:
        return set_name in self._sets

    def __getitem__(self, set_name: str) -> StoredSet:
        """The set of that name; StoreError listing the sets there are if it is not one of them."""
        if set_name not in self._sets:
            names = ", ".join(self) or "none"
            raise StoreError(f"{printable(self.path)} has no set '{printable(set_name)}'. It has: {names}.")
        return self._sets[set_name]

    @property
    def snapshot_id(self) -> str:
        """Hash of everything packed: same id, same rows."""
        return self.record.digest

    def failures(self) -> list[Failure]:
        """Inputs that had failed when the store was packed."""
        return list(self._failures)

    def attachment(self, kind: str) -> dict[str, Any] | None:
        """The JSON document attached under `kind`, or None."""
        return self._attachments.get(kind)

    def attachments(self) -> dict[str, dict[str, Any]]:
        """The document of every kind."""
        return dict(self._attachments)

    def close(self) -> None:
        """Give the file back; the store may not be read after."""
        self._file.close()

    def __repr__(self) -> str:
        from stores.tables import store_text

        return store_text(self)


def pack_hdf5(source: FeatureStore, path: Path | str, *, replace: bool = False) -> None:
    """Write everything in `source` to a new HDF5 file; `path` is complete when it appears.

    With `replace`, a file that is there gives way at that moment.

    Raises:
        StoreError: `path` does not end in .h5 or .hdf5, or is there already.
        NoSpaceError: the disk has less room than the rows need.
        DamageError: rows of `source` are not those that were committed.
    """
    path = local_path(path)
    if path.suffix not in SUFFIXES:
        raise StoreError(f"an HDF5 store ends in {' or '.join(SUFFIXES)}, not '{printable(path)}'.")
    if path.exists() and not replace:
        raise StoreError(f"{printable(path)} is there already: packing never overwrites. Give another name.")
    record = _index_of(source)
    total = sum(record.rows[name] * (part.spec.row_bytes + 16) for name, part in record.sets.items())
    with disk.reporting(path):
        disk.ensure_directory(path.absolute().parent)
        room = os.statvfs(path.absolute().parent)
    if total > room.f_bavail * room.f_frsize:
        raise NoSpaceError(
            f"{printable(path)} needs {total} bytes and the disk has {room.f_bavail * room.f_frsize}: make room."
        )
    temporary = disk.temporary(path)
    try:
        _write_structure(temporary, source, record)
        with disk.reporting(path):
            _write_rows(temporary, source, record)
            disk.publish(temporary, path)
    except BaseException:
        disk.drop_file(temporary)
        raise


def _index_of(source: FeatureStore) -> Record:
    """Where every video goes; videos in order of their ids."""
    spans: dict[str, dict[str, Span]] = {}
    rows: dict[str, int] = {}
    for name in source:
        start = 0
        for video in source[name]:
            entry = source[name].entry(video)
            spans.setdefault(video, {})[name] = Span(start, entry.num_rows, entry.sha256, INDEX, entry.info)
            start += entry.num_rows
        rows[name] = start
    sets = {name: SetRecord(source[name].spec, source[name].provenance) for name in source}
    return Record(INDEX, sets, rows, dict(sorted(spans.items())), b"{}")


def _write_structure(path: Path, source: FeatureStore, record: Record) -> None:
    """The file with all its datasets, room for the rows included."""
    import h5py

    extra = {
        "failures": [asdict(failure) for failure in source.failures()],
        "attachments": source.attachments(),
    }
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_layout(h5py.h5d.CONTIGUOUS)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    try:
        with h5py.File(path, "x", locking=False) as hdf5:
            hdf5.create_dataset(INDEX, data=np.frombuffer(record.to_bytes(extra), np.uint8))
            for name, part in record.sets.items():
                group = hdf5.create_group(f"sets/{name}")
                shape = (record.rows[name], *part.spec.row_shape)
                group.create_dataset("features", shape, part.spec.dtype, dcpl=early)
                group.create_dataset("times", (shape[0], 2), np.float64, dcpl=early)
                lengths = [source[name].entry(video).num_rows for video in source[name]]
                group.create_dataset("offsets", data=np.cumsum([0, *lengths]))
                names = [printable(video) for video in source[name]]
                group.create_dataset("videos", data=names, dtype=h5py.string_dtype())
    except (OSError, RuntimeError) as error:
        with disk.reporting(path):
            raise OSError(getattr(error, "errno", None), str(error)) from error


def _write_rows(path: Path, source: FeatureStore, record: Record) -> None:
    """Bring the rows to where their datasets lie; the file is synced when it is published."""
    file = ReadFile(os.path.realpath(path))
    with opened_hdf5(path) as hdf5:
        places = {name: [_byte_range(file, hdf5, f"sets/{name}/{kind}") for kind in ARRAYS] for name in record.sets}
    with disk.open_for_update(path) as target:  # outside: a full disk is no damage
        for name, (features, times) in places.items():
            for video in source[name]:
                at = record.videos[video][name].start
                for rows in checked_rows(source[name], video):
                    target.write_at(rows.features, features.offset_of(at))
                    target.write_at(rows.times, times.offset_of(at))
                    at += len(rows.features)
