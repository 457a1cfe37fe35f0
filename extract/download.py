"""Published files in a cache: downloaded once over https, and used only with the digest that is known in advance.

Nothing here runs unless a caller asks for a file by name; with no network the error says what to fetch and where to
put it. A download that breaks off is resumed; several processes that want one file wait for the first.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import shutil
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from extract.state_dict import WeightsError
from stores.disk import ensure_directory, publish, remove_file
from stores.errors import NoSpaceError
from stores.names import printable

REACH_SECONDS = 2.0  # for name and connection: without a network the error shall come soon
READ_SECONDS = 20.0  # without a byte
BLOCK = 2**20  # bytes read at once
NETWORK = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, TimeoutError, ConnectionError)


@dataclass(frozen=True)
class PublishedFile:
    """A file that somebody else serves; without `sha256` it is never downloaded and never used from the cache."""

    filename: str
    url: str
    sha256: str | None = None
    size: int | None = None  # bytes


def cache_folder() -> Path:
    """$VL_CACHE, or ~/.cache/vl."""
    return Path(os.environ.get("VL_CACHE") or Path("~/.cache/vl").expanduser())


def fetch(
    file: PublishedFile,
    *,
    instead: str,
    report: Callable[[str], None] | None = None,
    trusted_http: str | None = None,
) -> tuple[Path, str]:
    """Where `file` lies in the cache, downloaded if need be, and its sha256, verified each time.

    Args:
        instead: what the user can do otherwise, for the message: "give --weights i3d=PATH".
        report: is told once, if a download starts.
        trusted_http: a host that may be asked without encryption; for tests on 127.0.0.1.

    Raises:
        WeightsError: no network, another file than the expected one, or no digest is known.
        NoSpaceError: the disk is full; what has arrived is kept for the next try.
    """
    if file.sha256 is None or file.size is None:
        raise WeightsError(
            f"no digest of {file.filename} is known, so it is not downloaded. "
            f"Fetch it from {file.url} yourself and {instead}; its sha256 is recorded."
        )
    folder = cache_folder()
    final = folder / file.filename
    if not final.exists():
        try:
            ensure_directory(folder)
            with locked(folder / f"{file.filename}.lock"):
                if not final.exists():  # another process may have brought it while this one waited
                    download(file, final, advice(file, final, instead), report, trusted_http)
        except OSError as error:
            raise disk_error(error, final) from error
    verify(final, file, instead)
    return final, file.sha256


def advice(file: PublishedFile, final: Path, instead: str) -> str:
    return (
        f"Fetch {file.filename} ({file.size:,} bytes, sha256 {file.sha256}) from {file.url} "
        f"and put it at {printable(final)}, or {instead}."
    )


def verify(path: Path, file: PublishedFile, instead: str) -> None:
    """A file is used only if it is the published one, whoever put it there."""
    if not path.is_file():
        raise WeightsError(f"{printable(path)} is no regular file. Remove it, or {instead}.")
    found = file_sha256(path)
    if found != file.sha256:
        raise WeightsError(
            f"{printable(path)} is not the published {file.filename}: its sha256 is {found}, not {file.sha256}. "
            f"Remove it and run again, or {instead}."
        )


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def download(
    file: PublishedFile,
    final: Path,
    advised: str,
    report: Callable[[str], None] | None,
    trusted_http: str | None,
) -> None:
    """Brings `file` to `final`, resuming a `.part`; a resumed file that proves wrong is fetched again whole."""
    assert file.size is not None
    assert file.sha256 is not None
    part = final.with_name(f"{final.name}.{file.sha256[:12]}.part")
    check_scheme(file.url, trusted_http)
    check_reach(file.url, advised)
    have = part.stat().st_size if part.exists() else 0
    free = shutil.disk_usage(final.parent).free
    if free < file.size - have:
        raise NoSpaceError(f"{file.filename} needs {file.size - have:,} bytes in {final.parent}; {free:,} are free.")
    if report:
        report(f"downloading {file.filename} ({file.size / 1e6:.0f} MB) from {urlsplit(file.url).hostname}")
    while True:
        resumed = part.exists() and part.stat().st_size > 0
        try:
            found = receive(file, part, trusted_http)
        except NETWORK as error:
            if isinstance(error, urllib.error.HTTPError):
                error.close()
            raise WeightsError(f"{file.filename} did not arrive: {printable(error)}. {advised}") from error
        if found == file.sha256:
            publish(part, final)
            return
        remove_file(part)
        if not resumed:
            raise WeightsError(
                f"{file.url} serves another file than expected: its sha256 is {found}, not {file.sha256}. "
                "Nothing was kept."
            )


def receive(file: PublishedFile, part: Path, trusted_http: str | None) -> str:
    """Appends what `part` lacks and gives the sha256 of the whole."""
    assert file.size is not None
    digest = hashlib.sha256()
    with part.open("a+b") as out:
        out.seek(0)
        while block := out.read(BLOCK):
            digest.update(block)
        have = out.tell()
        if have >= file.size:
            return digest.hexdigest()
        with open_url(file.url, have, trusted_http) as response:
            if have and response.status != http.client.PARTIAL_CONTENT:  # the server sends it from the start
                out.truncate(0)
                digest, have = hashlib.sha256(), 0
            while block := response.read(BLOCK):
                have += len(block)
                if have > file.size:
                    break  # more than the file has: it cannot be the right one
                digest.update(block)
                out.write(block)
    if have > file.size:
        remove_file(part)
        raise WeightsError(f"{file.url} sends more than the {file.size:,} bytes expected. Nothing was kept.")
    if have < file.size:
        raise ConnectionError(f"it ended after {have:,} bytes, which are kept: run again to go on")
    return digest.hexdigest()


@contextmanager
def open_url(url: str, start: int, trusted_http: str | None) -> Iterator[http.client.HTTPResponse]:
    """The response to a request for the bytes from `start` on."""
    headers = {"User-Agent": "vl"} | ({"Range": f"bytes={start}-"} if start else {})
    opener = urllib.request.build_opener(CheckedRedirects(trusted_http))
    with opener.open(urllib.request.Request(url, headers=headers), timeout=READ_SECONDS) as response:  # noqa: S310
        yield response


class CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where a first request might go."""

    def __init__(self, trusted_http: str | None) -> None:
        self.trusted_http = trusted_http

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            check_scheme(newurl, self.trusted_http)
        except WeightsError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def check_scheme(url: str, trusted_http: str | None) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname == trusted_http):
        raise WeightsError(f"weights come over https alone, not from {printable(url)}.")


def check_reach(url: str, advised: str) -> None:
    """Fails within REACH_SECONDS where there is no network; looking a name up has no time limit of its own."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or http.client.HTTPS_PORT
    if urllib.request.getproxies().get(parts.scheme) and not urllib.request.proxy_bypass(host):
        return  # the proxy reaches it, or says why not
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=REACH_SECONDS).close()
            outcome.append("")
        except OSError as error:
            outcome.append(f" ({error.strerror or error})")

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    reason = outcome[0] if outcome else f" (no answer in {REACH_SECONDS:.0f} s)"
    if reason:
        raise WeightsError(f"{host} cannot be reached{reason}. {advised}")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """One process at a time; the others wait. File systems without locks go without: digests catch a mix-up."""
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        yield


def disk_error(error: OSError, final: Path) -> NoSpaceError | WeightsError:
    place = printable(final.parent)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NoSpaceError(f"{place} is full: {final.name} does not fit. Make room, or set VL_CACHE elsewhere.")
    return WeightsError(f"{place} cannot be used: {error.strerror or error}. Set VL_CACHE to another folder.")
