"""PCA and 8 bits: values by hand, both published layouts, and a stored set from whole to bytes and back."""

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import extract.whitening
from extract.accounts import Observer
from extract.backbone import BACKBONES, Backbone, BackboneError, ClipFormat
from extract.extract_options import ExtractOptions
from extract.extractors import cell_times
from extract.inputs import enumerate_videos
from extract.pipeline import extract_videos
from extract.plan import make_plan
from extract.published import PCA_SOURCES
from extract.state_dict import WeightsError
from extract.synthetic import encode_video
from extract.whitening import Whitening, load_whitening, quantise
from stores import open_store
from stores.spec import Granularity

FRAME = Granularity.FRAME

# Two components of three features: eigenvalues 4 and 0.25 - both less EPSILON, so that the roots are 2 and 0.5.
MEAN = np.array([[1.0], [2.0], [3.0]])
VALUES = np.array([[4.0 - 1e-4], [0.25 - 1e-4], [9.0]])
VECTORS = np.array([[0.6, 0.8, 0.0], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])  # one in each row


class Colour(Backbone):
    """The mean of each colour, times 10: a network that one can compute by hand."""

    name = "colour"
    clip = ClipFormat(fps=10.0, window=1, stride=1, resize=8, crop=8, mean=(0.0,) * 3, std=(0.1,) * 3)
    row_shapes: ClassVar[Mapping[Granularity, tuple[int, ...]]] = {FRAME: (3,), Granularity.MAP: (1, 1, 3)}
    default_weights = "none"
    pca_features = 2

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(
        self, frames: Tensor, levels: frozenset[Granularity], convolutional: bool = False
    ) -> dict[Granularity, Tensor]:
        x_BTC = self.normalise(frames).mean((3, 4)).transpose(1, 2)
        rows = {FRAME: x_BTC, Granularity.MAP: x_BTC[:, :, None, None]}
        return {level: rows[level] for level in levels}


@pytest.fixture
def colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKBONES, "colour", "tests.extract.test_whitening:Colour")
    monkeypatch.setitem(PCA_SOURCES, "colour", "https://example.org/pca.npz")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "yt8m_pca"
    made.mkdir()
    for name, array in {"mean": MEAN, "eigenvals": VALUES, "eigenvecs": VECTORS}.items():
        np.save(made / f"{name}.npy", array)
    return made


def test_bytes_by_hand() -> None:
    """(x + 2) * 255 / 4, rounded: 0 is 127.5, whose half goes to the even 128, as in NumPy's round."""
    x = torch.tensor([-2.0, -1.992, -1.993, 0.0, 1.0, 1.999, 2.0, 2.001, 1e9, -1e9])
    assert quantise(x).tolist() == [0, 1, 0, 128, 191, 255, 255, 255, 255, 0]


def test_bytes_are_read_back_by_youtube_8ms_formula() -> None:
    scale, offset = extract.whitening.SCALE, extract.whitening.OFFSET
    assert [byte * scale + offset for byte in (0, 128, 255)] == pytest.approx(
        [-1.9921875, 0.0156556, 2.0078125], abs=1e-6
    )
    x = torch.linspace(-2, 2, 1001)
    error = quantise(x) * scale + offset - x - 4 / 512
    assert error.abs().max() <= 2 / 255 + 1e-6


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_does_not_become_a_byte(bad: float) -> None:
    assert quantise(torch.tensor([0.0, bad])).isnan().tolist() == [False, True]


def test_youtube_8ms_folder_is_centred_projected_and_whitened(folder: Path) -> None:
    pca = load_whitening(str(folder), features=3, kept=2, name="inception_v3")
    # (2, 3, 9) - mean = (1, 1, 6); on the first vectors 1.4 and -0.2; over the roots 0.7 and -0.4.
    torch.testing.assert_close(pca(torch.tensor([[2.0, 3.0, 9.0]])), torch.tensor([[0.7, -0.4]]))
    lines = "".join(
        f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
        for name in ("eigenvals.npy", "eigenvecs.npy", "mean.npy")
    )
    assert pca.sha256 == hashlib.sha256(lines.encode()).hexdigest()


def test_the_three_arrays_in_one_file_are_the_same(folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "pca.npz", mean=MEAN, eigenvals=VALUES, eigenvecs=VECTORS)
    one = load_whitening(str(tmp_path / "pca.npz"), features=3, kept=2, name="inception_v3")
    other = load_whitening(str(folder), features=3, kept=2, name="inception_v3")
    assert torch.equal(one.matrix_KD, other.matrix_KD)
    assert torch.equal(one.mean_D, other.mean_D)
    assert one.sha256 == hashlib.sha256((tmp_path / "pca.npz").read_bytes()).hexdigest()


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_vggishs_files_hold_the_matrix_itself(tmp_path: Path, suffix: str, shape: tuple[int, ...]) -> None:
    matrix = np.array([[1.0, 2.0, 3.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.0]])
    path = tmp_path / f"pca{suffix}"
    if suffix == ".npz":
        np.savez(path, pca_eigen_vectors=matrix, pca_means=MEAN.reshape(shape))
    else:
        torch.save({"pca_eigen_vectors": torch.tensor(matrix), "pca_means": torch.tensor(MEAN.reshape(shape))}, path)
    pca = load_whitening(str(path), features=3, kept=3, name="vggish")
    torch.testing.assert_close(pca(torch.tensor([[2.0, 2.0, 2.0]])), torch.tensor([[1.0 - 3.0, 0.0, 0.5]]))


