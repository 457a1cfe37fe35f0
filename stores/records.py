"""The commit record: what makes a segment part of a store.

A record is one JSON document that carries the SHA-256 of itself, so that half of one, or one under another name,
is recognised and ignored:

    {"sha256": <of all bytes after this line>,
    "name": <segment>,
    "rows": {SET: N},
    "replaces": [<segment>, ...],
    "sets": {SET: {"spec": ..., "provenance": ...}},
    "videos": {VIDEO: {"info": ..., "rows": {SET: [start, length, sha256]}, "own": {SET: info where it differs}}},
    "files": {"SET/features/c.0.0": [size, sha256]}}

In a segment that compaction wrote a video's entry has a fourth part: the segment that its rows came from. Where two
segments hold one video, the later one counts, by that name.
"""

from __future__ import annotations

import gc
import hashlib
import itertools
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from stores.errors import DamageError, StoreError
from stores.files import read_document
from stores.names import is_segment_name, printable, require_set_name
from stores.remote import RemotePath, is_remote, read_all
from stores.spec import FeatureSpec

T = TypeVar("T")

_HEAD = b'{"sha256":"'
_BODY = len(_HEAD) + 64 + 3  # the digest, and `",` and a line feed


def seal(name: str, fields: Mapping[str, Any]) -> bytes:
    """A JSON document that knows its own name and digest; every member has a line of its own."""
    members = {"name": name, **fields}
    lines = [f"{json.dumps(key)}:{compact_json(value)}" for key, value in members.items()]
    body = (",\n".join(lines) + "}\n").encode()
    return _HEAD + hashlib.sha256(body).hexdigest().encode() + b'",\n' + body


def compact_json(value: Any) -> str:
    """JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def unseal_lines(name: str, data: bytes) -> dict[str, bytes]:
    """The members that `seal` wrote under `name`, each still JSON.

    A reader of many documents leaves unparsed what it does not need, and parses once what they all repeat.

    Raises:
        DamageError: a byte differs, or the document was sealed under another name.
    """
    body = memoryview(data)[_BODY:]
    digest = hashlib.sha256(body).hexdigest().encode()
    if not data.startswith(_HEAD) or data[len(_HEAD) : _BODY] != digest + b'",\n':
        raise DamageError(f"{len(data)} bytes that do not carry their own digest" if data else "empty")
    lines = bytes(body).removesuffix(b"}\n").split(b",\n")  # JSON has no line feed inside a string
    members = {key.strip(b'"').decode(): value for key, _, value in (line.partition(b":") for line in lines)}
    if members.get("name") != f'"{name}"'.encode():
        raise DamageError(f"it is the record of {printable(members.get('name'))}")
    return members


def unseal(name: str, data: bytes) -> dict[str, Any]:
    """The fields that `seal` wrote under `name`; DamageError if they are not what was written."""
    return {key: parse_json(value) for key, value in unseal_lines(name, data).items()}


def parse_json(data: bytes) -> Any:
    """The value of one member; DamageError if it is no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"no JSON: {error}") from error


class Span(NamedTuple):
    """Where the rows of one video lie in one set of a segment."""

    start: int
    length: int
    sha256: str
    origin: str  # the segment that first held these rows; decides between two
    info: Mapping[str, Any]  # duration, partial, ... as known when these rows were made


class SetRecord(NamedTuple):
    """One feature set of a segment."""

    spec: FeatureSpec
    provenance: Mapping[str, Any]


