"""The Zarr store: immutable segments, and commits that commute.

    features.zarr/zarr.json       a Zarr v3 group; any Zarr reader opens segments/*/SET/features
      segments/<time>-<uuid>/     written once, by one writer
      commits/<segment>.json      the commit point (records.py)
      failures/<uuid>.json        inputs that could not be read, with a reason
      attachments/<time>-<uuid>-<kind>.json   JSON documents: labels, predictions
      damaged/                    what `vl repair` put aside

A segment without a valid record is not there. No locks, any number of writers; where two segments hold one video in one
set, the later segment counts. Reading is here, writing in zarr_writer.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stores.arrays import ArrayReader
from stores.errors import DamageError, SpecMismatchError, StoreError
from stores.files import FilePool, read_document
from stores.names import printable
from stores.records import Record, Span, load_records, unseal
from stores.spec import Failure, Rows, VideoEntry
from stores.zarr_writer import FOLDERS, VideoWriter, ZarrWriter

__all__ = ["VideoWriter", "ZarrSet", "ZarrStore", "ZarrWriter", "is_zarr_store"]


def is_zarr_store(path: Path) -> bool:
    """Whether the folder has the parts without which it is no store of ours."""
    return (path / "commits").is_dir() and (path / "segments").is_dir()


class _Place(NamedTuple):
    record: Record
    span: Span


class ZarrSet:
    """One feature set of a Zarr store."""

    def __init__(self, name: str, first: Record, pool: FilePool) -> None:
        self.name = name
        self.spec = first.sets[name].spec
        self.provenance = first.sets[name].provenance  # of the newest commit
        self.conflicts: list[Record] = []  # commits of another spec; the earliest one's stands
        self._first = first
        self._pool = pool
        self._places: dict[str, _Place] = {}
        self._arrays: dict[tuple[str, str], ArrayReader] = {}

    def add(self, record: Record) -> None:
        """Take up a commit; they come in order of their names."""
        part = record.sets[self.name]
        if part.spec is not self.spec and part.spec.fingerprint != self.spec.fingerprint:
            self.conflicts.append(record)
            return
        self.provenance = part.provenance
        for video, entry in record.videos.items():
            span = entry.spans.get(self.name)
            if span is None:
                continue
            held = self._places.get(video)
            if held is None or held.span.origin <= span.origin:
                self._places[video] = _Place(record, span)

    def require_one_spec(self) -> None:
        """SpecMismatchError if two writers disagreed on what this set is."""
        for record in self.conflicts:
            difference = self.spec.difference(record.sets[self.name].spec)
            raise SpecMismatchError(
                f"set '{self.name}' was written with two specs: {difference} (commits {self._first.name} and "
                f"{record.name}, {len(self.conflicts)} of the second kind). 'vl repair' puts the later kind aside."
            )

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._sorted)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, video: object) -> bool:
        return video in self._places

    def place(self, video: str) -> _Place:
        """The commit that holds `video`, and its rows there."""
        try:
            return self._places[video]
        except KeyError:
            raise StoreError(
                f"set '{self.name}' of {printable(self._pool.root)} has no video '{printable(video)}'. "
                "'vl ls' lists all."
            ) from None

    def entry(self, video: str) -> VideoEntry:
        """Length, digest and facts of `video`; StoreError if the set does not hold it."""
        record, span = self.place(video)
        return VideoEntry(video, span.length, span.sha256, record.videos[video].info)

    def read(self, video: str, start: int = 0, stop: int | None = None) -> Rows:
        """Rows `start` to `stop` of `video`, as slices go; touches only the bytes they lie in."""
        record, span = self.place(video)
        start, stop, _ = slice(start, stop).indices(span.length)
        count = max(0, stop - start)
        source = self._array(record, "features")
        features = np.empty((count, *self.spec.row_shape), self.spec.dtype)
        source.read_into(span.start + start, features)
        times = np.empty((count, 2))
        self._array(record, "times").read_into(span.start + start, times)
        return Rows(features, times)

    def read_into(self, video: str, start: int, out: NDArray[Any]) -> None:
        """Fill `out` (n, *row_shape), contiguous and of the spec's dtype, with rows from `start` on."""
        place = self._places.get(video) or self.place(video)
        span = place.span
        array = self._arrays.get((place.record.name, "features")) or self._array(place.record, "features")
        if start < 0 or start + len(out) > span.length:
            raise StoreError(
                f"rows {start} to {start + len(out)} of '{printable(video)}', which has {span.length} in '{self.name}'."
            )
        if out.dtype != array.dtype or out.shape[1:] != array.shape[1:] or not out.flags.c_contiguous:
            raise StoreError(
                f"'{self.name}' fills a contiguous {array.dtype} (n, {', '.join(map(str, array.shape[1:]))}), "
                f"not {out.dtype} {out.shape}."
            )
        array.read_into(span.start + start, out)

    def times(self, video: str) -> NDArray[np.float64]:
        """(N, 2) seconds of all rows of `video`."""
        record, span = self.place(video)
        out = np.empty((span.length, 2))
        self._array(record, "times").read_into(span.start, out)
        return out

    def _array(self, record: Record, kind: str) -> ArrayReader:
        array = self._arrays.get((record.name, kind))
        if array is None:
            rows = record.sets[self.name].rows
            shape, dtype = (
                ((rows, *self.spec.row_shape), self.spec.dtype) if kind == "features" else ((rows, 2), "float64")
            )
            key = f"{self.name}/{kind}"
            array = ArrayReader(self._pool, f"segments/{record.name}", key, record.files, shape, dtype)
            self._arrays[record.name, kind] = array
        return array


