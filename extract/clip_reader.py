"""Frames of clips for training: decoded and changed ahead in other processes and a thread, handed out in order.

What is read is a function of what is asked for alone: however many workers decode, the same frames come in the same
order. Parts of one video that are asked for one after the other share a pass through it, which ends with the last
wanted frame and hands over only those.

Shape letters: K clips, T frames of a clip, F different frames, H height, W width.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.augment import Augment, augmented, generator
from extract.backbone import BackboneError
from extract.clip_layouts import Clip
from extract.clips import ClipSet, ClipStore
from extract.colour import to_rgb
from extract.inputs import VideoInput
from extract.worker_events import Failed, Finished, Frames, Restarted
from extract.workers import DecodePool
from stores.names import printable

AHEAD = 2  # passes whose parts may wait decoded, beside one for each worker
TOGETHER = 1024  # frames that the parts of one pass may have: 147 MiB at 224 x 224

Part = tuple[str, int, int]  # video, first row, one past the last row
Clips = tuple[Tensor, tuple[Tensor, ...], Tensor]
"""(F, H, W, 3) uint8 frames, K times (T,) which of them make up each clip, and (K, 2) which of the rows that a clip
gives are wanted, from and up to; on the CPU."""


class _SetPart(NamedTuple):
    """What one set wants of a pass through a video, the clips of its parts one after the other."""

    of: ClipSet
    rate: int  # index of its rate
    numbers_F: NDArray[np.int64]  # ascending
    scene_F: NDArray[np.int64]  # to which each frame belongs
    clips: tuple[list[Clip], ...]  # of each part

    def of_part(self, frames: Tensor, part: int) -> Clips:
        """The clips of one part, and the frames that they are made of without those of other parts."""
        clips = self.clips[part]
        wanted_K2 = torch.tensor([clip[1:3] for clip in clips], dtype=torch.int64).view(-1, 2)
        numbers_F = self.numbers_F
        if len(self.clips) > 1:
            numbers_F = numbers_of(clips)
            frames = frames[torch.from_numpy(np.searchsorted(self.numbers_F, numbers_F))]
        index = tuple(torch.from_numpy(np.searchsorted(numbers_F, clip.frames_T)) for clip in clips)
        return frames, index, wanted_K2


class ClipReader:
    """Reads parts of a store's videos as uint8 frames, of every set the ones that its network sees.

    Decode processes stay from one reading to the next; the store ends them when it is closed.

    Args:
        store: the clips.
        augment: how frames are changed where a draw is asked for.
        workers: decode processes.
    """

    def __init__(self, store: ClipStore, *, augment: Augment = "none", workers: int = 1) -> None:
        self.store, self.augment, self.workers = store, augment, workers

    def read(
        self, parts: Sequence[Part], draw: tuple[int, int] | None = None
    ) -> Generator[dict[str, Clips], None, None]:
        """The frames of each part, by set, in the order of the parts.

        Args:
            parts: may overlap, and name a video again.
            draw: seed and epoch of the changes for training; None: as extraction sees the frames.

        Raises:
            BackboneError: a video cannot be decoded any more, or gives other frames than it did.
        """
        reading = _Reading(self, parts, draw)
        thread = threading.Thread(target=reading.run, name="vl-clips", daemon=True)
        thread.start()
        try:
            for number in range(len(parts)):
                yield reading.take(number)
        finally:
            reading.stop()
            thread.join()


class _Reading:
    """One go over a list of parts: a thread fills what the consumer takes in order."""

    def __init__(self, reader: ClipReader, parts: Sequence[Part], draw: tuple[int, int] | None) -> None:
        self.reader, self.parts, self.draw = reader, parts, draw
        store = reader.store
        self.passes = passes(parts, store)
        self.lasts = {numbers[-1] for numbers in self.passes}
        self.room = threading.Semaphore(reader.workers + AHEAD)
        self.ready: dict[int, dict[str, Clips]] = {}
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self.rates = store.plan.decode.rates
        self.inputs = [
            VideoInput(str(at), store.inputs[parts[numbers[0]][0]].path) for at, numbers in enumerate(self.passes)
        ]
        self.pool: DecodePool | None = None
        self.stopped = False

    def take(self, number: int) -> dict[str, Clips]:
        """What was asked for at this place; waits for it."""
        with self.changed:
            self.changed.wait_for(lambda: number in self.ready or self.error is not None)
            if self.error is not None:
                raise self.error
            found = self.ready.pop(number)
        if number in self.lasts:
            self.room.release()
        return found

    def stop(self) -> None:
        """Nobody takes any more."""
        with self.changed:
            self.stopped = True
            if self.pool is not None:
                self.pool.stop()

    def run(self) -> None:
        """In the thread: decode, change, put."""
        try:
            self._run()
        except BaseException as error:  # noqa: BLE001  # raised again where the parts are taken
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def _run(self) -> None:
        store = self.reader.store
        wanted = _Wanted(self)
        with DecodePool(
            self.inputs,
            store.plan.decode,
            workers=self.reader.workers,
            limits=store.limits,
            wanted=wanted,
            room=self.room,
            idle=store.idle,
        ) as pool:
            with self.changed:
                self.pool = pool
                if self.stopped:
                    return
            under_way: dict[str, _Filling] = {}
            for event in pool:
                name = event.video
                if isinstance(event, Frames):
                    try:
                        filling = under_way.get(name)
                        if filling is None:
                            filling = under_way[name] = _Filling(self, int(name))
                        filling.push(event)
                    finally:
                        event.release()
                elif isinstance(event, Restarted):
                    under_way.pop(name, None)
                elif isinstance(event, Failed):
                    raise BackboneError(
                        f"'{printable(self.video(int(name)))}' could be decoded before, and not now: {event.detail}. "
                        "Put it back as it was, or start a new run without it."
                    )
                elif isinstance(event, Finished):
                    filling = under_way.pop(name, None) or _Filling(self, int(name))
                    found = dict(zip(self.passes[int(name)], filling.finish(), strict=True))
                    with self.changed:
                        self.ready |= found
                        self.changed.notify_all()

    def video(self, at: int) -> str:
        """The one that a pass goes through."""
        return self.parts[self.passes[at][0]][0]

    def sets(self, at: int) -> list[_SetPart]:
        """What every set wants of a pass."""
        video, found = self.video(at), []
        parts = [self.parts[number] for number in self.passes[at]]
        for of in self.reader.store.sets.values():
            layout = of.layout(video)
            clips = tuple(layout.clips(start, stop) for _, start, stop in parts)
            every = [clip for of_part in clips for clip in of_part]
            numbers_F, scene_F = numbers_of(every), np.zeros(0, np.int64)
            if every:
                scenes = np.concatenate([np.full(len(clip.frames_T), clip.scene) for clip in every])
                _, first = np.unique(np.concatenate([clip.frames_T for clip in every]), return_index=True)
                scene_F = scenes[first]
            found.append(_SetPart(of, self.rates.index(of.network.fps), numbers_F, scene_F, clips))
        return found


def passes(parts: Sequence[Part], store: ClipStore) -> list[range]:
    """The numbers of the parts that each pass through a video serves: neighbours, up to `TOGETHER` frames."""
    found: list[range] = []
    frames, before = 0, None
    for number, (video, start, stop) in enumerate(parts):
        own = sum(of.layout(video).frames_of(start, stop) for of in store.sets.values())
        if video == before and frames + own <= TOGETHER:
            found[-1] = range(found[-1].start, number + 1)
            frames += own
        else:
            found.append(range(number, number + 1))
            frames, before = own, video
    return found


class _Wanted(Mapping[str, tuple[NDArray[np.int64], ...]]):
    """For the decode workers: which frames of each rate a pass wants; worked out when its turn comes."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading

    def __getitem__(self, name: str) -> tuple[NDArray[np.int64], ...]:
        sets = self.reading.sets(int(name))
        return tuple(rate_frames(sets, rate) for rate in range(len(self.reading.rates)))

    def __iter__(self) -> Iterator[str]:
        return (video.id for video in self.reading.inputs)

    def __len__(self) -> int:
        return len(self.reading.inputs)


