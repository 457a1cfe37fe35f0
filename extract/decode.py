"""What decoding is asked for, what it gives, and the rules that every decoder shares.

A decoder goes through one video once, in order of time, and yields `Picture` and `Sound` items. It runs in a worker
process (`extract.workers`), so this module and the decoders import neither torch nor the stores.

Shape letters: H height, W width, S samples.
"""

from __future__ import annotations

import importlib
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from extract.pixels import Yuv
from extract.views import Clips

DECODERS: Mapping[str, str] = {
    "pyav": "extract.decode_pyav:PyAvDecoder",
    "decord": "extract.decode_decord:DecordDecoder",
}

COMPLETE = 0.99  # a smaller share of the declared length, or of the frames, is partial


class Reason(StrEnum):
    """Why an input, or its sound alone, gave no rows."""

    NOT_REGULAR = "not_regular"  # a FIFO, a device, a socket, a folder
    UNREADABLE = "unreadable"  # the operating system refuses to read it
    EMPTY = "empty"  # no bytes
    NO_VIDEO_STREAM = "no_video_stream"  # sound or subtitles alone, or cover art
    UNSUPPORTED_CONTAINER = "unsupported_container"  # not a container of the list, for example a playlist or a text
    DECODE_ERROR = "decode_error"  # damaged, an unknown codec, or times that make no sense
    PARTIAL = "partial"  # under 99 % of what the container declares
    TIMEOUT = "timeout"  # no progress for `Limits.timeout_s`
    CRASHED = "crashed"  # the decoder took its process down
    OOM = "oom"  # more memory than `Limits.memory_bytes`
    TOO_LARGE = "too_large"  # more pixels or seconds than the limits
    TOO_SHORT = "too_short"
    VANISHED = "vanished"  # it was there when the list was made
    CHANGED_WHILE_READING = "changed_while_reading"
    NO_AUDIO = "no_audio"  # no sound track


class DecodeError(Exception):
    """A video, or its sound, cannot be used, for a reason that the user should read."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class DecodePlan:
    """What is wanted of every video."""

    rates: tuple[float | None, ...] = ()  # frames a second, one entry per wanted rate; None: every frame
    audio_rate: int | None = None  # samples a second of mono sound; None: no sound
    roi: tuple[int, int, int, int] | None = None  # x, y, width, height in pixels of the upright frame
    decoder: str = "pyav"  # a name in DECODERS, or "module:Class"
    planes: bool = False  # hand over the planes of a frame where it has 8-bit 4:2:0 ones, not RGB
    clips: tuple[tuple[Clips, ...], ...] = ()  # per rate: the frames of these clips alone, () for all; none: no clips


@dataclass(frozen=True)
class Limits:
    """What one video may cost."""

    timeout_s: float = 60.0  # without a sign of progress
    memory_bytes: int = 4 << 30  # that a worker may allocate beyond its start
    max_pixels: int = 8192 * 4320  # of one frame
    max_duration_s: float = 24 * 3600.0
    allow_partial: bool = False


@dataclass(frozen=True)
class Probe:
    """What a container says of a video, before all of it is decoded."""

    container: str
    codec: str
    width: int  # pixels of the upright frame
    height: int
    rotation: int  # degrees clockwise that make a stored frame upright
    sample_aspect: float  # width of a pixel by its height; frames are not stretched by it
    fps: float | None  # mean frames a second
    duration: float | None  # seconds
    num_frames: int | None  # as declared; not to be trusted
    has_audio: bool


@dataclass(frozen=True)
class Summary:
    """What became of a video, known once all of it is decoded."""

    end: float  # seconds from time 0 at which the last frame ends
    frames_decoded: int
    frames_expected: int | None
    missing: str = ""  # what is missing, in words, where less than 99 % of the declared length could be decoded


def missing_end(end: float, declared: float | None, frame: float) -> str:
    """What is missing, in words, of a video that ends at `end` seconds and should last `declared`; "" if nothing is.

    One `frame` (seconds) may always be missing: packed B-frames of AVI end one tick early.
    """
    if declared is None or end >= COMPLETE * declared or declared - end <= 1.5 * frame:
        return ""
    return f"it ends after {end:.2f} of {declared:.2f} s"


class Picture(Protocol):
    """A decoded frame; its pixels are converted only when asked for."""

    @property
    def time(self) -> float:
        """Seconds from time 0."""
        ...

    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3), upright."""
        ...

    def yuv(self) -> Yuv | None:
        """The planes, upright; None where they are not 8-bit 4:2:0, or not of a known matrix."""
        ...


