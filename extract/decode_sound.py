"""The sound track as mono samples on one grid: sample s is heard at s / rate seconds, whatever the packets say.

Mono is the mean of all channels, as in the VGGish front end. A gap between packets of over one packet's length is
filled with zeros, an overlap of that size is cut, smaller deviations (rounded time stamps) are ignored.

Shape letters: C channels, S samples.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

from extract.decode import DecodeError, Reason, Sound

MAX_PIECE = 1 << 15  # samples in one Sound


class SoundTrack:
    """Decoded audio frames in, pieces of sound out that follow each other from sample 0."""

    def __init__(self, rate: int, zero: Fraction, max_duration_s: float) -> None:
        """`rate` in samples a second; `zero` is the container's time (seconds) that counts as 0."""
        self._rate = rate
        self._zero = zero
        self._max_samples = int(max_duration_s * rate)
        self._resampler: AudioResampler | None = None
        self._form: tuple[str, str, int] | None = None  # sample format, layout and rate that it was made for
        self._written = 0  # samples given out
        self._skip = 0  # samples still to be cut from what comes next
        self._expected: Fraction | None = None  # time at which the next frame should start

    def push(self, frame: AudioFrame) -> Iterator[Sound]:
        """The pieces that become complete with `frame`.

        Raises:
            DecodeError: the track is longer than the limit (too_large).
        """
        length = Fraction(frame.samples, frame.sample_rate)
        start = self._start(frame, length)
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        jump = self._expected is None or abs(start - self._expected) > length
        if jump or form != self._form:
            yield from self.flush()
            self._resampler = AudioResampler(format="fltp", layout=frame.layout, rate=self._rate)
            self._form = form
        if jump:
            yield from self._move_to(round(start * self._rate))
            self._expected = start
        assert self._expected is not None
        assert self._resampler is not None
        self._expected += length
        for resampled in self._resampler.resample(frame):
            yield from self._give(resampled)

    @property
    def end(self) -> float:
        """Seconds at which the sound that was given out ends."""
        return self._written / self._rate

    def flush(self) -> Iterator[Sound]:
        """What the resampler still holds."""
        if self._resampler is not None:
            for resampled in self._resampler.resample(None):
                yield from self._give(resampled)
            self._resampler = None

    def _start(self, frame: AudioFrame, length: Fraction) -> Fraction:
        """Seconds from time 0 at which `frame` starts; one without a time follows the one before."""
        if frame.pts is None or frame.time_base is None:
            return self._expected if self._expected is not None else Fraction(0)
        return frame.pts * frame.time_base - self._zero

    def _move_to(self, sample: int) -> Iterator[Sound]:
        """Go on at `sample`: zeros up to it, or a cut where that much is there already."""
        if sample > self._max_samples:
            raise DecodeError(Reason.TOO_LARGE, f"sound jumps to {sample / self._rate:.0f} s")
        self._skip = max(0, self._written - sample)
        while self._written < sample:
            yield self._piece(np.zeros(min(MAX_PIECE, sample - self._written), np.float32))

    def _give(self, frame: AudioFrame) -> Iterator[Sound]:
        mono_S = mono(frame)
        cut = min(self._skip, len(mono_S))
        self._skip -= cut
        mono_S = mono_S[cut:]
        if self._written + len(mono_S) > self._max_samples:
            raise DecodeError(Reason.TOO_LARGE, f"sound is longer than {self._max_samples / self._rate:.0f} s")
        for first in range(0, len(mono_S), MAX_PIECE):
            yield self._piece(mono_S[first : first + MAX_PIECE])

    def _piece(self, samples: NDArray[np.float32]) -> Sound:
        piece = Sound(self._written, samples)
        self._written += len(samples)
        return piece


def mono(frame: AudioFrame) -> NDArray[np.float32]:
    """(S,) mean over the channels of a planar float frame; what is not a number becomes silence."""
    wave_CS = frame.to_ndarray()
    mono_S: NDArray[np.float32] = wave_CS.mean(axis=0, dtype=np.float32)
    return np.nan_to_num(mono_S, nan=0.0, posinf=1.0, neginf=-1.0)


def first_audio(container: av.container.InputContainer) -> av.audio.stream.AudioStream | None:
    """The first sound track, which is the one that is used."""
    return container.streams.audio[0] if container.streams.audio else None
