"""decord: a decoder of the user's choice, for trusted files, guarded against what it is known to get wrong.

decord 0.6 carries an FFmpeg of 2020. It repeats frames at edit lists, gives wrong ones after seeking in open GOPs,
makes up the times of AVI files with B-frames, miscounts the bytes of narrow frames, and decodes ahead without limit
while nobody reads. So every video is first compared with its container (the packets are read through PyAV, only the
first frame is decoded), whatever does not agree is refused, and frames are read in stretches of bounded size.
What remains: a damaged packet of which FFmpeg still makes a picture is not told from a good one, as PyAV often can.
The sound track is decoded through PyAV.

Shape letters: N frames.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import av  # noqa: F401  # before decord, whose older libraries are loaded globally and would take the place of av's
import decord
import numpy as np
from decord import DECORDError, DECORDLimitReachedError
from numpy.typing import NDArray

from extract.containers import DECLARES_LENGTH, is_hidden, open_container, time_zero, video_stream
from extract.decode import DecodeError, DecodePlan, Limits, Picture, Reason, Sound, SoundLost, Summary, missing_end
from extract.decode_pyav import PyAvDecoder
from extract.fragments import cut_fragments

USE_PYAV = "extract it with --decoder pyav"
SAME_TIME = 2e-3  # seconds between decord's time of a frame and the container's
SAME_PICTURE = 1.0  # levels of 255, mean difference; 0 for most files, far more for another frame
REPEATED_SHARE = "1e-9"  # of the frames; for each that cannot be decoded, decord repeats the last one at the end


@dataclass(frozen=True)
class FrameIndex:
    """What the container says of the frames, in order of showing."""

    times: NDArray[np.float64]  # (N,) seconds from time 0
    keys: NDArray[np.bool_]  # (N,) whether decoding can start there
    end: float  # seconds at which the last frame ends
    frame: float  # seconds that a frame lasts on average


def read_index(path: str, beat: Callable[[], None]) -> FrameIndex:
    """The index of a video that decord can be trusted with.

    Raises:
        DecodeError: it has something that decord 0.6 gets wrong.
    """
    container, family = open_container(path)
    with container:
        stream = video_stream(container)
        if family == "avi" and stream.codec_context.has_b_frames:
            raise refused("it is an AVI file with B-frames, of which decord makes up the times")
        if (pixels := stream.codec_context.format) and any(part.bits > 8 for part in pixels.components):
            raise refused("it has more than 8 bits a colour, which decord converts otherwise, by up to 2 levels of 255")
        base, zero = stream.time_base, time_zero(container, stream)
        assert base is not None
        packets: list[tuple[int, bool, int]] = []  # in order of decoding: time of showing, key frame, length
        newest_key = None
        for packet in container.demux(stream):
            beat()
            if packet.size == 0:
                continue
            if packet.pts is None:
                raise refused("a frame has no time in the container")
            if packet.is_discard:
                raise refused("an edit list leaves frames out, in whose place decord repeats others")
            if packet.is_keyframe:
                newest_key = packet.pts
            elif newest_key is not None and packet.pts < newest_key:
                raise refused("it has open groups of pictures, in which decord gives wrong frames")
            if is_hidden(packet):
                raise refused("it has frames that are never shown, which decord counts")
            packets.append((packet.pts, packet.is_keyframe, packet.duration or 0))
        rate = stream.average_rate
    if not packets:
        raise DecodeError(Reason.DECODE_ERROR, "has no frames")
    packets.sort()
    times = np.array([float(pts * base - zero) for pts, _, _ in packets])
    length = float(packets[-1][2] * base) or (float(1 / rate) if rate else 0.04)
    end = float(times[-1]) + length
    return FrameIndex(times, np.array([key for _, key, _ in packets]), end, (end - float(times[0])) / len(times))


def refused(why: str) -> DecodeError:
    """The error for a video that is decoded wrongly by decord alone."""
    return DecodeError(Reason.DECODE_ERROR, f"is not for decord: {why}; {USE_PYAV}")


@dataclass(frozen=True)
class DecodedFrame:
    """A frame with its pixels, which decord has turned upright."""

    time: float
    image: NDArray[np.uint8]  # (H, W, 3)

    def rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3), upright."""
        return self.image

    def yuv(self) -> None:
        """None: what decord gives is RGB."""


