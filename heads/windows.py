"""Batches of windows over stored rows, with their labels, joined by time.

Rows lie on the device from the start where they fit (a window is then one gather), else they are read when they
are wanted, one batch ahead; the batches are the same either way. Of clip-sampled sets every sample (one clip in one
crop) counts as a video of its own here; `heads.samples` brings a video's samples together.

Shape letters: B windows, N rows, D features, C classes, V videos (or samples), A rows of all videos.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.head import Batch, HeadError, wide
from heads.join import Join, join_times
from heads.moments import Moments, deviations
from heads.plan import Crops
from heads.sources import Source
from stores.errors import DamageError
from stores.names import printable
from stores.samples import sample_rows

SHARE_OF_MEMORY = 0.4  # of what is free: the rest is for the head, its gradients and everybody else

LabelRows = Callable[[str, NDArray[np.float64]], NDArray[np.int8]]


class Windows:
    """Windows over the videos of one or several feature sets.

    Args:
        sources: the sets, all dense or all of one speed and view; the rows of the first are the time grid.
        videos: ids that the first source knows.
        device: where batches go.
        labels: gives a video's labels at the times of its rows: (N, C) for a row head, (C,) for a video head.
        resident: keep all rows on the device; None: where they fit into a part of its free memory.

    Raises:
        HeadError: sets of one role whose rows have different heights or widths.
        DamageError: a row holds a value that is no number.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        videos: Sequence[str],
        *,
        device: torch.device,
        labels: LabelRows | None = None,
        resident: bool | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self.device = device
        self.shapes = role_shapes(self.sources)
        grid = self.sources[0]
        self.samples = grid.spec.samples  # of a video
        self.videos = tuple(video for video in videos for _ in range(self.samples))
        of_videos = [sample_rows(grid.spec, entry.num_rows, entry.video) for entry in map(grid.entry, videos)]
        self.rows_V = np.repeat(np.array(of_videos, np.int64), self.samples)
        self._offset_V = np.cumsum(self.rows_V) - self.rows_V
        self.times = [part for video in videos for part in np.split(grid.times(video), self.samples)]
        joins = [[self._join(source, index) for index in range(len(self.videos))] for source in self.sources[1:]]
        self._joins: list[list[Join] | None] = [None, *joins]
        self._exact = [of_set is None or all(join.selects for join in of_set) for of_set in self._joins]
        self._fill: list[Tensor | None] = [None] * len(self.sources)
        self.stored: Sequence[int] = range(len(self.sources))  # the sources whose rows are part of a batch
        self.resident = self._fits() if resident is None else resident
        home = self.device if self.resident else torch.device("cpu")
        self._times_A2 = _flat(self.times, (0, 2), np.float64).to(home)
        self._present_A = [self._present(index, home) for index in range(len(self.sources))]
        rows = [labels(video, at) for video, at in zip(self.videos, self.times, strict=True)] if labels else []
        self._labels_by_row = bool(rows) and rows[0].ndim == 2
        self._labels = None
        if rows:
            self._labels = torch.from_numpy(np.concatenate(rows) if self._labels_by_row else np.stack(rows)).to(home)
        self._values = [self._load(index, home) for index in range(len(self.sources))] if self.resident else []

    @property
    def missing(self) -> dict[str, int]:
        """How many grid rows each of the other sets has nothing for."""
        return {
            source.features.name: int((~present).sum()) if present is not None else 0
            for source, present in zip(self.sources[1:], self._present_A[1:], strict=True)
        }

    def labels_of(self, video: int) -> NDArray[np.int8]:
        """The labels that one video was given: (N, C) or (C,)."""
        assert self._labels is not None, "these windows have no labels"
        first = int(self._offset_V[video])
        part = slice(first, first + int(self.rows_V[video])) if self._labels_by_row else video
        labels: NDArray[np.int8] = self._labels[part].cpu().numpy()
        return labels

    def fill_missing(self, mean: Mapping[str, Tensor]) -> None:
        """Stand `mean` (role to (D,)) in for the rows that one set of a role lacks; zeros unless called."""
        for role in self.shapes:
            first = 0
            for index, source in enumerate(self.sources):
                if source.role == role:
                    width = source.spec.row_shape[-1]
                    self._fill[index] = mean[role][first : first + width].to(self.device, torch.float32)
                    first += width

    def batch(self, crops: Crops) -> Batch:
        """One batch on the device; rows beyond a video's end, and rows that a role lacks, are zero and masked."""
        row_BN = crops.start_B[:, None] + np.arange(crops.length)
        real_BN = row_BN < self.rows_V[crops.video_B][:, None]
        flat_BN = np.where(real_BN, self._offset_V[crops.video_B][:, None] + row_BN, 0)
        home = self._times_A2.device
        at_BN, mask_BN = torch.from_numpy(flat_BN).to(home), torch.from_numpy(real_BN).to(self.device)
        parts: dict[str, list[Tensor]] = {role: [] for role in self.shapes}
        held: dict[str, Tensor] = {}
        for index in self.stored:
            role, here_BN = self.sources[index].role, mask_BN
            present_A = self._present_A[index]
            if present_A is not None:
                here_BN = mask_BN & present_A[at_BN].to(self.device)
            stored = self._values[index][at_BN] if self.resident else self._read(index, crops)
            parts[role].append(self._finish(index, stored, here_BN))
            held[role] = held[role] | here_BN if role in held else here_BN
        held = {role: held.get(role, mask_BN) for role in self.shapes}
        held[self.sources[0].role] = mask_BN
        features = {}
        for role, of_sets in parts.items():
            if of_sets:
                joined = of_sets[0] if len(of_sets) == 1 else torch.cat(of_sets, dim=-1)
                features[role] = joined.masked_fill_(~wide(held[role], joined), 0)
        return Batch(
            features=features,
            mask=held,
            times=self._times_A2[at_BN].to(self.device),
            labels=self._batch_labels(crops, at_BN),
            videos=tuple(self.videos[index] for index in crops.video_B),
        )

    def batches(self, plan: Sequence[Crops], epoch: int | None = None) -> Iterator[Batch]:
        """The batches of a plan, in order; where rows are read from disk, one batch ahead.

        Args:
            epoch: of the training that they are for, from 0, where rows change from one to the next; these do not.
        """
        return map(self.batch, plan) if self.resident else read_ahead(self.batch, plan)

    def statistics(self, videos: Sequence[int]) -> dict[str, tuple[Tensor, Tensor]]:
        """Role to mean and standard deviation (D,) of every feature over all rows of some videos.

        A feature that never changes has a deviation of 1. Maps are pooled over height and width.
        """
        return {role: deviations(of_sets) for role, of_sets in self.moments(videos).items()}

    def moments(self, videos: Sequence[int]) -> dict[str, list[Moments]]:
        """Role to the moments of each of its sets over all rows of some videos."""
        found: dict[str, list[Moments]] = {role: [] for role in self.shapes}
        for index, source in enumerate(self.sources):
            found[source.role].append(self._moments(index, videos))
        return found

    def label_tables(self, videos: Sequence[int]) -> list[NDArray[np.int8]]:
        """What some videos are trained with: (N, C) or (1, C) each."""
        return [np.atleast_2d(self.labels_of(video)) for video in videos]

    def _batch_labels(self, crops: Crops, at_BN: Tensor) -> Tensor | None:
        if self._labels is None:
            return None
        if self._labels_by_row:
            return self._labels[at_BN].to(self.device)
        return self._labels[torch.from_numpy(crops.video_B).to(self._labels.device)].to(self.device)

    def _finish(self, index: int, stored: Tensor, here_BN: Tensor) -> Tensor:
        """Float32 values of one set; what it lacks is filled."""
        values, spec = stored.float(), self.sources[index].spec
        if stored.dtype == torch.uint8:
            values = values * (1.0 if spec.scale is None else spec.scale) + (spec.offset or 0.0)
        if self._present_A[index] is None:
            return values
        fill = self._fill[index]
        stand_in = torch.zeros((), device=self.device) if fill is None else fill
        return torch.where(wide(here_BN, values), values, stand_in)

    def _read(self, index: int, crops: Crops) -> Tensor:
        """(B, N, ...) of one set as stored, straight from its store into memory that the device copies from."""
        on_cuda = self.device.type == "cuda"
        shape = (len(crops.video_B), crops.length, *self.sources[index].spec.row_shape)
        staged = torch.zeros(shape, dtype=_torch_dtype(self._dtype(index)), pin_memory=on_cuda)
        for out, video, start in zip(staged.numpy(), crops.video_B, crops.start_B, strict=True):
            stop = min(int(start) + crops.length, int(self.rows_V[video]))
            self._read_rows(index, int(video), int(start), out[: stop - start])
        return staged.to(self.device, non_blocking=True)

    def _read_rows(self, index: int, video: int, start: int, out: NDArray[Any]) -> None:
        """Fill `out` with grid rows of one set from `start` on; rows that it lacks stay as they are."""
        source = self.sources[index]
        joins = self._joins[index]
        if joins is None:
            source.features.read_into(source.ids[self.videos[video]], self._first_row(index, video) + start, out)
            return
        join = joins[video].window(start, start + len(out))
        first, stop = join.source_range
        if first == stop:
            return
        name, before = source.ids[self.videos[video]], self._first_row(index, video)
        if join.contiguous and out.dtype == source.spec.dtype:
            at = int(join.grid_P[0])
            source.features.read_into(name, before + first, out[at : at + stop - first])
            return
        rows = source.features.read(name, before + first, before + stop).features
        if rows.dtype == np.uint8 and out.dtype != np.uint8:
            rows = rows.astype(np.float32) * (source.spec.scale or 1.0) + (source.spec.offset or 0.0)
        out[join.present_N] = join.apply(rows, first)[join.present_N]

    def _join(self, source: Source, video: int) -> Join:
        theirs = np.zeros((0, 2))
        if self.videos[video] in source.ids:
            times = source.times(self.videos[video])
            rows = sample_rows(source.spec, len(times), self.videos[video])
            theirs = times[video % self.samples * rows :][:rows]
        return join_times(self.times[video], theirs)

    def _first_row(self, index: int, video: int) -> int:
        """Where in a set's video the rows of one sample begin; 0 where a video is seen whole."""
        if self.samples == 1:
            return 0
        source = self.sources[index]
        entry = source.entry(self.videos[video])
        return video % self.samples * sample_rows(source.spec, entry.num_rows, entry.video)

    def _dtype(self, index: int) -> np.dtype[Any]:
        """As stored, unless some grid row is a mean of several rows."""
        return np.dtype(self.sources[index].spec.dtype if self._exact[index] else "float32")

    def _present(self, index: int, home: torch.device) -> Tensor | None:
        """(A,) where a set has a row for the grid; None where it has all."""
        joins = self._joins[index]
        if joins is None:
            return None
        present = _flat([join.present_N for join in joins], (0,), np.bool_)
        return None if bool(present.all()) else present.to(home)

    def _load(self, index: int, home: torch.device) -> Tensor:
        """(A, ...) all rows of one set, in the dtype in which they are kept."""
        shape = (int(self.rows_V.sum()), *self.sources[index].spec.row_shape)
        kept = torch.zeros(shape, dtype=_torch_dtype(self._dtype(index)), device=home)
        for video in range(len(self.videos)):
            rows = self._checked(index, video)
            first = int(self._offset_V[video])
            kept[first : first + len(rows)].copy_(torch.from_numpy(rows))
        return kept

    def _checked(self, index: int, video: int) -> NDArray[Any]:
        """All grid rows of one set and video, read from disk; DamageError if a value is no number."""
        shape = (int(self.rows_V[video]), *self.sources[index].spec.row_shape)
        rows = np.zeros(shape, self._dtype(index))
        self._read_rows(index, video, 0, rows)
        if rows.dtype.kind == "f" and not np.isfinite(rows).all():
            source = self.sources[index]
            raise DamageError(
                f"{printable(self.videos[video])} has features in {source.features.name} of "
                f"{printable(source.store.path)} that are no numbers. 'vl verify --full' tells damage from a bad input."
            )
        return rows

    def _moments(self, index: int, videos: Sequence[int]) -> Moments:
        """Of the rows that a set has."""
        spec, present_A = self.sources[index].spec, self._present_A[index]
        width = spec.row_shape[-1]
        total = Moments(0, np.zeros(width), np.zeros(width))
        for video in videos:
            first, rows = int(self._offset_V[video]), int(self.rows_V[video])
            part = slice(first, first + rows)
            values = self._values[index][part].cpu().numpy() if self.resident else self._checked(index, video)
            if present_A is not None:
                values = values[present_A[part].cpu().numpy()]
            values = values.reshape(-1, width).astype(np.float64)
            if len(values):
                mean = values.mean(axis=0)
                total = total.joined(Moments(len(values), mean, ((values - mean) ** 2).sum(axis=0)))
        if self._dtype(index) == np.uint8:
            scale = 1.0 if spec.scale is None else spec.scale
            return Moments(total.rows, total.mean * scale + (spec.offset or 0.0), total.squares * scale**2)
        return total

    def _fits(self) -> bool:
        """Whether all rows go into a part of the device's free memory."""
        total = int(self.rows_V.sum())
        wanted = sum(
            total * math.prod(source.spec.row_shape) * self._dtype(index).itemsize
            for index, source in enumerate(self.sources)
        )
        return wanted <= SHARE_OF_MEMORY * free_memory(self.device)


