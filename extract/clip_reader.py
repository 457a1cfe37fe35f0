"""Frames of clips for training: decoded and changed ahead in other processes and a thread, handed out in order.

What is read is a function of what is asked for alone: however many workers decode, the same frames come in the same
order. Parts of one video that are asked for one after the other share a pass through it, which ends with the last
wanted frame and hands over only those.
"""

from __future__ import annotations

import threading
from collections.abc import Generator as Generating
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain

import numpy as np
from numpy.random import Generator

from extract.augment import Augment, generator
from extract.backbone import BackboneError
from extract.clip_fillings import Clips, Filling, FlowFilling, PictureFilling, SetPart, SoundFilling
from extract.clips import ClipStore, PictureSet, SoundSet
from extract.colour import to_rgb
from extract.inputs import VideoInput
from extract.messages import Wanted
from extract.worker_events import Audio, Failed, Finished, Frames
from extract.workers import DecodePool
from stores.names import printable

AHEAD = 2  # passes whose parts may wait decoded, beside one for each worker
TOGETHER = 1024  # frames that the parts of one pass may have: 147 MiB at 224 x 224

Part = tuple[str, Mapping[str, tuple[int, int]]]
"""A video, and of every set the first row and one past the last."""


class ClipReader:
    """Reads parts of a store's videos, of every set the frames that its network sees, or the examples of its sound.

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
    ) -> Generating[dict[str, Clips], None, None]:
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
        under_way = _UnderWay(self)
        with DecodePool(
            self.inputs,
            store.plan.decode,
            workers=self.reader.workers,
            limits=store.limits,
            wanted=under_way,
            room=self.room,
            idle=store.idle,
        ) as pool:
            with self.changed:
                self.pool = pool
                if self.stopped:
                    return
            for event in pool:
                name = event.video
                if isinstance(event, Frames):
                    try:
                        under_way.passes[name].push(event)
                    finally:
                        event.release()
                elif isinstance(event, Audio):
                    under_way.passes[name].hear(event)
                elif isinstance(event, Failed):
                    raise BackboneError(
                        f"'{printable(self.video(int(name)))}' could be decoded before, and not now: {event.detail}. "
                        "Put it back as it was, or start a new run without it."
                    )
                elif isinstance(event, Finished):
                    done = under_way.passes.pop(name).finish()
                    found = dict(zip(self.passes[int(name)], done, strict=True))
                    with self.changed:
                        self.ready |= found
                        self.changed.notify_all()

    def video(self, at: int) -> str:
        """The one that a pass goes through."""
        return self.parts[self.passes[at][0]][0]

    def sets(self, at: int) -> list[SetPart]:
        """What every set wants of a pass."""
        video, parts = self.video(at), [self.parts[number][1] for number in self.passes[at]]
        found = []
        for name, of in self.reader.store.sets.items():
            layout = of.layout(video) if video in of else None  # one on sound, of a video without
            found.append(SetPart.of_clips(of, [layout.clips(*part[name]) if layout else [] for part in parts]))
        return found


def passes(parts: Sequence[Part], store: ClipStore) -> list[range]:
    """The numbers of the parts that each pass through a video serves: neighbours, up to `TOGETHER` frames."""
    found: list[range] = []
    frames, before = 0, None
    flows = [of.network.flow.method for of in store.sets.values() if isinstance(of, PictureSet) and of.network.flow]
    by_pairs = all(method.by_pairs for method in flows)  # else what is computed together must always be the same
    for number, (video, rows) in enumerate(parts):
        own = sum(of.layout(video).frames_of(*rows[name]) for name, of in store.sets.items() if video in of)
        if video == before and frames + own <= TOGETHER and by_pairs:
            found[-1] = range(found[-1].start, number + 1)
            frames += own
        else:
            found.append(range(number, number + 1))
            frames, before = own, video
    return found


class _UnderWay(Mapping[str, Wanted]):
    """For the decode workers: what a pass wants. It is laid out when a worker takes it, and anew for another one."""

    def __init__(self, reading: _Reading) -> None:
        self.reading = reading
        self.passes: dict[str, _Pass] = {}

    def __getitem__(self, name: str) -> Wanted:
        self.passes[name] = _Pass(self.reading, int(name))
        return self.passes[name].wanted

    def __iter__(self) -> Iterator[str]:
        return (video.id for video in self.reading.inputs)

    def __len__(self) -> int:
        return len(self.reading.inputs)


class _Pass:
    """One pass through a video under way: what every set gets of it."""

    def __init__(self, reading: _Reading, at: int) -> None:
        self.video, self.parts = reading.video(at), len(reading.passes[at])
        self.device, draw = reading.reader.store.plan.device, reading.draw
        augment: Augment = reading.reader.augment if draw is not None else "none"
        self.pictures: dict[int, list[PictureFilling | FlowFilling]] = {rate: [] for rate in range(len(reading.rates))}
        self.sounds: list[SoundFilling] = []
        for part in reading.sets(at):
            if isinstance(part.of, PictureSet):
                random = partial(scene_generator, draw or (0, 0), self.video)
                filling = (
                    PictureFilling(part, part.of, augment, random)
                    if part.of.network.flow is None
                    else FlowFilling(part, part.of, part.of.num_frames(self.video), augment, random)
                )
                self.pictures[reading.rates.index(part.of.network.fps)].append(filling)
            elif isinstance(part.of, SoundSet):
                self.sounds.append(SoundFilling(part, part.of, part.of.samples(self.video)))
        none = np.zeros(0, np.int64)
        rows = [
            np.unique(np.concatenate([none, *(filling.decoded for filling in of)])) for of in self.pictures.values()
        ]
        self.wanted = Wanted(tuple(rows), max((filling.stop for filling in self.sounds), default=0))

    def push(self, event: Frames) -> None:
        """The next frames of one rate."""
        images = to_rgb(event.images, event.layout, self.device).cpu()
        numbers = self.wanted.rows[event.rate_index][event.first : event.first + len(event.times)]
        for filling in self.pictures[event.rate_index]:
            filling.push(numbers, images)

    def hear(self, event: Audio) -> None:
        """The next piece of sound."""
        for filling in self.sounds:
            filling.push(event.first_sample, event.samples)

    def finish(self) -> list[dict[str, Clips]]:
        """The clips of every set, for each part."""
        found: list[dict[str, Clips]] = [{} for _ in range(self.parts)]
        fillings: list[Filling] = [*chain.from_iterable(self.pictures.values()), *self.sounds]
        for filling in fillings:
            if filling.missing:
                raise BackboneError(
                    f"'{printable(self.video)}' gave {filling.missing}: it is not the file that the run began with. "
                    "Put it back as it was, or start a new run."
                )
            for of_part, clips in zip(found, filling.finish(), strict=True):
                of_part[filling.part.of.name] = clips
        return found


def scene_generator(draw: tuple[int, int], video: str, scene: int, backbone: str) -> Generator:
    """The random numbers of a scene for a backbone, in an epoch of a seed."""
    return generator(*draw, video, scene, backbone)
