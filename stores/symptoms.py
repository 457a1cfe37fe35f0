"""Guesses from what the rows look like, where nothing in them or in the specs proves a cause.

Measured on 19 real clips of 4 to 12 rows with EfficientNet-Lite0. Another crop or resize averages out over rows: it
moves their mean less than each of them, the more so the more videos there are (median of the ratio 0.56 to 0.64 of one
video, 0.32 to 0.37 of twelve); swapped colours average out less (0.93, 0.62), mean and sd that were left out not at all
(1.06, 0.96). Pixels of 0 to 255 leave cosines of 0.10 to 0.55. Of one video the ratios overlap.

Shape letters: D values of a row.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from stores.alignment import cosines
from stores.evidence import CONSISTENT, Cause, Evidence, Sample

VIDEOS, RANDOM = (1, 4, 8, 12), (0.8, 0.66, 0.55, 0.47)  # of so many videos, the ratio below which rows moved at random
SCALE, ENOUGH = 0.82, 8  # the ratio above which of so many videos mean and sd are likelier than colours
SPREAD = 32  # rows of a video that the ratio is taken of
UNRELATED = 0.6  # mean cosine below which nothing but unscaled pixels or another network is left
NEAR = 0.995  # mean cosine above which decoders, filters and precision are enough


def from_statistics(found: Evidence) -> Iterator[Cause]:
    """What the rows look like, where nothing in them proves a cause; the order is that of the evidence."""
    mean, low, high = (float(value) for value in (found.cosines.mean(), found.cosines.min(), found.cosines.max()))
    if mean > 1 - 1e-9:
        return
    share, count = systematic(found.samples)
    seen = f"mean cosine {mean:.4f} ({low:.4f} to {high:.4f})"
    moved = f"the mean of all rows moved {share:.2f} times as far as single rows"
    made = {
        key: (found.a.provenance.get(key), found.b.provenance.get(key))
        for key in ("decoder", "precision", "device", "torch", "flow")
        if found.a.provenance.get(key) != found.b.provenance.get(key)
    }
    if mean > NEAR:
        told = "; ".join(f"{key} {old} against {new}" for key, (old, new) in made.items()) or "no provenance differs"
        yield Cause("another decoder, resizing filter, device or precision", CONSISTENT, f"{seen}; {told}")
        return
    same_network = all(found.recorded(name) and name not in found.fields for name in ("backbone", "weights_sha256"))
    unscaled = Cause("missing normalisation (pixels of 0 to 255)", CONSISTENT, f"{seen}, far from 1 in every row")
    other = Cause("another stream, backbone or weights", CONSISTENT, f"{seen}, far from 1 in every row")
    if mean < UNRELATED:
        yield from (unscaled, other) if same_network else (other, unscaled)
        return
    # What both specs give as equal is no cause unless a spec says what was not done: it comes last.
    normalise = "normalise" not in found.fields and found.recorded("normalise")
    crop = all(found.recorded(name) and name not in found.fields for name in ("resize", "crop"))
    grey = (
        f"; {int((found.cosines > 0.9999).sum())} rows do not differ, as grey pictures would not"
        if high > 0.9999
        else ""
    )
    bgr = Cause("BGR instead of RGB", CONSISTENT, f"{seen}; {moved}{grey}")
    scale = Cause("missing normalisation", CONSISTENT, f"{seen}; {moved}")
    place = Cause("another crop or resize", CONSISTENT, f"{seen}; {moved}, as what averages out does")
    colours = [bgr, scale]
    if not normalise and (share > SCALE if count >= ENOUGH else True):
        colours = [scale, bgr]
    if grey:
        colours = [bgr]
    at_random = share < float(np.interp(count, VIDEOS, RANDOM))
    if at_random:
        yield from [*colours, place] if crop else [place, *colours]
    else:
        yield from colours if crop else [*colours, place]


def systematic(samples: tuple[Sample, ...]) -> tuple[float, int]:
    """How far the mean row moved by how far single rows did (1 - correlation by 1 - cosine), and of how many videos."""
    every = []
    for sample in samples:
        a, b = sample.aligned()
        if len(a):
            some = np.unique(np.linspace(0, len(a) - 1, SPREAD).round().astype(int))
            every.append((a[some], b[some]))
    if not every:
        return float("nan"), 0
    a, b = (np.concatenate(column) for column in zip(*every, strict=True))
    apart = 1 - float(cosines(a, b).mean())
    means = [x.mean(0) - x.mean() for x in (a, b)]
    return (1 - float(cosines(means[0][None], means[1][None])[0])) / max(apart, 1e-9), len(every)
