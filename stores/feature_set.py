"""One feature set of a store, whatever file format its rows lie in.

The index (which commit holds which video, at which rows) is the same for all formats; a format brings a function that
opens the array of a commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from heapq import merge
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stores.errors import SpecMismatchError, StoreError
from stores.names import printable
from stores.records import Place, Record
from stores.spec import Rows, VideoEntry

if TYPE_CHECKING:
    import pandas

    from stores.video_index import IndexedSet


class RowSource(Protocol):
    """Rows of one array of one commit."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def read_into(self, start: int, out: NDArray[Any]) -> None:
        """Fill the contiguous `out` (n, *row) of the array's dtype with rows from `start` on."""
        ...

    def check(self) -> None:
        """DamageError unless every file of the array is laid out as it should be."""
        ...


OpenArray = Callable[[Record, str, str, tuple[int, ...], str], RowSource]  # commit, set, array, shape, dtype


class StoredSet:
    """One feature set; implements `FeatureSet`.

    Args:
        name: of the set.
        first: the earliest commit that has it.
        store: its place, for messages.
        open_array: opens an array of a commit.
        indexed: the videos of commits that need not be gone through.
    """

    def __init__(
        self, name: str, first: Record, store: Path, open_array: OpenArray, indexed: IndexedSet | None = None
    ) -> None:
        self.name = name
        self.spec = first.sets[name].spec
        self.provenance = first.sets[name].provenance  # of the newest commit
        self.conflicts: list[Record] = []  # commits of another spec; the earliest one's stands
        self._first = first
        self._store = store
        self._open_array = open_array
        self._places: dict[str, Place] = {}  # of videos that are not in the index, or newer than there
        self._indexed = indexed
        self._arrays: dict[tuple[str, str], RowSource] = {}

    def add(self, record: Record, indexed: bool = False) -> None:
        """Take up a commit, the videos of which may be in the index; they come in order of their names."""
        part = record.sets[self.name]
        if part.spec is not self.spec and part.spec.fingerprint != self.spec.fingerprint:
            self.conflicts.append(record)
            return
        self.provenance = part.provenance
        if indexed:
            return
        for video, spans in record.videos.items():
            span = spans.get(self.name)
            if span is None:
                continue
            held = self.get(video)
            if held is None or held.span.origin <= span.origin:
                self._places[video] = Place(record, span)

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
        if self._indexed is None:
            return iter(self._sorted)
        return merge(self._sorted, (video for video in self._indexed if video not in self._places))

    def __len__(self) -> int:
        if self._indexed is None:
            return len(self._places)
        return len(self._indexed) + sum(video not in self._indexed for video in self._places)

    def __contains__(self, video: object) -> bool:
        return video in self._places or (self._indexed is not None and video in self._indexed)

    def get(self, video: str) -> Place | None:
        """The commit that holds `video`, and its rows there; None if the set does not hold it."""
        held = self._places.get(video)
        return self._indexed.get(video) if held is None and self._indexed is not None else held

    def place(self, video: str) -> Place:
        """The commit that holds `video`, and its rows there; StoreError if the set does not hold it."""
        held = self.get(video)
        if held is None:
            raise StoreError(
                f"set '{self.name}' of {printable(self._store)} has no video '{printable(video)}'. 'vl ls' lists all."
            )
        return held

    def entry(self, video: str) -> VideoEntry:
        """Length, digest and facts of `video`; StoreError if the set does not hold it."""
        span = self.place(video).span
        return VideoEntry(video, span.length, span.sha256, span.info)

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
        source = self._array(record, "times")  # first: it knows whether so many rows can be
        out = np.empty((span.length, 2))
        source.read_into(span.start, out)
        return out

    def index(self) -> pandas.DataFrame:
        """One row a video: video, rows, start, end and duration (seconds), sha256; videos in sorted order."""
        from stores.tables import index_frame

        return index_frame(self)

    def to_xarray(self, video: str) -> Any:
        """The rows of `video` as an xarray.DataArray over `time`, the rows' centres in seconds.

        Raises:
            StoreError: there is no such video, or xarray, an extra, is not installed.
        """
        from stores.tables import as_xarray

        return as_xarray(self, video)

    def __repr__(self) -> str:
        from stores.tables import set_text

        return set_text(self)

    def open_arrays(self) -> None:
        """Open every array of the set, which checks its metadata, sizes and indices.

        Raises:
            DamageError: one is not what the spec and the commits say.
        """
        records = [place.record for place in self._places.values()]
        records += self._indexed.records() if self._indexed is not None else []
        for record in {record.name: record for record in records}.values():
            for kind in ("features", "times"):
                self._array(record, kind).check()

    def _array(self, record: Record, kind: str) -> RowSource:
        array = self._arrays.get((record.name, kind))
        if array is None:
            row, dtype = (self.spec.row_shape, self.spec.dtype) if kind == "features" else ((2,), "float64")
            shape = (record.rows[self.name], *row)
            array = self._arrays[record.name, kind] = self._open_array(record, self.name, kind, shape, dtype)
        return array
