"""What decoding costs beside FFmpeg alone, and how many frames are decoded for each that is needed."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from extract.accounts import Observer
from extract.decode import DecodePlan
from extract.extract_options import ExtractOptions
from extract.inputs import VideoInput, enumerate_videos
from extract.pipeline import extract_videos
from extract.plan import make_plan
from extract.views import Views
from extract.worker_events import Frames
from extract.workers import DecodePool
from tests.bench.table import line
from tests.extract.video_files import write_video

FRAMES, SHORT = 1500, 2
TURNS = 3
DECODE_ALONE = """
import av, sys
with av.open(sys.argv[1]) as container:
    container.streams.video[0].codec_context.thread_count = 1
    for frame in container.decode(video=0):
        pass
"""


TEXTURE = np.random.default_rng(0).normal(0, 12, (360, 640))


def picture(index: int) -> NDArray[np.uint8]:
    """640 x 360, moving, as rich in detail as a video of a camera."""
    x = np.arange(640) + 3 * index
    y = np.arange(360)[:, None] - index
    wave = 128 + 50 * np.sin(x / 21) + 50 * np.sin(y / 17) + np.roll(TEXTURE, index, axis=1)
    return np.repeat(wave.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def alone(path: Path) -> None:
    """What `ffmpeg -threads 1 -f null` does."""
    subprocess.run([sys.executable, "-c", DECODE_ALONE, path], check=True)


def pool(path: Path, planes: bool) -> None:
    with DecodePool([VideoInput("v", path)], DecodePlan(rates=(None,), planes=planes), workers=1) as events:
        for event in events:
            if isinstance(event, Frames):
                event.release()


def child_seconds(work: Callable[[], object]) -> float:
    """CPU time of the processes that some work starts and waits for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def decoding(work: Callable[[Path], object], long: Path, short: Path) -> float:
    """CPU seconds without the start of a process: of a long video less those of a short one."""
    return min(child_seconds(lambda: work(long)) - child_seconds(lambda: work(short)) for _ in range(TURNS))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        long, short = Path(folder) / "v" / "long.mp4", Path(folder) / "short.mp4"
        long.parent.mkdir()
        write_video(long, frames=FRAMES, draw=picture)
        write_video(short, frames=SHORT, draw=picture)
        reference = decoding(alone, long, short)
        for planes, words in ((True, "planes handed over"), (False, "RGB handed over")):
            ours = decoding(partial(pool, planes=planes), long, short)
            target = ">= 0.95" if planes else "-"
            line(f"CPU s to decode, {words}", f"{ours:.3g}", f"{reference:.3g}", reference / ours, target, "1")

        views = tuple(Views(speed, clips, 3) for speed, clips in ((4, 4), (2, 3), (8, 3)))
        options = ExtractOptions(
            ("r2plus1d_18", "efficientnet_lite0"),
            weights={"r2plus1d_18": "random"},
            window={"r2plus1d_18": 8},
            fps={"efficientnet_lite0": 1.0},
            views=views,
        )
        found = enumerate_videos([long.parent])
        out = Path(folder) / "store.zarr"
        summary = extract_videos(found.videos, found.failures, make_plan(options), out, observer=Observer())
        ratio = summary.frames_decoded / FRAMES
        line(
            "frames decoded, 30 views and single frames",
            f"{summary.frames_decoded}",
            f"{FRAMES}",
            ratio,
            "<= 1.01",
            "1",
        )
