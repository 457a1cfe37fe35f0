"""The commit record: what makes a segment part of a store.

A record is one JSON document that carries the SHA-256 of itself, so that half of one, or one under another name,
is recognised and ignored:

    {"sha256": <of all bytes after this line>,
    "name": <segment>, "sets": {SET: {"spec": ..., "provenance": ..., "rows": N}},
     "videos": {VIDEO: {"info": ..., "rows": {SET: [start, length, sha256]}}},
     "files": {"SET/features/c.0.0": [size, sha256]}, "replaces": [<segment>, ...]}

In a segment that compaction wrote a video's entry has a fourth part: the segment that its rows came from. Where two
segments hold one video, the later one counts, by that name.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from stores.errors import DamageError, StoreError
from stores.files import read_document
from stores.names import is_segment_name, printable, require_set_name
from stores.spec import FeatureSpec

_HEAD = b'{"sha256":"'
_BODY = len(_HEAD) + 64 + 3  # the digest, and `",` and a line feed


def seal(name: str, fields: Mapping[str, Any]) -> bytes:
    """A JSON document that knows its own name and digest."""
    text = json.dumps({"name": name, **fields}, separators=(",", ":"), allow_nan=False)
    body = text[1:].encode() + b"\n"
    return _HEAD + hashlib.sha256(body).hexdigest().encode() + b'",\n' + body


def unseal(name: str, data: bytes) -> dict[str, Any]:
    """The fields that `seal` wrote under `name`.

    Raises:
        DamageError: a byte differs, or the document was sealed under another name.
    """
    digest = hashlib.sha256(memoryview(data)[_BODY:]).hexdigest().encode()
    if not data.startswith(_HEAD) or data[len(_HEAD) : _BODY] != digest + b'",\n':
        raise DamageError(f"{len(data)} bytes that do not carry their own digest" if data else "empty")
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamageError(f"no JSON: {error}") from error
    if fields.get("name") != name:
        raise DamageError(f"it is the record of {printable(fields.get('name'))}")
    return dict(fields)


class Span(NamedTuple):
    """Where the rows of one video lie in one set of a segment."""

    start: int
    length: int
    sha256: str
    origin: str  # the segment that first held these rows; decides between two


class SetRecord(NamedTuple):
    """One feature set of a segment."""

    spec: FeatureSpec
    provenance: Mapping[str, Any]
    rows: int


class VideoRecord(NamedTuple):
    """One video of a segment."""

    info: Mapping[str, Any]
    spans: Mapping[str, Span]  # by set


@dataclass(frozen=True)
class Record:
    """What one commit says."""

    name: str
    sets: Mapping[str, SetRecord]
    videos: Mapping[str, VideoRecord]
    listed: Mapping[str, Any]  # files: path inside the segment -> size, sha256
    replaces: Sequence[str] = ()
    digest: str = ""  # of the document, for the snapshot

    @cached_property
    def files(self) -> dict[str, tuple[int, str]]:
        """Size and sha256 of every file by its path inside the segment; looked at when one is read, not before."""
        try:
            return {str(path): (int(size), str(sha256)) for path, (size, sha256) in self.listed.items()}
        except (TypeError, ValueError, AttributeError) as error:
            raise DamageError(f"the record {self.name} lists its files without sense: {error!r}.") from error

    def to_bytes(self) -> bytes:
        """The sealed document."""
        videos = {}
        for video, entry in self.videos.items():
            rows = {
                name: list(span) if span.origin != self.name else list(span[:3]) for name, span in entry.spans.items()
            }
            videos[video] = {"info": dict(entry.info), "rows": rows}
        sets = {
            name: {"spec": part.spec.to_dict(), "provenance": dict(part.provenance), "rows": part.rows}
            for name, part in self.sets.items()
        }
        files = {path: list(entry) for path, entry in self.files.items()}
        fields = {"sets": sets, "videos": videos, "files": files, "replaces": list(self.replaces)}
        return seal(self.name, fields)


class RecordReader:
    """Parses records; specs that many records repeat are parsed once."""

    def __init__(self) -> None:
        self._specs: list[tuple[Any, FeatureSpec]] = []

    def parse(self, name: str, data: bytes) -> Record:
        """The record of the segment `name`.

        Raises:
            DamageError: the document is not what was committed, or makes no sense.
        """
        fields = unseal(name, data)
        try:
            sets = {require_set_name(key): self._set(value) for key, value in fields["sets"].items()}
            videos = {key: _video(name, sets, value) for key, value in fields["videos"].items()}
            replaces = [str(other) for other in fields["replaces"]]
        except (KeyError, TypeError, ValueError, AttributeError, StoreError) as error:
            raise DamageError(f"a record without sense: {error!r}") from error
        return Record(name, sets, videos, fields["files"], replaces, data[len(_HEAD) : _BODY - 3].decode())

    def _set(self, fields: Mapping[str, Any]) -> SetRecord:
        spec = next((spec for known, spec in self._specs if known == fields["spec"]), None)
        if spec is None:
            spec = FeatureSpec.from_dict(fields["spec"])
            self._specs.append((fields["spec"], spec))
        rows = fields["rows"]
        if not isinstance(rows, int) or rows < 0:
            raise ValueError(f"{rows} rows")
        return SetRecord(spec, dict(fields["provenance"]), rows)


def _video(name: str, sets: Mapping[str, SetRecord], fields: Mapping[str, Any]) -> VideoRecord:
    spans = {}
    for set_name, (start, length, sha256, *origin) in fields["rows"].items():
        if start < 0 or length < 0 or start + length > sets[set_name].rows:
            raise ValueError(f"rows {start} to {start + length} of {sets[set_name].rows}")
        spans[set_name] = Span(int(start), int(length), str(sha256), str(origin[0]) if origin else name)
    return VideoRecord(fields["info"], spans)


def record_path(root: Path, segment: str) -> Path:
    """Where the record of a segment stands."""
    return root / "commits" / f"{segment}.json"


def committed_names(root: Path) -> list[str]:
    """Names of all records that a directory listing shows, in order of their time."""
    with os.scandir(root / "commits") as entries:
        names = (entry.name[:-5] for entry in entries if entry.name.endswith(".json"))
        return sorted(name for name in names if is_segment_name(name))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of small objects that stay are made here: looking for garbage among them doubles the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def load_records(root: Path) -> list[Record | tuple[str, DamageError]]:
    """Every record of the store in order of time; for a bad one its name and what is wrong."""
    with _no_collection():
        return list(_records(root))


def _records(root: Path) -> Iterator[Record | tuple[str, DamageError]]:
    reader = RecordReader()
    folder = str(root / "commits")
    for name in committed_names(root):
        try:
            yield reader.parse(name, read_document(f"{folder}/{name}.json"))
        except FileNotFoundError:
            continue  # compaction took it away since the listing
        except DamageError as error:
            yield name, error
        except OSError as error:
            yield name, DamageError(f"unreadable: {error.strerror}")
