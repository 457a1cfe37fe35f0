"""What the commits of a store say, as columns in one file: a cache for stores of very many videos.

`vl compact` writes it (columns.py has the layout), and readers take it in place of the records that it covers; those
that came since are read one by one. It is read in one piece, and takes a quarter of the memory that records take. The
truth is in the records: an index that covers one that is gone is left aside, `vl verify` compares it with them, and
anybody may delete it.

Shape letters: V videos of all sets.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from stores import disk
from stores.columns import Columns, NewTexts, Texts, pack, unpack
from stores.errors import DamageError, StoreError
from stores.files import ReadFile
from stores.foreign import MAX_BYTES, MAX_RATIO
from stores.names import is_segment_name, require_set_name
from stores.records import (
    Place,
    Record,
    Span,
    committed_names,
    compact_json,
    parse_json,
    parse_sets,
    sets_fields,
)
from stores.remote import is_remote

if TYPE_CHECKING:
    from stores.feature_set import StoredSet

INDEX = "index"
LIMIT = 16 << 30  # bytes: some 70 million videos
NONE = 2**32 - 1  # in the place of a commit: the set does not hold the video
KEPT = 1 << 16  # places of a set that need not be looked up again
BLOCK = 1 << 16  # ids that are counted out at once
SENSELESS = "the store's index makes no sense: delete it, or run 'vl repair'."
CODING = ("utf-8", "surrogatepass")  # keeps the order of ids, also of those to which JSON gave lone surrogates
OF_STORE: Mapping[str, str] = {  # texts: their bytes, and where each ends
    "ids": "u1",
    "ids/ends": "<i8",
    "facts": "u1",
    "facts/ends": "<i8",
    "origins": "u1",
    "origins/ends": "<i8",
    "hashes": "<u4",  # (V,) CRC-32 of ids, in ascending order
    "hashed": "<u4",  # (V,) which id has that hash
}
OF_SET: Mapping[str, str] = {
    "commit": "<u4",  # (V,) which one holds the video, or NONE
    "start": "<i8",
    "length": "<i8",
    "sha256": "u1",  # (V * 32,)
    "origin": "<u4",
    "facts": "<u4",
}


def dtype_of(column: str) -> str:
    """What the numbers of a column are; KeyError if an index has none of that name."""
    return OF_STORE.get(column) or OF_SET[column.rpartition("/")[2]]


class Ids(Texts):
    """Names of videos in order, found by a hash: in memory a dictionary of them takes ten times as much."""

    def __init__(self, columns: Columns) -> None:
        super().__init__(columns, "ids")
        hashes, hashed = columns["hashes"], columns["hashed"]
        if not len(hashes) == len(hashed) == len(self) or (hashed >= len(self)).any():
            raise ValueError("hashes of other videos")
        self._hashes, self._hashed = hashes.data, hashed.data

    def find(self, video: str) -> int | None:
        """The number of a video; None where there is none of that name."""
        name = video.encode(*CODING)
        wanted = crc32(name)
        at = bisect_left(self._hashes, wanted)
        while at < len(self._hashes) and self._hashes[at] == wanted:
            if self[number := self._hashed[at]] == name:
                return int(number)
            at += 1
        return None

    def named(self, chosen: NDArray[np.bool_]) -> Iterator[str]:
        """Those that are chosen of all (V,), in order."""
        data, starts = self._data, self._starts
        try:
            for first in range(0, len(chosen), BLOCK):
                for at in (np.flatnonzero(chosen[first : first + BLOCK]) + first).tolist():
                    yield str(data[starts[at] : starts[at + 1]], *CODING)
        except UnicodeDecodeError:
            raise DamageError(SENSELESS) from None


class Facts(Mapping[str, Any]):
    """What is known of a video, parsed when somebody asks."""

    def __init__(self, document: bytes) -> None:
        self._document = document

    @cached_property
    def _fields(self) -> dict[str, Any]:
        fields = parse_json(self._document)
        if not isinstance(fields, dict):
            raise DamageError(SENSELESS)
        return fields

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return repr(self._fields)


class IndexedSet:
    """The videos of one feature set, as an index has them; iterating gives their ids in order.

    Raises:
        ValueError: a video has rows that no commit has, or another number leads nowhere.
    """

    def __init__(self, name: str, columns: Columns, store: Columns, ids: Ids, records: Sequence[Record]) -> None:
        self._facts, self._origins = Texts(store, "facts"), Texts(store, "origins")
        self._ids, self._records = ids, records
        self._columns = columns
        self._views = {key: column.data for key, column in columns.items()}
        self.held = columns["commit"] != NONE  # (V,)
        self._count = int(self.held.sum())
        self._kept: dict[str, Place] = {}
        self._origin = lru_cache(KEPT)(self._name_of_origin)
        if any(len(column) != len(self._ids) * (32 if key == "sha256" else 1) for key, column in columns.items()):
            raise ValueError(f"'{name}' has columns of unequal length")
        commit, start, length, origin, facts = (
            columns[key][self.held] for key in ("commit", "start", "length", "origin", "facts")
        )
        rows = np.array([record.rows.get(name, -1) for record in records], np.int64)[commit]
        if (start < 0).any() or (length < 0).any() or (length > rows).any() or (start > rows - length).any():
            raise ValueError(f"rows of '{name}' that are not there")
        if (origin >= len(self._origins)).any() or (facts >= len(self._facts)).any():
            raise ValueError(f"a video of '{name}' without origin or facts")

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        return self._ids.named(self.held)

    def __contains__(self, video: object) -> bool:
        return isinstance(video, str) and (at := self._ids.find(video)) is not None and bool(self.held[at])

    def records(self) -> list[Record]:
        """The commits that hold its rows."""
        return [self._records[number] for number in np.unique(self._columns["commit"][self.held])]

    def in_commit(self, number: int) -> NDArray[np.bool_]:
        """(V,) whether the rows of a video lie in the commit of this number."""
        return np.asarray(self._columns["commit"] == number)

    def get(self, video: str) -> Place | None:
        """Where the rows of a video lie; None where the set does not hold it."""
        place = self._kept.get(video) or self._look_up(video)
        if place is not None and len(self._kept) < KEPT:  # of a larger set the first ones: none has to give way
            self._kept[video] = place
        return place

    def _look_up(self, video: str) -> Place | None:
        at = self._ids.find(video)
        if at is None or (commit := self._views["commit"][at]) == NONE:
            return None
        of = self._views
        sha256 = of["sha256"][32 * at : 32 * at + 32].hex()
        facts = Facts(self._facts[of["facts"][at]])
        return Place(
            self._records[commit],
            Span(of["start"][at], of["length"][at], sha256, self._origin(of["origin"][at]), facts),
        )

    def _name_of_origin(self, number: int) -> str:
        name = str(self._origins[number], "ascii", "replace")
        if not is_segment_name(name):
            raise DamageError(SENSELESS)
        return name


class VideosOf(Mapping[str, Mapping[str, Span]]):
    """The videos of one commit whose rows count: by id, and by set."""

    def __init__(self, number: int, ids: Ids, sets: Mapping[str, IndexedSet]) -> None:
        self._number, self._ids, self._sets = number, ids, sets

    def _here(self) -> NDArray[np.bool_]:
        here: NDArray[np.bool_] = np.any([part.in_commit(self._number) for part in self._sets.values()], axis=0)
        return here

    def __len__(self) -> int:
        return int(self._here().sum())

    def __iter__(self) -> Iterator[str]:
        return self._ids.named(self._here())

    def __getitem__(self, video: str) -> Mapping[str, Span]:
        places = {name: part.get(video) for name, part in self._sets.items()}
        found = {
            name: place.span for name, place in places.items() if place is not None and place.record.videos is self
        }
        if not found:
            raise KeyError(video)
        return found


class VideoIndex:
    """An index that was read.

    Attributes:
        records: of the commits that it covers, in order of time.
        sets: the videos of each set.

    Raises:
        DamageError: its bytes are not those that were written, or make no sense.
    """

    def __init__(self, data: NDArray[np.uint8]) -> None:
        try:
            head, columns = unpack(INDEX, data, dtype_of)
            ids = Ids(columns)
            specs = [parse_sets(fields) for fields in head["specs"]]
            self.sets: dict[str, IndexedSet] = {}
            self.records: list[Record] = []
            for number, (name, digest, spec, rows, replaces, files) in enumerate(head["commits"]):
                videos = VideosOf(number, ids, self.sets)
                rows = {str(key): int(count) for key, count in rows.items()}
                if rows.keys() != specs[spec].keys() or not is_segment_name(name):
                    raise ValueError(f"the commit {name!r}")
                old = [str(other) for other in replaces]
                self.records.append(Record(name, specs[spec], rows, videos, str(files).encode(), old, str(digest)))
            for name in head["sets"]:
                of_set = {key: columns[f"{require_set_name(name)}/{key}"] for key in OF_SET}
                self.sets[name] = IndexedSet(name, of_set, columns, ids, self.records)
        except DamageError:
            raise
        except (StoreError, KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DamageError(f"an index without sense: {error!r}") from error
        self.names = {record.name for record in self.records}


def build_index(records: Sequence[Record], sets: Mapping[str, StoredSet]) -> NDArray[np.uint8]:
    """The index of a store of these commits; ValueError where a digest is no SHA-256, or the head is too long."""
    numbers = {record.name: number for number, record in enumerate(records)}
    videos = sorted({video for part in sets.values() for video in part})
    of_set = {
        name: {key: np.zeros(len(videos) * (32 if key == "sha256" else 1), dtype) for key, dtype in OF_SET.items()}
        for name in sorted(sets)
    }
    ids, facts, origins = NewTexts(), NewTexts(), NewTexts()
    of_origin: dict[str, int] = {}
    hashes = np.zeros(len(videos), np.uint32)
    for at, video in enumerate(videos):
        name = video.encode(*CODING)
        hashes[ids.append(name)] = crc32(name)
        known: list[tuple[Mapping[str, Any], int]] = []  # the sets of a video mostly share what is known of it
        for set_name, columns in of_set.items():
            place = sets[set_name].get(video)
            columns["commit"][at] = NONE if place is None else numbers[place.record.name]
            if place is None:
                continue
            span = place.span
            number = next((number for info, number in known if info == span.info), None)
            if number is None:
                number = facts.append(compact_json(span.info).encode())
                known.append((span.info, number))
            if span.origin not in of_origin:
                of_origin[span.origin] = origins.append(span.origin.encode())
            columns["start"][at], columns["length"][at] = span.start, span.length
            columns["sha256"][32 * at : 32 * at + 32] = np.frombuffer(digest_bytes(span.sha256), np.uint8)
            columns["origin"][at], columns["facts"][at] = of_origin[span.origin], number
    specs: dict[str, int] = {}
    commits = [
        [
            record.name,
            record.digest,
            specs.setdefault(compact_json(sets_fields(record.sets)), len(specs)),
            dict(record.rows),
            list(record.replaces),
            record.files_json.decode(),
        ]
        for record in records
    ]
    order = np.argsort(hashes, kind="stable")
    texts = {"ids": ids, "facts": facts, "origins": origins}
    return pack(
        INDEX,
        {"specs": [parse_json(spec.encode()) for spec in specs], "sets": list(of_set), "commits": commits},
        {
            "hashes": hashes[order],
            "hashed": order.astype(np.uint32),
            **{key: column for name, new in texts.items() for key, column in new.columns(name).items()},
            **{f"{name}/{key}": column for name, columns in of_set.items() for key, column in columns.items()},
        },
    )


def digest_bytes(sha256: str) -> bytes:
    """The 32 bytes of a digest; ValueError unless they have this one text."""
    found = bytes.fromhex(sha256)
    if len(found) != 32 or found.hex() != sha256:
        raise ValueError(f"{sha256!r} is no digest")
    return found


def index_bytes(root: Path) -> NDArray[np.uint8] | None:
    """The bytes of the store's index; None if it has none, or one that few bytes on the disk declare to be very large.

    Raises:
        DamageError: it is no regular file, or too large, or cannot be read.
    """
    path = root / INDEX
    try:
        if is_remote(path):
            return np.frombuffer(path.read_bytes(), np.uint8)
        file = ReadFile(str(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamageError(f"unreadable: {error.strerror}") from error
    if file.size > LIMIT:
        raise DamageError(f"{file.size} bytes, more than any index of a store")
    if file.size > max(MAX_BYTES, MAX_RATIO * 512 * os.fstat(file.fd).st_blocks):
        return None
    data = np.empty(file.size, np.uint8)
    file.read_into(data, 0)
    return data


class Commits(NamedTuple):
    """How to learn what is committed."""

    covered: VideoIndex | None
    rest: list[str]  # records to be read beside it, in order of time
    damage: DamageError | None  # why there is no index


def find_commits(root: Path, *, indexed: bool = True) -> Commits:
    """The store's index, if it covers nothing that is gone, and the records that have to be read."""
    index, damage = None, None
    try:
        if indexed and (data := index_bytes(root)) is not None:
            index = VideoIndex(data)
    except DamageError as error:
        damage = error
    names = committed_names(root)  # after the index: what came between is read, and what went is missed
    if index is None or not index.names.issubset(names):
        return Commits(None, names, damage)
    known = index.names.union(*(record.replaces for record in index.records))
    return Commits(index, [name for name in names if name not in known], None)


def write_index(root: Path, records: Sequence[Record], sets: Mapping[str, StoredSet]) -> bool:
    """Leave the index of these commits with the store; False where they are such that none can be made.

    Raises:
        NoSpaceError: the disk or the quota is full.
        StoreError: the file cannot be written.
    """
    try:
        data = build_index(records, sets)
    except ValueError:
        return False
    try:
        held = index_bytes(root)
    except DamageError:
        held = None
    if held is None or held.data != data.data:
        disk.write_atomically(root / INDEX, data, cache=True)
    return True