class Sound(NamedTuple):
    """A piece of the sound track; pieces follow each other without a gap from sample 0 = time 0."""

    first: int
    samples: NDArray[np.float32]  # (S,) mono, the mean of the channels, in [-1, 1]


class SoundLost(NamedTuple):
    """There is no sound, or none from here on; the pictures are not affected."""

    reason: Reason
    detail: str


class Decoder(Protocol):
    """One video, opened; it is gone through once.

    `beat` is called at every step, however small: it is the sign of life that keeps the worker from being killed.
    """

    probe: Probe

    def __init__(self, path: str, plan: DecodePlan, limits: Limits, beat: Callable[[], None]) -> None: ...

    def __iter__(self) -> Iterator[Picture | Sound | SoundLost]:
        """Pictures in the order of showing, and pieces of sound, as they come."""
        ...

    def summary(self) -> Summary:
        """Called after the last item."""
        ...

    def close(self) -> None: ...


def decoder_class(name: str) -> type[Decoder]:
    """The class of a name in DECODERS or of "module:Class"."""
    module, _, attribute = DECODERS.get(name, name).partition(":")
    found: type[Decoder] = getattr(importlib.import_module(module), attribute)
    return found


class FileState(NamedTuple):
    """What changes when a file is written to."""

    inode: int
    size: int
    mtime_ns: int


def file_state(path: str) -> FileState:
    """The state of a regular, readable, non-empty file; DecodeError otherwise. Opens nothing but regular files."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise DecodeError(Reason.NOT_REGULAR, "is not a regular file")
        if status.st_size == 0:
            raise DecodeError(Reason.EMPTY, "has 0 bytes")
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DecodeError(Reason.VANISHED, "is not there any more") from error
    except OSError as error:
        raise DecodeError(Reason.UNREADABLE, f"cannot be read: {error.strerror}") from error
    return FileState(status.st_ino, status.st_size, status.st_mtime_ns)


AUDIO_FILES = (b"ID3", b"fLaC", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xf9", b"#!AMR", b"MThd", b"FORM")
MAGIC: Mapping[bytes, str] = {
    b"\x1aE\xdf\xa3": "matroska",
    b"FLV\x01": "flv",
    b"OggS": "ogg",
    b"0&\xb2u\x8ef\xcf\x11": "asf",
    b"GIF8": "gif",
    b"DKIF": "ivf",
    b"YUV4MPEG2": "yuv4mpegpipe",
    b"\x00\x00\x01\xba": "mpeg",
    b"\x06\x0e+4\x02\x05\x01\x01\x0d\x01\x02": "mxf",
    b"nut/multimedia container\0": "nut",
    b".RMF": "rm",
}
MOV_ATOMS = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp", b"uuid"})


def sniff(path: str) -> str:
    """The container family of a file by its first bytes, as FFmpeg names its demuxer.

    The demuxer is then forced, so that no playlist or image sequence, which may name other files and hosts, is ever
    looked for in the content.

    Raises:
        DecodeError: nothing on the list (unsupported_container), or a file of sound alone (no_video_stream).
    """
    with Path(path).open("rb") as file:
        head = file.read(4096)
    for magic, family in MAGIC.items():
        if head.startswith(magic):
            return family
    if head[4:8] in MOV_ATOMS:
        return "mov"
    if head[:4] == b"RIFF" and head[8:12] in {b"AVI ", b"AVIX"}:
        return "avi"
    if any(_has_sync(head, offset, step) for step in (188, 192, 204) for offset in range(step)):
        return "mpegts"
    if head.startswith(AUDIO_FILES) or (head[:4] == b"RIFF" and head[8:12] == b"WAVE"):
        raise DecodeError(Reason.NO_VIDEO_STREAM, "is a file of sound alone")
    beginning = head[:16].decode("ascii", "replace").encode("unicode_escape").decode()
    raise DecodeError(Reason.UNSUPPORTED_CONTAINER, f"does not begin as a video file does, but with '{beginning}'")


def _has_sync(head: bytes, offset: int, step: int) -> bool:
    """Whether the sync bytes of an MPEG transport stream stand every `step` bytes, four at least."""
    marks = head[offset::step]
    return len(marks) >= 4 and marks.count(0x47) == len(marks)
