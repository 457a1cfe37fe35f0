"""Small labelled videos of our own drawing, for the demo and for tests: shapes that act, with sound and cuts.

What a class is often cannot be told from one frame, nor from picture or sound alone:

- `grow` and `shrink` show the same ball: only the change of its size tells them apart.
- `blink` shows nothing in half of its time. `spin` turns a square that at other times stands still.
- `spin` comes with `beep` four times in five; `beep` and `hum` are only heard.
- `drum` and `mime` look alike, and only one is heard. `flash` is a white picture, at most one in a video.
- `open` and `close` show the same blue disc: before the flash it is the one, after it the other.
- `pour` and `rain` show the same falling dashes: they are `pour` soon after a `lift`, else `rain`.

Everything follows from the seed, and the truth is known exactly, in seconds: segments, cuts and sounds.

Shape letters: N rows, C classes, S samples of sound.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.random import Generator
from numpy.typing import NDArray

from extract.drawing import LOOKS, SLOTS, SOUND_RATE, Act, Segment, pictures, soundtrack

CLASSES = (
    *("beep", "blink", "close", "drum", "flash", "grow", "hum"),
    *("lift", "mime", "open", "pour", "rain", "shrink", "spin"),
)
SOUNDING = frozenset({"beep", "drum", "flash", "hum", "lift"})  # the classes that are heard
POUR_WITHIN = 2.0  # seconds after a lift in which dashes are `pour`

STORIES: Mapping[str, tuple[float, float, int]] = {  # in order of placing
    "prism": (0.8, 1.2, 3),  # look -> shortest and longest act in seconds, most acts
    "dashes": (1.0, 2.0, 2),
    "disc": (0.8, 1.6, 4),
    "balloon": (1.2, 2.2, 3),
    "zebra": (1.6, 3.0, 2),
    "square": (1.2, 2.4, 3),
    "star": (1.2, 2.2, 3),
    "tone": (0.8, 1.6, 2),
    "hum": (1.0, 2.5, 2),
}
LABELS: Mapping[str, tuple[str, ...]] = {  # look -> the classes that it may be; "" is no action
    "disc": ("open", "close"),
    "balloon": ("grow", "shrink"),
    "zebra": ("blink",),
    "square": ("spin", ""),
    "star": ("drum", "mime"),
    "tone": ("beep",),
    "hum": ("hum",),
}


@dataclass(frozen=True)
class SyntheticVideo:
    """One written video and all that is true of it."""

    name: str  # of its file
    duration: float  # seconds
    segments: tuple[Segment, ...]  # the labelled actions, by start
    cuts: tuple[float, ...]  # seconds at which a new scene begins, the first scene's 0 left out
    sounds: tuple[Segment, ...]  # what is heard; the labels are the classes that sound
    subset: str  # train, val or test

    @property
    def scenes(self) -> NDArray[np.float64]:
        """(number of scenes, 2) seconds."""
        edges = np.array([0.0, *self.cuts, self.duration])
        return np.stack([edges[:-1], edges[1:]], axis=1)

    def rows(self, times: NDArray[np.float64]) -> NDArray[np.int8]:
        """(N, 2) seconds to (N, C): 1 where the class is on at the middle of the row, ends excluded."""
        return _on(self.segments, times)

    def heard(self, times: NDArray[np.float64]) -> NDArray[np.int8]:
        """(N, 2) seconds to (N, C): 1 where the class makes a sound at the middle of the row."""
        return _on(self.sounds, times)

    def present(self) -> NDArray[np.int8]:
        """(C,): 1 for the classes that occur."""
        labels = {segment.label for segment in self.segments}
        return np.array([name in labels for name in CLASSES], dtype=np.int8)


def _on(segments: Iterable[Segment], times: NDArray[np.float64]) -> NDArray[np.int8]:
    on = np.zeros((len(times), len(CLASSES)), dtype=np.int8)
    middle = times.mean(axis=1)
    for label, start, end in segments:
        on[(start < middle) & (middle < end), CLASSES.index(label)] = 1
    return on


def generate(
    folder: Path,
    *,
    clips: int = 48,
    seconds: float = 12.0,
    seed: int = 0,
    size: tuple[int, int] = (160, 160),
    fps: int = 25,
    written: Callable[[int], None] | None = None,
) -> tuple[SyntheticVideo, ...]:
    """Write videos with `labels.csv` and `scenes.json`; the same seed gives the same pictures, sounds and labels.

    Args:
        folder: made if absent; files of the same names are replaced.
        clips: how many; a quarter is for test and 15 % for val, at least one each from three clips on.
        seconds: mean length; a video lasts between 80 and 120 % of it.
        seed: of everything.
        size: (width, height) in pixels, even numbers.
        fps: frames a second.
        written: told how many videos are written, after each.

    `labels.csv` has a line a segment (`video,start,end,label,subset,duration`, in seconds), or one without a label
    for a video that has none. `scenes.json` has the duration, subset, cuts and sounds of every video. `labels.csv`
    is written last: where it stands, everything stands.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng([seed, clips]).permutation(clips)
    num_test, num_val = (max(1, round(clips * share)) if clips >= 3 else 0 for share in (0.25, 0.15))
    videos = []
    for index in range(clips):
        rank = order[index]
        subset = "test" if rank < num_test else "val" if rank < num_test + num_val else "train"
        video = write_video(
            folder / f"clip-{index:03d}.mp4",
            seed=(seed, index),
            seconds=seconds,
            size=size,
            fps=fps,
            subset=subset,
        )
        videos.append(video)
        if written is not None:
            written(index + 1)
    write_truth(folder, videos)
    return tuple(videos)


