"""What TensorBoard is given: every point of a run once, whatever happened to it, in a file that others can read."""

import csv
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from heads.checkpoint import create_run
from heads.events import FILE_NAME, LOSS_POINTS, Events, varint
from heads.head import head_class
from heads.options import split_settings
from heads.run import carry_out
from heads.run_plan import plan_run
from stores.labels import Labels
from stores.zarr_store import ZarrStore
from tests.heads.feature_stores import Silent, planted, write_store

CPU = torch.device("cpu")
Point = tuple[int, str, float]  # update, tag, value


def crc32c(data: bytes) -> int:
    """Bit by bit: the remainder by the Castagnoli polynomial, all reflected."""
    checksum = 0xFFFFFFFF
    for byte in data:
        checksum ^= byte
        for _ in range(8):
            checksum = checksum >> 1 ^ (0x82F63B78 if checksum & 1 else 0)
    return checksum ^ 0xFFFFFFFF


def unmasked(word: bytes) -> int:
    rotated = (int.from_bytes(word, "little") - 0xA282EAD8) % 2**32
    return (rotated << 15 | rotated >> 17) % 2**32


def records(data: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file; each checksum must hold, and nothing may be left over."""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        content = data[at + 12 : at + 12 + length]
        assert crc32c(data[at : at + 8]) == unmasked(data[at + 8 : at + 12])
        assert crc32c(content) == unmasked(data[at + 12 + length : at + 16 + length])
        yield content
        at += 16 + length
    assert at == len(data)


def message(data: bytes) -> dict[int, Any]:
    """Field number to value of one protocol buffer, whose fields stand once."""
    found: dict[int, Any] = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = number()
        kind = key & 7
        if kind == 0:
            found[key >> 3] = number()
            continue
        size = {1: 8, 5: 4}.get(kind) or number()
        value = data[at : at + size]
        assert len(value) == size
        found[key >> 3] = struct.unpack("<d" if kind == 1 else "<f", value)[0] if kind in (1, 5) else value
        at += size
    return found


def points(run: Path) -> list[Point]:
    """All scalars of a run's event file, in its order."""
    first, *events = map(message, records((run / FILE_NAME).read_bytes()))
    assert first[3] == b"brain.Event:2"
    found = []
    before = first[1]
    for event in events:
        assert event[1] >= before > 1.7e9  # seconds since 1970
        before = event[1]
        scalar = message(message(event[5])[1])
        found.append((event[2], scalar[1].decode(), scalar[2]))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ZarrStore:
    return write_store(tmp_path_factory.mktemp("planted") / "f.zarr", {"one": planted()[0]})


@pytest.fixture(scope="module")
def labels() -> Labels:
    return planted()[1]


def begin(run: Path, store: ZarrStore, labels: Labels, **training: Any) -> Path:
    wanted = {"epochs": 4, "batch_size": 4, "eval_every": 2, "checkpoint_seconds": 0.0, **training}
    options, train_options = split_settings(head_class("linear"), [f"{key}={value}" for key, value in wanted.items()])
    plan = plan_run("linear", [store], labels, options=options, training=train_options)
    create_run(run, plan.config, plan.labels)
    return run


class Killed(Exception):
    """Stands for a process that ends without another word."""


class Killer(Silent):
    """Ends the run after so many updates, or as an epoch ends, before a checkpoint knows of it."""

    def __init__(self, step: int = 0, epoch: int = 0) -> None:
        super().__init__()
        self.at, self.end = step, epoch

    def step(self, done: int, total: int) -> None:
        self.steps += 1
        if self.steps == self.at:
            raise Killed

    def epoch(self, epoch: Any, best: bool) -> None:
        if epoch.epoch == self.end:
            raise Killed


def same(one: list[Point], other: list[Point]) -> bool:
    return [point[:2] for point in one] == [point[:2] for point in other] and all(
        a[2] == b[2] for a, b in zip(one, other, strict=True)
    )


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, store: ZarrStore, labels: Labels) -> Path:
    run = begin(tmp_path_factory.mktemp("straight") / "run", store, labels)
    carry_out(run, device=CPU, observer=Silent())
    return run


