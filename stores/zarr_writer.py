"""Writing a Zarr store: videos are collected, grouped, and committed as segments.

A video is complete or absent: its rows wait in memory, or in a segment that no record names yet, until `commit`.
Short videos share a segment, since a commit costs some twenty fsyncs whatever its size.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from stores import disk
from stores.errors import StoreError
from stores.names import new_segment_name, printable, require_kind, require_set_name
from stores.records import Record, SetRecord, Span, load_sets, seal
from stores.remote import as_path, is_remote
from stores.samples import require_order
from stores.segments import GROUP, SegmentWriter, SetWriter, require_compression
from stores.spec import Failure, FeatureSpec, Rows
from stores.video_index import find_commits

FOLDERS = ("segments", "commits", "failures", "attachments")
SPOOL_BYTES = 256 << 20  # a video or a group with more is not kept waiting in memory
Committed = Callable[[list[tuple[str, str]]], None]


def create_store(path: Path) -> None:
    """The folders of a store, durably; what is there stays, and other writers may do the same now.

    Raises:
        StoreError: the path does not end in `.zarr`, or something else is there.
    """
    if path.suffix != ".zarr":
        raise StoreError(f"a store that is written to is a folder NAME.zarr, not '{printable(path)}'.")
    if path.exists() and not _may_become_store(path):
        raise StoreError(f"{printable(path)} is there and is no feature store: give another name.")
    with disk.reporting(path):
        disk.ensure_directory(path)
        for name in FOLDERS:
            with suppress(FileExistsError):
                disk.make_directory(path / name)
        if (path / "zarr.json").exists():
            disk.sync_directory(path)  # who made it may not have come to that
    if not (path / "zarr.json").exists():
        disk.write_atomically(path / "zarr.json", json.dumps(GROUP).encode())


def _may_become_store(path: Path) -> bool:
    """Whether the path is a store, or what a writer left that was killed while it made one, or an empty folder."""
    if not path.is_dir():
        return False
    names = {entry.name for entry in path.iterdir()}
    # An object store has no empty folders: the group comes first, then segments, and with the first record `commits`.
    # Until then, minutes for a long video, another writer may come, or the same one again after a kill.
    if is_remote(path) and "zarr.json" in names and (path / "zarr.json").read_bytes() == json.dumps(GROUP).encode():
        names.remove("zarr.json")
    if all(name in FOLDERS or name.startswith(".zarr.json.") for name in names):
        return True
    return (path / "commits").is_dir()  # asked after the names: a writer at work may just have made it


def require_specs(path: Path, specs: Mapping[str, FeatureSpec]) -> None:
    """SpecMismatchError, naming the field, if the store has a set of such a name that was made otherwise."""
    seen: set[int] = set()
    index, rest, _ = find_commits(path)
    covered = [record.sets for record in index.records] if index is not None else []
    for sets in [*covered, *load_sets(path, rest)]:
        for name, part in sets.items():
            if name in specs and id(part.spec) not in seen:
                seen.add(id(part.spec))  # records of one store share their specs
                part.spec.require_same(
                    specs[name],
                    f"{printable(path)} holds '{name}' made otherwise (give another --out, or the old settings)",
                )


@dataclass
class _Spool:
    """The rows of one video in one set, waiting for their segment."""

    features: list[NDArray[Any]] = field(default_factory=list)
    times: list[NDArray[np.float64]] = field(default_factory=list)
    rows: int = 0
    last_start: float = -math.inf
    digest: Any = field(default_factory=hashlib.sha256)
    part: SetWriter | None = None  # once the video goes to its own segment

    @property
    def sha256(self) -> str:
        """Of the rows' bytes followed by the times' bytes."""
        digest = self.digest.copy()
        for times in self.times:
            digest.update(times)
        return str(digest.hexdigest())


@dataclass
class _Finished:
    """A complete video, waiting for its commit."""

    video: str
    info: dict[str, Any]
    spools: dict[str, _Spool]


class VideoWriter:
    """Takes the rows of one video, set by set, in order of time; nothing is seen of them before `commit`."""

    def __init__(self, writer: ZarrWriter, video: str, info: Mapping[str, Any]) -> None:
        self.video = video
        self._writer = writer
        self._info = dict(info)
        self._spools: dict[str, _Spool] = {}
        self._bytes = 0
        self._segment: SegmentWriter | None = None

    def append(self, set_name: str, rows: Rows) -> None:
        """Rows that follow those appended before; they are copied.

        Raises:
            StoreError: they are not what the set's spec says, or out of order.
        """
        spec = self._writer.spec(set_name)
        features = np.array(rows.features, order="C")  # a copy: the caller's buffer is its own
        times = np.array(rows.times, dtype=np.float64, order="C")
        if features.dtype != spec.dtype or features.shape[1:] != spec.row_shape:
            raise StoreError(
                f"set '{set_name}' takes {spec.dtype} rows {spec.row_shape}, not {features.dtype} {features.shape[1:]}."
            )
        if times.shape != (len(features), 2):
            raise StoreError(f"{len(features)} rows need times ({len(features)}, 2), not {times.shape}.")
        spool = self._spools.setdefault(set_name, _Spool())
        starts = np.concatenate([[spool.last_start], times[:, 0]])
        forward = spec.view or not (np.diff(starts) < 0).any()  # samples begin anew: looked at when all are there
        if not np.isfinite(times).all() or not forward or (times[:, 1] < times[:, 0]).any():
            raise StoreError(f"times of '{printable(self.video)}' in '{set_name}' are not in order.")
        spool.last_start = float(starts[-1])
        spool.digest.update(features)
        spool.times.append(times)
        spool.rows += len(features)
        if self._segment is not None:
            self._stream(set_name, spool, features)
            return
        spool.features.append(features)
        self._bytes += features.nbytes
        if self._bytes > self._writer.spool_bytes:
            self._spill()
        self._writer.flush_if_old()

    def commit(self, info: Mapping[str, Any] | None = None) -> None:
        """The video is complete: it is durable with the group it goes into, or at once if it is long.

        `info` adds to what was known at first. A video without rows in any set commits nothing.

        Raises:
            StoreError: rows of a clip-sampled set are not whole samples in order; the video is dropped.
        """
        self._info.update(info or {})
        if not self._spools:
            return
        try:
            for set_name, spool in self._spools.items():
                if self._writer.spec(set_name).view:
                    require_order(self._writer.spec(set_name), np.concatenate(spool.times), self.video)
        except StoreError:
            self.discard()
            raise
        finished = _Finished(self.video, self._info, self._spools)
        segment, self._segment = self._segment, None
        if segment is None:
            self._writer.add(finished, self._bytes)
            return
        self._writer.end_stream(self)
        self._writer.commit_segment(segment, [finished])

    def discard(self) -> None:
        """Forget everything."""
        if self._segment is not None:
            self._writer.end_stream(self)
            self._segment.remove()
        self._segment, self._spools, self._bytes = None, {}, 0

    def _spill(self) -> None:
        """Go on in a segment of its own."""
        self._segment = self._writer.start_stream(self)
        for set_name, spool in self._spools.items():
            for features in spool.features:
                self._stream(set_name, spool, features)
            spool.features = []

    def _stream(self, set_name: str, spool: _Spool, features: NDArray[Any]) -> None:
        assert self._segment is not None, "rows stream into a segment"
        try:
            with disk.reporting(self._segment.path):
                if spool.part is None:
                    spool.part = self._writer.new_set(self._segment, set_name, None)
                spool.part.append(features)
        except BaseException:
            self.discard()
            raise


class ZarrWriter:
    """Adds videos to a Zarr store; any number of writers may work on one path at once.

    Args:
        path: the folder, `NAME.zarr`; it is made if it does not exist.
        specs: what the rows of each set are.
        provenance: decoder, versions, device, by set; recorded, not compared.
        on_commit: is told (video, set) of everything that has just become durable.
        compress: None, or `zstd`, which pays for maps.
        group_videos: short videos share a segment, at most so many,
        group_seconds: and none waits longer than this for the next call.
        spool_bytes: a video with more goes to its own segment while it is written.

    Raises:
        SpecMismatchError: the store has a set of such a name that was made otherwise.
    """

    def __init__(
        self,
        path: Path | str,
        specs: Mapping[str, FeatureSpec],
        *,
        provenance: Mapping[str, Mapping[str, Any]] | None = None,
        on_commit: Committed | None = None,
        compress: str | None = None,
        group_videos: int = 64,
        group_seconds: float = 5.0,
        spool_bytes: int = SPOOL_BYTES,
    ) -> None:
        self.path = as_path(path)
        self.spool_bytes = spool_bytes
        self._specs = {require_set_name(name): spec for name, spec in specs.items()}
        self._provenance = dict(provenance or {})
        self._on_commit = on_commit
        self._compress = require_compression(compress)
        self._group_videos = group_videos
        self._group_seconds = group_seconds
        self._group: list[_Finished] = []
        self._group_bytes = 0
        self._group_since = 0.0
        self._streams: list[VideoWriter] = []  # videos that went to a segment of their own and are not complete
        create_store(self.path)
        require_specs(self.path, self._specs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit the videos that are complete, also on the way out of an error; drop the others."""
        for video in list(self._streams):
            video.discard()
        self.flush()

    def video(self, video: str, info: Mapping[str, Any]) -> VideoWriter:
        """A writer for the rows of `video`; `info` (duration in seconds, ...) is kept beside them."""
        return VideoWriter(self, video, info)

    def fail(self, failure: Failure) -> None:
        """Note an input that could not be read; durable when this returns."""
        name = f"{secrets.token_hex(16)}.json"
        fields = {"failure": asdict(failure), "time_ns": time.time_ns()}
        disk.write_atomically(self.path / "failures" / name, seal(name, fields))

    def attach(self, kind: str, document: Mapping[str, Any]) -> None:
        """Keep a JSON document with the store; durable when this returns, and the newest of its kind."""
        name = f"{new_segment_name()}-{require_kind(kind)}.json"
        fields = {"kind": kind, "document": dict(document)}
        disk.write_atomically(self.path / "attachments" / name, seal(name, fields))

    def flush(self) -> None:
        """Commit the waiting group; it is durable, and was told to `on_commit`, when this returns."""
        group, self._group, self._group_bytes = self._group, [], 0
        if group:
            self.commit_segment(SegmentWriter(self.path), group)

    def flush_if_old(self) -> None:
        """Commit the waiting group if its first video has waited long enough."""
        if self._group and time.monotonic() - self._group_since >= self._group_seconds:
            self.flush()

    def spec(self, set_name: str) -> FeatureSpec:
        """What the rows of a set are; StoreError if this writer was not given it."""
        if set_name not in self._specs:
            raise StoreError(f"this writer has no set '{printable(set_name)}', only {', '.join(self._specs)}.")
        return self._specs[set_name]

    def add(self, finished: _Finished, num_bytes: int) -> None:
        """Put a complete video into the group."""
        if not self._group:
            self._group_since = time.monotonic()
        self._group.append(finished)
        self._group_bytes += num_bytes
        if len(self._group) >= self._group_videos or self._group_bytes > self.spool_bytes:
            self.flush()
        self.flush_if_old()

    def start_stream(self, video: VideoWriter) -> SegmentWriter:
        """A segment for one long video."""
        self._streams.append(video)
        return SegmentWriter(self.path)

    def end_stream(self, video: VideoWriter) -> None:
        """The long video is complete or dropped."""
        if video in self._streams:
            self._streams.remove(video)

    def new_set(self, segment: SegmentWriter, set_name: str, num_rows: int | None) -> SetWriter:
        """A set in a segment."""
        return SetWriter(segment, set_name, self._specs[set_name], num_rows, self._compress)

    def commit_segment(self, segment: SegmentWriter, group: Sequence[_Finished]) -> None:
        """Finish and commit one segment with these videos."""
        try:
            with disk.reporting(segment.path):
                record = self._finish(segment, group)
        except BaseException:
            segment.remove()
            raise
        segment.commit(record)
        if self._on_commit is not None:
            self._on_commit([(video.video, name) for video in group for name in video.spools])

    def _finish(self, segment: SegmentWriter, group: Sequence[_Finished]) -> Record:
        """Write the arrays of every set and return the record, its files still to be filled in."""
        spans: dict[str, dict[str, Span]] = {video.video: {} for video in group}
        sets: dict[str, SetRecord] = {}
        counts: dict[str, int] = {}
        for name in sorted({name for video in group for name in video.spools}):
            members = [(video, video.spools[name]) for video in group if name in video.spools]
            part = members[0][1].part or self.new_set(segment, name, sum(spool.rows for _, spool in members))
            for video, spool in members:
                for features in spool.features:
                    part.append(features)
                start = part.end_video(video.video, spool.times)
                spans[video.video][name] = Span(start, spool.rows, spool.sha256, segment.name, video.info)
            counts[name] = part.finish()
            sets[name] = SetRecord(self._specs[name], self._provenance.get(name, {}))
        return Record(segment.name, sets, counts, spans, b"{}")
