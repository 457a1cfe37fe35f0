"""Without `--engine ray` nothing of ours listens anywhere."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from extract.listening import Listener, descendants, listeners
from extract.synthetic import generate

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the kernel shows no sockets in /proc")


@pytest.mark.parametrize(
    ("family", "address", "loopback"),
    [(socket.AF_INET, "127.0.0.1", True), (socket.AF_INET, "0.0.0.0", False), (socket.AF_INET6, "::1", True)],
)
def test_an_open_port_of_a_child_is_seen(family: socket.AddressFamily, address: str, loopback: bool) -> None:
    if family == socket.AF_INET6 and not Path("/proc/net/if_inet6").read_text().strip():
        pytest.skip("no IPv6 here")
    code = (
        f"import socket; s = socket.socket({int(family)}); s.bind(({address!r}, 0)); s.listen()\n"
        "print(s.getsockname()[1], flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        found = [listener for listener in listeners(os.getpid()) if listener.pid == child.pid]
        assert [(listener.address, listener.port, listener.loopback) for listener in found] == [
            (address, port, loopback)
        ]
        child.communicate(b"\n")
    assert not [listener for listener in listeners(os.getpid()) if listener.pid == child.pid]


def test_loopback_in_the_clothes_of_ipv6() -> None:
    with socket.socket(socket.AF_INET6) as open_port:
        open_port.bind(("::ffff:127.0.0.1", 0))
        open_port.listen()
        port = open_port.getsockname()[1]
        (found,) = [listener for listener in listeners(os.getpid()) if listener.port == port]
    assert (found.address, found.loopback) == ("127.0.0.1", True)


def test_a_plain_extraction_listens_nowhere(tmp_path: Path) -> None:
    generate(tmp_path / "videos", clips=6, seconds=4.0, seed=1, size=(64, 64))
    words = [sys.executable, "-m", "cli.main", "extract", "--backbone", "logmel", "videos"]
    seen: set[Listener] = set()
    decoding = 0
    with (tmp_path / "said").open("wb") as said:
        run = subprocess.Popen(words, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=said)
        while run.poll() is None:
            seen |= set(listeners(run.pid))
            decoding += len(descendants(run.pid)) > 0
            time.sleep(0.01)
    assert run.returncode == 0, (tmp_path / "said").read_text()
    assert decoding, "it was never looked at while the decoders ran"
    assert not seen
