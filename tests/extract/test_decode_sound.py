"""The sound track through PyAV: samples on the grid of time, and what is missing of them."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from extract.decode import Reason
from tests.extract.decoding import RATE, decode
from tests.extract.video_files import clicks, wave, write_video


def test_sound_lies_on_the_grid_of_time(tmp_path: Path) -> None:
    sound = wave(clicks([0.25, 1.5], 2.0, 44100), 44100, piece=1000)
    path = write_video(tmp_path / "a.mkv", frames=50, sound=sound)
    samples = decode(path, audio_rate=RATE).sound
    assert abs(len(samples) - 2 * RATE) <= 1
    loud = np.flatnonzero(samples > 0.4)
    np.testing.assert_allclose([loud[0] / RATE, loud[-1] / RATE], [0.25, 1.505], atol=1e-3)
    assert samples.max() == pytest.approx(0.8, abs=0.1)


def test_sound_that_starts_late_is_preceded_by_silence(tmp_path: Path) -> None:
    sound = wave(clicks([0.1], 0.5), start=1.0)
    samples = decode(write_video(tmp_path / "a.mkv", frames=50, sound=sound), audio_rate=RATE).sound
    assert np.flatnonzero(samples > 0.4)[0] / RATE == pytest.approx(1.1, abs=2e-3)
    assert not samples[: RATE - 100].any()


def test_a_gap_in_the_sound_is_filled_with_silence(tmp_path: Path) -> None:
    sound = wave(clicks([0.0], 0.5)) + wave(clicks([0.0], 0.5), start=1.25)
    samples = decode(write_video(tmp_path / "a.mkv", frames=50, sound=sound), audio_rate=RATE).sound
    loud = np.flatnonzero(samples > 0.4) / RATE
    np.testing.assert_allclose([loud.min(), loud[loud > 0.5].min()], [0.0, 1.25], atol=2e-3)
    assert not samples[int(0.51 * RATE) : int(1.24 * RATE)].any()


def test_channels_are_mixed_by_their_mean(tmp_path: Path) -> None:
    both = np.stack([np.full(RATE, 0.5), np.full(RATE, -0.1)], axis=1)
    samples = decode(write_video(tmp_path / "a.mkv", frames=25, sound=wave(both)), audio_rate=RATE).sound
    np.testing.assert_allclose(samples, 0.2, atol=1e-3)
    six = np.full((RATE, 6), 0.3)
    samples = decode(write_video(tmp_path / "b.mkv", frames=25, sound=wave(six)), audio_rate=RATE).sound
    np.testing.assert_allclose(samples, 0.3, atol=1e-3)


def test_priming_of_the_sound_codec_moves_neither_pictures_nor_sound(tmp_path: Path) -> None:
    sound = wave(clicks([0.5], 2.0, 48000), 48000, piece=1024)
    for name, codec in (("a.mp4", "aac"), ("a.mkv", "libopus")):
        decoded = decode(write_video(tmp_path / name, sound=sound, sound_codec=codec), audio_rate=RATE)
        np.testing.assert_allclose(decoded.times, np.arange(50) / 25, atol=2e-3)
        assert np.abs(decoded.sound).argmax() / RATE == pytest.approx(0.5025, abs=5e-3)


def test_a_video_without_sound_says_so_and_keeps_its_pictures(tmp_path: Path) -> None:
    decoded = decode(write_video(tmp_path / "a.mp4", frames=5), audio_rate=RATE)
    assert [lost.reason for lost in decoded.lost] == [Reason.NO_AUDIO]
    assert decoded.numbers == list(range(5))


def test_for_sound_alone_no_frame_is_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", frames=50, sound=wave(clicks([0.1], 2.0)))
    decoded = decode(path, rates=(), audio_rate=RATE)
    assert not decoded.times
    assert decoded.summary.frames_decoded == 0
    assert decoded.summary.end == pytest.approx(2.0)
    assert len(decoded.sound) == 2 * RATE


def test_sound_that_ends_early_by_damage_is_lost_but_the_pictures_are_not(tmp_path: Path) -> None:
    sound = wave(np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE), piece=1024)
    path = write_video(tmp_path / "a.mkv", sound=sound, sound_codec="flac")
    with av.open(str(path)) as container:
        contents = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = path.read_bytes()
    for content in contents[len(contents) // 2 :]:
        data = data.replace(content, b"\xff" * len(content))
    path.write_bytes(data)
    decoded = decode(path, audio_rate=RATE)
    assert [lost.reason for lost in decoded.lost] == [Reason.PARTIAL]
    assert decoded.numbers == list(range(50))
