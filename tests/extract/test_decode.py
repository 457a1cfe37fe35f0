"""PyAV's decoder on generated videos, whose frames show what they are and when."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from extract.decode import sniff
from extract.upright import upright
from tests.extract.decoding import RATE, VPX, decode
from tests.extract.video_files import (
    bars,
    cut_head,
    damage,
    edit_list,
    hidden_frames,
    remux,
    truncate,
    wave,
    write_video,
)

MPEG4 = {"codec": "mpeg4"}


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
    np.testing.assert_array_equal(upright(image, ((-1, 0), (0, 1))), image[:, ::-1])
    np.testing.assert_array_equal(upright(image, ((1, 0), (0, -1))), image[::-1])
    np.testing.assert_array_equal(upright(image, ((0, 1), (1, 0))), image.transpose(1, 0, 2))


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


def test_frames_that_change_size_keep_the_size_of_the_first(tmp_path: Path) -> None:
    small = write_video(tmp_path / "small.ts", frames=10)
    large = write_video(tmp_path / "large.ts", draw=lambda i: bars(10 + i, 192, 64),
                        times=[0.4 + i / 25 for i in range(10)], b_frames=0)  # fmt: skip
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    decoded = decode(path)
    assert {image.shape for image in decoded.images} == {(32, 96, 3)}
    assert decoded.numbers[-5:] == [15, 16, 17, 18, 19]


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
