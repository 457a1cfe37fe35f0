"""The overlap defect of the field's most cited script for I3D features.

It runs videos of over 1,600 frames in chunks that start at frames 1, 1601, 3201, ...; each has 48 frames before its
start (but for the first) and 56 frames after its end, and its features are joined with all of that. A chunk of L frames
gives ceil(L / 8) - 1 rows, of 16 frames every 8. So there are 12 rows too many for every chunk but the first, and
time jumps back where a chunk begins.

Source: extract_features.py of https://github.com/piergiaj/pytorch-i3d, as `formats.md` of this project describes it.

Shape letters: N, M rows, D values of a row.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stores.alignment import cosines, pair_rows

CHUNK, BEFORE, AFTER, STRIDE = 1600, 48, 56, 8  # frames
FPS = 24.0  # where no spec has it
MUCH_CLOSER = 0.5  # the script's seconds explain the rows if they leave less than this share of the difference


def untrimmed_chunks(num_frames: int) -> list[tuple[int, int]]:
    """(first frame, rows) of every chunk of a video; one where it is short enough to be run whole.

    >>> untrimmed_chunks(1600), untrimmed_chunks(3400)
    ([(0, 199)], [(1, 206), (1553, 212), (3153, 30)])
    """
    if num_frames <= CHUNK:
        return [(0, -(-num_frames // STRIDE) - 1)]
    chunks = []
    for start in range(1, num_frames - AFTER, CHUNK):
        end = min(num_frames - 1, start + CHUNK + AFTER)
        first = max(1, start - BEFORE)
        chunks.append((first, -(-(end - first) // STRIDE) - 1))
    return chunks


def untrimmed_times(num_frames: int, fps: float) -> NDArray[np.float64]:
    """(M, 2) seconds that the script's rows really stand for; they jump back at every chunk but the first."""
    first = np.concatenate([start + STRIDE * np.arange(rows) for start, rows in untrimmed_chunks(num_frames)])
    return np.stack([first, first + 2 * STRIDE], axis=1) / fps


def untrimmed_evidence(
    good: NDArray[np.float32],
    good_times: NDArray[np.float64],
    bad: NDArray[np.float32],
    bad_times: NDArray[np.float64],
    fps: float | None,
    duration: float | None,
) -> tuple[str, bool] | None:
    """(evidence, whether the rows prove it) that `bad` has this defect, `good` having the same video; None if not.

    Args:
        good, bad: (N, D) and (M, D) first rows of the two; none where they cannot be compared.
        good_times, bad_times: (N, 2) and (M, 2) seconds of all their rows.
        fps: frames a second that the network saw; None: 24.
        duration: seconds of the video, if it is known.
    """
    fps = fps or FPS
    end = duration or float(good_times[:, 1].max(initial=0))
    middle = round(end * fps)
    lengths = [n for n in range(middle - STRIDE, middle + STRIDE + 1) if n > CHUNK]
    lengths = [n for n in lengths if sum(rows for _, rows in untrimmed_chunks(n)) == len(bad_times)]
    if not lengths or len(bad_times) <= middle / STRIDE + 1:
        return None
    chunks = untrimmed_chunks(lengths[0])
    seams = np.cumsum([rows for _, rows in chunks])[:-1]
    text = (
        f"{len(bad_times)} rows where {middle} frames give {-(-middle // STRIDE)}: what {len(chunks)} chunks of "
        f"{CHUNK} frames with {BEFORE} before and {AFTER} after give"
    )
    if not len(good) or not len(bad):
        return text, False
    plain = _cosine(good, good_times, bad, bad_times)
    best = max(_cosine(good, good_times, bad, untrimmed_times(n, fps)) for n in lengths)
    if not 1 - best < MUCH_CLOSER * (1 - plain):
        return text + f"; but the rows themselves do not jump there (mean cosine {best:.4f})", False
    jump = (untrimmed_times(lengths[0], fps)[seams, 0] - untrimmed_times(lengths[0], fps)[seams - 1, 0]) * fps / STRIDE
    text += (
        f"; time jumps back by {-jump[0] + 1:.0f} rows at row {', '.join(map(str, seams[:4]))}"
        f"{', ...' if len(seams) > 4 else ''}: with that the mean cosine is {best:.4f}, without {plain:.4f}"
    )
    return text, True


def _cosine(
    good: NDArray[np.float32],
    good_times: NDArray[np.float64],
    bad: NDArray[np.float32],
    bad_times: NDArray[np.float64],
) -> float:
    """Mean cosine of the rows of `bad` with those of `good` whose seconds are nearest; order is no matter."""
    order = np.argsort(bad_times[: len(bad)].mean(1), kind="stable")
    pairs = pair_rows(good_times[: len(good)], bad_times[: len(bad)][order])
    return float(cosines(good[pairs.a], bad[order][pairs.b]).mean()) if len(pairs.a) else 0.0
