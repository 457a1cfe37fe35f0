"""Everything that changes the disk: every create, write, fsync, rename and removal of the project is here.

The order that makes a commit durable: write the files, fsync them, fsync their directories, write the
record to a temporary name, fsync it, rename it, fsync its directory. An fsync that failed is never tried again:
the kernel may have dropped the pages and the second call would lie.

On an object store (`stores.remote`) the order is the same and each step one request: a PUT is atomic, and durable when
it returns, so nothing is renamed, and there are no directories to make or to sync.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stores.errors import NoSpaceError, StoreError
from stores.names import printable
from stores.remote import REQUESTS, RemoteError, RemoteFile, RemotePath, is_remote

Data = bytes | NDArray[Any]  # arrays contiguous; their bytes count, whatever their dtype

SYNC_THREADS = 8
_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP}  # file systems that have no such thing keep entries anyhow


@contextmanager
def reporting(path: Path | str) -> Iterator[None]:
    """Turn what the operating system refuses into one line that the user can act on.

    Raises:
        NoSpaceError: the disk or the quota is full.
        StoreError: anything else, with the system's words.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in _FULL:
            raise NoSpaceError(
                f"no space for {printable(path)}: {reason}. What was committed is safe; "
                "make room and run the same command again."
            ) from error
        raise StoreError(f"cannot write {printable(path)}: {reason}.") from error


def _bytes(data: Data) -> memoryview:
    return memoryview(data) if isinstance(data, bytes) else data.reshape(-1).view("u1").data


class NewFile:
    """A file that did not exist, written from its start to its end, with its digest."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()
        self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    @property
    def sha256(self) -> str:
        """Of everything written so far."""
        return self._digest.hexdigest()

    def write(self, data: Data) -> None:
        """All of `data`."""
        assert self._fd is not None, f"{self.path} is closed"
        view = _bytes(data)
        self._digest.update(view)
        while view.nbytes:
            written = os.write(self._fd, view)
            self.size += written
            view = view[written:]

    def sync(self) -> None:
        """Make the bytes durable, and close; nothing happens if that was done before."""
        if self._fd is None:
            return
        os.fsync(self._fd)
        fd, self._fd = self._fd, None
        os.close(fd)

    def drop(self) -> None:
        """Close without a promise."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            with suppress(OSError):
                os.close(fd)


def new_file(path: Path) -> NewFile | RemoteFile:
    """A file that did not exist, here or on an object store."""
    return RemoteFile(path) if isinstance(path, RemotePath) else NewFile(path)


def sync_directory(path: Path) -> None:
    """Make the entries of the directory durable."""
    if is_remote(path):
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(fd)


def sync_tree(path: Path, files: Iterable[NewFile | RemoteFile]) -> None:
    """Make `files` durable, then the entries of `path` and of every directory below it.

    Several at a time: the disk writes its journal once for all that ask meanwhile, which is four times as fast.
    """
    if is_remote(path):
        with ThreadPoolExecutor(REQUESTS) as pool:
            list(pool.map(lambda file: file.sync(), files))
        return
    directories = [Path(directory) for directory, _, _ in os.walk(path, topdown=False)]
    with ThreadPoolExecutor(SYNC_THREADS) as pool:
        list(pool.map(lambda file: file.sync(), files))
        list(pool.map(sync_directory, directories))


def make_directory(path: Path) -> None:
    """A new directory; FileExistsError if there is one. The caller syncs the parent."""
    if is_remote(path):
        return
    os.mkdir(path)  # noqa: PTH102 (this module calls os alone, so that faults can be injected there)


def ensure_directory(path: Path) -> None:
    """`path` and its parents exist, durably, whoever made them."""
    if is_remote(path):
        return
    if not path.parent.is_dir():
        ensure_directory(path.parent)
    with suppress(FileExistsError):
        os.mkdir(path)  # noqa: PTH102
    sync_directory(path.parent)  # also if it was there: who made it may not have come to that


def temporary(path: Path) -> Path:
    """A name nobody else takes, beside `path`."""
    return path.with_name(f".{path.name[:200]}.{secrets.token_hex(6)}.tmp")


