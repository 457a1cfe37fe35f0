"""RAFT, where torchvision is installed: a learned flow, on the device, from weights that the user has.

Source: Teed and Deng, "RAFT: Recurrent All-Pairs Field Transforms for Optical Flow", ECCV 2020, as built by
torchvision.models.optical_flow; weights are its raft_large or raft_small files (BSD-3-Clause), which the user
downloads. Colour frames scaled to [-1, 1]; padded to whole multiples of 8 pixels, 128 at least, by repeating the
border.

Shape letters: B pairs, H height, W width.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from extract.backbone import BackboneError
from extract.download import file_sha256
from extract.flow import BOUND
from extract.state_dict import WeightsError, load_into
from extract.transform import resize_short
from extract.weights import RANDOM, fill_randomly, state_sha256
from stores.names import printable

UPDATES = 12  # of the recurrence, torchvision's default
LEAST = 128  # pixels of a side: below, the correlation has no fourth level


class RaftFlow:
    """RAFT with loaded weights, on one device."""

    by_pairs = False
    BUILDERS: ClassVar[dict[str, str]] = {"raft": "raft_large", "raft_small": "raft_small"}

    def __init__(self, name: str, weights: str, device: torch.device) -> None:
        """`weights`: the path of a state dict, or "random"."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of torchvision's import, which the user cannot mend
                from torchvision.models import optical_flow
        except (ImportError, RuntimeError) as error:  # RuntimeError: it was built for another torch
            raise BackboneError(
                f"--flow {name} cannot be used: {error}. Install the torchvision that belongs to torch "
                f"{torch.__version__}, or take --flow dis."
            ) from error
        self.network: nn.Module = getattr(optical_flow, self.BUILDERS[name])(weights=None, progress=False)
        self.random = weights == RANDOM
        if self.random:
            fill_randomly(self.network, 0)
            digest = state_sha256(self.network)
        else:
            path = Path(weights).expanduser()
            if not path.is_file():
                raise WeightsError(f"--flow {name}={printable(weights)}: there is no such file.")
            load_into(self.network, path, f"torchvision's {self.BUILDERS[name]}")
            digest = file_sha256(path)
        self.network.requires_grad_(False).eval().to(device)
        self.device = device
        self.settings: Mapping[str, Any] = {
            "flow": name,
            "flow_preset": f"{UPDATES} updates",
            "flow_bound": BOUND,
            "flow_input": "colour, resized, before the crop",
            "flow_weights_sha256": digest,
        }
        self.origin = f"torchvision {version('torchvision')}"
        self.batch = 16 if device.type == "cuda" else 2

    def start(self, resize: int) -> BatchMotion:
        """For one video, whose frames are brought to a short side of `resize` pixels."""
        return BatchMotion(self, resize)

    @torch.inference_mode()
    def pairs(self, frames: Tensor) -> Tensor:
        """(B + 1, H, W, 3) uint8 frames on the device to the (B, H, W, 2) uint8 flow between them."""
        height, width = frames.shape[1:3]
        right = max(LEAST, -(-width // 8) * 8) - width
        below = max(LEAST, -(-height // 8) * 8) - height
        x_B3HW = F.pad(frames.permute(0, 3, 1, 2).float() / 127.5 - 1, (0, right, 0, below), mode="replicate")
        flow_B2HW = self.network(x_B3HW[:-1], x_B3HW[1:], num_flow_updates=UPDATES)[-1][..., :height, :width]
        levels = (flow_B2HW.float().clamp(-BOUND, BOUND) + BOUND) * (255 / (2 * BOUND)) + 0.5
        found: Tensor = levels.floor().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return found


class BatchMotion:
    """Flow of one video in batches that are counted from its first frame, however the frames arrive."""

    def __init__(self, method: RaftFlow, resize: int) -> None:
        self.method, self.resize = method, resize
        self.frames: Tensor | None = None  # not yet seen as the first of a pair
        self.last: Tensor | None = None

    def push(self, frames: Tensor) -> Iterator[Tensor]:
        """(T, H, W, 3) uint8 frames; gives the flow that is ready, (n, h, w, 2) uint8 on the device."""
        device = self.method.device
        if device.type == "cuda":
            frames = frames.pin_memory().to(device, non_blocking=True)
        small = resize_short(frames, self.resize)
        if small.data_ptr() == frames.data_ptr():
            small = small.clone()
        self.frames = small if self.frames is None else torch.cat([self.frames, small])
        while len(self.frames) > self.method.batch:
            yield self._run(self.method.batch)

    def finish(self) -> Iterator[Tensor]:
        """The flow that is still under way, the last one twice; a single frame does not move."""
        if self.frames is None:
            return
        if len(self.frames) > 1:
            yield self._run(len(self.frames) - 1)
        yield self.last if self.last is not None else torch.full_like(self.frames[..., :2], 128)

    def _run(self, pairs: int) -> Tensor:
        assert self.frames is not None, "no frames came"
        flow = self.method.pairs(self.frames[: pairs + 1])
        self.frames, self.last = self.frames[pairs:].clone(), flow[-1:]
        return flow