def write_truth(folder: Path, videos: Iterable[SyntheticVideo]) -> None:
    """Write `scenes.json`, then `labels.csv`, of `videos` into `folder`."""
    facts = {
        video.name: {
            "duration": video.duration,
            "subset": video.subset,
            "cuts": video.cuts,
            "sounds": [sound._asdict() for sound in video.sounds],
        }
        for video in videos
    }
    (folder / "scenes.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    part = folder / "labels.csv.part"
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["video", "start", "end", "label", "subset", "duration"])
        for video in videos:
            for label, start, end in video.segments or [("", "", "")]:
                writer.writerow([video.name, start, end, label, video.subset, video.duration])
    part.replace(folder / "labels.csv")


def write_video(
    path: Path,
    *,
    seed: int | tuple[int, ...],
    seconds: float = 12.0,
    size: tuple[int, int] = (160, 160),
    fps: int = 25,
    subset: str = "train",
) -> SyntheticVideo:
    """Write one video, H.264 with AAC sound, and give its truth; arguments as in `generate`."""
    rng = np.random.default_rng(seed)
    num_frames = round(seconds * rng.uniform(0.8, 1.2) * fps)
    script = Script(rng, num_frames / fps, fps)
    of_pictures, of_sound = rng.spawn(2)
    frames = pictures(script.acts, script.cuts, num_frames, size, fps, of_pictures)
    encode_video(path, frames, fps, soundtrack(script.heard(), script.duration, of_sound))
    return SyntheticVideo(path.name, script.duration, script.labelled(), script.cuts, script.heard(), subset)


