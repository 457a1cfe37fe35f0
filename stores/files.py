"""Reading files that may be hostile: regular files inside the store's own folder, and nothing else.

Of an object store ranges of objects are read, one request each; small objects are fetched whole, once.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from stores.errors import DamageError, StoreError
from stores.names import printable
from stores.remote import RemoteError, RemotePath

RECORD_LIMIT = 1 << 30  # bytes of one JSON document; a million videos need 200 MB
_SMALL_BYTES = 1 << 20  # metadata and times: a second request costs more than these bytes
_OPEN_FILES = 256  # under the 1024 descriptors that a process has by default


class ReadFile:
    """An open regular file; closes itself when the last user lets go, in whatever thread."""

    __slots__ = ("fd", "path", "size")

    def __init__(self, path: str) -> None:
        self.fd = -1
        # NOFOLLOW: a link may lead anywhere. NONBLOCK: a FIFO would wait for a writer for ever.
        self.fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        self.path = path
        status = os.fstat(self.fd)
        if not stat.S_ISREG(status.st_mode):
            raise DamageError(f"{printable(path)} is not a regular file.")
        self.size = status.st_size

    def close(self) -> None:
        """Give the descriptor back; reading after that is a bug."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    __del__ = close

    def read(self, length: int, offset: int = 0) -> bytes:
        """Exactly `length` bytes from `offset`; DamageError if the file ends before."""
        parts = []
        while length:
            part = os.pread(self.fd, length, offset)
            if not part:
                raise DamageError(f"{printable(self.path)} ends at byte {offset}. Run 'vl verify' on the store.")
            parts.append(part)
            offset += len(part)
            length -= len(part)
        return b"".join(parts)

    def read_into(self, out: NDArray[Any], offset: int) -> None:
        """Fill the contiguous array `out` with the bytes from `offset` on; DamageError if the file ends before."""
        done = os.preadv(self.fd, (out.data,), offset)
        if done == out.nbytes:
            return
        rest = out.reshape(-1).view("u1").data  # the kernel stops at 2 GiB a call
        while done < out.nbytes:
            part = os.preadv(self.fd, (rest[done:],), offset + done)
            if not part:
                raise DamageError(f"{printable(self.path)} ends at byte {offset + done}. Run 'vl verify' on the store.")
            done += part


class RemoteReadFile(ReadFile):
    """An object whose size is known from a listing."""

    __slots__ = ("_object", "_whole")

    def __init__(self, path: RemotePath, size: int) -> None:
        self.fd = -1
        self.path = str(path)
        self.size = size
        self._object = path
        self._whole: bytes | None = None

    def read(self, length: int, offset: int = 0) -> bytes:
        """Exactly `length` bytes from `offset`; DamageError if the object ends before."""
        if offset + length > self.size:
            raise self._short(self.size)
        if self.size <= _SMALL_BYTES:
            if self._whole is None:
                self._whole = self._fetch(self.size, 0)
            return self._whole[offset : offset + length]
        return self._fetch(length, offset)

    def read_into(self, out: NDArray[Any], offset: int) -> None:
        """Fill the contiguous array `out` with the bytes from `offset` on; DamageError if the object ends before."""
        if out.nbytes:
            out.reshape(-1).view("u1").data[:] = self.read(out.nbytes, offset)

    def _fetch(self, length: int, offset: int) -> bytes:
        try:
            data = self._object.read_range(offset, length) if length else b""
        except FileNotFoundError:
            raise _gone(self.path) from None
        except RemoteError:
            if self._object.is_file() and (size := self._object.stat().st_size) < offset + length:
                raise self._short(size) from None
            raise
        if len(data) != length:
            raise self._short(offset + len(data))
        return data

    def _short(self, size: int) -> DamageError:
        return DamageError(f"{printable(self.path)} ends at byte {size}. Run 'vl verify' on the store.")


def _gone(path: str) -> DamageError:
    return DamageError(
        f"{printable(path)} is gone: open the store again if it was compacted, else run 'vl verify' on it."
    )


def read_document(path: str) -> bytes:
    """The bytes of one small file; DamageError if it is no regular file or larger than any record of ours."""
    file = ReadFile(path)
    if file.size > RECORD_LIMIT:
        raise DamageError(f"{printable(path)} has {file.size} bytes, more than any record of a store.")
    return file.read(file.size)


class FilePool:
    """The open files of one store: some stay open, so that a random read costs one system call."""

    def __init__(self, root: Path) -> None:
        self.root = os.path.realpath(root)
        self._files: OrderedDict[str, ReadFile] = OrderedDict()

    def held(self, relative: str) -> ReadFile | None:
        """The file at `relative` if it was kept open."""
        return self._files.get(relative)

    def open(self, relative: str) -> ReadFile:
        """The file at `relative`; DamageError if it is missing, or if any link stands on the way to it."""
        path = os.path.join(self.root, relative)  # noqa: PTH118 (strings: this runs for every file of a store)
        if os.path.realpath(path) != path:
            raise DamageError(f"{printable(path)} is a link or leads through one; a store has none.")
        try:
            return ReadFile(path)
        except FileNotFoundError:
            raise _gone(path) from None
        except OSError as error:
            raise StoreError(f"cannot read {printable(path)}: {error.strerror}.") from error

    def keep(self, relative: str, file: ReadFile) -> None:
        """Hold `file` open for `held`; one that was held before may be let go."""
        while len(self._files) >= _OPEN_FILES:
            self._files.popitem(last=False)
        self._files[relative] = file

    def open_zarr(self, relative: str) -> Any:
        """The array at `relative` as zarr-python reads it."""
        import zarr

        return zarr.open_array(f"{self.root}/{relative}", mode="r", zarr_format=3)

    def close(self) -> None:
        """Let go of all files."""
        self._files.clear()


class RemotePool(FilePool):
    """The objects of one store: a listing for each segment gives their sizes, and none is asked for twice."""

    def __init__(self, root: RemotePath) -> None:
        self.root = str(root)
        self._store = root
        self._files: OrderedDict[str, ReadFile] = OrderedDict()
        self._sizes: dict[str, dict[str, int]] = {}

    def open(self, relative: str) -> ReadFile:
        """The object at `relative`; DamageError if it is missing."""
        segment = "/".join(relative.split("/", 2)[:2])
        if segment not in self._sizes:
            self._sizes[segment] = (self._store / segment).sizes()
        size = self._sizes[segment].get(relative[len(segment) + 1 :])
        if size is None:
            raise _gone(f"{self.root}/{relative}")
        return RemoteReadFile(self._store / relative, size)

    def open_zarr(self, relative: str) -> Any:
        """The array at `relative` as zarr-python reads it."""
        import zarr
        from zarr.storage import ObjectStore

        objects = ObjectStore(self._store.client, read_only=True)
        return zarr.open_array(objects, path=(self._store / relative).key, mode="r", zarr_format=3)


def file_pool(root: Path) -> FilePool:
    """The files of the store at `root`, here or on an object store."""
    return RemotePool(root) if isinstance(root, RemotePath) else FilePool(root)