def test_half_precision_around_it_changes_nothing(folder: Path) -> None:
    pca = load_whitening(str(folder), features=3, kept=2, name="inception_v3")
    x = torch.rand(5, 3, generator=torch.Generator().manual_seed(0))
    plain = pca(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(pca(x), plain)
    assert torch.equal(pca(x.double()), plain)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mean": MEAN, "eigenvals": VALUES}, "has neither mean, eigenvals, eigenvecs"),
        ({"mean": MEAN[:2], "eigenvals": VALUES, "eigenvecs": VECTORS}, "does not fit"),
        ({"mean": MEAN, "eigenvals": VALUES[:1], "eigenvecs": VECTORS}, "does not fit"),
        ({"mean": MEAN, "eigenvals": -VALUES, "eigenvecs": VECTORS}, "does not fit"),
        ({"mean": MEAN, "eigenvals": VALUES, "eigenvecs": VECTORS[:, :2]}, "does not fit"),
        ({"mean": MEAN * np.nan, "eigenvals": VALUES, "eigenvecs": VECTORS}, "not finite"),
        ({"pca_eigen_vectors": VECTORS[:1], "pca_means": MEAN}, "does not fit"),
        ({"mean": np.array([object()]), "eigenvals": VALUES, "eigenvecs": VECTORS}, "cannot be read: Object arrays"),
    ],
)
def test_a_file_that_is_no_such_pca_is_refused(
    tmp_path: Path, arrays: dict[str, NDArray[np.float64]], message: str
) -> None:
    np.savez(tmp_path / "pca.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=message) as caught:
        load_whitening(str(tmp_path / "pca.npz"), features=3, kept=2, name="inception_v3")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_says_where_it_is_published(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be read.*published at https://storage.googleapis.com/audioset"):
        load_whitening(str(tmp_path / "no.npz"), features=3, kept=2, name="vggish")
    with pytest.raises(WeightsError, match=r"cannot be read.*mean.npy|eigenvals.npy"):
        load_whitening(str(tmp_path), features=3, kept=2, name="inception_v3")


def test_whitened_rows_are_stored_as_bytes_and_maps_as_they_are(colour: None, folder: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    frames = np.random.default_rng(0).integers(0, 256, (12, 1, 1, 3)).astype(np.uint8)
    frames = np.broadcast_to(frames, (12, 32, 32, 3)).copy()
    encode_video(videos / "a.mp4", frames, fps=10)
    options = ExtractOptions(("colour",), levels=(FRAME, Granularity.MAP), dtype="float32", pca={"": str(folder)})
    plan = make_plan(options)
    spec = plan.specs["colour.rgb.frame"]
    assert (spec.dtype, spec.row_shape, spec.scale, spec.offset) == ("uint8", (2,), 4 / 255, 4 / 512 - 2)
    assert len(str(spec.settings["pca_sha256"])) == 64
    raw = plan.specs["colour.rgb.map"]
    assert (raw.dtype, raw.row_shape, raw.scale, raw.settings) == ("float32", (1, 1, 3), None, {})

    found = enumerate_videos([videos])
    summary = extract_videos(found.videos, found.failures, plan, tmp_path / "f.zarr", observer=Observer(), workers=1)
    assert (summary.done, summary.failed) == (1, 0)
    with_store = open_store(tmp_path / "f.zarr")
    stored = with_store["colour.rgb.frame"].read("a.mp4")
    seen = with_store["colour.rgb.map"].read("a.mp4").features[:, 0, 0]
    expected = []
    for row in seen.astype(np.float64):
        centred = row - MEAN[:, 0]
        whitened = [float(VECTORS[k] @ centred) / (2.0, 0.5)[k] for k in range(2)]
        expected.append([round((min(max(value, -2.0), 2.0) + 2) * 63.75) for value in whitened])
    assert stored.features.dtype == np.uint8
    assert np.abs(stored.features.astype(int) - np.array(expected)).max() <= 1  # where float32 stands on a half
    assert {0, 255} & set(stored.features.reshape(-1).tolist())  # saturated, not wrapped around
    np.testing.assert_allclose(stored.times, cell_times(np.arange(12), 1, 10.0))


def test_a_value_that_is_no_number_stops_a_whitened_set(colour: None, folder: Path) -> None:
    plan = make_plan(ExtractOptions(("colour",), pca={"colour": str(folder)}))
    (network,) = plan.networks
    network = dataclasses.replace(network, whitening=Whitening(torch.full((2, 3), torch.nan), torch.zeros(3), ""))
    rows = network.start()
    with pytest.raises(BackboneError, match=r"colour\.rgb\.frame gives values that"):
        list(rows.push(torch.zeros(40, 8, 8, 3, dtype=torch.uint8), cell_times(np.arange(40), 1, 10.0)))


def test_a_scene_set_is_whitened_too(colour: None, folder: Path) -> None:
    plan = make_plan(ExtractOptions(("colour",), levels=(Granularity.SCENE,), pca={"colour": str(folder)}))
    spec = plan.specs["colour.rgb.scene"]
    assert (spec.dtype, spec.row_shape, "pca_sha256" in spec.settings) == ("uint8", (2,), True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pca": {"resnet18": "x"}}, "--pca names resnet18, but the backbones are colour, logmel"),
        ({"pca": {"logmel": "x"}}, "--pca is for .*vggish.*, not for logmel"),
        (
            {"pca": {"colour": "x"}, "levels": (Granularity.MAP,), "backbones": ("colour",)},
            "changes nothing for colour",
        ),
        ({"pca": {"": "x"}, "backbones": ("logmel",)}, "for which backbone"),
    ],
)
def test_a_pca_that_cannot_be_meant_is_refused(colour: None, options: dict[str, object], message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        make_plan(ExtractOptions(**{"backbones": ("colour", "logmel"), **options}))  # type: ignore[arg-type]
