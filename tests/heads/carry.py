"""One of several processes that carry out runs in turn: `python -m tests.heads.carry [--say FILE] RUN[@STEP] ...`.

At the update STEP of a run process 1 is killed, once. Networks are narrow. A run that is finished is left alone.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch

from cli.finetune_videos import Asked, open_videos
from heads.checkpoint import read_config, write_json
from heads.clip_windows import Videos
from heads.ranks import Ranks, joined
from heads.run import carry_out
from tests.extract import narrow
from tests.heads.feature_stores import Silent

CPU = torch.device("cpu")


class Dies(Silent):
    """Kills this process at an update, unless it did so before."""

    def __init__(self, run: Path, at: int) -> None:
        super().__init__()
        self.died, self.at = run / "died", at

    def step(self, done: int, total: int) -> None:
        if os.environ["RANK"] == "1" and done == self.at and not self.died.exists():
            self.died.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def videos_of(run: Path, look: bool = True) -> Videos | None:
    """The videos of a run that trains its networks."""
    finetune = read_config(run).finetune
    return None if finetune is None else open_videos(Asked.from_dict(finetune["clips"]), "cpu", 1, run.parent, look)[0]


def say(ranks: Ranks, file: Path) -> None:
    """What this process hears of the others, in FILE.RANK."""
    mine = torch.full((3,), float(ranks.rank))
    ranks.copy_first([mine])
    unequal = range(100 * ranks.rank, 100 * ranks.rank + 20 - 17 * ranks.rank)  # 20 of the first, 3 of the second
    write_json(file.with_suffix(f".{ranks.rank}"), {"collected": list(ranks.collect(unequal)), "copied": mine.tolist()})


def main(words: list[str]) -> None:
    """As the module says."""
    narrow.install()
    with joined(CPU) as ranks:
        if words[0] == "--say":
            say(ranks, Path(words[1]))
            words = words[2:]
        for word in words:
            run, _, at = word.partition("@")
            if not (Path(run) / "result.json").exists():
                clips = videos_of(Path(run), look=ranks.first)
                carry_out(Path(run), device=CPU, observer=Dies(Path(run), int(at or 0)), clips=clips, ranks=ranks)


if __name__ == "__main__":
    main(sys.argv[1:])
