"""The pool: every input gets a status, whatever its decoder does, and nothing is left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from extract.decode import DecodePlan, Limits, Probe
from extract.inputs import VideoInput, enumerate_videos
from extract.worker_events import Audio, AudioFailed, Failed, Finished, Frames, Restarted, Started
from extract.workers import DecodePool, probe_all
from stores.spec import Failure
from tests.extract.video_files import bars, clicks, number, wave, write_sound, write_video

MISBEHAVING = "tests.extract.bad_decoders:Misbehaving"
SLOW = "tests.extract.bad_decoders:Slow"
ROOT = Path(__file__).parents[2]


@dataclass
class Got:
    """What the pool gave for one video."""

    rows: dict[int, list[int]] = field(default_factory=lambda: defaultdict(list))  # rate index: numbers shown
    times: dict[int, list[NDArray[np.float64]]] = field(default_factory=lambda: defaultdict(list))
    images: list[NDArray[np.uint8]] = field(default_factory=list)
    samples: int = 0
    started: int = 0
    restarted: int = 0
    audio: str = ""
    last: Finished | Failed | None = None


def run(inputs: list[VideoInput], plan: DecodePlan, limits: Limits = Limits(), workers: int = 2) -> dict[str, Got]:  # noqa: B008
    got: dict[str, Got] = defaultdict(Got)
    with DecodePool(inputs, plan, workers=workers, limits=limits) as pool:
        for event in pool:
            mine = got[event.video]
            assert mine.last is None, "nothing comes after the last event"
            match event:
                case Started():
                    mine.started += 1
                case Frames(rate_index=rate, first=first, images=images, times=times):
                    assert mine.started == mine.restarted + 1
                    assert first == len(mine.rows[rate])
                    mine.rows[rate] += [number(image) for image in images]
                    mine.times[rate].append(times)
                    mine.images += [images[0].copy()]
                    event.release()
                case Audio(first_sample=first, samples=samples):
                    assert first == mine.samples
                    mine.samples += len(samples)
                case AudioFailed(reason=reason):
                    mine.audio = reason
                case Restarted():
                    got[event.video] = Got(restarted=mine.restarted + 1, started=mine.started)
                case Finished() | Failed():
                    mine.last = event
    return dict(got)


def inputs(folder: Path) -> list[VideoInput]:
    return enumerate_videos([folder]).videos


def copies(folder: Path, *names: str, frames: int = 50, **settings: Any) -> list[VideoInput]:
    folder.mkdir(exist_ok=True)
    original = write_video(folder.parent / f"original{Path(names[0]).suffix}", frames=frames, **settings)
    for name in names:
        shutil.copy(original, folder / name)
    return inputs(folder)


def test_every_rate_and_the_sound_come_from_one_decoding(tmp_path: Path) -> None:
    sound = wave(clicks([0.1], 2.0))
    videos = copies(tmp_path / "v", "a.mkv", "b.mkv", "c.mkv", frames=50, sound=sound)
    plan = DecodePlan(rates=(None, 12.5, 50.0, 5.0), audio_rate=8000)
    for got in run(videos, plan).values():
        assert got.rows[0] == list(range(50))
        assert got.rows[1] == list(range(0, 50, 2))
        assert got.rows[2] == [index // 2 for index in range(100)]
        assert got.rows[3] == list(range(0, 50, 5))
        assert got.samples == 16000
        assert isinstance(got.last, Finished)
        assert (got.last.frames_decoded, got.last.partial, got.last.has_audio) == (50, False, True)
        assert got.last.duration == pytest.approx(2.0)
        np.testing.assert_allclose(np.concatenate(got.times[1])[:, 0], np.arange(25) / 12.5)


def clip_of(fps: Fraction, path: Path, jitter: bool = False) -> None:
    """Three seconds in which a frame shows the 1/100 s at which it begins."""
    times = [index / float(fps) for index in range(int(3 * fps))]
    if jitter:
        steps = np.random.default_rng(0).uniform(0.01, 0.05, 200).cumsum()
        times = [0.0, *steps[steps < 2.96].tolist()]
    write_video(path, fps=fps, times=times, draw=lambda i: bars(round(times[i] * 1000)), b_frames=0)


def test_rows_of_25_29_97_60_fps_and_a_changing_rate_fall_at_the_same_seconds(tmp_path: Path) -> None:
    for name, fps in (("25", Fraction(25)), ("29.97", Fraction(30000, 1001)), ("60", Fraction(60))):
        clip_of(fps, tmp_path / f"{name}.mkv")
    clip_of(Fraction(30), tmp_path / "changing.mkv", jitter=True)
    for video, got in run(inputs(tmp_path), DecodePlan(rates=(12.5,))).items():
        times = np.concatenate(got.times[0])
        count = len(times)
        assert count in (37, 38), video
        np.testing.assert_allclose(times[:, 0], np.arange(count) / 12.5)
        shown = np.array(got.rows[0]) / 1000
        late = times[:, 0] - shown  # the frame on the screen began less than one frame ago
        assert late.min() > -0.002, video
        assert late.max() < {"25.mkv": 0.04, "29.97.mkv": 0.034, "60.mkv": 0.017, "changing.mkv": 0.05}[video] + 0.001


def test_a_region_is_cut_from_the_upright_frame_and_must_lie_inside(tmp_path: Path) -> None:
    def draw(_: int) -> NDArray[np.uint8]:
        image = np.zeros((48, 96, 3), np.uint8)
        image[:24, 48:] = 255  # top right; after a quarter turn anticlockwise: top left
        return image

    write_video(tmp_path / "a.mp4", frames=5, draw=draw, rotation=90)
    write_video(tmp_path / "small.mp4", frames=5, draw=lambda _: np.zeros((16, 16, 3), np.uint8))
    got = run(inputs(tmp_path), DecodePlan(rates=(None,), roi=(0, 0, 24, 48)))
    assert got["a.mp4"].images[0].shape == (48, 24, 3)
    assert got["a.mp4"].images[0][4:-4, 4:-4].min() > 200
    last = got["small.mp4"].last
    assert isinstance(last, Failed)
    assert last.detail == "has frames of 16 x 16, which the region 0,0,24,48 leaves"


def test_a_poisoned_folder_ends_with_a_reason_for_each_and_the_good_ones_whole(tmp_path: Path) -> None:
    folder = tmp_path / "v"
    good = [f"good_{index}.mkv" for index in range(4)]
    copies(
        folder,
        *good,
        "truncated.mkv",
        "a:b.mkv",
        "new\nline \x1b[31m.mkv",
        codec="mjpeg",
        pixels="yuvj420p",
        b_frames=0,
    )
    data = (folder / "truncated.mkv").read_bytes()
    (folder / "truncated.mkv").write_bytes(data[: len(data) // 2])
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("hello")
    (folder / "playlist.mp4").write_text("#EXTM3U\n#EXTINF:9,\n/etc/passwd\n")
    write_sound(folder / "sound.mp4", clicks([0.1], 1.0))
    write_video(folder / "tiny.mp4", frames=10, draw=lambda _: np.zeros((16, 16, 3), np.uint8))
    os.mkfifo(folder / "fifo.mp4")
    got = run(inputs(folder), DecodePlan(rates=(None,)))
    reasons = {video: str(mine.last.reason) for video, mine in got.items() if isinstance(mine.last, Failed)}
    assert reasons == {
        "truncated.mkv": "partial",
        "empty.mp4": "empty",
        "text.mp4": "unsupported_container",
        "playlist.mp4": "unsupported_container",
        "sound.mp4": "no_video_stream",
    }
    assert [failure.video for failure in enumerate_videos([folder]).failures] == ["fifo.mp4"]
    whole = [video for video, mine in got.items() if mine.rows[0] == list(range(50))]
    assert sorted(whole) == sorted([*good, "a:b.mkv", "new\nline \x1b[31m.mkv"])
    assert isinstance(got["tiny.mp4"].last, Finished)


def test_a_partial_video_is_given_and_marked_where_that_is_allowed(tmp_path: Path) -> None:
    (video,) = copies(tmp_path / "v", "a.mkv", frames=100, codec="mjpeg", pixels="yuvj420p", b_frames=0)
    data = video.path.read_bytes()
    video.path.write_bytes(data[: len(data) // 2])
    (got,) = run([video], DecodePlan(rates=(None,)), Limits(allow_partial=True)).values()
    assert isinstance(got.last, Finished)
    assert got.last.partial
    assert got.rows[0] == list(range(len(got.rows[0])))
    assert 40 < len(got.rows[0]) < 60


@pytest.mark.parametrize(
    ("name", "reason", "detail"),
    [
        ("crash_always.mp4", "crashed", "the decoder died of SIGSEGV"),
        ("abort_always.mp4", "crashed", "the decoder ended with code 1: ZeroDivisionError: a bug in the decoder"),
        ("killed_always.mp4", "oom", "the system killed the decoder, as it does without memory"),
        (
            "alloc_always.mp4",
            "oom",
            "the decoder died of SIGABRT: terminate called after throwing an instance of 'std::bad_alloc'",
        ),
        ("eat_always.mp4", "oom", "needs more than 256 MiB"),
        ("sleep_always.mp4", "timeout", "showed no progress for 1 s"),
        ("change_now.mp4", "changed_while_reading", "was written to while it was read"),
        ("vanish_now.mp4", "vanished", "is not there any more"),
    ],
)
def test_a_decoder_that_goes_wrong_costs_its_own_video_alone(
    tmp_path: Path, name: str, reason: str, detail: str
) -> None:
    videos = copies(tmp_path / "v", name, "good_1.mp4", "good_2.mp4")
    limits = Limits(timeout_s=1, memory_bytes=256 << 20, max_pixels=1 << 20)
    got = run(videos, DecodePlan(rates=(None,), decoder=MISBEHAVING), limits)
    assert got[name].last == Failed(name, reason, detail)  # type: ignore[arg-type]
    assert got[name].restarted == (reason in {"crashed", "timeout"} or name.startswith(("killed", "alloc")))
    for good in ("good_1.mp4", "good_2.mp4"):
        assert got[good].rows[0] == list(range(50))


@pytest.mark.parametrize("name", ["crash_once.mp4", "sleep_once.mp4"])
def test_a_video_that_took_its_worker_down_is_begun_anew_and_can_succeed(tmp_path: Path, name: str) -> None:
    videos = copies(tmp_path / "v", name, "good.mp4")
    got = run(videos, DecodePlan(rates=(None,), decoder=MISBEHAVING), Limits(timeout_s=1))
    assert got[name].restarted == 1
    assert got[name].rows[0] == list(range(50))
    assert isinstance(got[name].last, Finished)


def test_the_second_attempt_runs_alone(tmp_path: Path) -> None:
    videos = copies(tmp_path / "v", "crash_once.mp4", "slow_1.mp4", "slow_2.mp4", frames=200)
    before = children(os.getpid())
    order = []
    with DecodePool(videos, DecodePlan(rates=(None,), decoder=MISBEHAVING), workers=3) as pool:
        for event in pool:
            if isinstance(event, Frames):
                event.release()
            elif isinstance(event, Started):
                order.append(event.video)
                if order.count("crash_once.mp4") == 2:
                    assert len(children(os.getpid()) - before) == 1
    assert order[-1] == "crash_once.mp4"


def test_single_frames_out_of_order_are_left_out_and_many_are_refused(tmp_path: Path) -> None:
    videos = copies(tmp_path / "v", "seldom.mp4", "often.mp4", frames=150)
    got = run(videos, DecodePlan(rates=(None,), decoder="tests.extract.bad_decoders:Backwards"))
    assert got["seldom.mp4"].rows[0] == [index for index in range(150) if index != 10]
    last = got["often.mp4"].last
    assert isinstance(last, Failed)
    assert (last.reason, last.detail) == ("decode_error", "has times that run backwards at 5 of 150 frames")


def children(parent: int) -> set[int]:
    """Ids of the processes that `parent` started, zombies left out."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.add(int(entry.name))
    return found


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_workers_import_no_torch_and_stay_for_many_videos(tmp_path: Path) -> None:
    videos = copies(tmp_path / "v", *(f"{index}.mp4" for index in range(8)))
    before = children(os.getpid())
    seen: set[int] = set()
    with DecodePool(videos, DecodePlan(rates=(None,)), workers=2) as pool:
        for event in pool:
            workers = children(os.getpid()) - before
            for process in workers - seen:
                maps = Path(f"/proc/{process}/maps").read_text()
                assert "torch" not in maps
            seen |= workers
            if isinstance(event, Frames):
                event.release()
    assert len(seen) == 2
    assert not children(os.getpid()) - before


