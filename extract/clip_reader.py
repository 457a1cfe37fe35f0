"""Frames of clips for training: decoded and changed ahead in other processes and a thread, handed out in order.

What is read is a function of what is asked for alone: however many workers decode, the same frames come in the same
order. Each asked-for part of a video is one pass through it, of which only the wanted frames are handed over.

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
from extract.clips import ClipSet, ClipStore
from extract.colour import to_rgb
from extract.inputs import VideoInput
from extract.workers import DecodePool, Failed, Finished, Frames, Restarted
from stores.names import printable
from stores.spec import Granularity

AHEAD = 2  # parts of videos that may wait decoded, beside one for each worker

Part = tuple[str, int, int]  # video, first row, one past the last row
Clips = tuple[Tensor, Tensor, Tensor]
"""(F, H, W, 3) uint8 frames, (K, T) which of them make up each clip, and (K, 2) which of the rows that a clip gives
are wanted, from and up to; on the CPU."""


class _SetPart(NamedTuple):
    """What one set wants of one part of a video."""

    of: ClipSet
    rate: int  # index of its rate
    numbers_F: NDArray[np.int64]  # ascending
    clip_F: NDArray[np.int64]  # of the video, in which each frame is first seen
    index_KT: Tensor
    wanted_K2: Tensor


class ClipReader:
    """Reads parts of a store's videos as uint8 frames, of every set the ones that its network sees.

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
    """One pass over a list of parts: a thread fills what the consumer takes in order."""

    def __init__(self, reader: ClipReader, parts: Sequence[Part], draw: tuple[int, int] | None) -> None:
        self.reader, self.parts, self.draw = reader, parts, draw
        store = reader.store
        self.room = threading.Semaphore(reader.workers + AHEAD)
        self.ready: dict[int, dict[str, Clips]] = {}
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self.rates = store.plan.decode.rates
        self.inputs = [VideoInput(str(number), store.inputs[video].path) for number, (video, *_) in enumerate(parts)]
        self.pool: DecodePool | None = None
        self.stopped = False

    def take(self, number: int) -> dict[str, Clips]:
        """What was asked for at this place; waits for it."""
        with self.changed:
            self.changed.wait_for(lambda: number in self.ready or self.error is not None)
            if self.error is not None:
                raise self.error
            found = self.ready.pop(number)
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
        ) as pool:
            with self.changed:
                self.pool = pool
                if self.stopped:
                    return
            under_way: dict[str, _Filling] = {}
            for event in pool:
                number = event.video
                if isinstance(event, Frames):
                    try:
                        filling = under_way.get(number)
                        if filling is None:
                            filling = under_way[number] = _Filling(self, int(number))
                        filling.push(event)
                    finally:
                        event.release()
                elif isinstance(event, Restarted):
                    under_way.pop(number, None)
                elif isinstance(event, Failed):
                    video = self.parts[int(number)][0]
                    raise BackboneError(
                        f"'{printable(video)}' could be decoded before, and not now: {event.detail}. Put it back as it "
                        "was, or start a new run without it."
                    )
                elif isinstance(event, Finished):
                    filling = under_way.pop(number, None) or _Filling(self, int(number))
                    with self.changed:
                        self.ready[int(number)] = filling.finish()
                        self.changed.notify_all()

    def sets(self, number: int) -> list[_SetPart]:
        """What every set wants of a part."""
        video, start, stop = self.parts[number]
        found = []
        for of in self.reader.store.sets.values():
            rows = of.rows_a_clip
            clip_K = np.arange(start // rows, -(-stop // rows))
            frames_KT = of.frames(video)[clip_K]
            numbers_F, first, index = np.unique(frames_KT, return_index=True, return_inverse=True)
            clip_F = clip_K[first // frames_KT.shape[1]]
            rate = self.rates.index(of.network.fps)
            index_KT = torch.from_numpy(index.reshape(frames_KT.shape))
            wanted_K2 = np.clip(np.array([start, stop]) - clip_K[:, None] * rows, 0, rows)
            found.append(_SetPart(of, rate, numbers_F, clip_F, index_KT, torch.from_numpy(wanted_K2)))
        return found


class _Wanted(Mapping[str, tuple[NDArray[np.int64], ...]]):
    """For the decode workers: which frames of each rate a part has; worked out when its turn comes."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading

    def __getitem__(self, number: str) -> tuple[NDArray[np.int64], ...]:
        sets = self.reading.sets(int(number))
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
    """One part under way: its frames as they come, changed, in their places."""

    def __init__(self, reading: _Reading, number: int) -> None:
        self.video = reading.parts[number][0]
        self.sets = reading.sets(number)
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
        clip, scenes = part.of.network.backbone.clip, part.of.spec.granularity is Granularity.SCENE
        clip_F = part.clip_F[place_F] if scenes else np.zeros(len(place_F), np.int64)
        for scene in np.unique(clip_F):  # frames of one scene are changed alike; windows overlap, and a video is one
            of_scene = np.flatnonzero(clip_F == scene)
            random = generator(*(self.draw or (0, 0)), self.video, int(scene), part.of.name)
            changed = augmented(images[torch.from_numpy(of_scene)], clip, self.augment, random)
            self.frames[at][torch.from_numpy(place_F[of_scene])] = changed
        self.count[at] += len(place_F)

    def finish(self) -> dict[str, Clips]:
        """The frames of every set."""
        for part, count in zip(self.sets, self.count, strict=True):
            if count != len(part.numbers_F):
                raise BackboneError(
                    f"'{printable(self.video)}' gave {count} of {len(part.numbers_F)} frames: it is not the file that "
                    "the run began with. Put it back as it was, or start a new run."
                )
        return {
            part.of.name: (frames, part.index_KT, part.wanted_K2)
            for part, frames in zip(self.sets, self.frames, strict=True)
        }
