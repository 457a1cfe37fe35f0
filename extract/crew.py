"""One extraction by a crew of workers, each of which may be lost at any moment.

The inputs that are left go out in shares. A worker does with its share what `vl extract` does: it is one more writer
of the same store, and commits video by video. So a lost worker loses what it had not committed, and nothing else: its
share goes out again in halves, where what is there already is passed over. A video that is alone in its share and
takes its worker down again and again has failed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from extract.accounts import MissingAudio, Observer, Summary, count, record, work
from extract.decode import Limits, Reason
from extract.extract_options import ExtractOptions
from extract.inputs import VideoInput
from extract.pipeline import extract_videos, start_store
from extract.plan import Plan, make_plan
from stores.spec import Failure
from stores.zarr_store import ZarrStore, ZarrWriter

TRIES = 3  # of a video that is alone in its share
SHARES = 4  # for each worker, so that all end at about the same time
MOST_VIDEOS = 1024  # in a share: each begins with opening the store


@dataclass(frozen=True)
class Order:
    """What every worker is to do with the videos of a share."""

    options: ExtractOptions
    out: Path
    workers: int
    limits: Limits
    retry_failed: bool = False
    missing_audio: MissingAudio = MissingAudio.ERROR
    compress: str | None = None


class Worker:
    """Lives on one GPU or a few cores: loads the networks once, then takes shares."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.plan = make_plan(order.options, report=lambda _: None)

    def extract(self, videos: Sequence[VideoInput]) -> Summary:
        """As `vl extract` for these videos; its counts are of them alone."""
        order = self.order
        return extract_videos(
            videos,
            (),
            self.plan,
            order.out,
            observer=Observer(),
            workers=order.workers,
            limits=order.limits,
            retry_failed=order.retry_failed,
            missing_audio=order.missing_audio,
            compress=order.compress,
        )


@dataclass(frozen=True)
class Lost:
    """Instead of a result: the worker is gone."""

    why: str


class Crew(Protocol):
    """Workers by number, wherever they run."""

    size: int

    def give(self, number: int, videos: Sequence[VideoInput]) -> None:
        """Start on a share; a worker that was lost is replaced first."""
        ...

    def wait(self) -> tuple[int, Summary | Lost]:
        """The next worker that is done with its share, or lost; errors that another try cannot mend are raised."""
        ...


@dataclass(frozen=True)
class Share:
    """Videos that go to one worker."""

    videos: tuple[VideoInput, ...]
    tries: int = 0  # how often it took a worker down, while alone


def extract_with(
    crew: Crew,
    inputs: Sequence[VideoInput],
    failures: Iterable[Failure],
    plan: Plan,
    order: Order,
    *,
    observer: Observer,
    attachments: Mapping[str, Mapping[str, Any]] | None = None,
    note: Callable[[str], None],
) -> Summary:
    """As `extract_videos`, by a crew.

    Args:
        plan: the networks of `order`, for what they fill; they do not run here.
        note: is told of every worker that was lost.
    """
    summary = Summary()
    with ZarrWriter(order.out, plan.specs, provenance=plan.provenance) as writer:
        store = ZarrStore(order.out)
        start_store(writer, store, failures, attachments, observer, summary)
        groups = work(inputs, store, plan, order.retry_failed, order.missing_audio, summary)
        left = [video for videos in groups.values() for video in videos]
        observer.plan(len(left))
        size = min(MOST_VIDEOS, max(1, -(-len(left) // (crew.size * SHARES))))
        waiting = deque(Share(tuple(left[at : at + size])) for at in range(0, len(left), size))
        idle = list(range(crew.size))
        busy: dict[int, Share] = {}
        while waiting or busy:
            while waiting and idle:
                number = idle.pop()
                busy[number] = waiting.popleft()
                crew.give(number, busy[number].videos)
            number, result = crew.wait()
            share = busy.pop(number)
            idle.append(number)
            if isinstance(result, Summary):
                take(result, share, summary, observer)
                continue
            note(f"a worker was lost with {len(share.videos)} videos, which go to another: {result.why}")
            again = halves(share)
            waiting.extendleft(again)
            if not again:
                detail = f"took its worker down {TRIES} times, the last time: {result.why}"
                record(Failure(share.videos[0].id, Reason.CRASHED, detail), writer, observer, summary)
    summary.failures = list(dict.fromkeys(summary.failures))
    summary.skipped = list(dict.fromkeys(summary.skipped))
    summary.changed = list(dict.fromkeys(summary.changed))
    count(inputs, order.out, plan, summary)
    return summary


def halves(share: Share) -> list[Share]:
    """What is tried next after a worker was lost with `share`; nothing if that was tried often enough."""
    middle = len(share.videos) // 2
    if middle:
        return [Share(share.videos[:middle]), Share(share.videos[middle:])]
    return [Share(share.videos, share.tries + 1)] if share.tries + 1 < TRIES else []


def take(result: Summary, share: Share, summary: Summary, observer: Observer) -> None:
    """Add what a worker did to the whole; the counts of inputs are made at the end, from the store."""
    summary.rows.update(result.rows)
    summary.video_seconds += result.video_seconds
    summary.frames_decoded += result.frames_decoded
    summary.silent += result.silent
    summary.failures += result.failures
    summary.skipped += result.skipped
    summary.changed += result.changed
    failed = {failure.video: failure for failure in result.failures}
    for video in share.videos:
        observer.started(video.id, 1.0)
        if video.id in failed:
            observer.failed(failed[video.id])
        else:
            observer.done(video.id)