def test_the_file_has_what_metrics_csv_has_and_the_loss_of_every_update(straight: Path) -> None:
    found = points(straight)
    with (straight / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    losses = [point for point in found if point[1] == "train/loss_of_update"]
    updates = len(losses) // 4
    assert [step for step, _, _ in losses] == list(range(1, 4 * updates + 1))
    for number, line in enumerate(lines, start=1):
        at = number * updates
        for tag, name in (("train/loss", "loss"), ("train/lr", "lr")):
            values = [value for step, other, value in found if (step, other) == (at, tag)]
            assert values == [pytest.approx(float(line[name]), rel=1e-6)]
        mean = sum(value for step, _, value in losses if at - updates < step <= at) / updates
        assert mean == pytest.approx(float(line["loss"]), rel=1e-5)
        scores = [value for step, tag, value in found if tag == "val/score" and step == at]
        assert scores == ([pytest.approx(float(line["val"]), rel=1e-6)] if line["val"] else [])
    assert len(found) == len(losses) + 2 * 4 + 2


@pytest.mark.parametrize("save", [0.0, 1e9])
def test_a_run_that_was_cut_off_has_every_point_once(
    save: float, straight: Path, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    """Killed after every second update, or with a whole epoch written that no checkpoint knows; then gone on with."""
    expected = points(straight)
    run = begin(tmp_path / "run", store, labels, checkpoint_seconds=save)
    killers = [Killer(epoch=2), Killer(step=2), Killer(step=3), Killer(epoch=3), Killer(step=1)]
    cut = 0
    for killer in killers:
        with pytest.raises(Killed):
            carry_out(run, device=CPU, observer=killer)
        cut += 1
    carry_out(run, device=CPU, observer=Silent())
    assert cut == len(killers)
    assert same(points(run), expected)


def test_a_lost_file_begins_anew_with_the_epochs(
    straight: Path, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    expected = points(straight)
    updates = max(step for step, _, _ in expected) // 4
    for name, damage in (("lost", None), ("cut", 20)):
        run = begin(tmp_path / name, store, labels)
        with pytest.raises(Killed):
            carry_out(run, device=CPU, observer=Killer(step=updates + 1))
        path = run / FILE_NAME
        if damage is None:
            path.unlink()
        else:
            path.write_bytes(path.read_bytes()[:-damage])
        carry_out(run, device=CPU, observer=Silent())
        left = [point for point in expected if point[0] > updates or point[1] != "train/loss_of_update"]
        assert same(points(run), left)


def test_a_file_that_vanishes_while_the_run_goes_on_stops_nothing(tmp_path: Path) -> None:
    events = Events(tmp_path, 10)
    events.epoch(1, 0.5, 0.1, None)
    events.write()
    (tmp_path / FILE_NAME).unlink()
    events.epoch(2, 0.25, 0.1, 0.75)
    assert events.write() == (tmp_path / FILE_NAME).stat().st_size
    assert [point[0] for point in points(tmp_path)] == [2, 2, 2]


def test_long_runs_keep_a_share_of_the_updates(tmp_path: Path) -> None:
    steps = 3 * LOSS_POINTS + 7
    events = Events(tmp_path, steps)
    for step in range(1, steps + 1):
        events.loss(step, torch.tensor(float(step)))
    events.write()
    found = points(tmp_path)
    assert [step for step, _, _ in found] == list(range(4, steps + 1, 4))
    assert all(value == step for step, _, value in found)


def test_nothing_is_read_from_the_device_before_it_is_written(tmp_path: Path) -> None:
    """A tensor of the meta device has no value: whoever reads one fails."""
    events = Events(tmp_path, 10)
    events.loss(1, torch.zeros((), device="meta"))
    with pytest.raises(NotImplementedError):
        events.write()


@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**31, 2**63 - 1])
def test_whole_numbers_of_any_size_come_back(value: int) -> None:
    assert message(b"\x10" + varint(value)) == {2: value}
