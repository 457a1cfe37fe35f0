"""Stores on an object store: `s3://bucket/features.zarr`, and `gs://` and `az://` in the same way.

A `RemotePath` answers what the readers and writers of a store ask of a `Path`; `stores.disk` and `stores.files` see
which of the two they were given, and the rule of commits is the same for both. What differs: a PUT is atomic, and
durable when it returns, so that nothing is renamed or synced, and a folder exists while an object lies below it.
Anything else that the standard library does with a path (open, mkdir, link) is refused: such a path has no place on
this machine.

Credentials and the endpoint come from the environment (`AWS_*`, `GOOGLE_*`, `AZURE_*`) or from the machine's role. They
are handed to the client by itself; nothing here reads or prints them.

Source: the package obstore, a binding of Apache Arrow's object_store.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat as modes
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PosixPath
from typing import TYPE_CHECKING, Any, NoReturn

from stores.errors import StoreError, VlError
from stores.names import printable

if TYPE_CHECKING:
    from obstore import WritableFile
    from obstore.store import ObjectStore

SCHEMES = ("s3", "gs", "az", "memory")  # memory: of this process, for tests
ENDPOINTS = {  # where each kind is told to look for a server of one's own
    "s3": ("AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
REQUESTS = 32  # at a time: an object store answers each in tens of milliseconds, and as many as one asks
PART_BYTES = 16 << 20  # larger objects go up in parts while they are written
TRIES = 5
TRY_SECONDS = 60
_URL = re.compile(r"([a-z][a-z0-9+.-]+):/+([^/].*)")


class RemoteError(VlError):
    """An object store cannot be reached, or refuses; what was committed is safe, the same command goes on."""


def as_path(path: Path | str) -> Path:
    """`path` as a Path of this machine, or a RemotePath for a URL, even where a plain Path has swallowed a slash.

    Raises:
        StoreError: a URL of another kind, without a bucket, or with a password in it.
    """
    if isinstance(path, RemotePath):
        return path
    found = _URL.fullmatch(str(path))
    if found is None:
        return Path(path)
    scheme, rest = found.groups()
    if scheme not in SCHEMES:
        raise StoreError(
            f"{scheme}:// is no place for a store; those that are not on this machine are s3://, gs://, az://."
        )
    if "@" in rest.split("/", maxsplit=1)[0]:
        raise StoreError(
            f"{scheme}://... has a name or a password in it: give them in the environment (AWS_ACCESS_KEY_ID)."
        )
    return RemotePath(f"{scheme}:/{rest}")


def local_path(path: Path | str) -> Path:
    """`path` itself; StoreError for a URL, where only a folder of this machine will do."""
    found = as_path(path)
    if is_remote(found):
        raise StoreError(
            f"{printable(found)} is not on this machine: only stores NAME.zarr may lie there. Give a local path."
        )
    return found


def is_remote(path: Path) -> bool:
    """Whether `path` lies on an object store."""
    return isinstance(path, RemotePath)


@lru_cache(maxsize=64)
def _connect(bucket: str, endpoint: str | None) -> ObjectStore:
    """The client of one bucket; it is safe in threads, and reads the environment itself."""
    plain = endpoint is not None and endpoint.startswith("http://")
    with talking(bucket):
        from obstore.store import MemoryStore, from_url

        if bucket.startswith("memory:"):
            return MemoryStore()
        return from_url(
            bucket,
            client_options={"connect_timeout": "10s", "timeout": f"{TRY_SECONDS}s", "allow_http": plain},
            retry_config={"max_retries": TRIES, "retry_timeout": timedelta(seconds=TRY_SECONDS)},
        )


@contextmanager
def talking(what: object) -> Iterator[None]:
    """Turn what the object store answers into one line; FileNotFoundError stays what it is.

    Raises:
        RemoteError: it cannot be reached, or does not let us.
        StoreError: the package that speaks to object stores is not installed.
    """
    try:
        from obstore.exceptions import BaseError
    except ImportError as error:
        raise StoreError(f"{printable(what)} needs the package obstore: pip install 'vl[remote]'.") from error
    try:
        yield
    except FileNotFoundError:
        raise
    except (BaseError, OSError) as error:
        raise RemoteError(f"{printable(what)}: {_reason(str(error))}. What was committed is safe.") from None


def _reason(text: str) -> str:
    """The part of a client's message that tells a user something: its first line, or the server's own words."""
    code, message = (re.search(f"<{tag}>(.*?)</{tag}>", text) for tag in ("Code", "Message"))
    if code is not None:
        text = code[1] + (f": {message[1]}" if message is not None else "")
    return printable(text.strip().splitlines()[0][:300].rstrip(". ") if text.strip() else "no answer")


class RemotePath(PosixPath):
    """The URL of an object, or of all objects below a prefix.

    Only what a store asks is answered; all else goes through `__fspath__` and is refused.
    """

    def __str__(self) -> str:
        found = _URL.fullmatch(super().__str__())
        return super().__str__() if found is None else f"{found[1]}://{found[2]}"

    def __repr__(self) -> str:
        return f"RemotePath('{self}')"

    def __fspath__(self) -> NoReturn:
        raise StoreError(f"{printable(self)} is not on this machine, and this needs a file that is: give a local path.")

    def __reduce__(self) -> Any:
        return as_path, (str(self),)

    @property
    def client(self) -> ObjectStore:
        """The client of the bucket."""
        scheme = self.parts[0].rstrip(":")
        endpoint = next((os.environ[name] for name in ENDPOINTS.get(scheme, ()) if name in os.environ), None)
        return _connect(f"{scheme}://{self.parts[1]}", endpoint)

    @property
    def key(self) -> str:
        """Name of the object inside its bucket; empty for the bucket itself."""
        return "/".join(self.parts[2:])

    # What pathlib answers from the disk.

    def absolute(self) -> RemotePath:
        return self

    def resolve(self, strict: bool = False) -> RemotePath:
        return self

    def is_symlink(self) -> bool:
        return False

    def is_file(self, **_: Any) -> bool:
        return self._head() is not None

    def is_dir(self, **_: Any) -> bool:
        return next(self._pages(1), None) is not None

    def exists(self, **_: Any) -> bool:
        return self.is_file() or self.is_dir()

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """Size and time of an object; FileNotFoundError if there is none."""
        found = self._head()
        if found is None:
            raise FileNotFoundError(f"there is no object {printable(self)}")
        at = found["last_modified"].timestamp()
        return os.stat_result((modes.S_IFREG | 0o444, 0, 0, 1, 0, 0, found["size"], at, at, at))

    def lstat(self) -> os.stat_result:
        return self.stat()

    def iterdir(self) -> Iterator[RemotePath]:  # type: ignore[override]
        """Objects and prefixes right below, in order; none if nothing is there."""
        with talking(self):
            listed = self.client.list_with_delimiter(self.key or None)
        names = [*listed["common_prefixes"], *(entry["path"] for entry in listed["objects"])]
        yield from (self / name.rsplit("/", 1)[-1] for name in sorted(names) if name != self.key)

    def glob(self, pattern: str, **_: Any) -> Iterator[RemotePath]:  # type: ignore[override]
        """Entries right below whose names match."""
        return (entry for entry in self.iterdir() if fnmatch.fnmatchcase(entry.name, pattern))

    def rglob(self, pattern: str = "*", **_: Any) -> Iterator[RemotePath]:  # type: ignore[override]
        """Every object below whose name matches."""
        found = (self / key for key in self.sizes())
        return (path for path in found if fnmatch.fnmatchcase(path.name, pattern))

    def read_bytes(self) -> bytes:
        """The whole object; FileNotFoundError if there is none."""
        with talking(self):
            return bytes(self.client.get(self.key).bytes())

    # What only an object store does.

    def sizes(self) -> dict[str, int]:
        """Bytes of every object below, by the rest of its name; one request for a thousand objects."""
        skip = len(self.key) + 1
        return {entry["path"][skip:]: entry["size"] for page in self._pages(1000) for entry in page}

    def read_range(self, start: int, length: int) -> bytes:
        """Bytes from `start`; fewer than `length` if the object ends before."""
        with talking(self):
            return bytes(self.client.get_range(self.key, start=start, length=length))

    def put(self, data: bytes) -> None:
        """The object is `data`, durably and at once, or what it was before."""
        with talking(self):
            self.client.put(self.key, data)

    def copy_below(self, directory: Path) -> list[RemotePath]:
        """Copy the object, or all below the prefix, into `directory` under its own name; what was copied."""
        assert isinstance(directory, RemotePath), "a store moves nothing to another place"
        names = [self / key for key in self.sizes()] or [self]
        with talking(self):
            for path in names:
                self.client.copy(path.key, (directory / self.name / path.relative_to(self)).key)
        return names

    def remove(self, paths: Iterable[Path]) -> None:
        """Take away these objects of the same bucket; it is no error if one is not there."""
        keys = [path.key for path in paths if isinstance(path, RemotePath)]
        with talking(self), suppress(FileNotFoundError):
            if keys:
                self.client.delete(keys)

    def _head(self) -> Any:
        try:
            with talking(self):
                return self.client.head(self.key) if self.key else None
        except FileNotFoundError:
            return None

    def _pages(self, size: int) -> Iterator[Any]:
        with talking(self):
            yield from (page for page in self.client.list(self.key or None, chunk_size=size) if page)


def read_all(paths: Iterable[Path]) -> Iterator[bytes | FileNotFoundError]:
    """The bytes of many small objects in order, several requests at a time."""

    def read(path: Path) -> bytes | FileNotFoundError:
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            return error

    with ThreadPoolExecutor(REQUESTS) as pool:
        yield from pool.map(read, paths)


class RemoteFile:
    """An object that is being written, from its start to its end; nobody sees it before `sync`."""

    def __init__(self, path: RemotePath) -> None:
        self.path = path
        self.size = 0
        self._digest = hashlib.sha256()
        self._waiting: bytearray | None = bytearray()
        self._upload: WritableFile | None = None

    @property
    def sha256(self) -> str:
        """Of everything written so far."""
        return self._digest.hexdigest()

    def write(self, data: Any) -> None:
        """All of `data`; what is large goes up in parts."""
        assert self._waiting is not None, f"{self.path} is closed"
        view = memoryview(data) if isinstance(data, bytes) else data.reshape(-1).view("u1").data
        self._digest.update(view)
        self._waiting += view
        self.size += view.nbytes
        if len(self._waiting) >= PART_BYTES:
            with talking(self.path):
                if self._upload is None:
                    from obstore import open_writer

                    self._upload = open_writer(self.path.client, self.path.key, buffer_size=PART_BYTES)
                self._upload.write(bytes(self._waiting))
            self._waiting = bytearray()

    def sync(self) -> None:
        """The object is there, durably, when this returns; nothing happens if that was done before."""
        waiting, self._waiting = self._waiting, None
        if waiting is None:
            return
        if self._upload is None:
            self.path.put(bytes(waiting))
            return
        with talking(self.path):
            self._upload.write(bytes(waiting))
            self._upload.close()

    def drop(self) -> None:
        """Leave it: parts that went up never become an object."""
        self._waiting = self._upload = None
