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
        sources: sets of one store of clips, one for each role.
        reader: gives the frames.
        seed: of the changes that frames get for training.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        videos: Sequence[str],
        *,
        device: torch.device,
        reader: ClipReader,
        seed: int = 0,
        labels: LabelRows | None = None,
    ) -> None:
        roles = [source.role for source in sources]
        if len({*roles}) < len(roles):
            names = " and ".join(source.features.name for source in sources)
            raise HeadError(f"one network for each role is trained with a head, not {names}.")
        super().__init__(sources, videos, device=device, labels=labels, resident=False)
        self.reader, self.seed = reader, seed

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
        """The batch of these clips; rows beyond a video's end are masked."""
        row_BN = crops.start_B[:, None] + np.arange(crops.length)
        real_BN = row_BN < self.rows_V[crops.video_B][:, None]
        at_BN = torch.from_numpy(np.where(real_BN, self._offset_V[crops.video_B][:, None] + row_BN, 0))
        mask_BN = torch.from_numpy(real_BN).to(self.device)
        return ClipBatch(
            features={},
            mask={source.role: mask_BN for source in self.sources},
            times=self._times_A2[at_BN].to(self.device),
            labels=self._batch_labels(crops, at_BN),
            videos=tuple(self.videos[index] for index in crops.video_B),
            clips={source.role: joined([of[source.features.name] for of in given]) for source in self.sources},
        )


def joined(parts: Sequence[Clips]) -> Clips:
    """The clips of several videos, one after the other."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0, *(len(frames) for frames, _ in parts)])
    index = [index_RT + int(offset) for (_, index_RT), offset in zip(parts, offsets, strict=False)]
    return torch.cat([frames for frames, _ in parts]), torch.cat(index)
