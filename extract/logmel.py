"""Log-mel spectrogram of the sound track: a backbone without weights.

Source: the front end of VGGish (Hershey et al., "CNN Architectures for Large-Scale Audio Classification",
ICASSP 2017, and its released code): 16 kHz, periodic Hann window of 25 ms every 10 ms, magnitude of a 512-point
Fourier transform, 64 mel bands of HTK's formula from 125 to 7500 Hz, log(mel + 0.01). Frames are not centred:
frame j covers samples [160 j, 160 j + 400) and stands for [10 j, 10 j + 10) ms.

A row is the interval [k / rate, (k + 1) / rate) cut into 8 equal cells, each the overlap-weighted mean of the
frames in it: 8 x 64 numbers, cell by cell. At 12.5 rows a second these are the eight frames themselves.

Shape letters: S samples, J frames, F frequencies, M mel bands, R rows, K frames a cell.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.backbone import AudioBackbone
from stores.spec import Granularity

SAMPLE_RATE = 16_000
WINDOW = 400  # samples
HOP = 160  # samples
FFT = 512  # samples, the window filled up with zeros
BANDS = 64
LOWEST, HIGHEST = 125.0, 7500.0  # Hz
OFFSET = 0.01  # keeps the logarithm of silence finite
CELLS = 8  # a row


class LogMel(AudioBackbone):
    """Mono samples at 16 kHz to FRAME rows of 8 x 64 log-mel values."""

    name = "logmel"
    sample_rate = SAMPLE_RATE
    row_shapes = {Granularity.FRAME: (CELLS * BANDS,)}  # noqa: RUF012
    default_weights = "none"
    default_rate = 12.5

    def __init__(self) -> None:
        super().__init__()
        mel_FM = torch.from_numpy(mel_matrix()).float()
        self.register_buffer("hann", torch.hann_window(WINDOW, periodic=True), persistent=False)
        self.register_buffer("mel_FM", mel_FM, persistent=False)

    def span(self, first: int, stop: int, rate: float) -> tuple[int, int]:
        """Samples [from, to) that rows `first` to `stop` need; outside the sound they count as zeros."""
        first_frame, stop_frame = frames_of(first, stop, rate)
        return first_frame * HOP, (stop_frame - 1) * HOP + WINDOW

    def rows(self, wave: Tensor, first: int, stop: int, rate: float) -> Tensor:
        """(S,) samples of exactly that span, in [-1, 1], to (stop - first, 512) float32."""
        start, end = self.span(first, stop, rate)
        assert wave.shape == (end - start,), f"rows {first} to {stop} need {end - start} samples, not {wave.shape}"
        frames_JM = self.frames(wave)
        index_K, weight_K = cell_weights(first, stop, rate)
        cells = frames_JM[index_K.to(frames_JM.device)]
        cells = (cells * weight_K.to(frames_JM.device).unsqueeze(-1)).sum(1)
        return cells.view(stop - first, CELLS * BANDS)

    def frames(self, wave: Tensor) -> Tensor:
        """(S,) samples to the log-mel of every whole frame in them, (J, 64) float32."""
        hann, mel_FM = self.get_buffer("hann"), self.get_buffer("mel_FM")
        with torch.autocast(hann.device.type, enabled=False):  # 8 bits of mantissa would change the numbers
            pieces = wave.to(hann.device, torch.float32).unfold(0, WINDOW, HOP)
            magnitude_JF = torch.fft.rfft(pieces * hann, FFT).abs()
            log_mel_JM: Tensor = (magnitude_JF @ mel_FM + OFFSET).log()
        return log_mel_JM

    def settings(self) -> dict[str, float | int | str]:
        """What defines the numbers, for the spec."""
        return {**frame_settings(), "cells": CELLS}


def frame_settings() -> dict[str, float | int | str]:
    """What defines the frames."""
    return {
        "sample_rate": SAMPLE_RATE,
        "window": WINDOW,
        "hop": HOP,
        "fft": FFT,
        "bands": BANDS,
        "lowest_hz": LOWEST,
        "highest_hz": HIGHEST,
        "log_offset": OFFSET,
    }


def frames_of(first: int, stop: int, rate: float) -> tuple[int, int]:
    """Frames [from, to) that overlap rows `first` to `stop`, in exact arithmetic."""
    frames_per_row = Fraction(SAMPLE_RATE, HOP) / Fraction(rate)
    return math.floor(first * frames_per_row), math.ceil(stop * frames_per_row)


def cell_weights(first: int, stop: int, rate: float) -> tuple[Tensor, Tensor]:
    """For each cell of the rows: numbers of its frames, counted from the first of the span, and their shares.

    Both ((stop - first) * 8, K); shares are float32 and sum to 1.
    """
    first_frame, stop_frame = frames_of(first, stop, rate)
    length = SAMPLE_RATE / HOP / rate / CELLS  # of a cell, in frames
    starts = torch.arange(first * CELLS, stop * CELLS, dtype=torch.float64) * length
    per_cell = math.ceil(length) + 1
    frame_K = starts.floor().unsqueeze(-1) + torch.arange(per_cell)
    from_K = torch.maximum(frame_K, starts.unsqueeze(-1))
    to_K = torch.minimum(frame_K + 1, (starts + length).unsqueeze(-1))
    overlap_K = (to_K - from_K).clamp(min=0)
    # Beyond the span lie only frames whose share is zero, or a rounding error.
    index_K = (frame_K.long() - first_frame).clamp(0, stop_frame - first_frame - 1)
    return index_K, (overlap_K / overlap_K.sum(-1, keepdim=True)).float()


def mel_matrix() -> NDArray[np.float64]:
    """(257, 64) share of each frequency of the transform in each band: triangles of height 1 over mel."""
    mel_F = hertz_to_mel(np.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1))
    edges = np.linspace(hertz_to_mel(LOWEST), hertz_to_mel(HIGHEST), BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    rising = (mel_F[:, None] - low) / (centre - low)
    falling = (high - mel_F[:, None]) / (high - centre)
    return np.maximum(0.0, np.minimum(rising, falling))


def hertz_to_mel(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """HTK's formula, with VGGish's constant 1127."""
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)
