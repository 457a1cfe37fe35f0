"""Progress of a training: a bar on a terminal, a line an epoch elsewhere; always on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.output import print_above
from heads.train import Epoch, Observer


class TrainingProgress(Observer):
    """Prints every validated epoch; those in between only move the bar."""

    def __init__(self, quiet: bool = False) -> None:
        """`quiet`: show nothing, as another process does."""
        self.quiet = quiet
        console = Console(stderr=True, quiet=quiet)
        self.bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.task = self.bar.add_task("training", total=None)
        self.began = False

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def note(self, text: str) -> None:
        if not self.quiet:
            print_above(self.bar, text)

    def step(self, done: int, total: int) -> None:
        if self.began:
            self.bar.update(self.task, completed=done)
        else:  # what was done before a run was cut off says nothing of its speed now
            self.bar.reset(self.task, completed=done, total=total)
            self.began = True

    def epoch(self, epoch: Epoch, best: bool) -> None:
        if not self.quiet and (best or epoch.val is not None):
            score = "" if epoch.val is None else f"  val {epoch.val:.4f}{' best' if best else ''}"
            text = f"epoch {epoch.epoch:4d}  loss {epoch.loss:.4f}{score}  lr {epoch.lr:.2g}  {epoch.seconds:.1f} s"
            print_above(self.bar, text)
