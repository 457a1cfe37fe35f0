"""PyAV's decoder from one end of a video to the other, with everything that it gave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from extract.decode import DecodeError, DecodePlan, Limits, Probe, Sound, SoundLost, Summary
from extract.decode_pyav import PyAvDecoder
from tests.extract.video_files import number

RATE = 16000  # samples a second
VPX = {"deadline": "realtime", "cpu-used": "8"}  # the quickest options of libvpx


class Decoded(NamedTuple):
    """Everything that a decoder gave."""

    probe: Probe
    times: list[float]
    images: list[NDArray[np.uint8]]
    sound: NDArray[np.float32]
    lost: list[SoundLost]
    summary: Summary

    @property
    def numbers(self) -> list[int]:
        return [number(image) for image in self.images]


def decode(path: Path, limits: Limits = Limits(), **plan: Any) -> Decoded:  # noqa: B008
    """All that the decoder gives of a video: every frame and no sound, unless `plan` says otherwise."""
    beats = []
    decoder = PyAvDecoder(str(path), DecodePlan(**{"rates": (None,), **plan}), limits, lambda: beats.append(1))
    times, images, pieces, lost = [], [], [], []
    heard = 0
    for item in decoder:
        if isinstance(item, Sound):
            assert item.first == heard, "pieces of sound follow each other"
            heard += len(item.samples)
            pieces.append(item.samples)
        elif isinstance(item, SoundLost):
            lost.append(item)
        else:
            times.append(item.time)
            images.append(item.rgb().copy())
    summary = decoder.summary()
    decoder.close()
    assert len(beats) >= len(times)
    sound = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    return Decoded(decoder.probe, times, images, sound, lost, summary)


def refusal(action: Callable[[], Any]) -> DecodeError:
    """The error that `action` must end in."""
    with pytest.raises(DecodeError) as caught:
        action()
    return caught.value