class ZarrStore:
    """A feature store in a folder `NAME.zarr`, as it was when it was opened.

    Args:
        path: the folder.

    Raises:
        StoreError: it is no store.

    Damaged commits cost only themselves: they are listed in `damage` and their videos are not there.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not is_zarr_store(self.path):
            raise StoreError(f"{printable(path)} is not a feature store: it has no commits.")
        self.damage: list[str] = []
        self._pool = FilePool(self.path)
        for name in FOLDERS:
            if (self.path / name).is_symlink():
                raise StoreError(f"{printable(self.path / name)} is a link; a store has none.")
        found: dict[str, Record] = {}
        for record in load_records(self.path):
            if isinstance(record, Record):
                found[record.name] = record
            else:
                self.damage.append(f"commits/{record[0]}.json: {record[1]}")
        replaced = {name for record in found.values() for name in record.replaces}
        self.replaced = [record for name, record in found.items() if name in replaced]
        self.records = [record for name, record in found.items() if name not in replaced]
        self._sets: dict[str, ZarrSet] = {}
        for record in self.records:
            for name in record.sets:
                if name not in self._sets:
                    self._sets[name] = ZarrSet(name, record, self._pool)
                self._sets[name].add(record)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._sets))

    def __len__(self) -> int:
        return len(self._sets)

    def __contains__(self, set_name: object) -> bool:
        return set_name in self._sets

    def __getitem__(self, set_name: str) -> ZarrSet:
        """The set of that name; StoreError listing the sets there are if it is not one of them."""
        if set_name not in self._sets:
            names = ", ".join(self) or "none"
            raise StoreError(f"{printable(self.path)} has no set '{printable(set_name)}'. It has: {names}.")
        self._sets[set_name].require_one_spec()
        return self._sets[set_name]

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
        for _, fields in self.documents("failures"):
            failure = Failure(**fields["failure"])
            key = failure.video, failure.set_name or ""
            if fields["time_ns"] >= newest.get(key, (-1, failure))[0]:
                newest[key] = fields["time_ns"], failure
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
        return {fields["kind"]: dict(fields["document"]) for _, fields in self.documents("attachments")}

    def documents(self, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """The sealed documents of a folder in order of their names; bad ones go to `damage`."""
        for path in sorted((self.path / folder).glob("[!.]*.json")):
            try:
                yield path.name, unseal(path.name, read_document(str(path)))
            except DamageError as error:
                damage = f"{folder}/{printable(path.name)}: {error}"
                if damage not in self.damage:
                    self.damage.append(damage)

    def close(self) -> None:
        """Give the files back; the store may not be read after."""
        self._pool.close()
