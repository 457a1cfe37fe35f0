"""Principal components, whitened and in 8 bits, as YouTube-8M and AudioSet publish their features.

Source: Abu-El-Haija et al., "YouTube-8M: A Large-Scale Video Classification Benchmark", arXiv:1609.08675, and the
released feature extractors of YouTube-8M and of VGGish. A vector x becomes W (x - m), clipped to [-2, 2] and rounded to
b = 0 .. 255; it is read as 4 b / 255 + 4 / 512 - 2, the formula of YouTube-8M's reader, biased as it is.

VGGish's own code cuts the fraction off instead of rounding, so that its bytes may be smaller by one.

Two layouts are read: YouTube-8M's folder of mean.npy, eigenvals.npy and eigenvecs.npy (or the three in one .npz), of
which row k of W is eigenvector k / sqrt(eigenvalue k + 1e-4); and VGGish's pca_eigen_vectors (W) and pca_means, in an
.npz (vggish_pca_params.npz) or a PyTorch file (vggish_pca_params-970ea276.pth).

Shape letters: D features before, K features kept.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.backbone import AudioBackbone, Backbone, BackboneError
from extract.model_hub import files_sha256
from extract.published import PCA_SOURCES
from extract.state_dict import WeightsError, read_state
from stores.names import printable
from stores.spec import Granularity

SCALE, OFFSET = 4 / 255, 4 / 512 - 2  # value = byte * SCALE + OFFSET
LIMIT = 2.0  # values beyond it become the first or the last byte
EPSILON = 1e-4  # added to YouTube-8M's eigenvalues
YOUTUBE8M = ("mean", "eigenvals", "eigenvecs")
VGGISH = ("pca_eigen_vectors", "pca_means")
MAX_BYTES = 2**28  # of the arrays of a file; YouTube-8M's have 34 MB in float64


class Whitening:
    """(..., D) features to (..., K), of zero mean and unit variance on the data it was fitted to."""

    def __init__(self, matrix_KD: Tensor, mean_D: Tensor, sha256: str, device: torch.device | str = "cpu") -> None:
        self.matrix_KD = matrix_KD.to(device, torch.float32)
        self.mean_D = mean_D.to(device, torch.float32)
        self.sha256 = sha256  # of the file, or of a folder's files

    def __call__(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):  # 8 bits of mantissa are fewer than are stored
            return (x.float() - self.mean_D) @ self.matrix_KD.T

    @property
    def features(self) -> int:
        """K."""
        return len(self.matrix_KD)


def quantise(x: Tensor) -> Tensor:
    """Bytes of `x`, still as float32, so that a value which is no finite number stays one that is seen.

    >>> quantise(torch.tensor([-3.0, -2.0, 0.01, 2.0, 9.0])).tolist()
    [0.0, 0.0, 128.0, 255.0, 255.0]
    """
    bytes_of = ((x.float().clamp(-LIMIT, LIMIT) + LIMIT) * (255 / (2 * LIMIT))).round()
    return torch.where(x.isfinite(), bytes_of, torch.nan)


def stored_form(row_shape: tuple[int, ...], dtype: str, whitening: Whitening | None) -> dict[str, Any]:
    """The fields of a spec that say how rows are stored: as they are, or whitened and in 8 bits."""
    if whitening is None:
        return {"row_shape": row_shape, "dtype": dtype}
    return {"row_shape": (whitening.features,), "dtype": "uint8", "scale": SCALE, "offset": OFFSET}


def whitening_settings(whitening: Whitening | None) -> dict[str, str]:
    """What defines the numbers beside that, for the spec's settings."""
    return {} if whitening is None else {"pca_sha256": whitening.sha256, "quantised": f"clip to +-{LIMIT:g}, round"}


