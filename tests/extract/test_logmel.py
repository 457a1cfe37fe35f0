import cmath
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from extract.logmel import LogMel, mel_matrix


@pytest.fixture(scope="module")
def logmel() -> LogMel:
    return LogMel()


def noise(samples: int) -> Tensor:
    return torch.rand(samples, generator=torch.Generator().manual_seed(samples)) * 2 - 1


def rows_of(logmel: LogMel, sound: Tensor, first: int, stop: int, rate: float) -> Tensor:
    """Rows of a sound whose first sample is at time 0, silent outside."""
    start, end = logmel.span(first, stop, rate)
    wave = torch.zeros(end - start)
    inside = sound[start : min(end, len(sound))]
    wave[: len(inside)] = inside
    rows: Tensor = logmel.rows(wave, first, stop, rate)
    return rows


def mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)


def band_shares(hertz: float) -> list[float]:
    """Share of one frequency in each of 64 triangles whose corners are equally far apart in mel."""
    step = (mel(7500.0) - mel(125.0)) / 65
    shares = []
    for band in range(64):
        distance = abs(mel(hertz) - (mel(125.0) + (band + 1) * step))
        shares.append(max(0.0, 1.0 - distance / step))
    return shares


def test_the_mel_matrix_is_the_loop_that_spells_it_out() -> None:
    expected = [band_shares(k * 16000 / 512) for k in range(257)]
    np.testing.assert_allclose(mel_matrix(), expected, atol=1e-12)


def test_a_frame_is_the_definition_spelled_out(logmel: LogMel) -> None:
    sound = noise(1000)
    frame = 2
    piece = sound[160 * frame : 160 * frame + 400].double().tolist()
    windowed = [x * (0.5 - 0.5 * math.cos(2 * math.pi * n / 400)) for n, x in enumerate(piece)]
    bands = np.zeros(64)
    for k in range(257):
        transform = sum(x * cmath.exp(-2j * math.pi * k * n / 512) for n, x in enumerate(windowed))
        bands += abs(transform) * np.array(band_shares(k * 16000 / 512))
    frames = logmel.frames(sound)
    assert len(frames) == 1 + (1000 - 400) // 160
    np.testing.assert_allclose(frames[frame], np.log(bands + 0.01), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("hertz", "band"),
    [
        (440.0, 8),  # mel 549.6; (549.6 - 185.2) / 39.82 = 9.15, and band b has its centre at b + 1
        (4000.0, 48),  # mel 2146.1; (2146.1 - 185.2) / 39.82 = 49.2
    ],
)
def test_a_tone_is_loudest_in_its_band(logmel: LogMel, hertz: float, band: int) -> None:
    tone = torch.sin(2 * math.pi * hertz * torch.arange(16000) / 16000)
    row = rows_of(logmel, tone, 3, 4, 12.5).view(8, 64)
    assert row.argmax(1).tolist() == [band] * 8


def test_silence_is_the_logarithm_of_the_offset(logmel: LogMel) -> None:
    rows = rows_of(logmel, torch.zeros(0), 0, 2, 12.5)
    torch.testing.assert_close(rows, torch.full((2, 512), math.log(0.01)))


def test_at_the_default_rate_a_row_is_its_eight_frames(logmel: LogMel) -> None:
    sound = noise(16000)
    frames = logmel.frames(sound)
    assert logmel.default_rate == 12.5
    torch.testing.assert_close(rows_of(logmel, sound, 0, 5, 12.5).view(40, 64), frames[:40])
    assert logmel.span(2, 3, 12.5) == (16 * 160, 23 * 160 + 400)


@pytest.mark.parametrize("rate", [1.0, 3.0, 10.0, 12.5, 24.0, 25.0, 29.97, 200.0])
def test_a_cell_is_the_mean_of_its_frames_weighted_by_overlap(logmel: LogMel, rate: float) -> None:
    sound = noise(4 * 16000)
    frames = logmel.frames(sound).double()
    first, stop = 1, 3
    rows = rows_of(logmel, sound, first, stop, rate).view(-1, 64)
    cell = 1 / Fraction(rate) / 8  # seconds
    for number in range(8 * (stop - first)):
        start = (8 * first + number) * cell
        total, weights = torch.zeros(64, dtype=torch.float64), Fraction(0)
        for j in range(len(frames)):
            overlap = min(start + cell, Fraction(j + 1, 100)) - max(start, Fraction(j, 100))
            if overlap > 0:
                total += float(overlap) * frames[j]
                weights += overlap
        assert weights == cell
        torch.testing.assert_close(rows[number].double(), total / float(weights), rtol=0, atol=1e-4)


@pytest.mark.parametrize("rate", [3.0, 12.5, 29.97])
def test_rows_block_by_block_are_the_rows_at_once(logmel: LogMel, rate: float) -> None:
    sound = noise(5 * 16000)
    stop = int(5 * rate)
    at_once = rows_of(logmel, sound, 0, stop, rate)
    blocks = [rows_of(logmel, sound, k, min(k + 4, stop), rate) for k in range(0, stop, 4)]
    torch.testing.assert_close(torch.cat(blocks), at_once, rtol=0, atol=1e-5)


def test_neither_half_precision_around_it_nor_double_samples_change_the_numbers(logmel: LogMel) -> None:
    sound = noise(16000)
    plain = rows_of(logmel, sound, 0, 4, 12.5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rows_of(logmel, sound, 0, 4, 12.5), plain)
    start, end = logmel.span(0, 4, 12.5)
    assert torch.equal(logmel.rows(sound[start:end].double(), 0, 4, 12.5), plain)


def test_nothing_is_learned(logmel: LogMel) -> None:
    assert not logmel.state_dict()
    assert not list(logmel.parameters())
    assert logmel.default_weights == "none"
