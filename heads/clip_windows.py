"""Batches of windows whose rows are clips, decoded when they are wanted, for networks that learn with the head.

Shape letters: B windows, N rows, M rows of a clip set that make up a row, P pairs of the two.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from heads.end_to_end import ClipBatch, ClipNetwork, Clips, Gathered
from heads.head import Batch
from heads.join import Join
from heads.plan import Crops
from heads.sources import Source
from heads.windows import LabelRows, Windows
from stores.spec import FeatureStore

Part = tuple[str, Mapping[str, tuple[int, int]]]
"""A video, and of every set the first row and one past the last."""


class ClipReader(Protocol):
    """Gives the frames of parts of videos."""

    def read(
        self, parts: Sequence[Part], draw: tuple[int, int] | None = None
    ) -> Generator[Mapping[str, Clips], None, None]:
        """Feature set to its clips, of each part in order; `draw` (seed, epoch): changed for training."""
        ...


@dataclass(frozen=True)
class Videos:
    """The videos of a run and the networks that see them, as whoever joins them to a head hands them over."""

    store: FeatureStore  # of clips: its rows are made, by these networks, when they are read
    reader: ClipReader
    networks: Mapping[str, ClipNetwork]  # by feature set


class ClipWindows(Windows):
    """Windows over videos that are decoded batch by batch; labels, times and plans are those of stored rows.

    Args:
        sources: sets of one store of clips, one for each role, the time grid first; and sets of stored rows for other
            roles.
        clips: the videos; the sets that its networks make are those whose frames are given.
        seed: of the changes that frames get for training.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        videos: Sequence[str],
        *,
        device: torch.device,
        clips: Videos,
        seed: int = 0,
        labels: LabelRows | None = None,
    ) -> None:
        super().__init__(sources, videos, device=device, labels=labels, resident=False)
        self.reader, self.seed = clips.reader, seed
        names = [source.features.name for source in self.sources]
        self.made = {
            name: source.role for name, source in zip(names, self.sources, strict=True) if name in clips.networks
        }
        assert names[0] in self.made, "the rows of the clips are the time grid"
        self.stored = tuple(index for index, name in enumerate(names) if name not in self.made)
        self.joined: dict[str, list[Join]] = {}  # of sets whose rows have other times than the grid's, for each video
        for index, name in enumerate(names):
            joins = self._joins[index]
            if name in self.made and joins is not None and not self._on_grid(index):
                self.joined[name] = joins

    def _on_grid(self, index: int) -> bool:
        """Whether a set has the very rows of the grid, as scenes have in every set."""
        source, grid = self.sources[index], self.sources[0]
        return all(
            video in source.ids and np.array_equal(source.times(video), grid.times(video)) for video in self.videos
        )

    def batches(self, plan: Sequence[Crops], epoch: int | None = None) -> Iterator[Batch]:
        """The batches of a plan, in order, decoded ahead; `epoch` (from 0) of the training that they are for."""
        parts = [part for crops in plan for part in self.parts(crops)]
        given = self.reader.read(parts, None if epoch is None else (self.seed, epoch))
        try:
            for crops in plan:
                yield self.clip_batch(crops, list(islice(given, len(crops.video_B))))
        finally:
            given.close()

    def parts(self, crops: Crops) -> list[Part]:
        """What a batch has of each video."""
        found: list[Part] = []
        stop_B = np.minimum(crops.start_B + crops.length, self.rows_V[crops.video_B])
        for video, start, stop in zip(crops.video_B.tolist(), crops.start_B.tolist(), stop_B.tolist(), strict=True):
            rows: dict[str, tuple[int, int]] = {}
            for name in self.made:
                joins = self.joined.get(name)
                rows[name] = (start, stop) if joins is None else joins[video].window(start, stop).source_range
            found.append((self.videos[video], rows))
        return found

    def clip_batch(self, crops: Crops, given: Sequence[Mapping[str, Clips]]) -> ClipBatch:
        """The batch of these clips; rows beyond a video's end, and those that a role lacks, are masked."""
        batch = self.batch(crops)  # what is stored, and where rows are
        clips = {name: joined([of[name] for of in given]) for name in self.made}
        joins = {name: self.gathered(joins, crops) for name, joins in self.joined.items()}
        mask = dict(batch.mask)
        for role in set(self.made.values()):
            of_role = [name for name, other in self.made.items() if other == role]
            if all(name in joins for name in of_role):  # else some set has every row
                present = [(joins[name][1] > 0).any(2) for name in of_role]
                mask[role] = mask[role] & torch.stack(present).any(0).to(self.device)
        return ClipBatch(**{**vars(batch), "mask": mask}, clips=clips, joins=joins)

    def gathered(self, joins: Sequence[Join], crops: Crops) -> Gathered:
        """Which of the rows of a role's clips make up each grid row of a batch."""
        parts = [
            joins[video].window(start, min(start + crops.length, int(self.rows_V[video])))
            for video, start in zip(crops.video_B.tolist(), crops.start_B.tolist(), strict=True)
        ]
        counts = [np.bincount(join.grid_P, minlength=1) for join in parts]
        shape = len(parts), crops.length, max(1, *(int(count.max()) for count in counts))
        index_BNM, weight_BNM = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        offset = 0
        for number, (join, count) in enumerate(zip(parts, counts, strict=True)):
            first, stop = join.source_range
            place_P = np.arange(len(join.grid_P)) - np.repeat(np.cumsum(count) - count, count)
            index_BNM[number, join.grid_P, place_P] = join.source_P - first + offset
            weight_BNM[number, join.grid_P, place_P] = join.weight_P
            offset += stop - first
        return torch.from_numpy(index_BNM), torch.from_numpy(weight_BNM)


def joined(parts: Sequence[Clips]) -> Clips:
    """The clips of several videos, one after the other."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(len(frames) for frames, *_ in parts)]).tolist()
    index = tuple(of + offset for (_, clips, _), offset in zip(parts, offsets, strict=False) for of in clips)
    return torch.cat([frames for frames, *_ in parts]), index, torch.cat([rows for *_, rows in parts])
