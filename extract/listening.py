"""What a process and all below it listen on, as the kernel says (Linux): the claim that we open no port, checked."""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_LISTEN = "0A"  # TCP_LISTEN of include/net/tcp_states.h


class Listener(NamedTuple):
    """One open TCP port."""

    program: str
    pid: int
    address: str
    port: int

    def __str__(self) -> str:
        where = f"[{self.address}]" if ":" in self.address else self.address
        return f"{where}:{self.port} ({self.program}, process {self.pid})"

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        return ipaddress.ip_address(self.address).is_loopback


def listeners(pid: int) -> list[Listener]:
    """TCP ports that the process `pid` and its descendants listen on; none where there is no /proc.

    Source: proc(5), /proc/net/tcp: an address is hexadecimal words in the machine's byte order.
    """
    if not Path("/proc/net/tcp").exists():
        return []
    return sorted({found for process in [pid, *descendants(pid)] for found in _of_process(process)})


def descendants(pid: int) -> list[int]:
    """Process ids of the children of `pid`, their children, and so on."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = parents.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _of_process(pid: int) -> Iterator[Listener]:
    sockets = set()
    with suppress(OSError):  # the process has ended, or is not ours
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # this descriptor alone is closed
                if found := re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink())):
                    sockets.add(found[1])
        program = Path(f"/proc/{pid}/comm").read_text().strip()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and fields[9] in sockets:
                    address, port = fields[1].split(":")
                    yield Listener(program, pid, _address(address), int(port, 16))


def _address(text: str) -> str:
    words = [bytes.fromhex(text[at : at + 8]) for at in range(0, len(text), 8)]
    packed = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    address = ipaddress.ip_address(packed)
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)