class DecordDecoder:
    """One video through decord; see `extract.decode.Decoder`."""

    def __init__(self, path: str, plan: DecodePlan, limits: Limits, beat: Callable[[], None]) -> None:
        decord.logging.set_level(decord.logging.QUIET)
        self._path, self._plan, self._limits, self._beat = path, plan, limits, beat
        first, time = self._first_picture()
        self._cut = cut_fragments(path)
        self._index = read_index(path, beat)
        if abs(time - self._index.times[0]) > SAME_TIME:
            raise refused("its first frames cannot be decoded, for which decord shifts all others")
        if self._index.end > limits.max_duration_s:
            raise DecodeError(Reason.TOO_LARGE, f"lasts {self._index.end:.0f} s, over {limits.max_duration_s:.0f}")
        try:
            # An absolute path, for which no name with a colon is taken for a protocol.
            self._reader = decord.VideoReader(str(Path(path).absolute()), num_threads=1, fault_tol=REPEATED_SHARE)
        except UnicodeEncodeError as error:
            raise refused("its name is no UTF-8") from error
        except (DECORDError, DECORDLimitReachedError, RuntimeError, AssertionError) as error:
            raise refused(f"decord cannot open it ({_first_line(error)})") from error
        self._compare_times()
        self._compare_picture(first)

    def __iter__(self) -> Iterator[Picture | Sound | SoundLost]:
        if self._plan.audio_rate is not None:
            decoder = PyAvDecoder(self._path, replace(self._plan, rates=()), self._limits, self._beat)
            try:
                yield from decoder
            finally:
                decoder.close()
        start, count = 0, len(self._index.times)
        while start < count:
            stop = self._stretch(start)
            images = self._read(start, stop)
            for time, image in zip(self._index.times[start:stop], images, strict=True):
                self._beat()
                yield DecodedFrame(float(time), image)
            start = stop

    def summary(self) -> Summary:
        """The container's frames, all of which were decoded."""
        count = len(self._index.times)
        declared = self.probe.duration if self.probe.container in DECLARES_LENGTH else None
        missing = missing_end(self._index.end, declared, self._index.frame)
        return Summary(self._index.end, count, count, self._cut or missing)

    def close(self) -> None:
        """Let go of decord's threads and buffers."""
        del self._reader

    def _first_picture(self) -> tuple[NDArray[np.uint8], float]:
        """Set the probe; returns the first frame, upright, as PyAV decodes it, and its time."""
        decoder = PyAvDecoder(self._path, replace(self._plan, audio_rate=None), self._limits, self._beat)
        try:
            self.probe = decoder.probe
            picture = next(item for item in decoder if not isinstance(item, (Sound, SoundLost)))
            return picture.rgb().copy(), picture.time
        finally:
            decoder.close()

    def _stretch(self, start: int) -> int:
        """Where to stop reading: at most a quarter of the memory limit on, at a key frame if one lies there."""
        most = max(1, self._limits.memory_bytes // 4 // (3 * self.probe.width * self.probe.height))
        if start + most >= len(self._index.times):
            return len(self._index.times)
        keys = np.flatnonzero(self._index.keys[start + 1 : start + most + 1])
        return start + 1 + int(keys[-1]) if len(keys) else start + most

    def _read(self, start: int, stop: int) -> list[NDArray[np.uint8]]:
        """Frames `start` to `stop`; afterwards decord has nothing left to decode ahead."""
        images = []
        try:
            self._reader.seek_accurate(start)
            for _ in range(start, stop):
                self._beat()
                images.append(self._reader.next().asnumpy())
            self._reader.seek(0)  # drops the packets that wait for being decoded
        except (DECORDError, DECORDLimitReachedError, StopIteration) as error:
            raise refused(f"decord fails at frame {start + len(images)} ({_first_line(error)})") from error
        return images

    def _compare_times(self) -> None:
        """Refuse unless decord has the container's frames at the container's times."""
        times_N = self._index.times
        if len(self._reader) != len(times_N):
            raise refused(f"decord counts {len(self._reader)} frames, the container has {len(times_N)}")
        try:
            theirs_N = self._reader.get_frame_timestamp(range(len(times_N)))[:, 0].astype(np.float64)
        except IndexError as error:
            raise refused("decord has no times for its frames") from error
        theirs_N -= theirs_N[0] - times_N[0]  # decord counts from the stream's start, or from the container's
        off_N = np.abs(theirs_N - times_N) - 1e-6 * times_N  # decord's are float32
        if not (off_N.max() <= SAME_TIME):
            frame = int(np.argmax(off_N))
            raise refused(f"decord shows frame {frame} at {theirs_N[frame]:.3f} s, not at {times_N[frame]:.3f} s")

    def _compare_picture(self, first: NDArray[np.uint8]) -> None:
        """Refuse unless decord's first frame is the first frame."""
        (image,) = self._read(0, 1)
        if image.shape != first.shape:
            raise refused(f"decord gives frames of shape {image.shape}, not {first.shape}")
        difference = np.abs(image.astype(np.int16) - first).mean()
        if difference > SAME_PICTURE:
            raise refused(f"decord's first frame differs by {difference:.1f} of 255 levels")


def _first_line(error: Exception) -> str:
    """What an error says, without the time, source file and path before it and the stack after it."""
    lines = str(error).splitlines() or [type(error).__name__]
    said = re.sub(r"^\[[0-9:]+\] \S+ (\[.*?\])?", "", lines[0])[:100]
    return said.encode("unicode_escape").decode()