def test_a_slow_consumer_holds_the_decoder_at_three_segments(tmp_path: Path) -> None:
    (video,) = copies(tmp_path / "v", "a.mp4", frames=400)
    held: list[Frames] = []
    released = threading.Event()

    def release_later() -> None:
        time.sleep(1.2)
        released.set()
        held[0].release()

    with DecodePool([video], DecodePlan(rates=(None,)), workers=1, limits=Limits(timeout_s=0.3)) as pool:
        for event in pool:
            assert isinstance(event, (Started, Frames))
            if isinstance(event, Frames):
                assert len(event.images) == 64
                held.append(event)
            if len(held) == 3:
                thread = threading.Thread(target=release_later)
                thread.start()
            if len(held) == 4:
                assert released.is_set(), "the fourth segment needs the place of the first"
                thread.join()
                break
    assert [number(image) for image in held[1].images] == list(range(64, 128)), "a held segment is not written to"


def test_leaving_the_pool_in_the_middle_ends_the_workers_at_once(tmp_path: Path) -> None:
    videos = copies(tmp_path / "v", "a.mp4", "b.mp4", frames=300)
    before, handles = children(os.getpid()), open_files()
    with DecodePool(videos, DecodePlan(rates=(None,), decoder=SLOW), workers=2) as pool:
        assert isinstance(next(iter(pool)), Started)
        start = time.monotonic()
    assert time.monotonic() - start < 2
    assert children(os.getpid()) == before
    assert open_files() == handles