class Script:
    """What happens when in one video, drawn at random under the rules in this file's header."""

    def __init__(self, rng: Generator, duration: float, fps: int) -> None:
        self.rng, self.duration, self.fps = rng, duration, fps
        self.acts: list[Act] = []
        self.sounds: list[Segment] = []
        stories = rng.permutation(list(STORIES))[:5]
        # a video that shows a look may show all its classes or only one of them
        self.choices = {look: rng.permutation(LABELS[look])[: rng.integers(1, 3)] for look in sorted(LABELS)}
        self.flash = self._flash(0.9 if "disc" in stories else 0.3)
        for story in sorted(stories, key=list(STORIES).index):
            shortest, longest, most = STORIES[story]
            for _ in range(rng.integers(most - 1, most + 1)):
                self._place(story, rng.uniform(shortest, longest))
        gaps = np.cumsum(rng.uniform(0.15, 0.35, 3)) * duration
        self.cuts = tuple(self._snap(cut) for cut in gaps[: rng.integers(1, 4)] if cut < 0.9 * duration)

    def labelled(self) -> tuple[Segment, ...]:
        """The acts that are actions, by start."""
        found = [Segment(act.label, act.start, act.end) for act in self.acts if act.label]
        return tuple(sorted(found, key=lambda segment: (segment.start, segment.label)))

    def heard(self) -> tuple[Segment, ...]:
        """The sounds, by start."""
        return tuple(sorted(self.sounds, key=lambda segment: (segment.start, segment.label)))

    def _snap(self, seconds: float) -> float:
        """The nearest frame's time, so that picture and truth agree to the frame."""
        return round(seconds * self.fps) / self.fps

    def _flash(self, probability: float) -> float:
        """Place the flash, or not; its start, which for a video without one is the end."""
        if self.rng.random() > probability:
            return self.duration
        start = self._snap(self.rng.uniform(0.3, 0.65) * self.duration)
        self._add("flash", "flash", start, start + 0.4, slot=0)
        return start

    def _free(self, look: str, start: float, end: float, margin: float = 0.4) -> list[int]:
        """Slots free from `start` to `end`; none where the same look is on, which would join two acts."""
        near = [act for act in self.acts if act.start < end + margin and start < act.end + margin]
        if end > self.duration or any(act.look == look for act in near):
            return []
        return sorted(set(range(len(SLOTS))) - {act.slot for act in near if act.look in LOOKS})

    def _add(self, look: str, label: str, start: float, end: float, slot: int) -> None:
        start, end = self._snap(start), self._snap(end)
        self.acts.append(Act(look, label, start, end, slot))
        if label in SOUNDING:
            self.sounds.append(Segment(label, start, end))

    def _place(self, look: str, length: float) -> None:
        """Put one act where a slot is free and no rule is broken; after twenty tries leave it out."""
        for _ in range(20):
            start = self.rng.uniform(0, max(0.1, self.duration - length))
            slots = self._free(look, start, start + length)
            label = self._label(look, start, start + length)
            if slots and label is not None:
                self._add(look, label, start, start + length, int(self.rng.choice(slots)))
                self._follow(label, start, start + length)
                return

    def _follow(self, label: str, start: float, end: float) -> None:
        """What a lift or a spin mostly brings with it."""
        if label == "lift" and self.rng.random() < 0.9:
            falls = end + self.rng.uniform(0.2, 0.6) * POUR_WITHIN
            until = falls + self.rng.uniform(1.0, 2.0)
            if slots := self._free("dashes", falls, until):
                self._add("dashes", "pour", falls, until, int(self.rng.choice(slots)))
        if label == "spin" and self.rng.random() < 0.8 and self._free("tone", start, end, 0.1):
            self._add("tone", "beep", start, end, slot=0)

    def _label(self, look: str, start: float, end: float) -> str | None:
        """The class of an act there: "" if it is no action, None if it may not stand there."""
        lifts = [act for act in self.acts if act.look == "prism"]
        if look == "dashes":  # rain keeps away from lifts; what follows one was placed with it
            near = any(act.start < end + 0.5 and start < act.end + POUR_WITHIN + 1.5 for act in lifts)
            return None if near else "rain"
        if look == "prism":  # one has poured before the next begins, and before the video ends
            near = any(act.start < end + 3.5 and start < act.end + 3.5 for act in lifts)
            return None if near or end + 2.5 > self.duration else "lift"
        if look == "disc":
            side = "open" if end < self.flash - 0.2 else "close" if start > self.flash + 0.6 else None
            return side if side in self.choices[look] else None
        return str(self.rng.choice(self.choices[look]))


def encode_video(
    path: Path,
    frames: Iterable[NDArray[np.uint8]],
    fps: int | Fraction,
    audio: NDArray[np.float32] | None = None,
    rate: int = SOUND_RATE,
) -> None:
    """Write one video file as H.264 (MPEG-4 part 2 where that is missing) with AAC sound.

    Args:
        path: its suffix chooses the container.
        frames: (height, width, 3), all of one even size.
        fps: frames a second.
        audio: (S,) mono samples in [-1, 1], from time 0; none: no sound track.
        rate: samples a second.

    One thread, so that the same frames give the same file.
    """
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    options = {"preset": "superfast", "crf": "23"} if codec == "libx264" else {"qscale": "3"}
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(video, VideoStream)
        video.pix_fmt, video.thread_count = "yuv420p", 1
        packets: Iterator[tuple[float, list[Packet[AudioStream]]]] = iter(())
        if audio is not None:
            packets = _audio_packets(container.add_stream("aac", rate=rate, layout="mono"), audio, rate)
        for index, picture in enumerate(frames):
            if index == 0:
                video.height, video.width = picture.shape[:2]
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            for until, packet in packets:
                container.mux(packet)
                if until >= (index + 1) / fps:
                    break
        container.mux(video.encode(None))
        for _, packet in packets:
            container.mux(packet)


def _audio_packets(
    stream: AudioStream, audio: NDArray[np.float32], rate: int
) -> Iterator[tuple[float, list[Packet[AudioStream]]]]:
    """Encoded sound, an AAC frame (1024 samples) at a time, each with the second it reaches to."""
    for first in range(0, len(audio), 1024):
        frame = av.AudioFrame.from_ndarray(audio[None, first : first + 1024].copy(), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
        yield (first + 1024) / rate, stream.encode(frame)
    yield len(audio) / rate, stream.encode(None)
