"""The Zarr store: immutable segments, and commits that commute.

    features.zarr/zarr.json       a Zarr v3 group; any Zarr reader opens segments/*/SET/features
      segments/<time>-<uuid>/     written once, by one writer
      commits/<segment>.json      the commit point (records.py)
      failures/<uuid>.json        inputs that could not be read, with a reason
      attachments/<time>-<uuid>-<kind>.json   JSON documents: labels, predictions
      index                       what the commits say, in one piece: a cache (video_index.py)
      damaged/                    what `vl repair` put aside

A segment without a valid record is not there. No locks, any number of writers; where two segments hold one video in one
set, the later segment counts. Reading is here, writing in zarr_writer.py.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

from stores.arrays import ArrayReader
from stores.errors import DamageError, StoreError
from stores.feature_set import StoredSet
from stores.files import file_pool, read_document
from stores.names import printable
from stores.records import Record, committed_names, load_records, unseal, without_collection
from stores.remote import as_path, is_remote, read_all
from stores.spec import Failure
from stores.video_index import INDEX, VideoIndex, find_commits
from stores.zarr_writer import FOLDERS, VideoWriter, ZarrWriter

T = TypeVar("T")

__all__ = ["VideoWriter", "ZarrStore", "ZarrWriter", "is_zarr_store"]


def is_zarr_store(path: Path) -> bool:
    """Whether the folder has the parts without which it is no store of ours."""
    if is_remote(path):  # it has no empty folders: what is written first tells
        return (path / "zarr.json").is_file() or (path / "commits").is_dir()
    return (path / "commits").is_dir() and (path / "segments").is_dir()


def _failure(fields: dict[str, Any]) -> tuple[Failure, int]:
    failure = Failure(**fields["failure"])
    if not isinstance(failure.video, str) or not isinstance(failure.set_name, str | None):
        raise TypeError(f"a failure of {failure.video!r} in {failure.set_name!r}")
    return failure, int(fields["time_ns"])


def _attachment(fields: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    return str(fields["kind"]), dict(fields["document"])


class Damage(NamedTuple):
    """Something in a store that is not what was committed."""

    where: str  # relative to the store
    what: str

    def __str__(self) -> str:
        return printable(f"{self.where}: {self.what}")


class ZarrStore:
    """A feature store in a folder `NAME.zarr`, as it was when it was opened.

    Args:
        path: the folder.
        indexed: whether the store's index stands for the commits that it covers; else every record is read.

    Raises:
        StoreError: it is no store.

    Damaged commits cost only themselves: they are listed in `damage` and their videos are not there.
    """

    def __init__(self, path: Path | str, *, indexed: bool = True) -> None:
        self.path = as_path(path)
        if not is_zarr_store(self.path):
            raise StoreError(f"{printable(path)} is not a feature store: it has no commits.")
        for name in FOLDERS:
            if (self.path / name).is_symlink():
                raise StoreError(f"{printable(self.path / name)} is a link; a store has none.")
        index, rest, damage = find_commits(self.path, indexed=indexed)
        with without_collection():
            self._index(load_records(self.path, rest), index)
            if index is not None and self.conflicts:  # whose spec stands, the records tell
                self._index(load_records(self.path, committed_names(self.path)))
        if damage is not None:
            self.damage.append(Damage(INDEX, str(damage)))

    @classmethod
    def of_records(cls, path: Path, records: Sequence[Record]) -> Self:
        """Some commits of a store as if they were all."""
        store = cls.__new__(cls)
        store.path = path
        store._index(records)
        return store

    def _index(self, records: Sequence[Record | tuple[str, DamageError]], index: VideoIndex | None = None) -> None:
        self._pool = file_pool(self.path)
        self.damage: list[Damage] = []
        found = {record.name: record for record in index.records} if index is not None else {}
        for record in records:
            if isinstance(record, Record):
                found[record.name] = record
            else:
                self.damage.append(Damage(f"commits/{record[0]}.json", str(record[1])))
        found = dict(sorted(found.items()))
        replaced = {name for record in found.values() for name in record.replaces}
        self.replaced = [record for name, record in found.items() if name in replaced]
        self.records = [record for name, record in found.items() if name not in replaced]
        self._sets: dict[str, StoredSet] = {}
        for record in self.records:
            for name in record.sets:
                if name not in self._sets:
                    held = index.sets.get(name) if index is not None else None
                    self._sets[name] = StoredSet(name, record, self.path, self._open_array, held)
                self._sets[name].add(record, index is not None and record.name in index.names)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._sets))

    def __len__(self) -> int:
        return len(self._sets)

    def __contains__(self, set_name: object) -> bool:
        return set_name in self._sets

    def __getitem__(self, set_name: str) -> StoredSet:
        """The set of that name; StoreError listing the sets there are if it is not one of them."""
        part = self.unchecked(set_name)
        part.require_one_spec()
        return part

    def unchecked(self, set_name: str) -> StoredSet:
        """The set of that name, even if two writers disagreed on what it is: then as the first one has it."""
        if set_name not in self._sets:
            names = ", ".join(self) or "none"
            raise StoreError(f"{printable(self.path)} has no set '{printable(set_name)}'. It has: {names}.")
        return self._sets[set_name]

    def _open_array(self, record: Record, name: str, kind: str, shape: tuple[int, ...], dtype: str) -> ArrayReader:
        return ArrayReader(self._pool, f"segments/{record.name}", f"{name}/{kind}", record.files, shape, dtype)

    def array(self, record: Record, name: str) -> ArrayReader:
        """The rows of a set in one commit."""
        spec = record.sets[name].spec
        return self._open_array(record, name, "features", (record.rows[name], *spec.row_shape), spec.dtype)

    @property
    def conflicts(self) -> dict[str, list[Record]]:
        """Commits whose spec is not that of the earliest commit of the set."""
        return {name: part.conflicts for name, part in self._sets.items() if part.conflicts}

    @cached_property
    def snapshot_id(self) -> str:
        """Hash of everything committed when the store was opened: same id, same rows."""
        lines = sorted(f"{record.name} {record.digest}\n" for record in self.records)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    def failures(self) -> list[Failure]:
        """Inputs that failed and have not succeeded since, in order of video and set; of each the newest."""
        newest: dict[tuple[str, str], tuple[int, Failure]] = {}
        for failure, at in self._documents("failures", _failure):
            key = failure.video, failure.set_name or ""
            if at >= newest.get(key, (-1, failure))[0]:
                newest[key] = at, failure
        return [failure for _, (at, failure) in sorted(newest.items()) if not self._mended(failure, at)]

    def _mended(self, failure: Failure, at: int) -> bool:
        """Whether the set holds the video; for a failure in all sets, whether any took it since, or all hold it."""
        if failure.set_name is not None:
            return failure.set_name in self._sets and failure.video in self._sets[failure.set_name]
        held = [part.place(failure.video) for part in self._sets.values() if failure.video in part]
        return len(held) == len(self._sets) > 0 or any(int(place.span.origin[:20]) > at for place in held)

    def attachment(self, kind: str) -> dict[str, Any] | None:
        """The newest JSON document attached under `kind`, or None."""
        return self.attachments().get(kind)

    def attachments(self) -> dict[str, dict[str, Any]]:
        """The newest document of every kind."""
        return dict(self._documents("attachments", _attachment))

    def _documents(self, folder: str, parse: Callable[[dict[str, Any]], T]) -> list[T]:
        """The sealed documents of a folder in order of their names; bad ones go to `damage`."""
        found = []
        paths = sorted((self.path / folder).glob("[!.]*.json"))
        fetched = read_all(paths) if is_remote(self.path) else itertools.repeat(None)
        for path, data in zip(paths, fetched, strict=False):
            try:
                if isinstance(data, FileNotFoundError):
                    raise data
                found.append(parse(unseal(path.name, read_document(str(path)) if data is None else data)))
            except (DamageError, KeyError, OSError, TypeError, ValueError) as error:
                damage = Damage(f"{folder}/{path.name}", str(error))
                if damage not in self.damage:
                    self.damage.append(damage)
        return found

    def close(self) -> None:
        """Give the files back; the store may not be read after."""
        self._pool.close()

    def __repr__(self) -> str:
        from stores.tables import store_text

        return store_text(self)