def write_atomically(path: Path, data: Data, *, cache: bool = False) -> None:
    """`path` holds `data`, durably, or is what it was before; readers see the one or the other.

    A cache may be what it was before even after a power cut.

    Raises:
        NoSpaceError: the disk or the quota is full.
        StoreError: the file cannot be written.
    """
    if isinstance(path, RemotePath):
        path.put(bytes(_bytes(data)))
        return
    with reporting(path):
        unfinished = temporary(path)
        file = NewFile(unfinished)
        try:
            file.write(data)
            file.sync()
            os.rename(unfinished, path)  # noqa: PTH104
        except BaseException:
            file.drop()
            drop_file(unfinished)
            raise
        if not cache:
            sync_directory(path.parent)


def write_new(path: Path, data: Data) -> None:
    """A file that did not exist, without a promise that it outlives a power cut.

    Raises:
        NoSpaceError: the disk or the quota is full.
        StoreError: the file cannot be written.
    """
    with reporting(path):
        file = NewFile(path)
        try:
            file.write(data)
        finally:
            file.drop()


def write_from(path: Path, data: Data, offset: int) -> None:
    """`path` holds its first `offset` bytes, then `data`, and nothing more; durable, but not at once.

    For files that can be made anew: an interruption may leave any part of `data`, and takes what lay behind `offset`.

    Raises:
        NoSpaceError: the disk or the quota is full.
        StoreError: the file cannot be written.
    """
    with reporting(path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            os.ftruncate(fd, offset)
            Update(fd).write_at(data, offset)
            os.fsync(fd)
        finally:
            os.close(fd)


def publish(unfinished: Path, final: Path) -> None:
    """Give the finished file `unfinished` the name `final` of the same directory, durably and at once.

    Raises:
        NoSpaceError: the disk or the quota is full; `final` is what it was before.
        StoreError: the file cannot be synced or renamed.
    """
    with reporting(final):
        fd = os.open(unfinished, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(unfinished, final)  # noqa: PTH104
        sync_directory(final.parent)


def rename_folder(folder: Path, name: str) -> None:
    """Give a folder, whose content is durable, another name in the same directory, durably and at once."""
    with reporting(folder):
        os.rename(folder, folder.with_name(name))  # noqa: PTH104
        sync_directory(folder.parent)


class Update:
    """A file that another library has laid out, open for bytes at known places."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def write_at(self, data: Data, offset: int) -> None:
        """All of `data`, from `offset` on."""
        view = _bytes(data)
        while view.nbytes:
            written = os.pwrite(self._fd, view, offset)
            offset += written
            view = view[written:]


@contextmanager
def open_for_update(path: Path) -> Iterator[Update]:
    """The file for writing inside it; durable only after `publish`."""
    fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield Update(fd)
    finally:
        os.close(fd)


def move(path: Path, directory: Path) -> None:
    """Bring a file or a directory into `directory` under its own name, durably; remotely a copy, then a removal."""
    if isinstance(path, RemotePath):
        path.remove(path.copy_below(directory))
        return
    with reporting(path):
        ensure_directory(directory)
        os.rename(path, directory / path.name)  # noqa: PTH104
        sync_directory(directory)
        sync_directory(path.parent)


def drop_file(path: Path) -> None:
    """Take away an unfinished file, as far as that is possible."""
    with suppress(OSError):
        os.unlink(path)  # noqa: PTH108


def remove_file(path: Path) -> None:
    """Take away one name, durably; nothing happens if it is not there."""
    if isinstance(path, RemotePath):
        path.remove([path])
        return
    with reporting(path):
        with suppress(FileNotFoundError):
            os.unlink(path)  # noqa: PTH108
        sync_directory(path.parent)


def remove_tree(path: Path) -> None:
    """Take away what no record names, as far as that is possible; what stays is an orphan."""
    if isinstance(path, RemotePath):
        with suppress(RemoteError):
            path.remove(path.rglob())
        return
    for directory, folders, names in os.walk(path, topdown=False):
        for name in [*folders, *names]:
            entry = Path(directory, name)
            with suppress(OSError):
                if entry.is_dir() and not entry.is_symlink():
                    os.rmdir(entry)  # noqa: PTH106
                else:
                    os.unlink(entry)  # noqa: PTH108
    with suppress(OSError):
        os.rmdir(path)  # noqa: PTH106