def read_ahead(batch: Callable[[Crops], Batch], plan: Sequence[Crops]) -> Iterator[Batch]:
    """The batches of a plan, in order; the next one is read while one is used."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead = [pool.submit(batch, crops) for crops in plan[:1]]
        for crops in [*plan[1:], None]:
            if ahead:
                ready = ahead.pop()
                if crops is not None:
                    ahead.append(pool.submit(batch, crops))
                yield ready.result()


def role_shapes(sources: Sequence[Source]) -> dict[str, tuple[int, ...]]:
    """Role to the shape of its rows, the last axis summed over the role's sets; HeadError where they cannot join."""
    shapes: dict[str, tuple[int, ...]] = {}
    for source in sources:
        *rest, width = source.spec.row_shape
        before = shapes.get(source.role, (*rest, 0))
        if before[:-1] != tuple(rest):
            raise HeadError(
                f"{source.features.name} has rows of {source.spec.row_shape}, which cannot stand beside {before}. "
                "Choose with --sets."
            )
        shapes[source.role] = (*rest, before[-1] + width)
    return shapes


def free_memory(device: torch.device) -> int:
    """Bytes that the device, or for the CPU this machine, could give out now."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists() and (found := re.search(r"^MemAvailable:\s+(\d+) kB", meminfo.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def _flat(arrays: Sequence[NDArray[Any]], empty: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
    return torch.from_numpy(np.concatenate([*arrays, np.zeros(empty, dtype)]))


def _torch_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    return torch.from_numpy(np.zeros(0, dtype)).dtype
