"""What one pass through a video finds, and the file that keeps it: the plans from which clips are decoded.

A plan says how long a video is, how many frames it gives at each rate, and where its scenes lie; so a run that goes on
has the very rows it had, and the next run of these videos need not look through them again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extract.colour import to_rgb
from extract.decode import Limits, Reason
from extract.inputs import VideoInput
from extract.plan import Plan
from extract.scenes import SceneCutter
from extract.worker_events import Audio, AudioFailed, Failed, Finished, Frames, Restarted
from extract.workers import DecodePool
from stores import disk
from stores.errors import DamageError
from stores.files import read_document
from stores.names import printable
from stores.spec import Failure

FORMAT = 1


@dataclass(frozen=True)
class VideoPlan:
    """What one pass through a video found, in JSON types."""

    size: int  # bytes of the file
    mtime_ns: int
    duration: float  # seconds
    frames: dict[str, int]  # rate ("None": the video's own) -> how many frames it gives
    scenes: list[tuple[float, float, int, int]]  # seconds [start, end), frames [first, stop) of the video's own
    samples: int = 0  # of the sound at the rate that is wanted; 0: there is none
    silent: tuple[str, str] | None = None  # reason, in a word and in words, where sound is wanted and there is none

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> VideoPlan:
        """What a plan file holds of a video."""
        scenes = [(float(start), float(end), int(first), int(stop)) for start, end, first, stop in fields["scenes"]]
        silent = fields["silent"]
        return cls(**{**fields, "scenes": scenes, "silent": silent and (str(silent[0]), str(silent[1]))})


def plan_settings(plan: Plan) -> dict[str, Any]:
    """What decides the plans of videos, as JSON types."""
    return {
        "format": FORMAT,
        "rates": [str(rate) for rate in plan.decode.rates],
        "scenes": plan.scenes.cutting.settings() if plan.scenes else None,
        "sound": plan.decode.audio_rate,
        "roi": plan.roi,
        "decoder": plan.decoder,
    }


def read_plans(path: Path, settings: Mapping[str, Any]) -> dict[str, VideoPlan]:
    """The plans in a file by video, none if it is absent or of other settings; DamageError if it holds no plans."""
    if not path.exists():
        return {}
    try:
        document = json.loads(read_document(str(path)))
        if document["settings"] != json.loads(json.dumps(settings)):
            return {}
        return {video: VideoPlan.from_dict(fields) for video, fields in document["videos"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamageError(
            f"{printable(path)} holds no plans of clips: {error!r}. Remove it; it is made anew."
        ) from None


def write_plans(path: Path, settings: Mapping[str, Any], plans: Mapping[str, VideoPlan]) -> None:
    """Durably and at once."""
    videos = {video: dataclasses.asdict(plan) for video, plan in sorted(plans.items())}
    disk.ensure_directory(path.parent)
    disk.write_atomically(path, json.dumps({"settings": settings, "videos": videos}).encode())


def scanned(
    inputs: Sequence[VideoInput],
    sizes: Mapping[str, tuple[int, int]],
    plan: Plan,
    workers: int,
    limits: Limits,
) -> Iterator[tuple[str, VideoPlan | Failure]]:
    """One pass through every video: how many frames it gives, and where its scenes are; in any order."""
    under_way: dict[str, _Scan] = {}
    rates = plan.decode.rates
    for event in decoded(inputs, plan, workers, limits):
        if isinstance(event, Restarted):
            under_way.pop(event.video, None)
        elif isinstance(event, Failed):
            under_way.pop(event.video, None)
            yield event.video, Failure(event.video, event.reason, event.detail)
        elif isinstance(event, Frames):
            try:
                scan = under_way.setdefault(event.video, _Scan())
                scan.frames[event.rate_index] = event.first + len(event.times)
                if plan.scenes and rates[event.rate_index] is None:
                    scan.cutter = scan.cutter or SceneCutter(plan.scenes.cutting, plan.device)
                    images = to_rgb(event.images, event.layout, plan.device)
                    scan.take(scan.cutter.push(images.numpy(), event.times))
            finally:
                event.release()
        elif isinstance(event, Audio):
            under_way.setdefault(event.video, _Scan()).samples = event.first_sample + len(event.samples)
        elif isinstance(event, AudioFailed):
            under_way.setdefault(event.video, _Scan()).silent = str(event.reason), event.detail
        elif isinstance(event, Finished):
            scan = under_way.pop(event.video, _Scan())
            if scan.cutter is not None:
                scan.take(scan.cutter.finish())
            frames = {str(rate): scan.frames.get(index, 0) for index, rate in enumerate(rates)}
            silent = scan.silent or ((str(Reason.NO_AUDIO), "its sound has no samples") if not scan.samples else None)
            if plan.decode.audio_rate is None:
                silent = None
            samples = 0 if silent else scan.samples
            yield event.video, VideoPlan(*sizes[event.video], event.duration, frames, scan.scenes, samples, silent)


@dataclass
class _Scan:
    """One video under way."""

    frames: dict[int, int] = field(default_factory=dict)  # by the index of the rate
    cutter: SceneCutter | None = None
    scenes: list[tuple[float, float, int, int]] = field(default_factory=list)
    samples: int = 0
    silent: tuple[str, str] | None = None

    def take(self, certain: Iterator[tuple[float, float, bool]]) -> None:
        """Frames that are put into their scenes."""
        for start, end, begins in certain:
            if begins or not self.scenes:
                at = self.scenes[-1][3] if self.scenes else 0
                self.scenes.append((start if begins else 0.0, end, at, at + 1))
            else:
                first, _, at, stop = self.scenes[-1]
                self.scenes[-1] = (first, end, at, stop + 1)


def decoded(inputs: Sequence[VideoInput], plan: Plan, workers: int, limits: Limits) -> Iterator[Any]:
    """The events of whole videos."""
    with DecodePool(inputs, plan.decode, workers=workers, limits=limits) as pool:
        yield from pool
