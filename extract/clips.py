"""Videos as a store of clips: rows are made when they are read, from decode plans that are kept.

A plan (`extract.clip_plans`) takes one pass through a video, and says
which frames make up which rows (`extract.clip_layouts`). The store's sets are those that extraction would fill,
with the same specs, row counts and times. To read one is to extract it; to train a network on it is to take the frames
themselves (`extract.clip_reader`).

Shape letter: N rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from extract.backbone import BackboneError, ExampleBackbone
from extract.clip_layouts import Layout, SceneLayout, SoundLayout, TileLayout, WindowLayout
from extract.clip_plans import VideoPlan, decoded, plan_settings, read_plans, scanned, write_plans
from extract.colour import to_rgb
from extract.decode import Limits
from extract.extractors import Network, VideoRows
from extract.flow_rows import start_rows
from extract.inputs import VideoInput
from extract.plan import Plan
from extract.scene_rows import SceneRows
from extract.sound_rows import Sound, SoundRows
from extract.worker_events import Audio, AudioFailed, Failed, Frames, Restarted
from extract.workers import IdleWorkers
from stores.errors import StoreError
from stores.names import printable
from stores.spec import Failure, FeatureSpec, Granularity, Rows, VideoEntry
from stores.tables import as_xarray, index_frame

if TYPE_CHECKING:
    import pandas

KEEP_EVERY = 64  # videos: how many plans an interrupted run may lose
TILE_ROWS = 8  # of I3D: 160 frames with their context


class ClipSet(ABC):
    """One feature set of videos whose rows are extracted when they are read; implements `FeatureSet`."""

    def __init__(self, store: ClipStore, name: str, spec: FeatureSpec) -> None:
        self.name, self.spec = name, spec
        self.provenance: Mapping[str, Any] = store.plan.provenance[name]
        self._store = store

    @abstractmethod
    def layout(self, video: str) -> Layout:
        """Which clips make which rows of a video."""

    def __iter__(self) -> Iterator[str]:
        return (video for video in sorted(self._store.plans) if video in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, video: object) -> bool:
        return video in self._store.plans

    def entry(self, video: str) -> VideoEntry:
        """Its digest is that of the plan: which frames make up which rows."""
        plan, layout = self._store.video_plan(video), self.layout(video)
        times = layout.times()
        frames = b"".join(clip.frames_T.tobytes() for clip in layout.clips(0, len(times)))
        digest = hashlib.sha256(frames + times.tobytes() + str(plan.size).encode()).hexdigest()
        return VideoEntry(video, len(times), digest, {"duration": plan.duration, "size": plan.size})

    def index(self) -> pandas.DataFrame:
        """One row a video: video, rows, start, end and duration (seconds), sha256; videos in sorted order."""
        return index_frame(self)

    def to_xarray(self, video: str) -> Any:
        """The rows of `video` as an xarray.DataArray; StoreError where xarray, an extra, is not installed."""
        return as_xarray(self, video)

    def times(self, video: str) -> NDArray[np.float64]:
        """(N, 2) seconds of all rows of a video, as extraction gives them."""
        return self.layout(video).times()

    def read(self, video: str, start: int = 0, stop: int | None = None) -> Rows:
        """Rows `start` to `stop`, extracted now; of the video that was read last they are kept."""
        rows = self._store.extracted(video)[self.name]
        return Rows(rows.features[start:stop], rows.times[start:stop])

    def read_into(self, video: str, start: int, out: NDArray[Any]) -> None:
        """Fill `out` with rows from `start` on."""
        out[:] = self.read(video, start, start + len(out)).features


class PictureSet(ClipSet):
    """A set of rows that a network makes of frames."""

    def __init__(self, store: ClipStore, name: str, network: Network) -> None:
        super().__init__(store, name, network.specs[name])
        self.network, self.tile_rows = network, store.tile_rows
        self.level = next(level for level, of in network.sets.items() if of == name)

    def num_frames(self, video: str) -> int:
        """Of a video at the network's rate."""
        return self._store.video_plan(video).frames[str(self.network.fps)]

    def layout(self, video: str) -> Layout:
        """Scenes, windows or tiles."""
        plan, network = self._store.video_plan(video), self.network
        clip = network.backbone.clip
        if self.spec.granularity is Granularity.SCENE:
            return SceneLayout(plan.scenes, network.window)
        assert network.fps is not None, "checked when the store was made"
        count = self.num_frames(video)
        if network.convolutional:
            return TileLayout(count, network.fps, network.stride, clip.halo, self.tile_rows)
        rows = -(-network.window // clip.output_stride) if self.spec.granularity is Granularity.MAP else 1
        return WindowLayout(count, network.fps, network.window, network.stride, rows)


class SoundSet(ClipSet):
    """A set of rows that a network makes of sound; of videos that have some."""

    def __init__(self, store: ClipStore, sound: Sound) -> None:
        super().__init__(store, sound.set_name, sound.spec)
        assert isinstance(sound.backbone, ExampleBackbone), "checked when the store was made"
        self.sound, self.backbone = sound, sound.backbone

    def __contains__(self, video: object) -> bool:
        plan = self._store.plans.get(str(video))
        return plan is not None and plan.samples > 0

    def samples(self, video: str) -> int:
        """Of the sound of a video."""
        return self._store.video_plan(video).samples

    def layout(self, video: str) -> Layout:
        """Examples, one after the other."""
        samples = self.samples(video)
        rows = self.backbone.num_rows(samples, self.sound.rate)
        return SoundLayout(self.sound.times(0, rows, samples))


class ClipStore:
    """Sets of rows that are made of videos when they are wanted; implements `FeatureStore`.

    Args:
        path: the file of the decode plans.
        inputs: the videos, readable or not.
        plan: networks and sets.
        plans: of the videos that could be decoded.
        failed: those that could not.
        tile_rows: rows that a tile of the convolutional mode gives when frames are read; rows are the same with any.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[VideoInput],
        plan: Plan,
        plans: Mapping[str, VideoPlan],
        failed: Sequence[Failure] = (),
        limits: Limits | None = None,
        tile_rows: int = TILE_ROWS,
    ) -> None:
        self.path, self.plan, self.limits, self.tile_rows = path, plan, limits or Limits(), tile_rows
        self.inputs = {video.id: video for video in inputs}
        self.plans = {video: plans[video] for video in self.inputs if video in plans}
        self.sets: dict[str, ClipSet] = {
            name: PictureSet(self, name, network) for network in networks_of(plan) for name in network.specs
        }
        self.sets |= {sound.set_name: SoundSet(self, sound) for sound in plan.sounds}
        self.idle = IdleWorkers()  # of whoever decodes parts of these videos
        self._failed = list(failed)
        self._read: tuple[str, dict[str, Rows]] | None = None

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self.sets))

    def __len__(self) -> int:
        return len(self.sets)

    def __contains__(self, set_name: object) -> bool:
        return set_name in self.sets

    def __getitem__(self, set_name: str) -> ClipSet:
        if set_name not in self.sets:
            raise StoreError(f"there is no set '{printable(set_name)}' of these clips; there is {', '.join(self)}.")
        return self.sets[set_name]

    @property
    def snapshot_id(self) -> str:
        """Hash of all plans."""
        plain = {video: dataclasses.asdict(plan) for video, plan in sorted(self.plans.items())}
        return hashlib.sha256(json.dumps(plain).encode()).hexdigest()

    def video_plan(self, video: str) -> VideoPlan:
        """The plan of one video; StoreError if there is none."""
        if video not in self.plans:
            raise StoreError(f"there are no clips of '{printable(video)}'.")
        return self.plans[video]

    def failures(self) -> list[Failure]:
        """Videos that could not be decoded, and sets of sound that videos have none for."""
        silent = [
            Failure(video, *plan.silent, set_name=of.name)
            for video, plan in self.plans.items()
            for of in self.sets.values()
            if plan.silent and isinstance(of, SoundSet)
        ]
        return [*self._failed, *silent]

    def attachment(self, kind: str) -> dict[str, Any] | None:
        """Clips carry no documents."""
        return None

    def attachments(self) -> dict[str, dict[str, Any]]:
        """Clips carry no documents."""
        return {}

    def close(self) -> None:
        """Forget the rows that were read last, and end idle decode processes; both come again when they are wanted."""
        self._read = None
        self.idle.close()

    def extracted(self, video: str) -> dict[str, Rows]:
        """The rows of every set of one video, as extraction with these networks makes them."""
        if self._read is None or self._read[0] != video:
            self._read = video, self._extract(self.inputs[video])
        return self._read[1]

    def _extract(self, video: VideoInput) -> dict[str, Rows]:
        decode, parts = self.plan.decode, dict[str, list[Rows]]()
        takers: list[tuple[int, VideoRows | SceneRows]] = []
        sounds: list[SoundRows] = []
        for event in decoded([video], self.plan, 1, self.limits):
            if isinstance(event, Restarted) or not parts:
                networks = self.plan.networks
                takers = [(decode.rates.index(of.fps), start_rows(of, video.id)) for of in networks]
                takers += [(decode.rates.index(None), self.plan.scenes.start())] if self.plan.scenes else []
                sounds = [sound.start() for sound in self.plan.sounds if video.id in self.sets[sound.set_name]]
                parts = {name: [] for name in self.sets}
            if isinstance(event, Frames):
                try:
                    images = to_rgb(event.images, event.layout, self.plan.device)
                    for rate, taker in takers:
                        if rate == event.rate_index:
                            for name, rows in taker.push(images, event.times):
                                parts[name].append(rows)
                finally:
                    event.release()
            elif isinstance(event, Audio):
                for sound in sounds:
                    for name, rows in sound.push(event.samples):
                        parts[name].append(rows)
            elif isinstance(event, Failed) or (isinstance(event, AudioFailed) and sounds):
                raise BackboneError(f"'{printable(video.id)}' cannot be decoded any more: {event.detail}.")
        finished = [*(taker.finish() for _, taker in takers), *(sound.finish() for sound in sounds)]
        for name, rows in chain.from_iterable(finished):
            parts[name].append(rows)
        return {
            name: Rows(*(np.concatenate([getattr(rows, part) for rows in several]) for part in Rows._fields))
            for name, several in parts.items()
            if several
        }


def networks_of(plan: Plan) -> tuple[Network, ...]:
    """All networks on frames of a plan; BackboneError for one, or one on sound, that is not trained on videos."""
    networks = (*plan.networks, *(plan.scenes.networks if plan.scenes else ()))
    for network in networks:
        name = network.shown_name
        if network.views is not None or network.whitening:
            raise BackboneError(f"{name} is not trained on views or whitened rows.")
        if network.fps is None and not plan.scenes:
            raise BackboneError(f"{name} takes frames at the video's own rate: give it one with --fps.")
    for sound in plan.sounds:
        name = sound.backbone.name
        if not isinstance(sound.backbone, ExampleBackbone):
            raise BackboneError(f"{name} has nothing to learn: extract it, and give --features STORE.")
        if sound.whitening is not None:
            raise BackboneError(f"{name} is not trained on whitened rows.")
    return networks


def clip_store(
    path: Path,
    inputs: Sequence[VideoInput],
    plan: Plan,
    *,
    failures: Sequence[Failure] = (),
    workers: int = 1,
    limits: Limits | None = None,
    report: Callable[[str], None] | None = None,
    look: bool = True,
    tile_rows: int = TILE_ROWS,
) -> ClipStore:
    """The clips of these videos; the plans at `path` are used, and those that it lacks are made and written there.

    Args:
        path: a JSON file of plans, made if absent; one of other settings is made anew.
        failures: inputs that could not even be listed.
        report: is told how many videos have to be looked through.
        look: False: another process has made the plans, and a video without one could not be decoded.

    Raises:
        DamageError: the file holds something else.
        StoreError: nobody may look, and a video is not the file that its plan was made of.
        BackboneError: the plan has networks that are not trained on clips.
    """
    networks_of(plan)
    settings = plan_settings(plan)
    kept = read_plans(path, settings)
    wanted, sizes = [], {}
    for video in inputs:
        try:
            status = video.path.stat()
        except OSError:
            kept.pop(video.id, None)
        else:
            sizes[video.id] = status.st_size, status.st_mtime_ns
        known = kept.get(video.id)
        if known is None or (known.size, known.mtime_ns) != sizes[video.id]:
            if known is not None and not look:
                raise StoreError(
                    f"'{printable(video.path)}' has another size or time than the file that was looked through: all "
                    "processes need the same videos, in a shared folder or copied with their times."
                )
            kept.pop(video.id, None)
            wanted.append(video)
    failed = list(failures)
    if wanted and look:
        if report is not None:
            report(f"{len(wanted)} of {len(inputs)} videos are looked through for their {plan_words(plan)}")
        try:
            for count, (name, found) in enumerate(scanned(wanted, sizes, plan, workers, limits or Limits()), start=1):
                if isinstance(found, Failure):
                    failed.append(found)
                else:
                    kept[name] = found
                if count % KEEP_EVERY == 0:
                    write_plans(path, settings, kept)
        finally:
            write_plans(path, settings, kept)
    return ClipStore(path, inputs, plan, kept, failed, limits, tile_rows)


def plan_words(plan: Plan) -> str:
    """What a pass through a video looks for."""
    return " and ".join(
        word
        for word, looked_for in (
            ("scenes", plan.scenes),
            ("frames", plan.networks and not plan.scenes),
            ("sound", plan.sounds),
        )
        if looked_for
    )
