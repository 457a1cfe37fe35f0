"""Progress of an extraction: a bar on a terminal, a line now and then elsewhere; always on stderr."""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.output import print_above, print_line
from extract.accounts import Observer
from stores.spec import Failure

LINE_EVERY_S = 30.0


class ExtractionProgress(Observer):
    """Counts seconds of video; those of videos not opened yet are taken to be of mean length."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.live = console.is_terminal
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not self.live,
        )
        self.task = self.bar.add_task("reading", total=None)
        self.videos = self.finished = 0
        self.lengths: dict[str, float] = {}
        self.seen: dict[str, float] = {}
        self.seconds_done = 0.0
        self.began = self.last_line = time.monotonic()

    def __enter__(self) -> Self:
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def plan(self, videos: int) -> None:
        self.videos = videos

    def started(self, video: str, seconds: float) -> None:
        self.lengths[video] = seconds
        self.seen[video] = 0.0

    def advanced(self, video: str, seconds: float) -> None:
        self.seen[video] = self.seen.get(video, 0.0) + seconds
        self.show()

    def done(self, video: str) -> None:
        self.close(video, self.lengths.get(video, 0.0))

    def failed(self, failure: Failure) -> None:
        if failure.set_name is None and failure.video in self.seen:
            self.close(failure.video, 0.0)
        what = f" ({failure.set_name})" if failure.set_name else ""
        self.line(f"failed: {failure.video}{what} [{failure.reason}] {failure.detail}", "red")

    def predicted(self, video: str, backbone: str, classes: Sequence[tuple[str, float]]) -> None:
        named = ", ".join(f"{name} {probability:.2f}" for name, probability in classes)
        self.line(f"{video} looks to {backbone} like: {named}")

    def close(self, video: str, seconds: float) -> None:
        self.finished += 1
        self.seen.pop(video, None)
        if not seconds:
            self.lengths.pop(video, None)
        self.seconds_done += seconds
        self.show()

    def show(self) -> None:
        done = self.seconds_done + sum(self.seen.values())
        known = sum(self.lengths.values())
        mean = known / len(self.lengths) if self.lengths else 0.0
        total = known + mean * max(0, self.videos - self.finished - len(self.seen))
        text = f"{self.finished} of {self.videos} videos"
        self.bar.update(self.task, description=text, completed=done, total=max(total, done) or None)
        now = time.monotonic()
        if not self.live and now - self.last_line >= LINE_EVERY_S and done:
            self.last_line = now
            left = (now - self.began) * max(0.0, total - done) / done
            print_line(f"{text}, {done:.0f} s of video, about {left:.0f} s left")

    def line(self, text: str, colour: str | None = None) -> None:
        print_above(self.bar, text, colour=colour)
