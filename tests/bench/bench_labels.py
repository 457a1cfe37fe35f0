"""Labels of rows: counted by sorting, against a loop over the steps that gives the same table.

A day-long video with 5000 spans of 65 classes at 3 rows a second would take the loop an hour, so both sides see
the longest kind of video that the field has; the figure is the ratio of the least times of some turns.
"""

import numpy as np
from numpy.typing import NDArray

from stores.labels import Labels, VideoLabels
from tests.bench.table import least_seconds, line

NUM_CLASSES = 65
SECONDS = 1800.0
SPANS = 500  # MultiTHUMOS has up to 1,000 in one video
RATE = 3  # rows a second
TURNS = 3


def make_labels() -> Labels:
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, SECONDS, SPANS)
    segments = zip(rng.integers(0, NUM_CLASSES, SPANS), starts, starts + rng.uniform(0.2, 20, SPANS), strict=True)
    classes = tuple(f"class {index}" for index in range(NUM_CLASSES))
    return Labels(classes, {"v": VideoLabels.of([(int(c), float(s), float(e)) for c, s, e in segments])})


def loop(labels: Labels, times: NDArray[np.float64]) -> NDArray[np.int8]:
    """The usual way: for each step, for each span."""
    entry = labels.videos["v"]
    spans = list(zip(entry.classes.tolist(), entry.spans.tolist(), strict=True))
    table = np.zeros((len(times), NUM_CLASSES), np.int8)
    for k, centre in enumerate(times.mean(axis=1).tolist()):
        for index, (start, end) in spans:
            if start < centre < end:
                table[k, index] = 1
    return table


def main() -> None:
    labels = make_labels()
    grid = np.arange(int(SECONDS * RATE)) / RATE
    times = np.stack([grid, grid + 1 / RATE], axis=1)
    assert (labels.rows("v", times) == loop(labels, times)).all(), "the two ways differ"
    ours, theirs = least_seconds([lambda: labels.rows("v", times), lambda: loop(labels, times)], TURNS)
    line(
        f"label rows, {len(times)} rows, {SPANS} spans",
        f"{1e3 * ours:.2f} ms",
        f"{1e3 * theirs:.0f} ms",
        theirs / ours,
        ">= 50",
    )
