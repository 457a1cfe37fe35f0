"""What people see of a training: a bar that lines of epochs stand above on a terminal, plain lines elsewhere."""

import io
import re
import sys

import pytest

from cli.training_progress import TrainingProgress
from heads.train import Epoch

KEYS = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|(\r)|(\n)|(.)", re.DOTALL)


class Stream(io.TextIOWrapper):
    """Has a buffer below it, as a true stderr: libraries write there too."""

    def __init__(self, terminal: bool) -> None:
        super().__init__(io.BytesIO(), "utf-8", newline="", write_through=True)
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal

    def text(self) -> str:
        assert isinstance(self.buffer, io.BytesIO)
        return self.buffer.getvalue().decode()


def screen(text: str) -> list[str]:
    """The lines that a terminal would show in the end."""
    rows, row, column = [""], 0, 0
    for count, command, back, down, letter in KEYS.findall(text):
        if command == "A":
            row = max(0, row - int(count or 1))
        elif command == "K":
            rows[row] = ""
        elif back:
            column = 0
        elif down:
            row, column = row + 1, 0  # a terminal's driver adds the way back
            rows += [""] * (row + 1 - len(rows))
        elif letter:
            rows[row] = rows[row][:column].ljust(column) + letter + rows[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in rows if line.strip()]


def watch(monkeypatch: pytest.MonkeyPatch, stream: Stream, first: int = 1) -> TrainingProgress:
    """Three epochs of ten updates, from update `first` on."""
    monkeypatch.setattr(sys, "stderr", stream)
    for name, value in {"TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    with TrainingProgress() as progress:
        progress.note("a note with [brackets]")
        for done in range(first, 31):
            progress.step(done, 30)
            if done % 10 == 0:
                progress.bar.refresh()
                progress.epoch(Epoch(done // 10, 0.5, 0.25 * done / 10, 1e-3, 1.5), best=done == 10)
    return progress


EXPECTED = [
    "a note with [brackets]",
    "epoch    1  loss 0.5000  val 0.2500 best  lr 0.001  1.5 s",
    "epoch    2  loss 0.5000  val 0.5000  lr 0.001  1.5 s",
    "epoch    3  loss 0.5000  val 0.7500  lr 0.001  1.5 s",
]


def test_lines_stand_above_the_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(terminal=True)
    watch(monkeypatch, stream)
    assert screen(stream.text()) == EXPECTED
    assert re.search(r"30/30 \S+ left", re.sub(r"\x1b\[[0-9;]*m", "", stream.text()))


def test_lines_alone_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream(terminal=False)
    watch(monkeypatch, stream)
    assert stream.text().splitlines() == EXPECTED


def test_what_was_done_before_does_not_count_as_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    progress = watch(monkeypatch, Stream(terminal=True), first=21)
    (task,) = progress.bar.tasks
    assert task.completed == 30
    assert sum(sample.completed for sample in task._progress) == 9
