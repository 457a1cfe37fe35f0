"""The synthetic videos: what is written is what the labels say, to the frame, and nothing depends on chance."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from extract.drawing import RADIUS, SLOTS, SOUND_RATE, Act, Segment, pictures, soundtrack
from extract.synthetic import (
    CLASSES,
    POUR_WITHIN,
    SOUNDING,
    Script,
    SyntheticVideo,
    encode_video,
    generate,
    write_truth,
    write_video,
)

FPS = 25


def decoded(path: Path) -> tuple[NDArray[np.uint8], list[float], NDArray[np.float32]]:
    """Frames (T, H, W, 3), their times in seconds, and sound (S,)."""
    with av.open(str(path)) as container:
        frames = [(frame.to_ndarray(format="rgb24"), frame.time) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = [frame.to_ndarray()[0] for frame in container.decode(audio=0)] if container.streams.audio else []
    times = [time for _, time in frames if time is not None]
    return np.stack([frame for frame, _ in frames]), times, np.concatenate([*sound, np.zeros(0)]).astype(np.float32)


def scripts(count: int, duration: float = 12.0) -> list[Script]:
    return [Script(np.random.default_rng([5, index]), duration, FPS) for index in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("synthetic")


@pytest.fixture(scope="module")
def videos(folder: Path) -> tuple[SyntheticVideo, ...]:
    return generate(folder, clips=5, seconds=3.0, seed=3, size=(96, 64))


# What lies on disk


def test_a_video_has_the_frames_times_and_sound_that_its_truth_tells(
    folder: Path, videos: tuple[SyntheticVideo, ...]
) -> None:
    for video in videos:
        frames, times, sound = decoded(folder / video.name)
        assert frames.shape == (round(video.duration * FPS), 64, 96, 3)
        np.testing.assert_allclose(times, np.arange(len(frames)) / FPS, atol=1e-4)
        assert video.duration <= len(sound) / SOUND_RATE < video.duration + 3 * 1024 / SOUND_RATE


def test_the_same_seed_gives_the_same_pictures_sound_and_labels(
    folder: Path, videos: tuple[SyntheticVideo, ...], tmp_path: Path
) -> None:
    again = generate(tmp_path, clips=5, seconds=3.0, seed=3, size=(96, 64))
    assert again == videos
    assert (tmp_path / "labels.csv").read_bytes() == (folder / "labels.csv").read_bytes()
    for one, other in zip(decoded(folder / videos[0].name), decoded(tmp_path / videos[0].name), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_seed_gives_other_videos(videos: tuple[SyntheticVideo, ...], tmp_path: Path) -> None:
    other = generate(tmp_path, clips=5, seconds=3.0, seed=4, size=(96, 64))
    assert [video.segments for video in other] != [video.segments for video in videos]


def test_the_csv_lists_every_segment_and_a_video_without_one_still_has_a_line(tmp_path: Path) -> None:
    busy = SyntheticVideo("a.mp4", 4.0, (Segment("hum", 0.5, 1.25), Segment("spin", 1.0, 3.0)), (2.0,), (), "train")
    idle = SyntheticVideo("b.mp4", 3.0, (), (), (), "test")
    write_truth(tmp_path, [busy, idle])
    with (tmp_path / "labels.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["video", "start", "end", "label", "subset", "duration"],
            ["a.mp4", "0.5", "1.25", "hum", "train", "4.0"],
            ["a.mp4", "1.0", "3.0", "spin", "train", "4.0"],
            ["b.mp4", "", "", "", "test", "3.0"],
        ]
    assert json.loads((tmp_path / "scenes.json").read_text()) == {
        "a.mp4": {"duration": 4.0, "subset": "train", "cuts": [2.0], "sounds": []},
        "b.mp4": {"duration": 3.0, "subset": "test", "cuts": [], "sounds": []},
    }


def test_of_twenty_clips_five_are_for_test_and_three_for_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwritten(path: Path, *, subset: str, **_: object) -> SyntheticVideo:
        return SyntheticVideo(path.name, 1.0, (), (), (), subset)

    monkeypatch.setattr("extract.synthetic.write_video", unwritten)
    subsets = [video.subset for video in generate(tmp_path, clips=20)]
    assert {name: subsets.count(name) for name in ("train", "val", "test")} == {"train": 12, "val": 3, "test": 5}
    assert {video.subset for video in generate(tmp_path, clips=3)} == {"train", "val", "test"}


# The truth at given times


def test_rows_are_on_where_their_middle_lies_inside_a_segment() -> None:
    video = SyntheticVideo("a", 4.0, (Segment("hum", 1.0, 2.0), Segment("spin", 1.5, 4.0)), (), (), "train")
    times = np.array([[0.5, 1.5], [0.6, 1.5], [1.0, 2.5], [1.9, 2.1], [3.5, 4.5], [3.4, 4.4]])  # middles 1, 1.05, ...
    expected = np.zeros((6, len(CLASSES)), dtype=np.int8)
    expected[[1, 2], CLASSES.index("hum")] = 1  # ends are not inside
    expected[[2, 3, 5], CLASSES.index("spin")] = 1
    np.testing.assert_array_equal(video.rows(times), expected)
    assert [CLASSES[index] for index in np.flatnonzero(video.present())] == ["hum", "spin"]


def test_scenes_cover_the_video_between_its_cuts() -> None:
    video = SyntheticVideo("a", 4.0, (), (1.0, 2.5), (), "train")
    assert video.scenes.tolist() == [[0.0, 1.0], [1.0, 2.5], [2.5, 4.0]]


def test_what_is_heard_is_the_sounding_classes_and_nothing_else() -> None:
    for script in scripts(20):
        heard = [segment for segment in script.labelled() if segment.label in SOUNDING]
        assert list(script.heard()) == heard


# The rules


def test_nothing_reaches_out_of_the_video_and_every_time_is_a_frame() -> None:
    for script in scripts(30) + scripts(30, duration=2.0):
        for segment in script.labelled():
            assert 0 <= segment.start < segment.end <= script.duration
            for seconds in (segment.start, segment.end):
                assert seconds * FPS == pytest.approx(round(seconds * FPS), abs=1e-9)


def test_a_disc_is_open_before_the_flash_and_close_after_it() -> None:
    seen = set()
    for script in scripts(40):
        flashes = [act.start for act in script.acts if act.look == "flash"] or [script.duration]
        for act in script.acts:
            if act.look == "disc":
                assert act.label == ("open" if act.end <= flashes[0] else "close")
                assert act.end <= flashes[0] or act.start >= flashes[0]
                seen.add(act.label)
    assert seen == {"open", "close"}


def test_dashes_pour_exactly_where_a_lift_ended_shortly_before() -> None:
    seen = set()
    for script in scripts(40):
        lifts = [act.end for act in script.acts if act.look == "prism"]
        for act in script.acts:
            if act.look == "dashes":
                follows = any(0 < act.start - end <= POUR_WITHIN for end in lifts)
                assert act.label == ("pour" if follows else "rain")
                seen.add(act.label)
    assert seen == {"pour", "rain"}


def test_acts_of_one_look_never_touch_and_no_two_shapes_share_a_slot() -> None:
    for script in scripts(40):
        for index, one in enumerate(script.acts):
            for other in script.acts[index + 1 :]:
                if one.start < other.end and other.start < one.end:
                    assert one.look != other.look
                    heard_or_full = {"tone", "hum", "flash"}
                    assert one.slot != other.slot or {one.look, other.look} & heard_or_full


def test_most_spins_bring_a_beep() -> None:
    spins = beeps = 0
    for script in scripts(80):
        on = set(script.labelled())
        for segment in on:
            if segment.label == "spin":
                spins += 1
                beeps += segment._replace(label="beep") in on
    assert 0.6 < beeps / spins < 0.95


def test_every_class_occurs_and_none_in_most_of_the_videos() -> None:
    present = np.array([[name in {s.label for s in script.labelled()} for name in CLASSES] for script in scripts(60)])
    assert present.mean(axis=0).min() > 0.1
    assert present.mean(axis=0).max() < 0.8


# What is seen and heard


def drawn(*acts: Act, frames: int = FPS, cuts: tuple[float, ...] = ()) -> NDArray[np.float64]:
    random = np.random.default_rng(0)
    return np.stack(list(pictures(acts, cuts, frames, (120, 120), FPS, random))).astype(float)


def around(frames: NDArray[np.float64], slot: int) -> NDArray[np.float64]:
    """The square in which the shape of a slot lies, (T, h, w, 3)."""
    x, y = (round(120 * share) for share in SLOTS[slot])
    reach = round(120 * RADIUS)
    return frames[:, y - reach : y + reach, x - reach : x + reach]


@pytest.mark.parametrize(("look", "channel"), [("disc", 2), ("prism", 1), ("square", 0)], ids=["blue", "green", "red"])
def test_a_shape_colours_its_slot_from_its_start_up_to_its_end(look: str, channel: int) -> None:
    frames = drawn(Act(look, "lift", 0.2, 0.6, slot=1))
    others = [index for index in range(3) if index != channel]
    colour = around(frames, 1)[..., channel] - around(frames, 1)[..., others].mean(axis=-1)
    quiet, busy = colour[:5].mean(), colour[5:15].mean()
    assert busy > quiet + 25
    np.testing.assert_allclose(colour[15:].mean(axis=(1, 2)), quiet, atol=8)  # the camera pans over the background
    assert abs(frames[7] - frames[2])[60:, :60].mean() < 8  # slot 2 has grain and panning only


def test_grow_gets_larger_and_shrink_smaller() -> None:
    for label, later in (("grow", True), ("shrink", False)):
        frames = drawn(Act("balloon", label, 0.0, 1.0, slot=0))
        orange = (frames[..., 0] - frames[..., 2] > 80).sum(axis=(1, 2))
        assert (orange[20] > 2 * orange[4]) == later
        assert (orange[4] > 2 * orange[20]) != later


def test_blink_is_seen_for_four_tenths_of_a_second_and_gone_for_as_long() -> None:
    frames = drawn(Act("zebra", "blink", 0.0, 1.6, slot=3), frames=40)
    yellow = (around(frames, 3)[..., 0] - around(frames, 3)[..., 2] > 100).any(axis=(1, 2))
    assert yellow.tolist() == [True] * 10 + [False] * 10 + [True] * 10 + [False] * 10


def test_only_a_spinning_square_turns() -> None:
    spinning, still = (around(drawn(Act("square", label, 0.0, 1.0, slot=0)), 0) for label in ("spin", ""))
    assert abs(spinning[8] - spinning[0]).mean() > 4 * abs(still[8] - still[0]).mean()


def test_a_cut_changes_the_background_at_its_frame() -> None:
    frames = drawn(cuts=(0.4,))
    change = abs(np.diff(frames, axis=0)).mean(axis=(1, 2, 3))
    assert change.argmax() == 9  # from frame 9 to frame 10, which is shown at 0.4 s
    assert change[9] > 2 * np.delete(change, 9).max()


def spectrum_peak(samples: NDArray[np.float32]) -> float:
    spectrum = abs(np.fft.rfft(samples))
    return float(np.fft.rfftfreq(len(samples), 1 / SOUND_RATE)[spectrum.argmax()])


def test_a_beep_is_a_tone_of_880_hertz_where_it_stands_and_silence_elsewhere() -> None:
    track = soundtrack([Segment("beep", 0.5, 1.0)], 1.5, np.random.default_rng(0))
    assert len(track) == 1.5 * SOUND_RATE
    assert spectrum_peak(track[SOUND_RATE // 2 : SOUND_RATE]) == pytest.approx(880, abs=2)
    for silent in (track[: SOUND_RATE // 2], track[SOUND_RATE:]):
        assert abs(silent).max() < 0.03


def test_a_hum_has_120_hertz_and_a_lift_rises() -> None:
    hum = soundtrack([Segment("hum", 0.0, 1.0)], 1.0, np.random.default_rng(0))
    assert spectrum_peak(hum) == pytest.approx(120, abs=2)
    lift = soundtrack([Segment("lift", 0.0, 1.0)], 1.0, np.random.default_rng(0))
    assert spectrum_peak(lift[:3200]) == pytest.approx(360, abs=60)  # 300 to 420 Hz in the first 0.2 s
    assert spectrum_peak(lift[-3200:]) == pytest.approx(840, abs=60)


def test_a_drum_beats_every_160_milliseconds() -> None:
    drum = soundtrack([Segment("drum", 0.0, 0.96)], 0.96, np.random.default_rng(0))
    loud = abs(drum).reshape(6, 4, -1).mean(axis=2)  # 6 beats, 40 ms each quarter
    assert (loud[:, 0] > 3 * loud[:, 2]).all()


def test_sound_and_picture_stay_together_through_the_encoder(tmp_path: Path) -> None:
    white, black = np.full((64, 64, 3), 255, np.uint8), np.zeros((64, 64, 3), np.uint8)
    loud = np.zeros(SOUND_RATE * 2, np.float32)
    loud[SOUND_RATE : SOUND_RATE + 4000] = np.sin(np.arange(4000) / 3)
    encode_video(tmp_path / "a.mp4", [white if index == FPS else black for index in range(2 * FPS)], FPS, loud)
    frames, _, sound = decoded(tmp_path / "a.mp4")
    assert frames.mean(axis=(1, 2, 3)).argmax() == FPS  # the second second begins
    with av.open(str(tmp_path / "a.mp4")) as container:
        first = next(container.decode(audio=0))
        assert first.pts is not None
        assert first.time_base is not None
        shift = float(first.pts * first.time_base)
    onset = np.flatnonzero(abs(sound) > 0.3)[0] / SOUND_RATE + shift
    assert onset == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
def test_frames_survive_encoding_in_several_containers_and_rates(tmp_path: Path, suffix: str) -> None:
    ramp = [np.full((32, 48, 3), 10 * index, np.uint8) for index in range(12)]
    encode_video(tmp_path / f"a.{suffix}", ramp, Fraction(30000, 1001))
    frames, times, sound = decoded(tmp_path / f"a.{suffix}")
    np.testing.assert_allclose(frames.mean(axis=(1, 2, 3)), 10.0 * np.arange(12), atol=4)
    np.testing.assert_allclose(times, np.arange(12) * 1001 / 30000, atol=1e-3)
    assert not len(sound)


def test_sound_may_be_longer_than_the_pictures(tmp_path: Path) -> None:
    encode_video(tmp_path / "a.mp4", [np.zeros((32, 32, 3), np.uint8)] * 5, FPS, np.zeros(SOUND_RATE, np.float32))
    frames, _, sound = decoded(tmp_path / "a.mp4")
    assert len(frames) == 5
    assert len(sound) >= SOUND_RATE


def test_actions_are_visible_in_the_written_file_when_the_labels_say_so(tmp_path: Path) -> None:
    """A blue disc (open, close) is what nothing else shows: saturated blue."""
    video = next(
        video
        for index in range(20)
        if (video := write_video(tmp_path / "a.mp4", seed=index, seconds=5.0, size=(96, 96))).present()[
            CLASSES.index("open")
        ]
    )
    frames = decoded(tmp_path / "a.mp4")[0].astype(int)
    blue = (frames[..., 2] - frames[..., 0] > 120).sum(axis=(1, 2)) > 100
    times = np.stack([np.arange(len(frames)), np.arange(len(frames)) + 1], axis=1) / FPS
    discs = video.rows(times)[:, [CLASSES.index("open"), CLASSES.index("close")]].any(axis=1)
    np.testing.assert_array_equal(blue, discs)


def test_progress_is_told_after_every_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    tell: Callable[[int], None] = told.append
    generate(tmp_path, clips=2, seconds=0.4, size=(32, 32), written=tell)
    assert told == [1, 2]
