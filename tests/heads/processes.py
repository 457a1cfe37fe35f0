"""Several processes that train one run, as torchrun starts them, or started here without it, which is quicker."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone")
LIMIT_S = 240  # far beyond what a test takes: a deadlock fails instead of waiting for ever


def environment(**more: object) -> dict[str, str]:
    """Of a process that finds the project."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": path,
        **{name: str(value) for name, value in more.items()},
    }


def torchrun(
    place: Path, module: str, *words: object, processes: int = 2, restarts: int = 0
) -> subprocess.CompletedProcess[str]:
    """What `torchrun` does with a module and these words, on this machine alone."""
    launch = ("--nproc-per-node", processes, "--max-restarts", restarts, "-m", module, *words)
    return subprocess.run(
        [*TORCHRUN, *map(str, launch)],
        capture_output=True,
        text=True,
        cwd=place,
        env=environment(),
        timeout=LIMIT_S,
    )


@dataclass(frozen=True)
class Ended:
    """How one process ended."""

    code: int
    out: str
    err: str


def together(place: Path, module: str, *words: object, processes: int = 2) -> list[Ended]:
    """What so many processes do with a module and these words, by rank; nobody ends or restarts them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        own = environment(
            RANK=rank,
            LOCAL_RANK=rank,
            WORLD_SIZE=processes,
            LOCAL_WORLD_SIZE=processes,
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=port,
        )
        command: Sequence[str] = [sys.executable, "-m", module, *map(str, words)]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=place, env=own))
    try:
        found = [child.communicate(timeout=LIMIT_S) for child in started]
    finally:
        for child in started:
            child.kill()
    return [Ended(child.returncode, out, err) for child, (out, err) in zip(started, found, strict=True)]