@dataclass(frozen=True)
class Record:
    """What one commit says."""

    name: str
    sets: Mapping[str, SetRecord]
    rows: Mapping[str, int]  # by set
    videos: Mapping[str, Mapping[str, Span]]  # by video and set
    files_json: bytes  # path inside the segment -> size, sha256
    replaces: Sequence[str] = ()
    digest: str = ""  # of the document, for the snapshot

    @cached_property
    def files(self) -> dict[str, tuple[int, str]]:
        """Size and sha256 of every file by its path inside the segment; looked at when one is read, not before."""
        try:
            listed = parse_json(self.files_json)
            return {str(path): (int(size), str(sha256)) for path, (size, sha256) in listed.items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise DamageError(f"the record {self.name} lists its files without sense: {error!r}.") from error

    def to_bytes(self, extra: Mapping[str, Any] | None = None) -> bytes:
        """The sealed document, with `extra` members at its end."""
        videos = {video: self._video(spans) for video, spans in self.videos.items()}
        fields = {"rows": dict(self.rows), "replaces": list(self.replaces), "sets": sets_fields(self.sets)}
        return seal(self.name, {**fields, "videos": videos, "files": self.files, **(extra or {})})

    def _video(self, spans: Mapping[str, Span]) -> dict[str, Any]:
        info = next(iter(spans.values())).info
        rows = {name: list(span[: 3 if span.origin == self.name else 4]) for name, span in spans.items()}
        own = {name: dict(span.info) for name, span in spans.items() if span.info != info}
        return {"info": dict(info), "rows": rows, **({"own": own} if own else {})}


class Place(NamedTuple):
    """The rows of a video in a set."""

    record: Record  # of the commit that holds them
    span: Span


class RecordReader:
    """Parses records; sets that many records repeat are parsed once, and lists of files not at all."""

    def __init__(self) -> None:
        self._sets: dict[bytes, dict[str, SetRecord]] = {}

    def parse(self, name: str, data: bytes) -> Record:
        """The record of the segment `name`.

        Raises:
            DamageError: the document is not what was committed, or makes no sense.
        """
        members = unseal_lines(name, data)
        try:
            sets = self._parse_sets(members["sets"])
            rows = {key: int(count) for key, count in parse_json(members["rows"]).items()}
            videos = {key: _video(name, rows, value) for key, value in parse_json(members["videos"]).items()}
            replaces = [str(other) for other in parse_json(members["replaces"])]
            if rows.keys() != sets.keys() or min(rows.values(), default=0) < 0:
                raise ValueError(f"rows {rows}")
            return Record(name, sets, rows, videos, members["files"], replaces, data[len(_HEAD) : _BODY - 3].decode())
        except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
            raise DamageError(f"a record without sense: {error!r}") from error

    def sets(self, name: str, data: bytes) -> dict[str, SetRecord]:
        """The sets of the record alone: a tenth of the time where it holds very many videos; DamageError as `parse`."""
        members = unseal_lines(name, data)
        try:
            return self._parse_sets(members["sets"])
        except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
            raise DamageError(f"a record without sense: {error!r}") from error

    def _parse_sets(self, data: bytes) -> dict[str, SetRecord]:
        sets = self._sets.get(data)
        if sets is None:
            sets = self._sets[data] = parse_sets(parse_json(data))
        return sets


def sets_fields(sets: Mapping[str, SetRecord]) -> dict[str, Any]:
    """What `parse_sets` reads, as JSON types."""
    return {name: {"spec": part.spec.to_dict(), "provenance": dict(part.provenance)} for name, part in sets.items()}


def parse_sets(fields: Mapping[str, Any]) -> dict[str, SetRecord]:
    """The sets of a record; StoreError, KeyError or TypeError where they make no sense."""
    return {
        require_set_name(name): SetRecord(FeatureSpec.from_dict(part["spec"]), dict(part["provenance"]))
        for name, part in fields.items()
    }


def _video(name: str, rows: Mapping[str, int], fields: Mapping[str, Any]) -> dict[str, Span]:
    spans = {}
    info, own = fields["info"], fields.get("own", {})
    if not isinstance(info, dict):
        raise TypeError(f"facts {info!r}")
    for set_name, (start, length, sha256, *origin) in fields["rows"].items():
        if start < 0 or length < 0 or start + length > rows[set_name]:
            raise ValueError(f"rows {start} to {start + length} of {rows[set_name]}")
        made_by = sys.intern(str(origin[0])) if origin else name  # thousands of videos share one
        if origin and not is_segment_name(made_by):
            raise ValueError(f"rows of {made_by}")
        spans[set_name] = Span(int(start), int(length), str(sha256), made_by, own.get(set_name, info))
    return spans


def record_path(root: Path, segment: str) -> Path:
    """Where the record of a segment stands."""
    return root / "commits" / f"{segment}.json"


def committed_names(root: Path) -> list[str]:
    """Names of all records that a directory listing shows, in order of their time."""
    if isinstance(root, RemotePath):
        listed = (name[:-5] for name in (root / "commits").sizes() if name.endswith(".json"))
        return sorted(name for name in listed if is_segment_name(name))
    with os.scandir(root / "commits") as entries:
        names = (entry.name[:-5] for entry in entries if entry.name.endswith(".json"))
        return sorted(name for name in names if is_segment_name(name))


@contextmanager
def without_collection() -> Iterator[None]:
    """Millions of small objects that stay are made here: looking for garbage among them doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_records(root: Path, names: Iterable[str]) -> list[Record | tuple[str, DamageError]]:
    """The records of these names, in their order; for a bad one its name and what is wrong."""
    reader = RecordReader()
    with without_collection():
        return list(_each_record(root, names, reader.parse))


def load_sets(root: Path, names: Iterable[str]) -> list[Mapping[str, SetRecord]]:
    """The sets of those of these records that are well, in their order."""
    reader = RecordReader()
    return [sets for sets in _each_record(root, names, reader.sets) if isinstance(sets, dict)]


def _each_record(
    root: Path, names: Iterable[str], parse: Callable[[str, bytes], T]
) -> Iterator[T | tuple[str, DamageError]]:
    folder = str(root / "commits")
    fetched = read_all(record_path(root, name) for name in names) if is_remote(root) else itertools.repeat(None)
    for name, data in zip(names, fetched, strict=False):
        try:
            if isinstance(data, FileNotFoundError):
                raise data
            yield parse(name, read_document(f"{folder}/{name}.json") if data is None else data)
        except FileNotFoundError:
            continue  # compaction took it away since the listing
        except DamageError as error:
            yield name, error
        except OSError as error:
            yield name, DamageError(f"unreadable: {error.strerror}")
