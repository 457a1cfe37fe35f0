"""decord beside PyAV: the same frames at the same times, or a refusal; never something else in silence."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from extract import decode_decord
from extract.decode import DecodeError, DecodePlan, Limits, Reason, Sound, SoundLost, decoder_class
from extract.decode_decord import DecordDecoder
from extract.decode_pyav import PyAvDecoder
from tests.extract.video_files import (
    bars,
    clicks,
    cut_head,
    damage,
    edit_list,
    hidden_frames,
    number,
    wave,
    write_video,
)

# Both hand the same planes to the same FFmpeg conversion, so equal is what one expects; 1 level of 255 leaves room
# for another build's rounding, while a neighbouring frame of these clips is further away than that.
SAME = 1.0
PIXELS = 10_000_000  # to compare in one video: of larger ones every so many frames, spread over all of it


class Decoded(NamedTuple):
    times: list[float]
    images: list[NDArray[np.uint8]]
    sound: int
    lost: list[Reason]


def decode(name: str, path: Path, limits: Limits = Limits(), **plan: Any) -> Decoded:  # noqa: B008
    decoder = decoder_class(name)(str(path), DecodePlan(**{"rates": (None,), **plan}), limits, lambda: None)
    decoded = Decoded([], [], 0, [])
    for item in decoder:
        if isinstance(item, Sound):
            decoded = decoded._replace(sound=decoded.sound + len(item.samples))
        elif isinstance(item, SoundLost):
            decoded.lost.append(item.reason)
        else:
            decoded.times.append(item.time)
            decoded.images.append(item.rgb().copy())
    assert decoder.summary().frames_decoded == len(decoded.times)
    decoder.close()
    return decoded


def compare(path: Path) -> tuple[str, str]:
    """Figures of both decoders on one file, as a line of a table, and why decord was refused."""
    ours = PyAvDecoder(str(path), DecodePlan(rates=(None,)), Limits(), lambda: None)
    try:
        theirs = DecordDecoder(str(path), DecodePlan(rates=(None,)), Limits(memory_bytes=1 << 30), lambda: None)
    except DecodeError as refusal:
        ours.close()
        return f"{path.name:52} refused: {refusal.detail}", str(refusal)
    off, differences = [], []
    step = 1 + len(theirs._index.times) * ours.probe.width * ours.probe.height // PIXELS
    for index, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert not isinstance(a, (Sound, SoundLost))
        assert not isinstance(b, (Sound, SoundLost))
        off.append(abs(a.time - b.time))
        if index % step == 0:
            differences.append(float(np.abs(a.rgb().astype(np.int16) - b.rgb()).mean()))
    counts = ours.summary().frames_decoded, theirs.summary().frames_decoded
    assert theirs.summary().end == pytest.approx(ours.summary().end, abs=1e-3)
    assert bool(theirs.summary().missing) == bool(ours.summary().missing)
    ours.close()
    theirs.close()
    assert counts[0] == counts[1] == len(off)
    assert max(off) < 1e-3, f"{path.name}: {max(off)} s"
    assert max(differences) < SAME, f"{path.name}: {max(differences)} levels"
    figures = f"{max(off):9.6f} s {np.mean(differences):7.4f} mean {max(differences):7.4f} worst"
    return f"{path.name:52} {counts[0]:5} {counts[1]:5} {figures}", ""


REFUSED_CLIPS = {
    "clip_video_encode_vid2.mp4": "edit list",
    "mmaction2_test.avi": "AVI file with B-frames",
    "torchvision_TrumanShow_wave_f_nm_np1_fr_med_26.avi": "AVI file with B-frames",
}


def test_both_decoders_agree_on_real_clips_or_decord_is_refused(shared_data: Path) -> None:
    refusals = {}
    for clip in sorted((shared_data / "videos").iterdir()):
        line, why = compare(clip)
        print(line)
        if why:
            refusals[clip.name] = why
    assert set(refusals) == set(REFUSED_CLIPS)
    for name, words in REFUSED_CLIPS.items():
        assert words in refusals[name]
        assert refusals[name].endswith("--decoder pyav")


def picture(index: int) -> NDArray[np.uint8]:
    """Bars that count, 128 x 64, with colour below them."""
    image = np.zeros((64, 128, 3), np.uint8)
    image[:48, :96] = bars(index, 96, 48)
    image[48:] = (200 - index, 40 + index, 90)
    return image


VPX = {"deadline": "realtime", "cpu-used": "8"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("b_frames.mp4", {}),
        ("changing.mp4", {"times": [0.0, 0.1, 0.15, 0.4, 0.41, 1.0], "b_frames": 0}),
        ("late.mkv", {"times": [0.5 + index / 20 for index in range(20)], "b_frames": 0}),
        ("b_frames.mkv", {}),
        ("plain.avi", {"codec": "mpeg4", "b_frames": 0}),
        ("turned.mp4", {"rotation": 90}),
        ("turned_more.mp4", {"rotation": 180}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": VPX}),
        ("short_groups.mp4", {"options": {"g": "10"}}),
        ("changing_b_frames.mp4", {"times": [index**1.5 / 20 for index in range(20)]}),
        ("turned_back.mp4", {"rotation": 270}),
        ("hevc.mp4", {"codec": "libx265", "options": {"x265-params": "open-gop=0:log-level=none"}}),
        ("with:colon.mp4", {}),
        ("%03d.mp4", {}),
        ("two\nlines.mp4", {}),
    ],
)
def test_both_decoders_agree_on_generated_clips(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    line, why = compare(write_video(tmp_path / name, **{"frames": 40, "draw": picture, **settings}))
    print(line)
    assert why == ""


def narrow(index: int) -> NDArray[np.uint8]:
    return np.full((16, 16, 3), 20 + index, np.uint8)


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        (
            "open_groups.mp4",
            {
                "options": {
                    "x264-params": "open-gop=1:keyint=10:min-keyint=5:scenecut=0:bframes=3:b-adapt=0",
                    "preset": "medium",
                }
            },
            "open groups",
        ),
        ("b_frames.avi", {"codec": "mpeg4"}, "AVI file with B-frames"),
        ("b_frames_h264.avi", {}, "AVI file with B-frames"),
        ("narrow.mp4", {"draw": narrow}, "frames of shape"),
        ("turned.mkv", {"rotation": 90}, "frames of shape"),
        ("ten_bits.mp4", {"pixels": "yuv420p10le"}, "more than 8 bits a colour"),
        ("a.mpg", {"codec": "mpeg2video"}, "is not for decord"),
        ("a.ts", {}, "is not for decord"),
        (
            "av1.mp4",
            {"codec": "libsvtav1", "b_frames": 0, "options": {"preset": "12"}},
            "is not for decord",
        ),
    ],
)
def test_what_decord_gets_wrong_is_refused_with_a_way_out(
    tmp_path: Path, name: str, settings: dict[str, Any], words: str
) -> None:
    path = write_video(tmp_path / name, **{"frames": 30, "draw": picture, **settings})
    _, why = compare(path)
    print(why)
    assert words in why
    assert why.startswith("decode_error: is not for decord")
    assert why.endswith("--decoder pyav")


def test_a_name_that_is_no_utf8_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, draw=picture)
    path = path.rename(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    assert "its name is no UTF-8" in compare(path)[1]


def test_even_a_relative_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "a:b.mp4", frames=3, draw=picture)
    monkeypatch.chdir(tmp_path)
    assert compare(Path("a:b.mp4"))[1] == ""


def test_what_decord_itself_cannot_open_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot_open(*_: Any, **__: Any) -> None:
        raise RuntimeError("Error reading a.mp4...")  # decord/video_reader.py, where it has no handle

    monkeypatch.setattr("decord.VideoReader", cannot_open)
    path = write_video(tmp_path / "a.mp4", frames=3, draw=picture)
    assert "decord cannot open it (Error reading" in compare(path)[1]


def test_edit_lists_and_hidden_frames_are_refused(tmp_path: Path) -> None:
    path = edit_list(write_video(tmp_path / "a.mp4", draw=picture, b_frames=0, options={"g": "20"}), frames=5)
    assert "an edit list leaves frames out" in compare(path)[1]
    path = write_video(tmp_path / "a.webm", draw=picture, codec="libvpx", options=VPX, b_frames=0)
    assert "frames that are never shown" in compare(hidden_frames(path, every=10))[1]


def test_damaged_frames_are_refused(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"codec": "mjpeg", "pixels": "yuvj420p", "b_frames": 0}
    path = write_video(tmp_path / "a.mkv", frames=50, draw=picture, **settings)
    with pytest.raises(DecodeError, match="decord fails at frame"):
        decode("decord", damage(path, [10]))


def test_a_cut_before_which_decord_shifts_every_frame_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cut_head(write_video(tmp_path / "a.mkv", frames=50, draw=picture, options={"g": "10"}), packets=5)
    with pytest.raises(DecodeError, match="first frames cannot be decoded, for which decord shifts all others"):
        decode("decord", path)
    monkeypatch.setattr(decode_decord, "SAME_TIME", 1.0)  # a second net: no frame may stand for another
    with pytest.raises(DecodeError, match="decord fails at frame"):
        decode("decord", path)


def test_reading_in_stretches_gives_every_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", frames=100, draw=picture, options={"g": "16"})
    for frames_in_memory in (1, 7, 20, 64):
        limits = Limits(memory_bytes=4 * frames_in_memory * 128 * 64 * 3)
        assert [number(image[:40, :96]) for image in decode("decord", path, limits).images] == list(range(100))


def test_a_stretch_ends_at_a_key_frame_so_that_nothing_is_decoded_twice(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=100, draw=picture, options={"g": "16", "sc_threshold": "0"})
    limits = Limits(memory_bytes=4 * 40 * 128 * 64 * 3)
    decoder = DecordDecoder(str(path), DecodePlan(rates=(None,)), limits, lambda: None)
    stops = [0]
    while stops[-1] < 100:
        stops.append(decoder._stretch(stops[-1]))
    decoder.close()
    assert stops == [0, 32, 64, 100]


def test_decord_does_not_decode_ahead_while_nobody_reads(tmp_path: Path) -> None:
    """Left alone after 8 of 400 frames, its queue would grow by 392 frames of 640 x 480."""
    path = write_video(tmp_path / "a.mp4", frames=400, draw=lambda i: np.full((480, 640, 3), i % 250, np.uint8))
    decoder = DecordDecoder(
        str(path), DecodePlan(rates=(None,)), Limits(memory_bytes=4 * 8 * 640 * 480 * 3), lambda: None
    )
    next(iter(decoder))
    before = resident()
    time.sleep(1.0)
    assert resident() - before < 50 * 640 * 480 * 3
    decoder.close()


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_times_that_differ_from_the_containers_are_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=30, draw=picture)
    decoder = DecordDecoder(str(path), DecodePlan(rates=(None,)), Limits(), lambda: None)
    decoder._index.times[7] += 0.02
    with pytest.raises(DecodeError, match=r"decord shows frame 7 at 0\.280 s, not at 0\.300 s"):
        decoder._compare_times()
    decoder.close()


def test_another_count_or_another_first_picture_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=30, draw=picture)
    decoder = DecordDecoder(str(path), DecodePlan(rates=(None,)), Limits(), lambda: None)
    with pytest.raises(DecodeError, match=r"decord's first frame differs by \d+\.\d of 255 levels"):
        decoder._compare_picture(255 - picture(0))
    decoder._index = replace(decoder._index, times=decoder._index.times[:-1])
    with pytest.raises(DecodeError, match="decord counts 30 frames, the container has 29"):
        decoder._compare_times()
    decoder.close()


def test_the_sound_comes_through_pyav(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=50, draw=picture, sound=wave(clicks([0.5], 2.0)))
    assert decode("decord", path, audio_rate=16000).sound == 32000
    path = write_video(tmp_path / "b.mkv", frames=50, draw=picture)
    assert decode("decord", path, audio_rate=16000).lost == [Reason.NO_AUDIO]


def test_a_truncated_video_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=100, draw=picture)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    decoder = DecordDecoder(str(path), DecodePlan(rates=(None,)), Limits(), lambda: None)
    missing = decoder.summary().missing
    decoder.close()
    assert missing.endswith("of 4.00 s")
