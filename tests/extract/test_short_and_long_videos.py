"""Videos shorter than what a network sees, and videos so long that no memory would hold them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from extract.accounts import Observer
from extract.extract_options import ExtractOptions
from extract.inputs import enumerate_videos
from extract.pipeline import extract_videos
from extract.plan import make_plan
from extract.views import Views
from stores import open_store
from stores.spec import FeatureStore, Granularity
from tests.extract.video_files import bars, clicks, wave, write_video
from tests.memory import PEAK_MIB

ROOT = Path(__file__).parents[2]


def extracted(folder: Path, out: Path, **options: Any) -> FeatureStore:
    found = enumerate_videos([folder])
    plan = make_plan(ExtractOptions(**options))
    summary = extract_videos(found.videos, found.failures, plan, out, observer=Observer())
    assert summary.failures == []
    return open_store(out)


I3D = {"backbones": ("i3d",), "weights": {"i3d": "random"}, "fps": {"": 24.0}}
CLIPS = {"backbones": ("r2plus1d_18",), "weights": {"r2plus1d_18": "random"}, "fps": {"": 10.0}}


@pytest.mark.parametrize(
    ("options", "frames", "expected"),
    [
        # One frame of 0.04 s. Convolutional: one row, the cell of a stride; windowed: it ends with the video.
        ({**I3D}, 1, {"i3d.rgb.clip": [(0, 8 / 24)]}),
        ({**I3D, "dense": "windowed", "window": {"": 16}}, 1, {"i3d.rgb.clip": [(0, 1 / 24)]}),
        ({"backbones": ("efficientnet_lite0",)}, 1, {"efficientnet_lite0.rgb.frame": [(0, 0.08)]}),
        # 10 frames at 25 a second are 4 at 10: a window of 16 is filled up with the last one, and ends with the video.
        ({**CLIPS}, 10, {"r2plus1d_18.rgb.clip": [(0, 0.4)]}),
        # 25 frames are 10 at 10 a second: of the two time steps of a window, 8 frames each, the second ends early.
        ({**CLIPS, "levels": (Granularity.MAP,)}, 25, {"r2plus1d_18.rgb.map": [(0, 0.8), (0.8, 1.0)]}),
        ({**CLIPS, "views": (Views(2, 2, 1),)}, 1, {"r2plus1d_18.rgb.clip.r2": [(0, 0.1), (0, 0.1)]}),
        (
            {"backbones": ("r2plus1d_18",), "weights": {"": "random"}, "levels": (Granularity.SCENE,)},
            1,
            {"r2plus1d_18.rgb.scene": [(0, 0.04)]},
        ),
    ],
    ids=["convolutional", "windowed", "frame", "window", "map", "views", "scene"],
)
def test_a_video_shorter_than_a_window_is_filled_up_and_its_times_say_so(
    tmp_path: Path, options: dict[str, Any], frames: int, expected: dict[str, list[tuple[float, float]]]
) -> None:
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v" / "a.mp4", frames=frames, b_frames=0)
    options = {**options, "weights": {name: "random" for name in options["backbones"] if "weights" in options}}
    store = extracted(tmp_path / "v", tmp_path / "s.zarr", **options)
    for name, times in expected.items():
        np.testing.assert_allclose(store[name].read("a.mp4").times, times, atol=1e-9)
        assert np.isfinite(store[name].read("a.mp4").features.astype(np.float64)).all()
    assert set(store) == set(expected)


def test_what_fills_a_window_up_is_the_last_frame_again(tmp_path: Path) -> None:
    """4 frames, then the last of them held to the end of the window: the same row."""
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v" / "short.mkv", fps=10, frames=4, codec="ffv1", b_frames=0)
    held = [0, 1, 2, *[3] * 13]
    write_video(tmp_path / "v" / "held.mkv", fps=10, frames=16, codec="ffv1", b_frames=0, draw=lambda i: bars(held[i]))
    rows = extracted(tmp_path / "v", tmp_path / "s.zarr", **CLIPS)["r2plus1d_18.rgb.clip"]
    np.testing.assert_array_equal(rows.read("short.mkv").features, rows.read("held.mkv").features)
    assert rows.times("short.mkv").tolist() == [[0.0, 0.4]]
    assert rows.times("held.mkv").tolist() == [[0.0, 1.6]]


@pytest.mark.parametrize("seconds", [1.0, 0.03])
def test_a_second_of_sound_has_its_rows_and_so_has_less(tmp_path: Path, seconds: float) -> None:
    (tmp_path / "v").mkdir()
    sound = wave(clicks([0.0], seconds))
    write_video(tmp_path / "v" / "a.mkv", frames=25, sound=sound)
    rows = extracted(tmp_path / "v", tmp_path / "s.zarr", backbones=("logmel",))["logmel.audio.frame"].read("a.mkv")
    assert len(rows.features) == (13 if seconds == 1.0 else 1)  # 12.5 a second
    np.testing.assert_allclose(rows.times[:, 0], np.arange(len(rows.times)) / 12.5)


LONG = """
import sys
from pathlib import Path
from extract.inputs import enumerate_videos
from extract.pipeline import extract_videos
from extract.accounts import Observer
from extract.extract_options import ExtractOptions
from extract.plan import make_plan
from extract.views import Views

folder, out = map(Path, sys.argv[1:])
found = enumerate_videos([folder])
plan = make_plan(ExtractOptions(("r2plus1d_18", "efficientnet_lite0"), weights={"r2plus1d_18": "random"},
    window={"r2plus1d_18": 8}, fps={"efficientnet_lite0": 0.05}, views=(Views(1, 2, 1),)))
summary = extract_videos(found.videos, found.failures, plan, out, observer=Observer())
assert not summary.failures, summary.failures
print(peak_mib())
"""


def test_memory_does_not_grow_with_the_length_of_a_video(tmp_path: Path) -> None:
    peaks = []
    for minutes in (1, 20):
        folder = tmp_path / str(minutes)
        folder.mkdir()
        write_video(folder / "a.mp4", frames=minutes * 1500, draw=lambda index: bars(index % 4096))
        words = [sys.executable, "-c", PEAK_MIB + LONG, str(folder), str(tmp_path / f"{minutes}.zarr")]
        done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
        peaks.append(int(done.stdout))
    print(f"peak memory of 1 and 20 minutes: {peaks} MiB")
    assert peaks[1] < peaks[0] + 60
