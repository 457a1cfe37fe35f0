"""PyAV's decoder on generated videos, whose frames and sounds show what they are and when."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from extract import decode_pyav
from extract.decode import (
    DecodeError,
    DecodePlan,
    Limits,
    Probe,
    Reason,
    Sound,
    SoundLost,
    Summary,
    file_state,
    sniff,
)
from extract.decode_pyav import FrameClock, PyAvDecoder
from tests.extract.video_files import (
    bars,
    clicks,
    cut_head,
    damage,
    edit_list,
    hidden_frames,
    number,
    remux,
    truncate,
    wave,
    write_sound,
    write_video,
)

RATE = 16000


class Decoded(NamedTuple):
    """Everything that a decoder gave."""

    probe: Probe
    times: list[float]
    images: list[NDArray[np.uint8]]
    sound: NDArray[np.float32]
    lost: list[SoundLost]
    summary: Summary

    @property
    def numbers(self) -> list[int]:
        return [number(image) for image in self.images]


def decode(path: Path, limits: Limits = Limits(), **plan: Any) -> Decoded:  # noqa: B008
    beats = []
    decoder = PyAvDecoder(str(path), DecodePlan(**{"rates": (None,), **plan}), limits, lambda: beats.append(1))
    times, images, pieces, lost = [], [], [], []
    heard = 0
    for item in decoder:
        if isinstance(item, Sound):
            assert item.first == heard, "pieces of sound follow each other"
            heard += len(item.samples)
            pieces.append(item.samples)
        elif isinstance(item, SoundLost):
            lost.append(item)
        else:
            times.append(item.time)
            images.append(item.rgb().copy())
    summary = decoder.summary()
    decoder.close()
    assert len(beats) >= len(times)
    sound = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    return Decoded(decoder.probe, times, images, sound, lost, summary)


def refusal(action: Callable[[], Any]) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        action()
    return caught.value


MPEG4 = {"codec": "mpeg4"}
VPX = {"deadline": "realtime", "cpu-used": "8"}


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("b_frames.mp4", {}),
        ("plain.mp4", {"b_frames": 0}),
        ("b_frames.mkv", {}),
        ("plain.mov", {"codec": "mjpeg", "pixels": "yuvj420p", "b_frames": 0}),
        ("plain.avi", {**MPEG4, "b_frames": 0}),
        ("b_frames.avi", MPEG4),
        ("b_frames_h264.avi", {}),
        ("vp8.webm", {"codec": "libvpx", "options": VPX}),
        ("vp9.webm", {"codec": "libvpx-vp9", "options": VPX}),
        ("b_frames.ts", {}),
        ("b_frames.mpg", {"codec": "mpeg2video"}),
        ("b_frames.flv", {}),
        ("loop.gif", {"codec": "gif", "pixels": "rgb8"}),
    ],
)
def test_every_frame_comes_once_in_order_and_at_its_time(tmp_path: Path, name: str, settings: dict[str, Any]) -> None:
    decoded = decode(write_video(tmp_path / name, frames=30, **settings))
    assert decoded.numbers == list(range(30))
    np.testing.assert_allclose(decoded.times, np.arange(30) / 25, atol=1e-9)
    assert decoded.summary.end == pytest.approx(1.2)
    assert decoded.summary.frames_decoded == 30
    assert decoded.summary.missing == ""


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_changing_frame_rate_is_told_by_the_containers_times(tmp_path: Path, name: str) -> None:
    times = [0.0, 0.1, 0.15, 0.4, 0.41, 1.0]
    decoded = decode(write_video(tmp_path / name, times=times, b_frames=0))
    np.testing.assert_allclose(decoded.times, times, atol=1e-9)
    assert decoded.numbers == list(range(6))


def test_time_counts_from_the_start_of_the_container_so_late_pictures_stay_late(tmp_path: Path) -> None:
    sound = wave(np.zeros(RATE), RATE)
    path = write_video(tmp_path / "a.mkv", times=[0.5 + index / 25 for index in range(10)], sound=sound, b_frames=0)
    np.testing.assert_allclose(decode(path, audio_rate=RATE).times, 0.5 + np.arange(10) / 25, atol=1e-9)


def corner() -> NDArray[np.uint8]:
    """White, with the top left quarter red."""
    image = np.full((48, 96, 3), 255, np.uint8)
    image[:24, :48] = (255, 0, 0)
    return image


@pytest.mark.parametrize(
    ("anticlockwise", "shape", "red", "clockwise"),
    [
        (0, (48, 96), (0, 0), 0),
        (90, (96, 48), (1, 0), 270),
        (180, (48, 96), (1, 1), 180),
        (270, (96, 48), (0, 1), 90),
    ],
)
def test_frames_are_turned_as_a_player_shows_them(
    tmp_path: Path, anticlockwise: int, shape: tuple[int, int], red: tuple[int, int], clockwise: int
) -> None:
    path = write_video(tmp_path / "a.mp4", frames=3, draw=lambda _: corner(), rotation=anticlockwise)
    decoded = decode(path)
    image = decoded.images[0]
    assert image.shape == (*shape, 3)
    assert (decoded.probe.height, decoded.probe.width, decoded.probe.rotation) == (*shape, clockwise)
    quarters = image.reshape(2, shape[0] // 2, 2, shape[1] // 2, 3).mean(axis=(1, 3))
    for row in (0, 1):
        for column in (0, 1):
            blue = 0 if (row, column) == red else 255
            np.testing.assert_allclose(quarters[row, column], (255, blue, blue), atol=30)


def test_mirrored_frames_are_mirrored_back() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    np.testing.assert_array_equal(decode_pyav.upright(image, ((-1, 0), (0, 1))), image[:, ::-1])
    np.testing.assert_array_equal(decode_pyav.upright(image, ((1, 0), (0, -1))), image[::-1])
    np.testing.assert_array_equal(decode_pyav.upright(image, ((0, 1), (1, 0))), image.transpose(1, 0, 2))


def rgb_of(y: int, u: int, v: int, kr: float, kb: float, full: bool) -> NDArray[np.float64]:
    """Rec. ITU-R BT.601 / BT.709: R'G'B' from Y'CbCr of 8 bits."""
    luma = y / 255 if full else (y - 16) / 219
    blue, red = ((u - 128) / 255, (v - 128) / 255) if full else ((u - 128) / 224, (v - 128) / 224)
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return 255 * np.clip([r, g, b], 0, 1)


@pytest.mark.parametrize("depth", [8, 10])
@pytest.mark.parametrize(
    ("space", "kr", "kb"), [(1, 0.2126, 0.0722), (6, 0.299, 0.114), (2, 0.299, 0.114)], ids=["709", "601", "unnamed"]
)
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
def test_colours_follow_the_matrix_and_range_of_the_stream(
    tmp_path: Path, space: int, kr: float, kb: float, full: bool, depth: int
) -> None:
    path = tmp_path / "a.mkv"
    values = (120, 90, 170)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("ffv1", rate=25)
        stream.width, stream.height = 64, 32
        stream.pix_fmt = "yuv420p" if depth == 8 else "yuv420p10le"
        stream.codec_context.colorspace = space
        stream.codec_context.color_range = 2 if full else 1
        frame = av.VideoFrame(64, 32, stream.pix_fmt)
        for plane, value in zip(frame.planes, values, strict=True):
            word = value.to_bytes(1, "little") if depth == 8 else (value * 4).to_bytes(2, "little")
            plane.update(word * (plane.buffer_size // len(word)))
        frame.colorspace, frame.color_range = space, 2 if full else 1
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    (image,) = decode(path).images
    np.testing.assert_allclose(image.reshape(-1, 3).mean(axis=0), rgb_of(*values, kr, kb, full), atol=2.5)


def test_a_video_of_16_by_16_pixels_decodes(tmp_path: Path) -> None:
    decoded = decode(write_video(tmp_path / "a.mp4", frames=10, draw=lambda i: np.full((16, 16, 3), 20 * i, np.uint8)))
    assert [round(float(image.mean()) / 20) for image in decoded.images] == list(range(10))


def test_a_damaged_packet_costs_its_own_frames_alone(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=300, codec="mjpeg", pixels="yuvj420p", b_frames=0)
    decoded = decode(damage(path, [7, 100]))
    assert decoded.numbers == [index for index in range(300) if index not in (7, 100)]
    np.testing.assert_allclose(decoded.times[7:9], [8 / 25, 9 / 25])
    assert decoded.summary.missing == ""


def test_over_one_percent_of_damage_is_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=100, codec="mjpeg", pixels="yuvj420p", b_frames=0)
    assert decode(damage(path, [7, 50])).summary.missing == "2 of 100 frames cannot be decoded"


def test_frames_that_a_decoder_drops_in_silence_are_missing(tmp_path: Path) -> None:
    path = cut_head(write_video(tmp_path / "a.mkv", options={"g": "10"}, b_frames=0), packets=5)
    decoded = decode(path)
    assert decoded.numbers == list(range(10, 50))
    assert decoded.times[0] == pytest.approx(0.2)
    assert decoded.summary.missing == "5 of 45 frames cannot be decoded"


def test_a_stream_that_comes_up_on_the_way_costs_no_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.flv", frames=200, b_frames=0, options={"g": "1"})
    data = bytearray(path.read_bytes())
    tags, position = [], 13
    while position < len(data):  # FLV: type, size (3 bytes), ..., content, size of the tag (4 bytes)
        tags.append(position)
        position += 15 + int.from_bytes(data[position + 1 : position + 4], "big")
    assert data[tags[150]] == 9  # a tag of video, which becomes the only one of sound
    data[tags[150]] = 8
    path.write_bytes(data)
    decoded = decode(path)
    assert decoded.numbers == [index for index in range(200) if index != 148]  # after two tags of headers
    assert decoded.times[-1] == pytest.approx(199 / 25)


def test_frames_that_an_edit_list_leaves_out_are_neither_given_nor_missing(tmp_path: Path) -> None:
    decoded = decode(edit_list(write_video(tmp_path / "a.mp4", b_frames=0, options={"g": "20"}), frames=5))
    assert decoded.numbers == list(range(5, 50))
    np.testing.assert_allclose(decoded.times, np.arange(45) / 25, atol=1e-9)
    assert (decoded.summary.frames_expected, decoded.summary.missing) == (45, "")


def test_frames_that_are_never_shown_are_not_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.webm", codec="libvpx", options=VPX, b_frames=0, draw=lambda _: bars(9))
    decoded = decode(hidden_frames(path, every=10))
    assert decoded.numbers == [9] * 50
    assert decoded.summary.missing == ""


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mp4"])
def test_a_truncated_video_is_missing_its_end(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "a.mp4" else None
    path = write_video(tmp_path / name, frames=100, codec="mjpeg", pixels="yuvj420p", b_frames=0)
    if options:  # the index has to come first for anything to be readable
        with av.open(str(path)) as source, av.open(str(tmp_path / "b.mp4"), "w", options=options) as output:
            copy = output.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    output.mux(packet)
        path = tmp_path / "b.mp4"
    summary = decode(truncate(path, 0.7)).summary
    assert 0.6 < summary.frames_decoded / 100 < 0.75
    assert "of 4.00 s" in summary.missing or "frames cannot be decoded" in summary.missing


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_cut_fragmented_video_is_missing_its_end(tmp_path: Path, share: float) -> None:
    # nothing in such a file says how long the whole is
    options = {"movflags": "frag_keyframe+empty_moov"}
    whole = remux(write_video(tmp_path / "a.mp4", frames=100, options={"g": "10"}), lambda _, packet: [packet], options)
    assert decode(whole).summary.missing == ""
    assert "before its last part does" in decode(truncate(whole, share)).summary.missing


def text(path: Path) -> Path:
    path.write_text("not a video\x1b[31m, but a text\n" * 100)
    return path


def noise(path: Path) -> Path:
    path.write_bytes(b"\x00\x00\x00\x20ftypisom" + np.random.default_rng(0).bytes(5000))
    return path


def without_index(path: Path) -> Path:
    return truncate(write_video(path, frames=50), 0.5)


def sound_alone(path: Path) -> Path:
    return write_sound(path, clicks([0.1], 1.0))


def mp3(path: Path) -> Path:
    path.write_bytes(write_sound(path.with_suffix(".mp3"), clicks([0.1], 1.0), codec="mp3").read_bytes())
    return path


def with_cover(path: Path) -> Path:
    """Sound and a single attached picture."""
    with av.open(str(path), "w") as output:
        voice: Any = output.add_stream("aac", rate=RATE, layout="mono")
        cover: Any = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        output.mux(cover.encode(av.VideoFrame.from_ndarray(bars(5))))
        for frame in wave(clicks([0.1], 1.0)):
            output.mux(voice.encode(frame))
        output.mux(voice.encode(None))
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (text, Reason.UNSUPPORTED_CONTAINER),
        (noise, Reason.DECODE_ERROR),
        (without_index, Reason.DECODE_ERROR),
        (sound_alone, Reason.NO_VIDEO_STREAM),
        (mp3, Reason.NO_VIDEO_STREAM),
        (with_cover, Reason.NO_VIDEO_STREAM),
    ],
)
def test_what_cannot_be_decoded_says_why(tmp_path: Path, make: Callable[[Path], Path], reason: Reason) -> None:
    error = refusal(lambda: decode(make(tmp_path / "a.mp4")))
    assert error.reason is reason
    assert error.detail.isprintable()


def test_the_state_of_a_file_tells_empty_gone_and_special_files_apart(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    os.mkfifo(tmp_path / "fifo.mp4")
    names = ("empty.mp4", "fifo.mp4", "gone.mp4", ".")
    reasons = [refusal(partial(file_state, str(tmp_path / name))).reason for name in names]
    assert reasons == [Reason.EMPTY, Reason.NOT_REGULAR, Reason.VANISHED, Reason.NOT_REGULAR]


@pytest.fixture
def victim(tmp_path: Path) -> Iterator[Path]:
    """A FIFO; somebody who opened it for reading would be seen, and would hang."""
    path = tmp_path / "victim.ts"
    os.mkfifo(path)
    yield path
    with pytest.raises(OSError, match="No such device or address"):  # nobody reads
        os.open(path, os.O_WRONLY | os.O_NONBLOCK)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:9,\n{victim}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile '{victim}'\n",
    "dash": '<?xml version="1.0"?><MPD><Period><BaseURL>{victim}</BaseURL></Period></MPD>',
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_with_a_videos_name_opens_no_other_file(tmp_path: Path, kind: str, victim: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text(PLAYLISTS[kind].format(victim=victim))
    assert refusal(lambda: decode(path)).reason is Reason.UNSUPPORTED_CONTAINER


@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_a_playlist_is_refused_even_where_its_first_bytes_deceive(
    tmp_path: Path, kind: str, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mp4"
    path.write_text(PLAYLISTS[kind].format(victim=victim))
    monkeypatch.setattr(decode_pyav, "sniff", lambda _: kind)
    assert refusal(lambda: decode(path)).reason in {Reason.DECODE_ERROR, Reason.UNREADABLE}


@pytest.mark.parametrize("name", ["a:b.mp4", "a b.mp4", "a\nb.mp4", "\x1b[31mred.mp4", "%03d.mp4", "concat:x.mp4", "-"])
def test_odd_names_decode(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    shutil.copy(write_video(tmp_path / "plain.mp4", frames=3), path)
    assert decode(path).numbers == [0, 1, 2]


def test_even_a_relative_name_with_a_colon_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(write_video(tmp_path / "plain.mp4", frames=3), tmp_path / "a:b.mp4")
    monkeypatch.chdir(tmp_path)
    assert decode(Path("a:b.mp4")).numbers == [0, 1, 2]


def test_a_title_that_is_no_text_does_no_harm(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as output:
        output.metadata["title"] = "a fine title"
        stream: Any = output.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 32, "yuvj420p"
        output.mux(stream.encode(av.VideoFrame.from_ndarray(bars(5))))
        output.mux(stream.encode(None))
    data = (tmp_path / "a.mkv").read_bytes()
    assert data.count(b"a fine title") == 1
    (tmp_path / "a.mkv").write_bytes(data.replace(b"a fine title", b"a\xff\xfe\xe9e title"))
    assert decode(tmp_path / "a.mkv").numbers == [5]


def test_a_name_that_is_no_utf8_decodes(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))
    shutil.copy(write_video(tmp_path / "plain.mp4", frames=3), path)
    assert decode(path).numbers == [0, 1, 2]


def test_frames_and_durations_over_the_limits_are_too_large(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", frames=50)
    assert refusal(lambda: decode(path, Limits(max_pixels=96 * 32 - 1))).reason is Reason.TOO_LARGE
    assert refusal(lambda: decode(path, Limits(max_duration_s=1.9))).reason is Reason.TOO_LARGE
    assert decode(path, Limits(max_pixels=96 * 32, max_duration_s=2.0)).summary.frames_decoded == 50


def test_frames_that_change_size_keep_the_size_of_the_first(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.ts", frames=10)
    large = write_video(tmp_path / "large.ts", draw=lambda i: bars(10 + i, 192, 64),
                        times=[0.4 + i / 25 for i in range(10)], b_frames=0)  # fmt: skip
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    decoded = decode(path)
    assert {image.shape for image in decoded.images} == {(32, 96, 3)}
    assert decoded.numbers[-5:] == [15, 16, 17, 18, 19]


def test_sound_lies_on_the_grid_of_time(tmp_path: Path) -> None:
    sound = wave(clicks([0.25, 1.5], 2.0, 44100), 44100, piece=1000)
    path = write_video(tmp_path / "a.mkv", frames=50, sound=sound)
    samples = decode(path, audio_rate=RATE).sound
    assert abs(len(samples) - 2 * RATE) <= 1
    loud = np.flatnonzero(samples > 0.4)
    np.testing.assert_allclose([loud[0] / RATE, loud[-1] / RATE], [0.25, 1.505], atol=1e-3)
    assert samples.max() == pytest.approx(0.8, abs=0.1)


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path) -> None:
    sound = wave(clicks([0.1], 0.5), start=1.0)
    samples = decode(write_video(tmp_path / "a.mkv", frames=50, sound=sound), audio_rate=RATE).sound
    assert np.flatnonzero(samples > 0.4)[0] / RATE == pytest.approx(1.1, abs=2e-3)
    assert not samples[: RATE - 100].any()


def test_a_gap_in_the_sound_is_filled_with_silence(tmp_path: Path) -> None:
    sound = wave(clicks([0.0], 0.5)) + wave(clicks([0.0], 0.5), start=1.25)
    samples = decode(write_video(tmp_path / "a.mkv", frames=50, sound=sound), audio_rate=RATE).sound
    loud = np.flatnonzero(samples > 0.4) / RATE
    np.testing.assert_allclose([loud.min(), loud[loud > 0.5].min()], [0.0, 1.25], atol=2e-3)
    assert not samples[int(0.51 * RATE) : int(1.24 * RATE)].any()


def test_channels_are_mixed_by_their_mean(tmp_path: Path) -> None:
    both = np.stack([np.full(RATE, 0.5), np.full(RATE, -0.1)], axis=1)
    samples = decode(write_video(tmp_path / "a.mkv", frames=25, sound=wave(both)), audio_rate=RATE).sound
    np.testing.assert_allclose(samples, 0.2, atol=1e-3)
    six = np.full((RATE, 6), 0.3)
    samples = decode(write_video(tmp_path / "b.mkv", frames=25, sound=wave(six)), audio_rate=RATE).sound
    np.testing.assert_allclose(samples, 0.3, atol=1e-3)


def test_priming_of_the_sound_codec_moves_neither_pictures_nor_sound(tmp_path: Path) -> None:
    sound = wave(clicks([0.5], 2.0, 48000), 48000, piece=1024)
    for name, codec in (("a.mp4", "aac"), ("a.mkv", "libopus")):
        decoded = decode(write_video(tmp_path / name, sound=sound, sound_codec=codec), audio_rate=RATE)
        np.testing.assert_allclose(decoded.times, np.arange(50) / 25, atol=2e-3)
        assert np.abs(decoded.sound).argmax() / RATE == pytest.approx(0.5025, abs=5e-3)


def test_a_video_without_sound_says_so_and_keeps_its_pictures(tmp_path: Path) -> None:
    decoded = decode(write_video(tmp_path / "a.mp4", frames=5), audio_rate=RATE)
    assert [lost.reason for lost in decoded.lost] == [Reason.NO_AUDIO]
    assert decoded.numbers == list(range(5))


def test_for_sound_alone_no_frame_is_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=50, sound=wave(clicks([0.1], 2.0)))
    decoded = decode(path, rates=(), audio_rate=RATE)
    assert not decoded.times
    assert decoded.summary.frames_decoded == 0
    assert decoded.summary.end == pytest.approx(2.0)
    assert len(decoded.sound) == 2 * RATE


def test_sound_that_ends_early_by_damage_is_lost_but_the_pictures_are_not(tmp_path: Path) -> None:
    sound = wave(np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE), piece=1024)
    path = write_video(tmp_path / "a.mkv", sound=sound, sound_codec="flac")
    with av.open(str(path)) as container:
        contents = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = path.read_bytes()
    for content in contents[len(contents) // 2 :]:
        data = data.replace(content, b"\xff" * len(content))
    path.write_bytes(data)
    decoded = decode(path, audio_rate=RATE)
    assert [lost.reason for lost in decoded.lost] == [Reason.PARTIAL]
    assert decoded.numbers == list(range(50))


def test_the_probe_tells_what_the_container_declares(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", fps=Fraction(30000, 1001), frames=60, b_frames=0)
    probe = decode(path).probe
    assert (probe.container, probe.codec, probe.width, probe.height) == ("mov", "h264", 96, 32)
    assert probe.fps == pytest.approx(30000 / 1001, rel=1e-3)
    assert probe.duration == pytest.approx(60 * 1001 / 30000, abs=1e-3)
    assert probe.num_frames == 60
    assert not probe.has_audio


def test_containers_are_told_by_their_first_bytes_not_their_names(tmp_path: Path) -> None:
    for name, family in {"a.mkv": "matroska", "a.mp4": "mov", "a.avi": "avi", "a.ts": "mpegts", "a.flv": "flv"}.items():
        path = write_video(tmp_path / name, frames=5)
        assert sniff(str(path.rename(tmp_path / "video.bin"))) == family


@pytest.mark.parametrize(
    ("container_start", "video_start", "zero"),
    [
        (0.0, 0.0, 0.0),
        (0.0, 0.5, 0.0),  # the pictures start late
        (10.0, 10.0, 10.0),  # a transport stream cut from a longer one
        (9.5, 10.0, 9.5),  # its sound starts earlier
        (-0.007, 0.0, 0.0),  # priming of the sound
        (-0.08, -0.08, -0.08),  # B-frames without an edit list
    ],
)
def test_time_zero_is_the_start_of_the_container_but_never_the_priming_of_its_sound(
    container_start: float, video_start: float, zero: float
) -> None:
    container: Any = SimpleNamespace(start_time=round(container_start * 1_000_000))
    stream: Any = SimpleNamespace(start_time=round(video_start * 1000), time_base=Fraction(1, 1000))
    assert decode_pyav.time_zero(container, stream) == pytest.approx(zero)


def clock(rate: Fraction | None, counted: bool = False) -> FrameClock:
    """A clock in milliseconds whose time 0 is the container's 0.5 s."""
    stream: Any = SimpleNamespace(time_base=Fraction(1, 1000), average_rate=rate)
    return FrameClock(stream, Fraction(1, 2), counted)


