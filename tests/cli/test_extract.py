"""`vl extract` as its user meets it: a process, its exit code, what it prints and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from extract.synthetic import encode_video
from stores import open_store

ROOT = Path(__file__).parents[2]
REASONS = {
    "empty.mp4": "empty",
    "fifo.mp4": "not_regular",
    "text.mp4": "unsupported_container",
    "truncated.mkv": "partial",
    "sound.mp4": "no_video_stream",
}


def command(*words: str | Path) -> list[str]:
    return [sys.executable, "-m", "cli.main", *map(str, words)]


def environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "VL_CACHE": str(cache), "PYTHONPATH": str(ROOT)}


def vl(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*words), capture_output=True, text=True, cwd=cwd, env=environment(cwd / "cache"), timeout=120
    )


def write_clip(path: Path, seed: int, frames: int = 20) -> None:
    random = np.random.default_rng(seed)
    still = random.integers(0, 256, (48, 64, 3)).astype(np.uint8)
    sound = random.normal(0, 0.1, frames * 640).astype(np.float32)
    encode_video(path, (np.roll(still, shift, axis=1) for shift in range(frames)), fps=25, audio=sound, rate=16_000)


def same_rows(one: Path, other: Path, videos: Sequence[str]) -> None:
    left, right = open_store(one), open_store(other)
    assert list(left) == list(right)
    for name in left:
        assert list(left[name]) == list(right[name]) == sorted(videos), name
        for video in videos:
            a, b = left[name].read(video), right[name].read(video)
            np.testing.assert_array_equal(a.features, b.features)
            np.testing.assert_array_equal(a.times, b.times)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six good clips."""
    clips = tmp_path_factory.mktemp("videos")
    for index in range(6):
        write_clip(clips / f"{index}.mp4", index)
    return clips


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Their store, made in one go."""
    place = tmp_path_factory.mktemp("whole")
    done = vl("extract", "--backbone", "efficientnet_lite0,logmel", folder, "--out", "whole.zarr", cwd=place)
    assert done.returncode == 0, done.stderr
    return place / "whole.zarr"


def test_a_poisoned_folder_ends_with_3_and_every_reason(folder: Path, whole: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    good = ["0.mp4", "1.mp4", "with space.mp4", "a:b.mp4", "esc\x1b[31m.mp4", "tiny.mp4"]
    for name, source in zip(good, (0, 1, 2, 3, 4), strict=False):
        (videos / name).write_bytes((folder / f"{source}.mp4").read_bytes())
    encode_video(videos / "tiny.mp4", (np.full((16, 16, 3), 9 * i, np.uint8) for i in range(20)), fps=25)
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("this is not a video, whatever its name says\n" * 20)
    os.mkfifo(videos / "fifo.mp4")
    write_clip(videos / "whole.mkv", 9, frames=100)
    (videos / "truncated.mkv").write_bytes(
        (videos / "whole.mkv").read_bytes()[: (videos / "whole.mkv").stat().st_size // 2]
    )
    (videos / "whole.mkv").unlink()
    write_sound_only(videos / "sound.mp4")
    (videos / "notes.txt").write_text("left out by its name")

    done = vl("extract", "--backbone", "efficientnet_lite0", videos, "--out", "p.zarr", "--json", cwd=tmp_path)
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert {failure["video"]: failure["reason"] for failure in summary["failures"]} == REASONS
    assert (summary["done"], summary["failed"]) == (len(good), len(REASONS))
    assert [Path(path).name for path in summary["ignored"]] == ["notes.txt"]
    assert "\x1b" not in done.stderr
    stored, clean = open_store(tmp_path / "p.zarr"), open_store(whole)
    name = "efficientnet_lite0.rgb.frame"
    assert list(stored[name]) == sorted(good)
    for video, original in zip(good[:5], ("0.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4"), strict=True):
        np.testing.assert_array_equal(stored[name].read(video).features, clean[name].read(original).features)
    again = vl("extract", "--backbone", "efficientnet_lite0", videos, "--out", "p.zarr", "--json", cwd=tmp_path)
    assert again.returncode == 3
    assert json.loads(again.stdout)["there_already"] == len(good)


def write_sound_only(path: Path) -> None:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGUSR1, 75)]
)
def test_a_stopped_extraction_resumes_to_the_same_store(
    folder: Path, whole: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    words = ("extract", "--backbone", "efficientnet_lite0,logmel", folder, "--out", "s.zarr")
    process = subprocess.Popen(
        command(*words), cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    while not (tmp_path / "s.zarr" / "commits").is_dir() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.7)
    process.send_signal(number)
    assert process.wait(timeout=10) == code
    assert process.stderr is not None
    message = process.stderr.read().decode()
    process.stderr.close()
    assert number is signal.SIGKILL or "resumes" in message
    done = vl(*words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    same_rows(tmp_path / "s.zarr", whole, [f"{index}.mp4" for index in range(6)])


def test_shards_together_make_the_whole_store(folder: Path, whole: Path, tmp_path: Path) -> None:
    words = ("extract", "--backbone", "efficientnet_lite0,logmel", folder, "--out", "s.zarr")
    processes = [
        subprocess.Popen(command(*words, "--shard", f"{i}/2"), cwd=tmp_path, env=environment(tmp_path)) for i in (1, 2)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    same_rows(tmp_path / "s.zarr", whole, [f"{index}.mp4" for index in range(6)])


def test_an_h5_store_is_packed_whole_and_can_be_extended(folder: Path, whole: Path, tmp_path: Path) -> None:
    first = vl("extract", "--backbone", "logmel", folder, "--out", "s.h5", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    both = vl("extract", "--backbone", "efficientnet_lite0,logmel", folder, "--out", "s.h5", cwd=tmp_path)
    assert both.returncode == 0, both.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.h5"]
    same_rows(tmp_path / "s.h5", whole, [f"{index}.mp4" for index in range(6)])


def test_labels_beside_the_videos_are_attached_and_said(folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    (videos / "0.mp4").write_bytes((folder / "0.mp4").read_bytes())
    (videos / "labels.csv").write_text("video,start,end,label\n0.mp4,0.1,0.5,wave\n")
    done = vl("extract", "--backbone", "logmel", videos, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "labels.csv" in done.stderr
    attached = open_store(tmp_path / "store.zarr").attachment("labels")
    assert attached is not None
    assert attached["classes"] == ["wave"]


def test_a_dry_run_tells_the_cost_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    done = vl("extract", "--backbone", "logmel", folder, "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cost = json.loads(done.stdout)
    assert cost["videos"] == 6
    assert cost["video_seconds"] == pytest.approx(6 * 0.8, rel=0.1)
    assert cost["bytes"]["logmel.audio.frame"] == pytest.approx(4.8 * 12.5 * (512 * 2 + 16), rel=0.1)
    assert cost["seconds"] > 0
    assert not any(path.suffix == ".zarr" for path in tmp_path.iterdir())


def test_show_pred_names_classes(folder: Path, tmp_path: Path) -> None:
    done = vl("extract", "--backbone", "efficientnet_lite0", "--fps", "2", folder, "--show-pred", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = [line for line in done.stderr.splitlines() if "looks to efficientnet_lite0 like" in line]
    assert len(shown) == 3
    assert all(line.count(",") >= 4 for line in shown)


def test_a_clip_network_names_classes_and_gives_maps_of_twice_the_size(folder: Path, tmp_path: Path) -> None:
    words = ("--backbone", "x3d_xs", "--weights", "random", "--level", "clip,map", "--last-stride", "x3d_xs=1")
    done = vl("extract", *words, "--show-pred", folder / "0.mp4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (shown,) = [line for line in done.stderr.splitlines() if "looks to x3d_xs (RANDOM WEIGHTS) like" in line]
    assert shown.count(",") >= 4
    rows = open_store(tmp_path / "store.zarr")["x3d_xs.rgb.map"]
    assert rows.spec.settings == {"last_stride": 1}
    assert rows.read("0.mp4").features.shape == (2, 10, 10, 432)  # 0.8 s at 2.5 frames a second


def test_weights_that_cannot_be_had_end_in_one_helpful_line(folder: Path, tmp_path: Path) -> None:
    start = time.monotonic()
    done = vl("extract", "--backbone", "i3d", folder, cwd=tmp_path)
    assert time.monotonic() - start < 10  # the target is 5 s; the machine may be busy
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    for word in (
        "rgb_imagenet.pt",
        "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",
        str(tmp_path),
        "i3d=",
    ):
        assert word in line
    assert not (tmp_path / "store.zarr").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("nowhere",), "nowhere"),
        (("empty",), "no videos"),
        (("videos", "--out", "x.npy"), ".zarr or .h5"),
        (("videos", "--fps", "fast"), "--fps"),
        (("videos", "--fps", "-1"), "positive"),
        (("videos", "--roi", "1,2,3"), "--roi"),
        (("videos", "--shard", "3/2"), "--shard"),
        (("videos", "--level", "sentence"), "--level"),
        (("videos", "--decoder", "nosuch"), "nosuch"),
        (("videos", "--weights", "nosuch.pt"), "nosuch.pt"),
        (
            (
                "videos",
                "--nonsense",
            ),
            "--nonsense",
        ),
        (("videos", "--labels", "none.csv"), "none.csv"),
        (("videos", "--last-stride", "1"), "efficientnet_lite0 has no residual last stage"),
        (("videos", "--last-stride", "x3d_s=1"), "x3d_s"),
    ],
)
def test_a_wrong_word_is_one_line_and_exit_2(
    folder: Path, tmp_path: Path, words: tuple[str, ...], expected: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "videos").symlink_to(folder)
    done = vl("extract", "--backbone", "efficientnet_lite0", *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert expected in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "videos"]


def test_errors_are_json_where_results_are(tmp_path: Path) -> None:
    done = vl("extract", "--backbone", "logmel", "nowhere", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert json.loads(done.stdout)["exit_code"] == 2
