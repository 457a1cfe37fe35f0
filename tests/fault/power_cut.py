"""A disk that loses power: what may be on it afterwards, for a recorded sequence of system calls.

The model promises as little as POSIX does. The bytes of a write are durable once an fsync of their file has returned;
a name (made, renamed or removed) once an fsync of its directory has. Of all other changes any subset may have reached
the disk, in any order, a write also in part. A rename inside one directory reaches it whole or not at all, as on every
file system with a journal; a write that was lost before one that was kept leaves zeros.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stores import disk
from tests.fault.faults import Crash


class Event(NamedTuple):
    """One change, or one promise: `create`, `write`, `fsync`, `mkdir`, `rename`, `unlink`, `rmdir`, `acknowledge`."""

    name: str
    path: Path = Path()
    data: Any = None  # the bytes of a write, the new path of a rename, what was acknowledged


class Recorder:
    """Stands in for the module `os` in `stores.disk`, and writes down what is done to the disk."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.crash_at: int | None = None  # the process is gone before it makes the event of this number
        self._paths: dict[int, Path] = {}  # by file descriptor
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _live(self) -> None:
        if self.crash_at is not None and len(self.events) >= self.crash_at:
            raise Crash

    def note(self, name: str, path: Path | str = "", data: Any = None) -> None:
        with self._lock:
            self.events.append(Event(name, Path(path), data))

    def acknowledge(self, videos: list[tuple[str, str]]) -> None:
        self.note("acknowledge", data=list(videos))

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        self._live()
        fd = os.open(path, flags, mode)
        self._paths[fd] = path
        if flags & os.O_CREAT:
            self.note("create", path)
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        self._live()
        self.note("write", self._paths[fd], bytes(data))
        return os.write(fd, data)

    def fsync(self, fd: int) -> None:
        self._live()
        self.note("fsync", self._paths[fd])  # the test does not wait for the real disk

    def mkdir(self, path: Path) -> None:
        self._live()
        os.mkdir(path)  # noqa: PTH102 (what `stores.disk` calls, and nothing else)
        self.note("mkdir", path)

    def rename(self, old: Path, new: Path) -> None:
        self._live()
        assert old.parent == new.parent, "the model knows renames inside one directory"
        os.rename(old, new)  # noqa: PTH104
        self.note("rename", old, new)

    def unlink(self, path: Path) -> None:
        self._live()
        os.unlink(path)  # noqa: PTH108
        self.note("unlink", path)

    def rmdir(self, path: Path) -> None:
        self._live()
        os.rmdir(path)  # noqa: PTH106
        self.note("rmdir", path)


@contextmanager
def recording() -> Iterator[Recorder]:
    """Within the block everything that `stores.disk` does is recorded, call after call."""
    recorder = Recorder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "os", recorder)
        patch.setattr(disk, "SYNC_THREADS", 1)  # the same order every time
        yield recorder


@dataclass
class File:
    """Its writes in order, the first `synced` of which are durable."""

    writes: list[bytes] = field(default_factory=list)
    synced: int = 0


@dataclass
class Folder:
    """Its entries now, and the changes that led to them, the first `synced` of which are durable."""

    entries: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[dict[str, File | Folder | None]] = field(default_factory=list)
    synced: int = 0

    def change(self, entries: dict[str, File | Folder | None]) -> None:
        """Make one change; None takes a name away."""
        self.changes.append(entries)
        apply(self.entries, entries)


def apply(entries: dict[str, File | Folder], change: dict[str, File | Folder | None]) -> None:
    for name, node in change.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def replay(events: Sequence[Event], root: Path) -> Folder:
    """The disk below the folder `root`, which was there and empty, after `events`."""
    top = Folder()

    def at(path: Path) -> File | Folder:
        node: File | Folder = top
        for name in path.relative_to(root).parts:
            assert isinstance(node, Folder)
            node = node.entries[name]
        return node

    for name, path, data in events:
        if name == "acknowledge":
            continue
        if name == "fsync":
            if path == root or root in path.parents:  # what lies above was there before
                node = at(path)
                node.synced = len(node.writes if isinstance(node, File) else node.changes)
            continue
        if name == "write":
            file = at(path)
            assert isinstance(file, File)
            file.writes.append(data)
            continue
        folder = at(path.parent)
        assert isinstance(folder, Folder)
        if name in {"create", "mkdir"}:
            folder.change({path.name: File() if name == "create" else Folder()})
        elif name == "rename":
            folder.change({path.name: None, data.name: at(path)})
        else:
            assert name in {"unlink", "rmdir"}, name
            folder.change({path.name: None})
    return top


# How much of a change reached the disk, by its kind (`write`, `make`, `remove`) and the file or folder that it changes.
Kept = Callable[[str, Path], float]


def build(node: File | Folder, path: Path, kept: Kept) -> None:
    """Make at `path` what the disk may hold; of each change that is not durable `kept` says how much is there."""
    if isinstance(node, File):
        data, size = bytearray(), 0
        for number, written in enumerate(node.writes):
            part = len(written) if number < node.synced else int(kept("write", path) * len(written))
            if part:
                data += bytes(size - len(data)) + written[:part]
            size += len(written)
        path.write_bytes(data)
        return
    entries: dict[str, File | Folder] = {}
    for number, change in enumerate(node.changes):
        kind = "make" if any(change.values()) else "remove"
        if number < node.synced or kept(kind, path) >= 0.5:
            apply(entries, change)
    path.mkdir()
    for name, child in entries.items():
        build(child, path / name, kept)
