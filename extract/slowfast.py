"""SlowFast on a ResNet-50 and -101: a slow pathway that sees every 4th frame, and a thin fast one that sees all.

Source: Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019. Code and weights: pytorchvideo,
Apache-2.0; its model zoo reports, for 30 views of 32 frames, every 2nd of a video of 30 a second, top-1 on Kinetics-400
of 76.94 % (SLOWFAST_8x8_R50) and 77.90 % (SLOWFAST_8x8_R101). Short side and crop of 256 as in the zoo's tests
(SlowFast's configs, TEST_CROP_SIZE).

Maps: the slow pathway is repeated 4 times in time, then the 256 channels of the fast one follow its 2048, so that there
is one map for every frame. The slow frames are those of SlowFast's own sampling, floor(i (T - 1) / (T / 4 - 1)), which
begin with the first frame of the clip and end with its last: map t stands for slow frame floor(t / 4).

Shape letters: B clips, C channels, T frames, S slow frames, H height, W width.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from extract.hub import CLIP_32X2, HubResNet
from stores.spec import Granularity

ALPHA = 4  # frames of the fast pathway for one of the slow


class SlowFastR50(HubResNet):
    """(B, 32, 256, 256, 3) uint8 frames to 2304 features a clip, or a cell of an 8 x 8 grid for every frame."""

    name = "slowfast_r50"
    builder = "slowfast_r50"
    # Nine slow convolutions reach 19 slow frames: the whole clip.
    clip = replace(CLIP_32X2, receptive_field=32, multiple=ALPHA)
    row_shapes = {Granularity.CLIP: (2304,), Granularity.MAP: (8, 8, 2304)}  # noqa: RUF012

    def trunk(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised to (B, 2304, T, H / 32, W / 32)."""
        pathways = [x.index_select(2, slow_frames(x.shape[2], x.device)), x]
        for block in self.blocks[:-2]:  # the last two pool and classify
            pathways = block(pathways)
        slow, fast = pathways
        return torch.cat([slow.repeat_interleave(ALPHA, dim=2), fast], dim=1)


class SlowFastR101(SlowFastR50):
    """(B, 32, 256, 256, 3) uint8 frames to 2304 features a clip, or a cell of an 8 x 8 grid for every frame."""

    name = "slowfast_r101"
    builder = "slowfast_r101"


def slow_frames(frames: int, device: torch.device | str = "cpu") -> Tensor:
    """Numbers of the frames that the slow pathway sees, (S,) int64 on `device`, made there.

    >>> slow_frames(32).tolist()
    [0, 4, 8, 13, 17, 22, 26, 31]
    """
    count = frames // ALPHA
    return torch.arange(count, device=device) * (frames - 1) // max(count - 1, 1)
