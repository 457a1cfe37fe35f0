"""What becomes of every input of an extraction: done, there already, or failed with a reason, for each set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from extract.decode import Reason
from extract.inputs import VideoInput
from extract.plan import Plan
from stores.spec import Failure
from stores.zarr_store import ZarrStore, ZarrWriter


class MissingAudio(StrEnum):
    """What becomes of the audio sets of a video that has no sound track."""

    ERROR = "error"  # it failed for them
    ZEROS = "zeros"  # rows of zeros over its length, marked in the store
    SKIP = "skip"  # it has no rows there, which is recorded and counts as done


class Observer:
    """What a progress display is told; this one shows nothing. `seconds` are those of video."""

    def plan(self, videos: int) -> None:
        """So many videos are to be done."""

    def started(self, video: str, seconds: float) -> None:
        """A video begins whose container says it is so long."""

    def advanced(self, video: str, seconds: float) -> None:
        """So much more of it went through the networks."""

    def done(self, video: str) -> None:
        """A video is complete; it is committed with the next group."""

    def failed(self, failure: Failure) -> None:
        """An input, or its sound, could not be read."""

    def predicted(self, video: str, backbone: str, classes: Sequence[tuple[str, float]]) -> None:
        """Top classes of a clip in the middle of a video."""


@dataclass
class Summary:
    """How an extraction ended; each input is in exactly one of the first four counts."""

    done: int = 0  # every wanted set is committed, at least one of them by this run
    there: int = 0  # every wanted set was committed by an earlier run
    partly: int = 0  # some sets are committed, others failed (a video without sound)
    failed: int = 0
    failures: list[Failure] = field(default_factory=list)  # of this run, and earlier ones not retried
    skipped: list[Failure] = field(default_factory=list)  # sound that is not there and was not asked for
    silent: int = 0  # videos without sound whose rows of sound this run made zeros
    changed: list[str] = field(default_factory=list)  # committed, but the file is another one now
    rows: Counter[str] = field(default_factory=Counter)
    video_seconds: float = 0.0
    frames_decoded: int = 0


def work(
    inputs: Sequence[VideoInput],
    store: ZarrStore,
    plan: Plan,
    retry_failed: bool,
    missing_audio: MissingAudio,
    summary: Summary,
) -> dict[frozenset[str], list[VideoInput]]:
    """Inputs by the sets they still lack; those that lack none, or failed before, go to the summary."""
    failed: dict[str, list[Failure]] = {}
    for failure in store.failures():
        failed.setdefault(failure.video, []).append(failure)
    groups: dict[frozenset[str], list[VideoInput]] = {}
    for video in inputs:
        committed = {name for name in plan.specs if name in store and video.id in store[name]}
        before = [f for f in failed.get(video.id, []) if f.set_name is None or f.set_name in plan.specs]
        if missing_audio is MissingAudio.ZEROS:
            before = [f for f in before if f.reason != Reason.NO_AUDIO]
        skipped = len(summary.skipped)
        if before and not retry_failed:
            for failure in before:
                if failure.set_name not in committed:
                    not_lost(failure, missing_audio, summary).append(failure)
            given_up = {f.set_name for f in before}
            missing = frozenset() if None in given_up else frozenset(set(plan.specs) - committed - given_up)
        else:
            missing = frozenset(set(plan.specs) - committed)
        if missing:
            groups.setdefault(missing, []).append(video)
        elif len(committed) + len(summary.skipped) - skipped == len(plan.specs):
            summary.there += 1
        if committed and changed_since(video, store, min(committed)):
            summary.changed.append(video.id)
    return groups


def not_lost(failure: Failure, missing_audio: MissingAudio, summary: Summary) -> list[Failure]:
    """The list of the summary that a failure belongs to."""
    skipped = missing_audio is MissingAudio.SKIP and failure.reason == Reason.NO_AUDIO
    return summary.skipped if skipped else summary.failures


def changed_since(video: VideoInput, store: ZarrStore, set_name: str) -> bool:
    """Whether the file is not the one that the rows were made of, by its size."""
    size = store[set_name].entry(video.id).info.get("size")
    return size is not None and video.path.stat().st_size != size


def record(failure: Failure, writer: ZarrWriter, observer: Observer, summary: Summary) -> None:
    writer.fail(failure)
    observer.failed(failure)
    summary.failures.append(failure)


def count(inputs: Sequence[VideoInput], out: Path, plan: Plan, summary: Summary) -> None:
    """Put every input into its count, by what the store holds now."""
    store = ZarrStore(out)
    skipped = Counter(failure.video for failure in summary.skipped)
    for video in inputs:
        held = sum(name in store and video.id in store[name] for name in plan.specs)
        if held + skipped[video.id] == len(plan.specs):
            summary.done += 1
        elif held:
            summary.partly += 1
        else:
            summary.failed += 1
    summary.done -= summary.there
    summary.failed += len({failure.video for failure in summary.failures} - {video.id for video in inputs})