def check_pca(pca: Mapping[str, str], classes: Mapping[str, type[Backbone | AudioBackbone]]) -> None:
    """Raise for a file that no backbone, or more than one, could mean; `pca` goes from a name, or "", to a path."""
    takes = [name for name, kind in classes.items() if kind.pca_features is not None]
    if other := sorted(set(pca) - {"", *takes}):
        raise BackboneError(f"--pca is for {', '.join(PCA_SOURCES)}, not for {', '.join(other)}.")
    if "" in pca and len(takes) != 1:
        raise BackboneError(f"--pca {printable(pca[''])}: for which backbone? Say NAME=PATH: {', '.join(PCA_SOURCES)}.")


def chosen_whitening(
    backbone: type[Backbone | AudioBackbone], choice: str | None, levels: Sequence[Granularity], device: torch.device
) -> Whitening | None:
    """The PCA that was chosen for a backbone, if any."""
    if choice is None or backbone.pca_features is None:
        return None
    if not {Granularity.FRAME, Granularity.SCENE} & set(levels):
        raise BackboneError(f"--pca changes nothing for {backbone.name} at level {', '.join(levels)}: leave it out.")
    (features,) = backbone.row_shapes[Granularity.FRAME]
    kept = backbone.pca_features
    return load_whitening(choice, features=features, kept=kept, name=backbone.name, device=device)


def load_whitening(
    choice: str, *, features: int, kept: int, name: str, device: torch.device | str = "cpu"
) -> Whitening:
    """The PCA in a file or folder, for a network of that many features.

    Args:
        features: D, of a row before.
        kept: K, of a row after; of more components the first are taken.
        name: of the backbone, for messages.

    Raises:
        WeightsError: it is not there, damaged, of another layout or for another number of features.
    """
    path = Path(choice).expanduser()
    try:
        files = sorted(path / f"{part}.npy" for part in YOUTUBE8M) if path.is_dir() else [path]
        arrays = read_arrays(path, files)
        digest = files_sha256(files)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = printable(str(error).partition("\n")[0][:160])
        raise WeightsError(
            f"--pca {name}={printable(choice)} cannot be read: {reason}. It is published at {PCA_SOURCES[name]}."
        ) from error
    if set(YOUTUBE8M) <= set(arrays):
        mean, values, vectors = (np.array(arrays[part], np.float64) for part in YOUTUBE8M)
        values = values.reshape(-1)[:kept]
        fits = vectors.ndim == 2 and len(values) == len(vectors[:kept]) and bool((values > -EPSILON).all())
        matrix = vectors[:kept] / np.sqrt(values + EPSILON)[:, None] if fits else np.zeros((0, 0))
    elif set(VGGISH) <= set(arrays):
        matrix, mean = (np.array(arrays[part], np.float64) for part in VGGISH)
        matrix = matrix[:kept]
    else:
        raise WeightsError(
            f"--pca {name}={printable(choice)} has neither {', '.join(YOUTUBE8M)} (YouTube-8M) nor "
            f"{', '.join(VGGISH)} (VGGish)."
        )
    mean = mean.reshape(-1)
    if matrix.shape != (kept, features) or mean.shape != (features,):
        raise WeightsError(
            f"--pca {name}={printable(choice)} does not fit {name}: it has {matrix.shape} and {mean.shape}, and "
            f"{kept} components of {features} features are needed."
        )
    if not (np.isfinite(matrix).all() and np.isfinite(mean).all()):
        raise WeightsError(f"--pca {name}={printable(choice)} has values that are not finite.")
    return Whitening(torch.from_numpy(matrix), torch.from_numpy(mean), digest, device)


def read_arrays(path: Path, files: list[Path]) -> Mapping[str, NDArray[Any]]:
    """Arrays by their names, out of a folder's .npy files, an .npz, or a PyTorch file."""
    if path.is_dir():
        if any(file.stat().st_size > MAX_BYTES for file in files):
            raise ValueError(f"a file has over {MAX_BYTES:,} bytes")
        return {file.stem: np.load(file, mmap_mode="r", allow_pickle=False) for file in files}
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            if sum(record.file_size for record in archive.infolist()) > MAX_BYTES:
                raise ValueError(f"it unpacks to over {MAX_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files if name in {*YOUTUBE8M, *VGGISH}}
    return {name: tensor.double().numpy() for name, tensor in read_state(path).items()}
