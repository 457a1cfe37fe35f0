"""Clip-sampled sets as a video head sees them: one sample (a clip in a crop) at a time, a video in all of its samples.

Sets of several speeds are alternatives. A batch holds samples of one speed, drawn for each batch anew where heads
are trained; a video is scored in all its views of all speeds, of which the head says whether the highest probability
or the mean counts.

Source: Zhang et al., "Multi-Label Activity Recognition using Activity-specific Features and Activity Correlations",
CVPR 2021: speed-invariant tuning and the test on 30 views.
Differs from it: the clips are those that are stored, for training too, without jitter and flip.

Shape letters: I samples, B samples of a batch, V videos, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.head import Batch, Head
from heads.moments import Moments, deviations
from heads.plan import Crops, training_videos, whole_videos
from heads.sources import Source, by_speed
from heads.windows import LabelRows, Windows, read_ahead
from stores.labels import Boundary, Labels

VideoLabels = Callable[[str], NDArray[np.int8]]


class SampledWindows:
    """Samples of clip-sampled sets, numbered through all speeds; indices of videos are those of `videos`.

    Args:
        sources: clip-sampled sets, of one or several speeds.
        videos: ids that the first source knows; a speed that lacks one leaves the others to it.
        device: where batches go.
        labels: gives a video's labels (C,) in a clip, at the times (N, 2) of its rows.
        video_labels: gives a video's labels (C,) as a whole.
        resident: keep all rows on the device; None: those speeds that fit into a part of its free memory.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        videos: Sequence[str],
        *,
        device: torch.device,
        labels: LabelRows | None = None,
        video_labels: VideoLabels | None = None,
        resident: bool | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self.videos = tuple(videos)
        self.device = device
        grid = self.sources[0]
        self.times = [grid.times(video) for video in self.videos]
        self.speeds: list[Windows] = []
        members = []
        for group in by_speed(sources):
            held = [index for index, video in enumerate(self.videos) if video in group[0].ids]
            ids = [self.videos[index] for index in held]
            self.speeds.append(Windows(group, ids, device=device, labels=labels, resident=resident))
            members.append(np.repeat(np.array(held, np.int64), self.speeds[-1].samples))
        self.shapes = self.speeds[0].shapes
        self.resident = all(windows.resident for windows in self.speeds)
        self.video_I = np.concatenate(members)
        counts = [len(windows.videos) for windows in self.speeds]
        self._offsets = np.cumsum([0, *counts])
        self.rows_V = np.zeros(len(self.videos), np.int64)  # of one sample, at the first speed that has the video
        for windows, of_speed in zip(self.speeds[::-1], members[::-1], strict=True):
            self.rows_V[of_speed] = windows.rows_V
        self._labels = [video_labels(video) for video in self.videos] if video_labels else []

    def labels_of(self, video: int) -> NDArray[np.int8]:
        """(C,) the labels of a video as a whole: what its scores are compared with."""
        assert self._labels, "these windows have no labels"
        return self._labels[video]

    def label_tables(self, videos: Sequence[int]) -> list[NDArray[np.int8]]:
        """What some videos are trained with: (1, C) of each of their samples."""
        return [
            np.atleast_2d(windows.labels_of(sample))
            for windows, samples in zip(self.speeds, self.samples_of(videos), strict=True)
            for sample in samples
        ]

    def samples_of(self, videos: Iterable[int]) -> list[NDArray[np.int64]]:
        """For each speed the numbers, within it, of all samples of some videos."""
        wanted = np.zeros(len(self.videos), bool)
        wanted[list(videos)] = True
        return [np.flatnonzero(wanted[self.video_I[start:stop]]) for start, stop in self._ranges()]

    def training_batches(self, videos: Sequence[int], *, batch_size: int, seed: int, epoch: int) -> list[Crops]:
        """One epoch: as many batches as all samples fill, each of one speed, drawn with equal chances for all speeds.

        The samples of a speed come in random order, all of them before any comes again; with a single speed an epoch
        is every sample once. All follows from seed and epoch.
        """
        present = [speed for speed, samples in enumerate(self.samples_of(videos)) if len(samples)]
        if len(present) == 1:
            return self._pass_over(present[0], videos, batch_size, seed, epoch)
        random = np.random.default_rng([seed, epoch, len(present)])
        seeds = {speed: int(random.integers(2**31)) for speed in present}
        waiting: dict[int, list[Crops]] = {}
        passes: Counter[int] = Counter()

        def another(speed: int) -> list[Crops]:
            passes[speed] += 1
            return self._pass_over(speed, videos, batch_size, seeds[speed], passes[speed])

        for speed in present:
            waiting[speed] = another(speed)
        plan = []
        for _ in range(sum(map(len, waiting.values()))):
            speed = present[int(random.integers(len(present)))]
            if not waiting[speed]:
                waiting[speed] = another(speed)
            plan.append(waiting[speed].pop(0))
        return plan

    def scoring_batches(self, videos: Sequence[int], *, batch_size: int) -> list[Crops]:
        """Every sample of some videos once, one speed after the other."""
        plan = []
        for speed, samples in enumerate(self.samples_of(videos)):
            of_speed = whole_videos(self.speeds[speed].rows_V, samples.tolist(), batch_size=batch_size)
            plan += [self._numbered(speed, crops) for crops in of_speed]
        return plan

    def batch(self, crops: Crops) -> Batch:
        """One batch, of samples of one speed, on the device."""
        speed = int(np.searchsorted(self._offsets, crops.video_B[0], side="right")) - 1
        within_B = crops.video_B - self._offsets[speed]
        assert 0 <= within_B.min() <= within_B.max() < len(self.speeds[speed].videos), "a batch has one speed"
        return self.speeds[speed].batch(crops._replace(video_B=within_B))

    def batches(self, plan: Sequence[Crops], epoch: int | None = None) -> Iterator[Batch]:
        """The batches of a plan, in order; where rows are read from disk, one batch ahead."""
        return map(self.batch, plan) if self.resident else read_ahead(self.batch, plan)

    def fill_missing(self, mean: Mapping[str, Tensor]) -> None:
        """Stand `mean` (role to (D,)) in for the rows that one set of a role lacks."""
        for windows in self.speeds:
            windows.fill_missing(mean)

    def statistics(self, videos: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """Role to mean and standard deviation (D,) of every feature over all samples of some videos."""
        joined: dict[str, list[Moments]] = {}
        for windows, samples in zip(self.speeds, self.samples_of(videos), strict=True):
            for role, of_sets in windows.moments(samples.tolist()).items():
                before = joined.get(role)
                pairs = zip(before, of_sets, strict=True) if before else ()
                joined[role] = [one.joined(other) for one, other in pairs] if before else of_sets
        return {role: deviations(of_sets) for role, of_sets in joined.items()}

    def _pass_over(self, speed: int, videos: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[Crops]:
        """All samples of one speed once, in random order."""
        samples = self.samples_of(videos)[speed].tolist()
        plan = training_videos(self.speeds[speed].rows_V, samples, batch_size=batch_size, seed=seed, epoch=epoch)
        return [self._numbered(speed, crops) for crops in plan]

    def _numbered(self, speed: int, crops: Crops) -> Crops:
        """With samples numbered through all speeds."""
        return crops._replace(video_B=crops.video_B + self._offsets[speed])

    def _ranges(self) -> Iterator[tuple[int, int]]:
        return zip(self._offsets[:-1].tolist(), self._offsets[1:].tolist(), strict=True)


class ViewScores:
    """Probabilities of views that become those of their videos.

    Args:
        how: the highest of a video's views counts, or their mean, which ranks as their sum does.
        left: how many views of each video are to come.
    """

    def __init__(self, how: Literal["max", "mean"], left: Counter[int]) -> None:
        self.how = how
        self.total = dict(left)
        self.left = Counter(left)
        self.sums: dict[int, NDArray[np.float64]] = {}

    def add(self, video: int, scores_C: NDArray[np.floating]) -> NDArray[np.float32] | None:
        """One more view (C,); gives the video's scores (1, C) once it was the last."""
        view_C: NDArray[np.float64] = scores_C.astype(np.float64)
        if video in self.sums:
            before = self.sums[video]
            view_C = np.maximum(before, view_C) if self.how == "max" else before + view_C
        self.sums[video] = view_C
        self.left[video] -= 1
        if self.left[video]:
            return None
        whole_C = self.sums.pop(video) / (self.total[video] if self.how == "mean" else 1)
        return whole_C[None].astype(np.float32)


def clip_labels(labels: Labels, video: str, times: NDArray[np.float64], boundary: Boundary) -> NDArray[np.int8]:
    """(C,) of the clip whose rows stand for `times` (N, 2): 1 for a class that is there at any time of it.

    -1 for a class that nobody looked for, or that is known of the video as a whole alone, and for all classes where
    the clip touches an ignored span. Where no label of any video has times, a clip has its video's labels.
    """
    if not labels.timed:
        return labels.video(video)
    span = [[times[:, 0].min(), times[:, 1].max()]]
    found: NDArray[np.int8] = labels.rows(video, span, "overlap", boundary)[0]
    return found


def view_notes(head: type[Head], sources: Sequence[Source], labels: Labels) -> list[str]:
    """What people should know of a run on clip-sampled sets; nothing of one on dense sets."""
    if not sources[0].spec.view:
        return []
    grids = [group[0].spec for group in by_speed(sources)]
    each = " + ".join(f"{spec.samples} at speed {spec.speed}" for spec in grids)
    counted = {"max": "the highest probability", "mean": "the mean probability"}[head.views or "mean"]
    notes = [
        f"views: {sum(spec.samples for spec in grids)} of every video ({each}); {counted} of them is its score",
        "stored clips have no jitter and no flip: every epoch sees the same ones",
    ]
    if len(grids) > 1:
        notes.append(f"speeds: each batch is of one speed, drawn from {', '.join(str(spec.speed) for spec in grids)}")
    if not labels.timed:
        notes.append("the labels have no times: a clip is trained with all labels of its video")
    return notes