def rate_frames(sets: Sequence[_SetPart], rate: int) -> NDArray[np.int64]:
    """(F,) ascending numbers of the frames of one rate that any set wants."""
    several = [part.numbers_F for part in sets if part.rate == rate]
    return np.unique(np.concatenate([np.zeros(0, np.int64), *several]))


class _Filling:
    """One pass under way: its frames as they come, changed, in their places."""

    def __init__(self, reading: _Reading, at: int) -> None:
        self.video = reading.video(at)
        self.sets = reading.sets(at)
        self.draw, self.device = reading.draw, reading.reader.store.plan.device
        self.augment: Augment = reading.reader.augment if reading.draw is not None else "none"
        self.numbers = [rate_frames(self.sets, rate) for rate in range(len(reading.rates))]
        self.frames = []
        self.count = [0] * len(self.sets)
        for part in self.sets:
            crop = part.of.network.backbone.clip.crop
            self.frames.append(torch.empty(len(part.numbers_F), crop, crop, 3, dtype=torch.uint8))

    def push(self, event: Frames) -> None:
        """The next frames of one rate."""
        images = to_rgb(event.images, event.layout, self.device).cpu()
        numbers = self.numbers[event.rate_index][event.first : event.first + len(event.times)]
        for at, part in enumerate(self.sets):
            if part.rate != event.rate_index:
                continue
            place, mine = np.searchsorted(part.numbers_F, numbers), np.isin(numbers, part.numbers_F)
            self._put(at, part, place[mine], images[torch.from_numpy(np.flatnonzero(mine))])

    def _put(self, at: int, part: _SetPart, place_F: NDArray[np.int64], images: Tensor) -> None:
        clip, scene_F = part.of.network.backbone.clip, part.scene_F[place_F]
        for scene in np.unique(scene_F):
            of_scene = np.flatnonzero(scene_F == scene)
            random = generator(*(self.draw or (0, 0)), self.video, int(scene), part.of.name)
            changed = augmented(images[torch.from_numpy(of_scene)], clip, self.augment, random)
            self.frames[at][torch.from_numpy(place_F[of_scene])] = changed
        self.count[at] += len(place_F)

    def finish(self) -> list[dict[str, Clips]]:
        """The frames of every set, for each part."""
        found: list[dict[str, Clips]] = [{} for _ in self.sets[0].clips]
        for part, frames, count in zip(self.sets, self.frames, self.count, strict=True):
            if count != len(part.numbers_F):
                raise BackboneError(
                    f"'{printable(self.video)}' gave {count} of {len(part.numbers_F)} frames: it is not the file that "
                    "the run began with. Put it back as it was, or start a new run."
                )
            for number, of_part in enumerate(found):
                of_part[part.of.name] = part.of_part(frames, number)
        return found


def numbers_of(clips: Sequence[Clip]) -> NDArray[np.int64]:
    """(F,) ascending numbers of the frames that some clips are made of."""
    return np.unique(np.concatenate([np.zeros(0, np.int64), *(clip.frames_T for clip in clips)]))
