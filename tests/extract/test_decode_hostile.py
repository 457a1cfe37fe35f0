"""What cannot or must not be decoded: what is no video, playlists, odd names, limits."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from extract import containers
from extract.decode import Limits, Reason, file_state
from tests.extract.decoding import RATE, decode, refusal
from tests.extract.video_files import bars, clicks, truncate, wave, write_sound, write_video


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
    monkeypatch.setattr(containers, "sniff", lambda _: kind)
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
