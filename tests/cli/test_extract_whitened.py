"""`vl extract --pca`: bytes in the store that a head reads as numbers, and errors of one line."""

from pathlib import Path

import numpy as np
import pytest

from cli.main import run
from extract.synthetic import encode_video
from stores import open_store


def vl(capfd: pytest.CaptureFixture[str], *words: str | Path) -> tuple[int, str]:
    """Exit code, and what went to stderr; in this process, as nothing here ends it."""
    code = run([*map(str, words)])
    return code, capfd.readouterr().err


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three seconds with sound."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (30, 32, 32, 3)).astype(np.uint8)
    sound = random.normal(0, 0.1, 48_000).astype(np.float32)
    encode_video(tmp_path / "a.mp4", frames, fps=10, audio=sound, rate=16_000)
    return tmp_path / "a.mp4"


def test_whitened_sound_is_stored_as_bytes_beside_other_sets(
    clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # A matrix that makes every row the same large number of each sign: saturated bytes, by hand.
    signs = np.where(np.arange(128) % 2, 1.0, -1.0)
    means = np.full(128, 1e6)
    np.savez(tmp_path / "pca.npz", pca_eigen_vectors=np.diag(signs), pca_means=means)
    words = ("--backbone", "vggish,logmel", "--weights", "random", "--pca", "vggish=pca.npz", "--workers", "1")
    code, said = vl(capfd, "extract", *words, clip)
    assert code == 0, said
    assert "vggish.audio.frame: rows (128,) uint8, 1.04167 a second" in said
    store = open_store(tmp_path / "store.zarr")
    rows = store["vggish.audio.frame"].read("a.mp4")
    # x - 1e6 is far below -2 for every feature: byte 0 where the sign stays, 255 where it turns.
    assert rows.features.dtype == np.uint8
    np.testing.assert_array_equal(rows.features, np.tile(np.where(signs > 0, 0, 255), (3, 1)))
    np.testing.assert_allclose(rows.times, [(0, 0.96), (0.96, 1.92), (1.92, 2.88)])
    spec = store["vggish.audio.frame"].spec
    assert (spec.scale, spec.offset) == (4 / 255, 4 / 512 - 2)
    assert store["logmel.audio.frame"].spec.dtype == "float16"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--backbone", "logmel", "--pca", "logmel=x"), "--pca is for "),
        (("--backbone", "vggish", "--weights", "random", "--pca", "no.npz"), "vggish_pca_params.npz"),
        (("--backbone", "hf:/nowhere"), "there is no config.json in that folder"),
        (("--backbone", "hf:"), "there is no backbone 'hf:'"),
        (("--backbone", "vggish"), "no digest of vggish-10086976.pth is known"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...], said: str
) -> None:
    code, printed = vl(capfd, "extract", *words, clip)
    assert code == 2
    assert said in printed
    assert len(printed.strip().splitlines()) == 1
    assert not (tmp_path / "store.zarr").exists()
