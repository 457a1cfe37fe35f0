"""200 injected damages: the full check finds each one, checked reads are never wrong, repair and a new run restore all.

What a reader promises without the full check is less: everything but the rows themselves is checked when it is opened,
and of the rows' files the sizes, so that a plain `read` can only be wrong where bytes inside a file of rows changed.
Compressed rows carry a checksum besides.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stores import Rows
from stores.copying import checked_rows
from stores.errors import StoreError
from stores.feature_set import StoredSet
from stores.maintenance import repair, verify
from stores.zarr_store import ZarrStore
from tests.fault.faults import assert_complete, expected, write

DAMAGES_A_STORE = 100
Harm = Callable[[random.Random, Path, list[Path]], None]


def flip(chance: random.Random, file: Path, others: list[Path]) -> None:
    data = bytearray(file.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    file.write_bytes(data)


def truncate(chance: random.Random, file: Path, others: list[Path]) -> None:
    file.write_bytes(file.read_bytes()[: chance.randrange(file.stat().st_size)])


def zero(chance: random.Random, file: Path, others: list[Path]) -> None:
    """From some byte on that is no zero, as a disk does that lost a block."""
    data = file.read_bytes()
    begin = chance.choice([at for at, byte in enumerate(data) if byte])
    file.write_bytes(data[:begin] + bytes(min(64, len(data) - begin)) + data[begin + 64 :])


def delete(chance: random.Random, file: Path, others: list[Path]) -> None:
    file.unlink()


def swap(chance: random.Random, file: Path, others: list[Path]) -> None:
    """With another file, of equal size if there is one: nobody sees that by the sizes."""
    data = file.read_bytes()
    unlike = [other for other in others if other.read_bytes() != data]
    alike = [other for other in unlike if other.stat().st_size == len(data)]
    other = chance.choice(alike or unlike)
    file.write_bytes(other.read_bytes())
    other.write_bytes(data)


HARMS: list[Harm] = [flip, truncate, zero, delete, swap]
KINDS = ("commits/*.json", "c.*", "zarr.json", "[fa]*/*.json")  # records, rows, metadata, failures and attachments


def reads(path: Path) -> Iterator[tuple[str, StoredSet, str]]:
    store = ZarrStore(path)
    for name in store:
        for video in store[name]:
            yield name, store[name], video
    store.close()


def is_right(video: str, *blocks: Rows) -> bool:
    want = expected(video)
    features = b"".join(rows.features.tobytes() for rows in blocks)
    times = b"".join(rows.times.tobytes() for rows in blocks)
    return (features, times) == (want.features.tobytes(), want.times.tobytes())


def assert_no_silent_error(path: Path, only_bytes_of: set[str]) -> None:
    """Reads are right or refused; without the check they may be wrong in the arrays `only_bytes_of` alone."""
    for name, part, video in reads(path):
        try:
            blocks = list(checked_rows(part, video))
        except StoreError:
            blocks = []
        assert not blocks or is_right(video, *blocks), f"'{video}' in '{name}' passed its check and is wrong"
        try:
            rows = part.read(video)
        except StoreError:
            continue
        if not is_right(video, rows):
            wrong = {
                kind
                for kind in Rows._fields
                if getattr(rows, kind).tobytes() != getattr(expected(video), kind).tobytes()
            }
            assert wrong <= only_bytes_of, f"a plain read of '{video}' in '{name}' is wrong in {wrong}"


@pytest.mark.parametrize("compress", [None, "zstd"])
def test_every_damage_is_found_never_read_in_silence_and_mended(tmp_path: Path, compress: str | None) -> None:
    whole, path = tmp_path / "whole.zarr", tmp_path / "s.zarr"
    write(whole, lambda videos: None, compress=compress)
    chance = random.Random(0)
    for number in range(DAMAGES_A_STORE):
        shutil.copytree(whole, path)
        harm = HARMS[number % len(HARMS)]
        files = sorted(file for file in path.rglob("*") if file.is_file())
        kind = KINDS[number // len(HARMS) % len(KINDS)]
        file = chance.choice([file for file in files if file.relative_to(path).match(kind)])
        if harm is delete and kind == "[fa]*/*.json":
            file = path / "zarr.json"  # of a note that nothing names, no trace would be left
        what = f"{number}: {harm.__name__} of {file.relative_to(path)}"
        same_size = harm not in {truncate, delete}
        harm(chance, file, [other for other in files if other != file])

        report = verify(path, full=True)
        lost_commit = harm is delete and file.parent.name == "commits"  # looks like a writer at work
        assert report.findings, what
        assert report.damaged or lost_commit, what
        in_silence = {"times"} if compress else {"features", "times"}
        assert_no_silent_error(path, in_silence if same_size else set())
        lost = {(name, video) for video, name in repair(path).lost}
        left = {(name, video) for name, _, video in reads(path)}
        assert not lost & left, what
        for name, part, video in reads(path):
            assert is_right(video, part.read(video)), f"{what}: '{video}' in '{name}' is wrong after the repair"
        write(path, lambda videos: None, compress=compress)
        assert_complete(path)
        shutil.rmtree(path)
