"""Small videos made by FFmpeg's encoders (through PyAV), whose frames show what they are.

A frame shows a number as a row of black and white bars, one a bit; `number` reads it back after any codec.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

BITS = 12
TICK = Fraction(1, 90000)  # seconds; time base that every container takes


def bars(value: int, width: int = 96, height: int = 32) -> NDArray[np.uint8]:
    """(height, width, 3): bit b of `value` is the brightness of bar b, from the left."""
    assert 0 <= value < 1 << BITS
    bits = (value >> np.arange(BITS)) & 1
    columns = np.repeat(bits, width // BITS)
    columns = np.pad(columns, (0, width - len(columns)))
    return np.broadcast_to((columns * 255).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


def number(image: NDArray[np.uint8]) -> int:
    """The number that `bars` drew into (H, W, 3)."""
    width = image.shape[1] // BITS
    bits = image[:, : BITS * width].reshape(image.shape[0], BITS, width, 3).mean(axis=(0, 2, 3)) > 127
    return int((bits << np.arange(BITS)).sum())


def write_video(
    path: Path,
    *,
    fps: float | Fraction = 25,
    frames: int = 50,
    times: Sequence[float] | None = None,
    draw: Callable[[int], NDArray[np.uint8]] = bars,
    codec: str = "libx264",
    container: str | None = None,
    b_frames: int = 2,
    rotation: float = 0,
    sound: Sequence[AudioFrame] = (),
    sound_codec: str = "pcm_s16le",
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Frame i is `draw(i)`, shown at times[i] seconds (i / fps without `times`)."""
    rate = Fraction(fps).limit_denominator(1001)
    pts = [round(Fraction(time) / TICK) for time in times or [float(i / rate) for i in range(frames)]]
    first = draw(0)
    with av.open(os.fspath(path), "w", format=container) as output:
        stream = cast("VideoStream", output.add_stream(codec, rate=rate))
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.max_b_frames = b_frames
        stream.codec_context.time_base = TICK if times or rate.denominator > 1 else 1 / rate
        defaults = {"bf": str(b_frames), "preset": "ultrafast"} if codec == "libx264" else {}
        stream.options = {**defaults, **(options or {})}
        if rotation:
            stream.set_display_rotation(rotation)
        voice = None
        if sound:
            voice = cast(
                "AudioStream",
                output.add_stream(sound_codec, rate=sound[0].sample_rate, layout=sound[0].layout.name),
            )
        for index, tick in enumerate(pts):
            frame = VideoFrame.from_ndarray(draw(index))
            frame.time_base = TICK if stream.codec_context.time_base == TICK else 1 / rate
            frame.pts = tick if frame.time_base == TICK else index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if voice is not None:
            for piece in sound:
                output.mux(voice.encode(piece))
            output.mux(voice.encode(None))
    return path


def wave(samples: NDArray[np.float64], rate: int = 16000, start: float = 0.0, piece: int = 800) -> list[AudioFrame]:
    """(S,) or (S, C) in [-1, 1] as frames of `piece` samples from `start` seconds on."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
    values = np.round(samples.reshape(len(samples), channels) * 32767).astype(np.int16)
    pieces = []
    for first in range(0, len(values), piece):
        packed = np.ascontiguousarray(values[first : first + piece]).reshape(1, -1)
        frame = AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = first + round(start * rate)
        pieces.append(frame)
    return pieces


def clicks(times: Iterable[float], seconds: float, rate: int = 16000) -> NDArray[np.float64]:
    """(S,) silence with a click of 5 ms at each of `times`."""
    samples = np.zeros(int(seconds * rate))
    for time in times:
        samples[round(time * rate) : round((time + 0.005) * rate)] = 0.8
    return samples


def write_sound(path: Path, samples: NDArray[np.float64], rate: int = 16000, codec: str = "aac") -> Path:
    """A file with a sound track alone."""
    with av.open(os.fspath(path), "w") as output:
        stream = cast("AudioStream", output.add_stream(codec, rate=rate, layout="mono"))
        for frame in wave(samples, rate):
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def truncate(path: Path, share: float) -> Path:
    """Keep the first `share` of the bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def damage(path: Path, packets: Iterable[int]) -> Path:
    """Overwrite the content of the given packets of the video stream with 0xFF."""
    with av.open(os.fspath(path)) as container:
        contents = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    data = path.read_bytes()
    for index in packets:
        assert data.count(contents[index]) == 1
        data = data.replace(contents[index], b"\xff" * len(contents[index]))
    path.write_bytes(data)
    return path


Edit = Callable[[int, "av.Packet[VideoStream]"], "Iterable[av.Packet[VideoStream]]"]


def remux(path: Path, edit: Edit, options: dict[str, str] | None = None) -> Path:
    """A copy without sound whose packets are what `edit` makes of (index, packet); nothing is encoded again."""
    copy = path.with_stem(path.stem + "_edited")
    with av.open(os.fspath(path)) as source, av.open(os.fspath(copy), "w", container_options=options) as output:
        stream = output.add_stream_from_template(source.streams.video[0])
        for index, packet in enumerate(source.demux(video=0)):
            for edited in edit(index, packet) if packet.size else ():
                edited.stream = stream
                output.mux(edited)
    return copy


def cut_head(path: Path, packets: int) -> Path:
    """Leave out the first packets of a video, key frame and all, as a careless cut does."""
    return remux(path, lambda index, packet: [packet] if index >= packets else [])


def edit_list(path: Path, frames: int) -> Path:
    """An mp4 file whose edit list begins after its first frames, without B-frames, which stay in the file."""

    def earlier(_: int, packet: av.Packet[VideoStream]) -> list[av.Packet[VideoStream]]:
        assert packet.pts is not None
        assert packet.dts is not None
        assert packet.duration is not None
        packet.pts -= frames * packet.duration
        packet.dts -= frames * packet.duration
        return [packet]

    return remux(path, earlier, {"avoid_negative_ts": "disabled"})


def hidden_frames(path: Path, every: int) -> Path:
    """A VP8 file in which a copy that is not to be shown precedes every so many frames by a millisecond."""

    def with_copy(index: int, packet: av.Packet[VideoStream]) -> list[av.Packet[VideoStream]]:
        if index % every != every - 1:
            return [packet]
        assert packet.pts is not None
        content = bytes(packet)
        unseen = bytes([content[0] & ~0x10]) + content[1:]  # RFC 6386, 9.1: the bit is show_frame
        copy = cast("av.Packet[VideoStream]", av.Packet(unseen))
        copy.pts = copy.dts = packet.pts - 1
        copy.time_base = packet.time_base
        return [copy, packet]

    return remux(path, with_copy)
