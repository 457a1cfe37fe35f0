"""Merging small segments towards large ones, and removing what is no longer needed.

The merged segment is committed like any other; its record names the segments that it replaces, and from then on readers
ignore those. They stay for a grace period, so that a reader who opened the store before goes on reading, and go only
when the merged segment has been read back whole. Two compactions at once do no harm: both merged segments hold the same
rows under the same origins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stores import disk
from stores.copying import checked_rows
from stores.errors import StoreError
from stores.maintenance import segment_findings, temporary_files
from stores.names import is_segment_name, printable
from stores.records import Record, SetRecord, Span, record_path
from stores.remote import as_path, is_remote
from stores.segments import SegmentWriter, SetWriter
from stores.video_index import write_index
from stores.zarr_store import ZarrStore, is_zarr_store

TARGET_BYTES = 1 << 30
GRACE_SECONDS = 24 * 3600.0


@dataclass(frozen=True)
class Compaction:
    """What a compaction did."""

    merged: int  # segments that were replaced now
    into: int  # new segments
    removed: tuple[str, ...]  # old segments, orphans and remains of killed writers, relative to the store
    kept: int  # replaced segments that wait for the end of their grace period
    indexed: bool  # whether the store has an index of all that is there now


def compact(
    path: Path | str,
    *,
    target_bytes: int = TARGET_BYTES,
    grace_seconds: float = GRACE_SECONDS,
    on_segment: Callable[[str], None] | None = None,
) -> Compaction:
    """Merge small segments of a Zarr store, remove what was replaced or abandoned long ago, and write its index.

    Args:
        path: the store; writers and readers may be at work.
        target_bytes: segments with less than half of it are merged up to it.
        grace_seconds: nothing younger is removed.
        on_segment: is told the name of each merged segment when it is durable.

    Raises:
        DamageError: rows are not those that were committed; they are not carried on.
        SpecMismatchError: two writers disagreed on what a set is.
    """
    root = as_path(path)
    if not is_zarr_store(root):
        raise StoreError(f"{printable(path)} is no Zarr store of vl: only those are compacted.")
    store = ZarrStore(root, indexed=False)
    for name in store:
        store[name].require_one_spec()
    merged = into = 0
    for group in _groups(store, target_bytes):
        name = _merge(store, group)
        merged, into = merged + len(group), into + 1
        if on_segment is not None:
            on_segment(name)
    store.close()
    now = ZarrStore(root, indexed=False)
    removed = [*_remove_replaced(now, grace_seconds), *_remove_remains(now, grace_seconds)]
    kept = len(now.replaced) - sum(entry.startswith("commits/") for entry in removed)
    indexed = write_index(root, now.records, {name: now.unchecked(name) for name in now})
    return Compaction(merged, into, tuple(removed), kept, indexed)


def _num_bytes(record: Record) -> int:
    return sum(size for size, _ in record.files.values())


def _groups(store: ZarrStore, target_bytes: int) -> Iterator[list[Record]]:
    """Small segments that were made in the same way, in order of time, in groups of about the target's size."""
    waiting: dict[str, list[Record]] = {}
    for record in store.records:
        if _num_bytes(record) * 2 > target_bytes:
            continue
        key = repr([(name, part.spec.fingerprint, part.provenance) for name, part in sorted(record.sets.items())])
        key += str(_compressed(store, record))
        group = waiting.setdefault(key, [])
        group.append(record)
        if sum(map(_num_bytes, group)) >= target_bytes:
            yield waiting.pop(key)
    yield from (group for group in waiting.values() if len(group) > 1)


def _compressed(store: ZarrStore, record: Record) -> bool:
    return any(store.array(record, name).compressed for name in record.sets)


def _merge(store: ZarrStore, group: list[Record]) -> str:
    """Commit one segment with all rows of `group` that count, and return its name."""
    compress = "zstd" if _compressed(store, group[0]) else None
    segment = SegmentWriter(store.path)
    try:
        with disk.reporting(segment.path):
            record = _write(store, group, segment, compress)
    except BaseException:
        segment.remove()
        raise
    segment.commit(record)
    return segment.name


def _write(store: ZarrStore, group: list[Record], segment: SegmentWriter, compress: str | None) -> Record:
    spans: dict[str, dict[str, Span]] = {}
    sets: dict[str, SetRecord] = {}
    counts: dict[str, int] = {}
    for name in sorted({name for record in group for name in record.sets}):
        part = store[name]
        live = [
            (video, held[name])
            for record in group
            for video, held in record.videos.items()
            if name in held and part.place(video).record is record
        ]
        writer = SetWriter(segment, name, part.spec, sum(span.length for _, span in live), compress)
        for video, span in live:
            times = []
            for rows in checked_rows(part, video):
                writer.append(rows.features)
                times.append(rows.times)
            start = writer.end_video(video, times)
            spans.setdefault(video, {})[name] = Span(start, span.length, span.sha256, span.origin, span.info)
        counts[name] = writer.finish()
        sets[name] = SetRecord(part.spec, group[-1].sets[name].provenance)
    names = {record.name for record in group}
    earlier = {old for record in group for old in record.replaces if record_path(store.path, old).exists()}
    return Record(segment.name, sets, counts, spans, b"{}", sorted(names | earlier))


def _old(name: str, grace_seconds: float) -> bool:
    return time.time_ns() - int(name[:20]) >= grace_seconds * 1e9


def _remove_replaced(store: ZarrStore, grace_seconds: float) -> Iterator[str]:
    """Remove segments that a whole segment has replaced for long enough, the oldest first."""
    held = {record.name: record for record in store.replaced}
    for merged in store.records:
        due = [name for name in merged.replaces if name in held] if _old(merged.name, grace_seconds) else []
        if due and not segment_findings(store.path, merged, full=True):
            for name in sorted(due):
                yield from _remove(store.path, name)


def _remove(root: Path, name: str) -> Iterator[str]:
    disk.remove_file(record_path(root, name))  # first: a segment without its record is not there
    yield f"commits/{name}.json"
    disk.remove_tree(root / "segments" / name)
    yield f"segments/{name}"


def _remove_remains(store: ZarrStore, grace_seconds: float) -> Iterator[str]:
    """Remove segments without a record and temporary files that nobody has touched for long enough."""
    for entry in sorted((store.path / "segments").iterdir()):
        named = record_path(store.path, entry.name).exists()
        if is_segment_name(entry.name) and not named and _untouched(entry, grace_seconds):
            disk.remove_tree(entry)
            yield f"segments/{entry.name}"
    for entry in temporary_files(store.path):
        if _untouched(entry, grace_seconds):
            disk.remove_file(entry)
            yield str(entry.relative_to(store.path))


def _untouched(entry: Path, grace_seconds: float) -> bool:
    """Whether a file, or a folder and all in it, is old; an object store knows no folders, only what lies in them."""
    paths = [*([] if is_remote(entry) else [entry]), *entry.rglob("*")]
    return all(time.time() - path.lstat().st_mtime >= grace_seconds for path in paths)