def stamps(clock: FrameClock, *frames: tuple[int | None, int | None, int]) -> list[float]:
    """Times of frames with (pts, dts, duration) in milliseconds."""
    return [clock.time(cast("Any", SimpleNamespace(pts=pts, dts=dts, duration=length))) for pts, dts, length in frames]


def test_a_frame_without_a_time_takes_its_dts_or_follows_the_one_before() -> None:
    ticking = clock(Fraction(25))
    assert stamps(ticking, (500, 400, 0), (600, 500, 0), (None, 700, 0), (None, None, 0), (None, None, 0)) == (
        pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
    )
    assert ticking.end == pytest.approx(0.5)  # the last one lasts as long as the one before


def test_the_last_frame_lasts_as_long_as_the_container_says_or_as_the_one_before() -> None:
    for lengths, end in (((40, 40, 70), 0.2 + 0.07), ((0, 0, 0), 0.2 + 0.1)):
        ticking = clock(Fraction(25))
        stamps(ticking, *((500 + 100 * index, None, length) for index, length in enumerate(lengths)))
        assert ticking.end == pytest.approx(end)


def test_frames_are_counted_where_times_are_made_up() -> None:
    assert stamps(clock(Fraction(20), counted=True), (2, 0, 0), (9, 0, 0), (3, 0, 0)) == [0.0, 0.05, 0.1]


def test_frames_with_neither_times_nor_a_rate_are_refused() -> None:
    with pytest.raises(DecodeError, match="frame 1 has no time, and the stream has no rate"):
        stamps(clock(None), (None, None, 0), (None, None, 0))
