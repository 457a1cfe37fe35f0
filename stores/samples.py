"""Clip-sampled sets: the rows of a video are those of several clips, each seen in one or several crops.

The layout is regular, so it needs no columns on disk: the rows of a video stand in order of clip, then crop, then
time, every clip and crop has equally many, and the spec's view says how many clips and crops there are, as "4x3".
Rows of equal clip and crop form one sample. Times are in order within a sample, not across samples.

Shape letters: N rows, S samples.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stores.errors import StoreError
from stores.names import printable
from stores.spec import FeatureSpec


def sample_rows(spec: FeatureSpec, num_rows: int, video: str) -> int:
    """Rows of one sample of a video that has `num_rows`; of a dense set the whole video is one sample.

    Raises:
        StoreError: the rows do not make up so many equal samples.

    >>> sample_rows(FeatureSpec(Granularity.MAP, (7, 7, 8), view="4x3"), 48, "v.mp4")
    4
    """
    rows, rest = divmod(num_rows, spec.samples)
    if rest:
        raise StoreError(
            f"'{printable(video)}' has {num_rows} rows, which are not {spec.samples} equal samples of view {spec.view}."
        )
    return rows


def columns(spec: FeatureSpec, num_rows: int, video: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number of the clip (N,) and of the crop (N,) of every row; all 0 in a dense set."""
    sample_N = np.arange(num_rows) // max(sample_rows(spec, num_rows, video), 1)
    clip_N, crop_N = np.divmod(sample_N, spec.crops)
    return clip_N, crop_N


def require_order(spec: FeatureSpec, times: NDArray[np.float64], video: str) -> None:
    """StoreError unless the rows at these (N, 2) seconds are whole samples, each in order of time."""
    rows = sample_rows(spec, len(times), video)
    starts_SR = times[:, 0].reshape(spec.samples, rows)
    if (np.diff(starts_SR, axis=1) < 0).any():
        raise StoreError(f"times of '{printable(video)}' are not in order within each clip and crop ({spec.view}).")
