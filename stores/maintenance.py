"""Checking a store, and putting aside what is damaged.

A fast check reads the records, the metadata and the sizes of all files; a full one also the digest of every file and
of the rows of every video. Repair moves, it never deletes: what was damaged lies in `damaged/` afterwards, and its
videos are missing, so that the next extraction makes them again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from stores import disk
from stores.copying import checked_rows
from stores.errors import StoreError
from stores.feature_set import StoredSet
from stores.files import file_pool
from stores.hdf5_store import Hdf5Store
from stores.names import is_segment_name, new_segment_name, printable
from stores.opening import open_store
from stores.records import Record, record_path
from stores.remote import RemotePath, as_path
from stores.segments import GROUP
from stores.video_index import INDEX, VideoIndex, build_index, index_bytes
from stores.zarr_store import ZarrStore, is_zarr_store

READ_BYTES = 4 << 20


class Kind(StrEnum):
    """What a finding means."""

    DAMAGE = "damage"  # not what was committed
    CONFLICT = "conflict"  # two writers made a set of one name with different specs
    ORPHAN = "orphan"  # a segment that no record names: a writer is at work, or was killed
    STRAY = "stray"  # a file that no record names inside a committed segment


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    kind: Kind
    where: str  # relative to the store
    what: str
    segment: str | None = None

    def __str__(self) -> str:
        return printable(f"{self.kind}: {self.where}: {self.what}")


@dataclass
class Report:
    """What a check looked at and what it found."""

    path: Path
    full: bool
    commits: int = 0
    videos: int = 0
    num_bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        """Whether anything committed is not as it was, or contradicts itself."""
        return any(finding.kind in {Kind.DAMAGE, Kind.CONFLICT} for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types."""
        found = [{"kind": str(finding.kind), "where": finding.where, "what": finding.what} for finding in self.findings]
        return {
            "store": str(self.path),
            "full": self.full,
            "damaged": self.damaged,
            "commits": self.commits,
            "videos": self.videos,
            "bytes": self.num_bytes,
            "findings": found,
        }


def verify(path: Path | str, *, full: bool = False) -> Report:
    """Look at every part of a store.

    Raises:
        StoreError: there is no store, or it cannot be opened at all (HDF5: DamageError).
    """
    if not is_zarr_store(as_path(path)):
        other = open_store(path)
        assert isinstance(other, Hdf5Store), "there are two formats"
        return _verify_hdf5(other, full)
    store = ZarrStore(path, indexed=False)
    report = Report(store.path, full)
    store.failures()  # reading documents notes the bad ones in `damage`
    store.attachments()
    for damage in store.damage:
        segment = damage.where.removeprefix("commits/").removesuffix(".json")
        named = segment if is_segment_name(segment) else None
        report.findings.append(Finding(Kind.DAMAGE, damage.where, damage.what, named))
    report.findings += _root_findings(store.path) + _index_findings(store)
    committed = [*store.records, *store.replaced]
    for record in committed:
        report.commits += 1
        report.findings += segment_findings(store.path, record, full=full)
        report.num_bytes += sum(size for size, _ in _listed(record).values())
    for name, records in store.conflicts.items():
        for record in records:
            difference = store.unchecked(name).spec.difference(record.sets[name].spec)
            what = f"set '{name}' was made otherwise than in the first commit: {difference}"
            report.findings.append(Finding(Kind.CONFLICT, f"commits/{record.name}.json", what, record.name))
    report.findings += _orphans(store, committed)
    report.videos = len({video for record in store.records for video in record.videos})
    store.close()
    return report


def _verify_hdf5(store: Hdf5Store, full: bool) -> Report:
    report = Report(store.path, full, commits=1, videos=len(store.record.videos))
    report.num_bytes = store.path.stat().st_size
    for name in store:
        report.findings += _row_findings(store[name], f"sets/{name}", None, full)
    store.close()
    return report


def _row_findings(part: StoredSet, where: str, segment: str | None, full: bool) -> Iterator[Finding]:
    """Opens the arrays, and with `full` reads the rows of every video against their digest."""
    try:
        part.open_arrays()
    except StoreError as error:
        yield Finding(Kind.DAMAGE, where, str(error), segment)
        return
    for video in part if full else ():
        try:
            for _ in checked_rows(part, video):
                continue
        except StoreError as error:
            yield Finding(Kind.DAMAGE, where, str(error), segment)


def segment_findings(root: Path, record: Record, *, full: bool) -> list[Finding]:
    """What is wrong with the files and arrays of one committed segment."""
    base = f"segments/{record.name}"
    found: list[Finding] = []

    def note(where: str, what: str, kind: Kind = Kind.DAMAGE) -> None:
        found.append(Finding(kind, where, what, record.name))

    pool = file_pool(root)
    listed = _listed(record)
    if not listed:
        note(f"commits/{record.name}.json", "it lists no files")
    for key, (size, sha256) in listed.items():
        try:
            file = pool.open(f"{base}/{key}")
            if file.size != size:
                note(f"{base}/{key}", f"{file.size} bytes, not {size}")
            elif full:
                digest = hashlib.sha256()
                for start in range(0, size, READ_BYTES):
                    digest.update(file.read(min(READ_BYTES, size - start), start))
                if digest.hexdigest() != sha256:
                    note(f"{base}/{key}", "its digest is not that of the commit")
        except StoreError as error:
            note(f"{base}/{key}", str(error))
    for key in _files_below(root / base):
        if key not in listed:
            note(f"{base}/{key}", "the commit does not name this file", Kind.STRAY)
    if not found:
        store = ZarrStore.of_records(root, [record])
        for name in record.sets:
            found += _row_findings(store[name], f"{base}/{name}", record.name, full)
    return found


