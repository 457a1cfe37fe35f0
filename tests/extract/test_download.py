"""Downloads against a server on this machine: only the expected bytes ever get a name in the cache."""

import errno
import hashlib
import http.server
import io
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from extract import download
from extract.download import PublishedFile, fetch
from extract.state_dict import WeightsError
from stores.errors import NoSpaceError

CONTENT = bytes(range(256)) * 5000
DIGEST = hashlib.sha256(CONTENT).hexdigest()
HOST = "127.0.0.1"


class Asked(NamedTuple):
    path: str
    range: str | None


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT under paths that say how."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__((HOST, 0), Handler)
        self.asked: list[Asked] = []
        self.breaks_after: int | None = None  # bytes; the next response only

    def url(self, path: str) -> str:
        return f"http://{HOST}:{self.server_address[1]}/{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(Asked(self.path, self.headers["Range"]))
        if self.path == "/missing":
            self.send_error(404)
            return
        if self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
            return
        content = {"/flipped": CONTENT[:-1] + b"!", "/long": CONTENT * 2, "/short": CONTENT[:-9]}.get(
            self.path, CONTENT
        )
        start = 0
        if self.headers["Range"] and self.path != "/no-range":
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        stop, self.server.breaks_after = self.server.breaks_after, None
        self.wfile.write(content[start:][:stop])

    def log_message(self, *arguments: object) -> None:
        """Nothing: the log is no part of a test's output."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("VL_CACHE", str(tmp_path / "cache" / "vl"))
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(proxy, raising=False)
        monkeypatch.delenv(proxy.upper(), raising=False)
    return tmp_path / "cache" / "vl"


def published(url: str, sha256: str | None = DIGEST, size: int | None = len(CONTENT)) -> PublishedFile:
    return PublishedFile("w.pt", url, sha256, size)


def get(url: str, sha256: str | None = DIGEST, size: int | None = len(CONTENT)) -> Path:
    path, digest = fetch(published(url, sha256, size), instead="give --weights net=PATH", trusted_http=HOST)
    assert digest == sha256
    return path


def names(cache: Path) -> set[str]:
    """What a download left, but for the lock."""
    return {path.name for path in cache.iterdir()} - {"w.pt.lock"}


def part(cache: Path) -> Path:
    return cache / f"w.pt.{DIGEST[:12]}.part"


def test_a_file_is_downloaded_once(server: Server, cache: Path) -> None:
    assert get(server.url("w")) == cache / "w.pt"
    assert (cache / "w.pt").read_bytes() == CONTENT
    assert get(server.url("w")) == cache / "w.pt"
    assert server.asked == [Asked("/w", None)]
    assert names(cache) == {"w.pt"}


def test_the_caller_is_told_when_a_download_starts(server: Server) -> None:
    said: list[str] = []
    for _ in range(2):
        fetch(published(server.url("w")), instead="-", report=said.append, trusted_http=HOST)
    assert said == ["downloading w.pt (1 MB) from 127.0.0.1"]


def test_a_flipped_byte_is_refused_and_nothing_kept(server: Server, cache: Path) -> None:
    with pytest.raises(WeightsError, match="serves another file than expected") as caught:
        get(server.url("flipped"))
    assert DIGEST in str(caught.value)
    assert names(cache) == set()


def test_more_bytes_than_expected_are_refused(server: Server, cache: Path) -> None:
    with pytest.raises(WeightsError, match="sends more than the 1,280,000 bytes"):
        get(server.url("long"))
    assert names(cache) == set()


def test_fewer_bytes_than_expected_are_an_error_and_kept(server: Server, cache: Path) -> None:
    with pytest.raises(WeightsError, match=r"ended after 1,279,991 bytes, which are kept: run again") as caught:
        get(server.url("short"))
    assert "--weights net=PATH" in str(caught.value)
    assert names(cache) == {part(cache).name}


def test_a_broken_download_is_resumed_where_it_ended(server: Server, cache: Path) -> None:
    server.breaks_after = 300_000
    with pytest.raises(WeightsError, match="ended after 300,000 bytes"):
        get(server.url("w"))
    assert get(server.url("w")).read_bytes() == CONTENT
    assert server.asked == [Asked("/w", None), Asked("/w", "bytes=300000-")]
    assert names(cache) == {"w.pt"}


def test_a_server_that_cannot_resume_sends_it_again(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    part(cache).write_bytes(CONTENT[:1000])
    assert get(server.url("no-range")).read_bytes() == CONTENT


@pytest.mark.parametrize("leftover", [b"x" * 1000, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 5)])
def test_a_wrong_leftover_is_fetched_again_whole(server: Server, cache: Path, leftover: bytes) -> None:
    cache.mkdir(parents=True)
    part(cache).write_bytes(leftover)
    assert get(server.url("w")).read_bytes() == CONTENT
    assert server.asked[-1] == Asked("/w", None)


def test_a_whole_leftover_needs_no_download(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    part(cache).write_bytes(CONTENT)
    assert get(server.url("w")).read_bytes() == CONTENT
    assert server.asked == []


def test_a_redirect_to_where_one_may_ask_is_followed(server: Server) -> None:
    assert get(server.url(f"to/{server.url('w')}")).read_bytes() == CONTENT


@pytest.mark.parametrize("target", ["http://example.org/w", "file:///etc/passwd", "ftp://127.0.0.1/w"])
def test_a_redirect_to_elsewhere_is_refused(server: Server, cache: Path, target: str) -> None:
    with pytest.raises(WeightsError, match=f"https alone, not from {target}|'{target}' is not allowed"):
        get(server.url(f"to/{target}"))
    assert not (cache / "w.pt").exists()


@pytest.mark.parametrize("url", ["http://example.org/w", "file:///etc/passwd", "ftp://example.org/w"])
def test_only_https_is_asked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(WeightsError, match="weights come over https alone"):
        fetch(published(url), instead="-")


def test_a_server_that_does_not_have_it_is_one_line(server: Server) -> None:
    with pytest.raises(WeightsError, match=r"w.pt did not arrive: HTTP Error 404") as caught:
        get(server.url("missing"))
    assert f"sha256 {DIGEST}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_a_known_digest_nothing_is_asked(server: Server) -> None:
    with pytest.raises(WeightsError, match=r"no digest of w.pt is known, so it is not downloaded"):
        get(server.url("w"), sha256=None, size=None)
    assert server.asked == []


def test_a_file_that_the_user_put_there_is_used_if_it_is_the_published_one(server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "w.pt").write_bytes(CONTENT)
    assert get(server.url("w")) == cache / "w.pt"
    (cache / "w.pt").write_bytes(CONTENT[::-1])
    with pytest.raises(WeightsError, match=r"w.pt is not the published w.pt: its sha256 is") as caught:
        get(server.url("w"))
    assert "Remove it and run again, or give --weights net=PATH" in str(caught.value)
    assert server.asked == []


def test_a_folder_in_the_place_of_the_file_is_said(server: Server, cache: Path) -> None:
    (cache / "w.pt").mkdir(parents=True)
    with pytest.raises(WeightsError, match="no regular file"):
        get(server.url("w"))


def test_no_network_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking the name up may take longer than any timeout of a socket."""
    released = threading.Event()

    def hang(*arguments: object, **options: object) -> None:
        released.wait(30)
        raise OSError("too late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    start = time.perf_counter()
    with pytest.raises(WeightsError, match=r"example.org cannot be reached \(no answer in 2 s\). Fetch w.pt"):
        fetch(published("https://example.org/w"), instead="-")
    assert time.perf_counter() - start < 4
    released.set()


def test_a_full_disk_is_said_before_the_download(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(NoSpaceError, match=r"needs 1,280,000 bytes .* 1,000 are free") as caught:
        get(server.url("w"))
    assert (caught.value.exit_code, server.asked) == (6, [])


class FullDisk(io.FileIO):
    """Takes half of what comes."""

    def write(self, data: object) -> int:
        if self.tell() > len(CONTENT) // 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(memoryview(data)[: len(CONTENT) // 2 + 1])  # type: ignore[arg-type]


def test_a_disk_that_fills_up_is_no_space_and_what_came_is_kept(
    server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode: FullDisk(self, mode.replace("b", "")))
        with pytest.raises(NoSpaceError, match="is full"):
            get(server.url("w"))
    assert names(cache) == {part(cache).name}
    assert get(server.url("w")).read_bytes() == CONTENT
    assert server.asked[1] == Asked("/w", f"bytes={len(CONTENT) // 2 + 1}-")


def test_a_cache_that_cannot_be_written_is_said(server: Server, cache: Path) -> None:
    cache.parent.mkdir()
    cache.write_text("a file")
    with pytest.raises(WeightsError, match="VL_CACHE"):
        get(server.url("w"))


def test_processes_that_want_one_file_download_it_once(server: Server) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: get(server.url("w")), range(4)))
    assert paths[0].read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_a_proxy_is_not_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", f"http://{HOST}:9")
    with pytest.raises(WeightsError, match="did not arrive"):
        fetch(published("https://example.org/w"), instead="-")


def test_the_cache_is_below_home_unless_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("VL_CACHE")
    assert download.cache_folder() == tmp_path / ".cache" / "vl"