SCRIPT = """
import sys
from pathlib import Path
from extract.inputs import enumerate_videos
from extract.workers import DecodePool
from extract.decode import DecodePlan
from extract.worker_events import Started
videos = enumerate_videos([sys.argv[1]]).videos
with DecodePool(videos, DecodePlan(rates=(None,), decoder=sys.argv[2]), workers=2) as pool:
    started = 0
    for event in pool:
        started += isinstance(event, Started)
        if started == 2:
            print("decoding", flush=True)
"""


@pytest.fixture
def program(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A program that decodes slowly in two workers, and has begun."""
    copies(tmp_path / "v", "a.mp4", "b.mp4", frames=300)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), str(tmp_path / "v"), SLOW],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "decoding\n"
    yield process
    process.kill()
    process.communicate()


def gone_within(processes: set[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not any(
            Path(f"/proc/{process}/cmdline").exists() and Path(f"/proc/{process}/cmdline").read_bytes()
            for process in processes
        ):
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM])
def test_workers_end_when_their_parent_dies(program: subprocess.Popen[str], deadly: signal.Signals) -> None:
    workers = children(program.pid)
    assert len(workers) == 2
    program.send_signal(deadly)
    program.wait()
    assert gone_within(workers, 3)


def test_ctrl_c_ends_everything_within_two_seconds_and_the_workers_say_nothing(
    program: subprocess.Popen[str],
) -> None:
    workers = children(program.pid)
    for worker in workers:
        assert os.getpgid(worker) != os.getpgid(program.pid), "the terminal's Ctrl-C does not reach them"
        os.kill(worker, signal.SIGINT)
    assert not gone_within(workers, 0.5), "and would not end them"
    os.killpg(program.pid, signal.SIGINT)
    _, errors = program.communicate(timeout=2)
    assert gone_within(workers, 1)
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_a_probe_of_a_folder_gives_a_status_for_each(tmp_path: Path) -> None:
    videos = copies(tmp_path / "v", "a.mp4", "sleep_always.mp4", "b.mp4", frames=75)
    (tmp_path / "v" / "empty.mp4").touch()
    statuses = dict(probe_all(inputs(tmp_path / "v"), DecodePlan(rates=(12.5,), audio_rate=8000), workers=2))
    assert set(statuses) == {video.id for video in videos} | {"empty.mp4"}
    probe = statuses["a.mp4"]
    assert isinstance(probe, Probe)
    assert (probe.width, probe.height, probe.num_frames) == (96, 32, 75)
    assert probe.duration == pytest.approx(3.0)
    failure = statuses["empty.mp4"]
    assert isinstance(failure, Failure)
    assert failure.reason == "empty"


def test_no_inputs_are_no_events_and_no_workers() -> None:
    before = children(os.getpid())
    with DecodePool([], DecodePlan(rates=(None,)), workers=4) as pool:
        assert not list(pool)
        assert children(os.getpid()) == before


def test_memory_of_a_worker_does_not_grow_with_the_video(tmp_path: Path) -> None:
    peaks = []
    for frames in (250, 1500):
        (video,) = copies(
            tmp_path / str(frames), f"{frames}.mkv", frames=frames, sound=wave(clicks([0.1], frames / 25))
        )
        before = children(os.getpid())
        with DecodePool([video], DecodePlan(rates=(None,), audio_rate=8000), workers=1) as pool:
            for index, event in enumerate(pool):
                if isinstance(event, Frames):
                    event.release()
                if index % 20 == 0 and not isinstance(event, Finished):
                    (worker,) = children(os.getpid()) - before
                    status = Path(f"/proc/{worker}/status").read_text()
                    peak = int(status.partition("VmHWM:")[2].split()[0])
        peaks.append(peak)
    assert peaks[1] < peaks[0] + 6 * 1024, f"KiB {peaks}"
