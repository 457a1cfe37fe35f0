"""What an extraction will cost, from probes: hours of video, time, bytes."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from extract.accounts import Observer, Summary
from extract.decode import Limits, Probe
from extract.inputs import VideoInput
from extract.pipeline import Run
from extract.plan import Plan
from extract.preview import Preview
from extract.workers import DecodePool, probe_all
from stores.spec import Failure, FeatureSpec, Granularity
from stores.zarr_store import ZarrWriter

TRIAL_SECONDS = 15.0
TRIALS = 5
TIMES_BYTES = 16  # two float64 a row
SCENE_SECONDS = 4.0  # of a scene of edited video, about


@dataclass(frozen=True)
class Estimate:
    """Cost of an extraction that has not begun."""

    videos: int
    video_seconds: float
    bytes: dict[str, int]  # by feature set
    seconds: float | None  # None where no video could be tried
    tried_seconds: float  # seconds of video that the trial ran through
    failures: tuple[Failure, ...]


def estimate(inputs: Sequence[VideoInput], plan: Plan, *, workers: int, limits: Limits) -> Estimate:
    """Probe every input, run the real pipeline on one of middling length for up to 15 s, and extrapolate."""
    probes: dict[str, Probe] = {}
    failures = []
    for video, result in probe_all(inputs, plan.decode, workers=workers, limits=limits):
        if isinstance(result, Failure):
            failures.append(result)
        else:
            probes[video] = result
    seconds = {video: probe.duration or 0.0 for video, probe in probes.items()}
    total = sum(seconds.values())
    by_length = sorted((i for i in inputs if i.id in probes), key=lambda i: seconds[i.id])
    speed = tried = 0.0
    middle = len(by_length) // 2
    for candidate in (by_length[middle:] + by_length[:middle])[:TRIALS]:
        speed, tried = trial(candidate, plan, limits)
        if speed:  # nothing comes of a video without sound where only sound is wanted
            break
    return Estimate(
        len(probes),
        total,
        {name: set_bytes(spec, total, len(probes)) for name, spec in plan.specs.items()},
        total / speed if speed else None,
        tried,
        tuple(failures),
    )


def set_bytes(spec: FeatureSpec, seconds: float, videos: int) -> int:
    """Bytes of the rows and times of so many videos of so many seconds (25 fps where the rate is the video's own)."""
    rate = 1 / SCENE_SECONDS if spec.granularity is Granularity.SCENE else spec.fps or 25.0
    rows = seconds * rate / (spec.stride or 1)
    if spec.view:
        a_sample = (spec.window or 1) * spec.speed // spec.stride if spec.stride else 1
        rows = videos * spec.samples * a_sample
    return round(rows * (spec.row_bytes + TIMES_BYTES))


def trial(video: VideoInput, plan: Plan, limits: Limits) -> tuple[float, float]:
    """(seconds of video a second, seconds of video) of the real pipeline on one video, stopped after 15 s."""
    clock = _Clock()
    with tempfile.TemporaryDirectory(prefix="vl-trial-") as folder:
        started = None
        with ZarrWriter(Path(folder) / "trial.zarr", plan.specs) as writer:
            run = Run(plan, [video], writer, clock, Summary(), Preview(0))
            with DecodePool([video], plan.decode, workers=1, limits=limits) as pool:
                for event in pool:
                    started = started or time.monotonic()  # the worker has started: that is paid once
                    run.take(event)
                    if time.monotonic() - started > TRIAL_SECONDS:
                        break
        assert started is not None, "a pool gives at least one event a video"
        return clock.seconds / (time.monotonic() - started), clock.seconds


class _Clock(Observer):
    """Counts the seconds of video that went through."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def advanced(self, video: str, seconds: float) -> None:
        self.seconds += seconds
