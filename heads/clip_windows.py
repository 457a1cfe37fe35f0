"""Batches of windows whose rows are clips, decoded when they are wanted, for networks that learn with the head.

Shape letters: B windows, N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np
import torch

from heads.end_to_end import ClipBatch, ClipNetwork, Clips
from heads.head import Batch, HeadError
from heads.plan import Crops
from heads.sources import Source
from heads.windows import LabelRows, Windows
from stores.spec import FeatureStore

Part = tuple[str, int, int]  # video, first row, one past the last row


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
        sources: sets of one store of clips, one for each role, the time grid among them; and sets of stored rows for
            other roles.
        clips: the videos; the sets that its networks make are those whose frames are given.
        seed: of the changes that frames get for training.

    Raises:
        HeadError: two sets of clips have one role.
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
        self.made = {source.role: source.features.name for source in sources if source.features.name in clips.networks}
        if sum(source.role in self.made for source in sources) > len(self.made):
            names = " and ".join(source.features.name for source in sources if source.role in self.made)
            raise HeadError(f"one network for each role is trained with a head, and nothing beside it, not {names}.")
        assert self.sources[0].role in self.made, "the rows of the clips are the time grid"
        self.stored = tuple(index for index, source in enumerate(sources) if source.role not in self.made)

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
        stops = np.minimum(crops.start_B + crops.length, self.rows_V[crops.video_B])
        return [
            (self.videos[video], start, stop)
            for video, start, stop in zip(crops.video_B.tolist(), crops.start_B.tolist(), stops.tolist(), strict=True)
        ]

    def clip_batch(self, crops: Crops, given: Sequence[Mapping[str, Clips]]) -> ClipBatch:
        """The batch of these clips; rows beyond a video's end, and stored ones that a role lacks, are masked."""
        batch = self.batch(crops)  # what is stored, and where rows are
        clips = {role: joined([of[name] for of in given]) for role, name in self.made.items()}
        return ClipBatch(**vars(batch), clips=clips)


def joined(parts: Sequence[Clips]) -> Clips:
    """The clips of several videos, one after the other."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(len(frames) for frames, *_ in parts)]).tolist()
    index = tuple(of + offset for (_, clips, _), offset in zip(parts, offsets, strict=False) for of in clips)
    return torch.cat([frames for frames, *_ in parts]), index, torch.cat([rows for *_, rows in parts])
