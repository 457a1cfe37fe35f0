"""A store with the time grid, the size and the label statistics of MultiTHUMOS, its features synthesised from labels.

`python -m tests.claims.multithumos multithumos.json OUT.zarr`. The features are not of any video: every row is a
noisy sight of its own labels, so that a head can win only by what it knows of time and of classes that go together.
Row k of T = floor(3 * duration) stands for [k, k + 1) * duration / T; its labels are those at its start. Each label
is seen as 1, its absence as 0, both with Gaussian noise of deviation `noise` that is fresh in every row; a fixed
random map takes the 65 sights to 2048 features. Compare heads with it, and nothing with published figures.

Shape letters: N rows, C classes, D features.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from stores import FeatureSpec, Granularity, Rows
from stores.label_files import read_labels
from stores.labels import Labels
from stores.zarr_store import ZarrWriter

ROWS_A_SECOND = 3.0
SET_NAME = "synthesised.rgb.clip"


def grid(duration: float) -> NDArray[np.float64]:
    """(N, 2) seconds of the rows of a video, the grid on which 1,336 ordered pairs of classes meet in the test set."""
    rows = math.floor(ROWS_A_SECOND * duration)
    edges = np.arange(rows + 1) * (duration / rows)
    return np.stack([edges[:-1], edges[1:]], axis=1)


def sights(labels_NC: NDArray[np.int8], video: str, map_CD: NDArray[np.float64], noise: float) -> NDArray[np.float16]:
    """(N, D) features of one video; the noise is drawn from its name."""
    random = np.random.default_rng(zlib.crc32(video.encode()))
    seen_NC = (labels_NC == 1) + noise * random.standard_normal(labels_NC.shape)
    rows_ND: NDArray[np.float16] = (seen_NC @ map_CD).astype(np.float16)
    return rows_ND


def write_store(labels: Labels, out: Path, *, width: int = 2048, noise: float = 0.7) -> int:
    """A store of all labelled videos with those labels attached; returns the number of rows."""
    random = np.random.default_rng(0)
    map_CD = random.standard_normal((len(labels.classes), width)) / math.sqrt(len(labels.classes))
    spec = FeatureSpec(
        Granularity.CLIP,
        row_shape=(width,),
        backbone="synthesised",
        stream="rgb",
        weights="made from the labels",
        settings={"noise": noise, "rows_a_second": ROWS_A_SECOND},
    )
    total = 0
    with ZarrWriter(out, {SET_NAME: spec}) as writer:
        writer.attach("labels", labels.to_dict())
        for video, entry in labels.videos.items():
            assert entry.duration is not None, f"{video} has no duration"
            times = grid(entry.duration)
            rows = sights(labels.rows(video, times, "start", "strict"), video, map_CD, noise)
            put = writer.video(video, {"duration": entry.duration})
            put.append(SET_NAME, Rows(rows, times))
            put.commit()
            total += len(rows)
    return total


def main(
    labels: Annotated[Path, typer.Argument(help="multithumos.json.")],
    out: Annotated[Path, typer.Argument(help="Store to write, NAME.zarr.")],
    noise: Annotated[float, typer.Option(help="Deviation of the noise in a label's sight.")] = 0.7,
) -> None:
    """Synthesise features from labels."""
    typer.echo(f"{out}: {write_store(read_labels(labels), out, noise=noise)} rows made from labels, not from videos")


if __name__ == "__main__":
    typer.run(main)
