"""What a network frees is used again, not asked of the system anew; counted in page faults, which are no times."""

from __future__ import annotations

import ctypes
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from extract import pipeline
from extract.accounts import Observer
from extract.extract_options import ExtractOptions
from extract.memory import keep_freed_memory
from extract.pipeline import extract_videos
from extract.plan import make_plan

MEBIBYTE = 1 << 20
PASSES = 10
CHILD = f"""
import resource, torch
from extract.efficientnet import EfficientNetLite0
from extract.memory import keep_freed_memory
from stores.spec import Granularity
torch.set_num_threads(1)
{{call}}
net = EfficientNetLite0()
frames = torch.zeros((4, 1, 224, 224, 3), dtype=torch.uint8)
def work(passes):
    with torch.inference_mode():
        for _ in range(passes):
            net(frames, frozenset([Granularity.FRAME]))
work(5)  # takes the memory from the system
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work({PASSES})
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(call: str) -> int:
    """Pages that the system had to map for a fresh process which runs `call` first."""
    code = CHILD.format(call=call)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library has nothing to set")
def test_memory_that_layers_free_is_used_again() -> None:
    largest = 4 * 96 * 112 * 112 * 4 // resource.getpagesize()  # pages of one layer of four images
    assert faults("") > PASSES * 2 * largest  # what this is for: else the module is not needed any more
    assert faults("keep_freed_memory()") < PASSES * largest / 3  # not none: the heap may still settle once


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []

    class Library:  # without mallopt
        def __init__(self, name: None) -> None:
            asked.append(name)

    monkeypatch.setattr("ctypes.CDLL", Library)
    keep_freed_memory()
    assert asked == [None]


@pytest.mark.parametrize("taken", [0, 1])
def test_where_the_first_setting_is_refused_the_second_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    """malloc.h: mallopt returns 1 on success; any setting alone ends the thresholds' growing by themselves."""
    settings: list[tuple[int, int]] = []

    class Library:
        def mallopt(self, name: int, value: int) -> int:
            settings.append((name, value))
            return taken

    monkeypatch.setattr("ctypes.CDLL", lambda _: Library())
    keep_freed_memory()
    assert settings == [(-3, 32 * MEBIBYTE), (-1, 1024 * MEBIBYTE)][: 1 + taken]


def test_an_extraction_keeps_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(pipeline, "keep_freed_memory", lambda: calls.append(True))
    plan = make_plan(ExtractOptions(backbones=("logmel",)))
    extract_videos([], [], plan, tmp_path / "store.zarr", observer=Observer())
    assert calls == [True]
