"""Videos in, a feature store out: decode in workers, run the networks, commit video by video.

One decode feeds every set. Commit, resume and failure are per video and set; every input ends as done, there
already, or failed with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from extract.accounts import MissingAudio, Observer, Summary, count, not_lost, record, work
from extract.colour import to_rgb
from extract.decode import Limits, Reason
from extract.extractors import NamedRows, VideoRows
from extract.flow import cancel_flow
from extract.flow_rows import FlowRows, start_rows
from extract.inputs import VideoInput
from extract.memory import keep_freed_memory
from extract.plan import Plan
from extract.preview import Preview
from extract.sampled_rows import SampledRows
from extract.sound_rows import SoundRows
from extract.views import wanted_frames
from extract.worker_events import Audio, AudioFailed, Counted, Event, Failed, Finished, Frames, Restarted, Started
from extract.workers import DecodePool
from stores.spec import Failure
from stores.zarr_store import VideoWriter, ZarrStore, ZarrWriter


def extract_videos(
    inputs: Sequence[VideoInput],
    failures: Iterable[Failure],
    plan: Plan,
    out: Path,
    *,
    observer: Observer,
    workers: int = 1,
    limits: Limits | None = None,
    retry_failed: bool = False,
    missing_audio: MissingAudio = MissingAudio.ERROR,
    compress: str | None = None,
    attachments: Mapping[str, Mapping[str, Any]] | None = None,
    show_pred: int = 0,
) -> Summary:
    """Fill the store at `out` (.zarr) with every set of `plan` for every input that lacks it.

    Args:
        failures: inputs that could not even be listed; they are recorded with the others.
        limits: of one decode worker (seconds without a sign of life, memory, pixels, partial videos).
        retry_failed: try inputs again that failed in an earlier run.
        missing_audio: what becomes of the audio sets of a video without a sound track.
        attachments: documents to attach, by kind, where the store does not hold the same already.
        show_pred: so many videos get their top classes predicted from one clip in their middle.

    Raises:
        SpecMismatchError: the store has a set of that name made with other settings.
        NoSpaceError: the disk is full; what was committed stays.
    """
    keep_freed_memory()
    summary = Summary()
    with ZarrWriter(out, plan.specs, provenance=plan.provenance, compress=compress) as writer:
        store = ZarrStore(out)
        start_store(writer, store, failures, attachments, observer, summary)
        groups = work(inputs, store, plan, retry_failed, missing_audio, summary)
        observer.plan(sum(map(len, groups.values())))
        preview = Preview(show_pred)
        for sets, videos in groups.items():
            part = plan.only(sets)
            run = Run(part, videos, writer, observer, summary, preview, missing_audio)
            try:
                with DecodePool(videos, part.decode, workers=workers, limits=limits or Limits()) as pool:
                    for event in pool:
                        run.take(event)
            finally:
                cancel_flow()
    count(inputs, out, plan, summary)
    return summary


def start_store(
    writer: ZarrWriter,
    store: ZarrStore,
    failures: Iterable[Failure],
    attachments: Mapping[str, Mapping[str, Any]] | None,
    observer: Observer,
    summary: Summary,
) -> None:
    """Note what is known before the first video: documents, and inputs that could not be listed."""
    for kind, document in (attachments or {}).items():
        if store.attachment(kind) != document:
            writer.attach(kind, document)
    for failure in failures:
        record(failure, writer, observer, summary)


@dataclass
class _Video:
    """One video under way: where its rows go and what makes them."""

    writer: VideoWriter
    rows: dict[int, list[VideoRows]]  # by the index of their frame rate
    sounds: list[SoundRows]
    duration: float
    seen: float = 0.0  # seconds that went through the networks
    silent: bool = False  # has no sound track: its rows of sound become zeros


class Run:
    """Events of one decode pool in, committed videos out."""

    def __init__(
        self,
        plan: Plan,
        inputs: Sequence[VideoInput],
        writer: ZarrWriter,
        observer: Observer,
        summary: Summary,
        preview: Preview,
        missing_audio: MissingAudio = MissingAudio.ERROR,
    ) -> None:
        self.plan, self.writer, self.observer, self.summary = plan, writer, observer, summary
        self.preview, self.missing_audio = preview, missing_audio
        self.rates = plan.decode.rates
        self.inputs = {video.id: video for video in inputs}
        self.videos: dict[str, _Video] = {}

    def take(self, event: Event) -> None:
        """One event of the pool."""
        match event:
            case Started():
                self.start(event)
            case Counted():
                self.counted(event)
            case Frames():
                self.frames(event)
            case Audio():
                video = self.videos[event.video]
                for sound in video.sounds:
                    self.append(video, sound.push(event.samples))
                if not self.rates and self.plan.decode.audio_rate:
                    self.observer.advanced(event.video, len(event.samples) / self.plan.decode.audio_rate)
            case AudioFailed():
                self.lose_sound(event)
            case Restarted():
                self.forget(event.video)
            case Finished():
                self.finish(event)
            case Failed():
                self.forget(event.video)
                self.fail(Failure(event.video, event.reason, event.detail))

    def start(self, event: Started) -> None:
        source = self.inputs[event.video].path.stat()
        info = {"size": source.st_size, "mtime_ns": source.st_mtime_ns}
        rows: dict[int, list[VideoRows]] = {}
        # Flow first: its threads compute while the other networks run.
        for network in sorted(self.plan.networks, key=lambda network: network.flow is None):
            rows.setdefault(self.rates.index(network.fps), []).append(start_rows(network, event.video))
        if self.plan.scenes is not None:
            rows.setdefault(self.rates.index(None), []).append(self.plan.scenes.start())
        duration = event.probe.duration or 0.0
        sounds = [sound.start() for sound in self.plan.sounds]
        self.videos[event.video] = _Video(self.writer.video(event.video, info), rows, sounds, duration)
        self.preview.start(event.video, duration, [n for n in self.plan.shown if n.views is None])
        self.observer.started(event.video, duration)

    def forget(self, video: str) -> None:
        """Drop all that came of a video so far, which may be nothing."""
        if video in self.videos:
            self.videos.pop(video).writer.discard()
        self.preview.forget(video)

    def counted(self, event: Counted) -> None:
        """Clips can be laid out: which frames they have is known."""
        for index, clips in enumerate(self.plan.decode.clips):
            num_frames = event.num_frames[index]
            wanted = wanted_frames(clips, num_frames) if clips else np.arange(num_frames)
            for rows in self.videos[event.video].rows[index]:
                if isinstance(rows, SampledRows):
                    rows.begin(num_frames, wanted)
                elif isinstance(rows, FlowRows):
                    rows.begin(num_frames)

    def frames(self, event: Frames) -> None:
        video = self.videos[event.video]
        try:
            images, times = to_rgb(event.images, event.layout, self.plan.device), event.times
            for network, classes in self.preview.take(event.video, self.rates[event.rate_index], images, times):
                self.observer.predicted(event.video, network.shown_name, classes)
            for rows in video.rows[event.rate_index]:
                self.append(video, rows.push(images, times))
        finally:
            event.release()
        if event.rate_index == 0:
            began, video.seen = video.seen, float(times[-1, 1])
            self.observer.advanced(event.video, video.seen - began)

    def lose_sound(self, event: AudioFailed) -> None:
        video = self.videos[event.video]
        video.sounds.clear()
        if event.reason is Reason.NO_AUDIO and self.missing_audio is MissingAudio.ZEROS:
            video.silent = True
            return
        for sound in self.plan.sounds:
            failure = Failure(event.video, event.reason, event.detail, sound.set_name)
            skipped = not_lost(failure, self.missing_audio, self.summary) is self.summary.skipped
            if skipped:
                self.writer.fail(failure)
                self.summary.skipped.append(failure)
            else:
                self.fail(failure)

    def finish(self, event: Finished) -> None:
        video = self.videos.pop(event.video)
        for several in video.rows.values():
            for rows in several:
                self.append(video, rows.finish())
        for sound in video.sounds:
            self.append(video, sound.finish())
        if video.silent:
            self.summary.silent += 1
            for silence in self.plan.sounds:
                self.append(video, iter([(silence.set_name, silence.zeros(event.duration))]))
        for network, classes in self.preview.finish(event.video):
            self.observer.predicted(event.video, network.shown_name, classes)
        video.writer.commit(
            {
                "duration": event.duration,
                "frames_decoded": event.frames_decoded,
                "partial": event.partial,
                **({"missing_audio": str(self.missing_audio)} if video.silent else {}),
            }
        )
        self.summary.video_seconds += event.duration
        self.summary.frames_decoded += event.frames_decoded
        self.observer.done(event.video)

    def append(self, video: _Video, rows: NamedRows) -> None:
        for set_name, part in rows:
            video.writer.append(set_name, part)
            self.summary.rows[set_name] += len(part.times)

    def fail(self, failure: Failure) -> None:
        record(failure, self.writer, self.observer, self.summary)
