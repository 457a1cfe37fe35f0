"""Sixty clips of which six are poison: the run says which and why, and the others are as if those were not there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.synthetic import encode_video
from stores import open_store

ROOT = Path(__file__).parents[2]
DECODER = "tests.extract.bad_decoders:Misbehaving"  # has the accident that the name of the file begins with
COMMAND = """
from functools import partialmethod
from extract.decode import Limits
Limits.__init__ = partialmethod(Limits.__init__, memory_bytes=256 << 20)  # no option says so little
import cli.main
cli.main.main()
"""
POISON = {
    "crash_always.mp4": "crashed",  # the decoder segfaults
    "eat_always.mp4": "oom",  # it takes all the memory that it gets
    "sleep_always.mp4": "timeout",  # it sleeps for ever
    "empty.mp4": "empty",
    "text.mp4": "unsupported_container",
    "truncated.mp4": "decode_error",
}
GOOD = [f"good_{number:02}.mp4" for number in range(54)]


def write_clip(path: Path, seed: int) -> None:
    """Eight frames of 32 x 32 pixels at 20 a second."""
    frames = np.random.default_rng(seed).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    encode_video(path, frames, fps=20)


def extract(folder: Path, out: Path) -> tuple[int, dict[str, Any]]:
    """The exit code of the command and what it prints."""
    words = ["extract", "--backbone", "efficientnet_lite0", "--fps", "5", "--decoder", DECODER, "--timeout", "2"]
    done = subprocess.run(
        [sys.executable, "-c", COMMAND, *words, "--json", str(folder), "--out", str(out)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), "VL_CACHE": str(folder.parent)},
    )
    summary: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, summary


@pytest.fixture
def poisoned(tmp_path: Path) -> Path:
    """All sixty."""
    folder = tmp_path / "poisoned"
    folder.mkdir()
    for seed, name in enumerate(GOOD):
        write_clip(folder / name, seed)
    for name in POISON:
        shutil.copy(folder / GOOD[0], folder / name)
    data = (folder / GOOD[1]).read_bytes()
    (folder / "truncated.mp4").write_bytes(data[: len(data) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("this is no video, whatever its name says\n" * 20)
    return folder


def test_six_poisoned_clips_of_sixty_are_named_and_the_others_as_in_a_clean_run(poisoned: Path, tmp_path: Path) -> None:
    code, summary = extract(poisoned, tmp_path / "poisoned.zarr")
    assert {failure["video"]: failure["reason"] for failure in summary["failures"]} == POISON
    assert (code, summary["done"], summary["failed"]) == (3, len(GOOD), len(POISON))

    for name in POISON:
        (poisoned / name).unlink()
    code, summary = extract(poisoned, tmp_path / "clean.zarr")
    assert (code, summary["done"], summary["failures"]) == (0, len(GOOD), [])
    found, clean = (
        open_store(tmp_path / name)["efficientnet_lite0.rgb.frame"] for name in ("poisoned.zarr", "clean.zarr")
    )
    assert list(found) == list(clean) == GOOD
    digests = {clean.entry(video).sha256 for video in GOOD}
    assert len(digests) == len(GOOD), "every clip looks different"
    for video in GOOD:
        one, other = found.read(video), clean.read(video)
        assert one.features.tobytes() == other.features.tobytes(), video
        assert one.times.tobytes() == other.times.tobytes(), video