def _files_below(folder: Path) -> Iterator[str]:
    if isinstance(folder, RemotePath):
        yield from folder.sizes()
        return
    for directory, _, names in os.walk(folder):
        inside = Path(directory).relative_to(folder)
        yield from (str(inside / name) for name in names)


def _listed(record: Record) -> dict[str, tuple[int, str]]:
    try:
        return record.files
    except StoreError:
        return {}


def _root_findings(root: Path) -> list[Finding]:
    try:
        fields = json.loads((root / "zarr.json").read_bytes())
        if (fields["zarr_format"], fields["node_type"]) == (3, "group"):
            return []
        what = "it describes no Zarr group"
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = f"no Zarr group can be read from it: {error}"
    return [Finding(Kind.DAMAGE, "zarr.json", what)]


def _index_findings(store: ZarrStore) -> list[Finding]:
    """What is wrong with the index, if it is one that readers would take."""
    try:
        data = index_bytes(store.path)
        if data is None:
            return []
        names = VideoIndex(data).names
        covered = [record for record in (*store.records, *store.replaced) if record.name in names]
        if len(covered) < len(names):
            return []  # left aside: a record is gone
        same = ZarrStore.of_records(store.path, sorted(covered, key=lambda record: record.name))
        if build_index(same.records, {name: same.unchecked(name) for name in same}).data == data.data:
            return []
        what = "it does not say what the commits say"
    except (StoreError, ValueError) as error:
        what = str(error)
    return [Finding(Kind.DAMAGE, INDEX, what)]


def _orphans(store: ZarrStore, committed: list[Record]) -> Iterator[Finding]:
    known = {record.name for record in committed} | {
        damage.where.removeprefix("commits/").removesuffix(".json") for damage in store.damage
    }
    for entry in sorted((store.path / "segments").iterdir()):
        if entry.name not in known and not record_path(store.path, entry.name).exists():
            what = "no commit names it: a writer is at work, or was killed; 'vl compact' removes it in time"
            yield Finding(Kind.ORPHAN, f"segments/{entry.name}", what)
    for entry in temporary_files(store.path):
        yield Finding(Kind.ORPHAN, str(entry.relative_to(store.path)), "left by a writer that was killed")


def temporary_files(root: Path) -> Iterator[Path]:
    """Files of a store that a writer has not given their names yet, or was killed before it could."""
    for folder in (root, root / "commits", root / "failures", root / "attachments"):
        yield from sorted(folder.glob(".*.tmp"))


@dataclass(frozen=True)
class Repair:
    """What a repair did."""

    moved: tuple[str, ...]  # relative to the store, now below `into`
    into: str | None
    lost: tuple[tuple[str, str], ...]  # (video, set) that are to be made again
    unknown: int  # commits that cannot be read, so that nobody knows what they held


def repair(path: Path | str, *, full: bool = True) -> Repair:
    """Move everything damaged into `damaged/`, and say which rows are to be made again.

    Raises:
        StoreError: the store cannot be repaired; an HDF5 store is never modified.
    """
    report = verify(path, full=full)
    root = as_path(path)
    bad = [finding for finding in report.findings if finding.kind in {Kind.DAMAGE, Kind.CONFLICT}]
    if root.is_file():
        if bad:
            raise StoreError(f"{printable(path)} is HDF5, which is never modified: pack it again from its source.")
        return Repair((), None, (), 0)
    before = ZarrStore(root, indexed=False)
    held = _held(before)
    target = root / "damaged" / new_segment_name()
    moved: list[str] = []

    def put_aside(relative: Path) -> None:
        if (root / relative).exists() or (root / relative).is_symlink():
            disk.move(root / relative, target / relative.parent)
            moved.append(str(relative))

    for segment in sorted({finding.segment for finding in bad if finding.segment}):
        put_aside(record_path(Path(), segment))  # first: a segment without its record is not there
        put_aside(Path("segments", segment))
    for finding in bad:
        if finding.where == "zarr.json":
            disk.write_atomically(root / "zarr.json", json.dumps(GROUP).encode())
            moved.append("zarr.json")
        elif finding.segment is None:
            put_aside(Path(finding.where))
    lost = held - _held(ZarrStore(root, indexed=False))
    into = str(target.relative_to(root)) if target.exists() else None
    return Repair(tuple(moved), into, tuple(sorted(lost)), len([d for d in before.damage if "commits/" in d.where]))


def _held(store: ZarrStore) -> set[tuple[str, str]]:
    return {(video, name) for name in store for video in store.unchecked(name)}
