"""What may have made two feature sets differ, each guess with the evidence it rests on.

Three degrees: "shown" where the rows themselves prove it, "likely" where the specs say so or rows and times agree with
nothing else, "consistent with" where the statistics are as that defect makes them, which others might, too. From
features alone nobody can tell swapped colours from pixels that were scaled otherwise.

The statistics of "consistent with" were measured on 19 real clips of 3 to 12 rows with EfficientNet-Lite0: a change of
colours or of scale moves the mean row of a video almost as much as each single row (median of the ratio 0.92 for BGR,
1.06 for unscaled mean and sd), another crop or resize much less (0.56 to 0.64), as it averages out; pixels of 0 to 255
leave cosines of 0.10 to 0.55 and mean rows that no longer correlate.

Shape letters: N, M rows of the two sets, P pairs of rows, D values of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stores.alignment import Pairs, cosines, pair_rows, spacing, tolerance
from stores.spec import FeatureSet
from stores.untrimmed import untrimmed_evidence

SHOWN, LIKELY, CONSISTENT = "shown", "likely", "consistent with"
RATES = (25.0, 30.0, 24.0, 50.0, 60.0)  # frames a second between which videos are confused
MOST_SHIFT = 64  # rows
MUCH_CLOSER = 0.25  # a shift explains the difference if it leaves less than this share of it
LESS_DRIFT = 0.6  # another scale of time does if it leaves less than this: its frames lie between those of A
SYSTEMATIC = 0.8  # of the shift of the mean row by that of single rows
UNRELATED = 0.6  # mean cosine below which nothing but unscaled pixels or another network is left
NEAR = 0.995  # mean cosine above which decoders, filters and precision are enough
FIELDS = {  # of a spec -> what differs, as the field calls it
    "backbone": "another backbone",
    "stream": "another stream",
    "weights_sha256": "other weights",
    "random_weights": "other weights",
    "granularity": "another level",
    "window": "another window or stride",
    "stride": "another window or stride",
    "dense": "another window or stride",
    "speed": "another speed or view",
    "view": "another speed or view",
    "resize": "another crop or resize",
    "crop": "another crop or resize",
    "roi": "another crop or resize",
    "normalise": "another normalisation of the pixels",
    "settings": "other settings of the backbone",
}


class Cause(NamedTuple):
    """One guess."""

    name: str
    certainty: str  # shown, likely or consistent with
    evidence: str


class Video(Protocol):
    """What is known of each video (`stores.difference.VideoDifference`)."""

    @property
    def equal(self) -> bool: ...
    @property
    def rates(self) -> tuple[float, float]: ...
    @property
    def stretch(self) -> float: ...


class Sample(NamedTuple):
    """The first rows of one video; none where they cannot be compared."""

    video: str
    a: NDArray[np.float32]  # (N, D)
    b: NDArray[np.float32]  # (M, D)
    a_times: NDArray[np.float64]  # of all rows
    b_times: NDArray[np.float64]
    duration: float | None  # seconds of the video

    def paired(self, pairs: Pairs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(P, D) each, of those pairs whose rows are in the sample."""
        inside = (pairs.a < len(self.a)) & (pairs.b < len(self.b))
        return self.a[pairs.a[inside]], self.b[pairs.b[inside]]

    def aligned(self, scale: float = 1.0) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(P, D) each: rows of the same seconds, with B's seconds multiplied by `scale`."""
        return self.paired(pair_rows(self.a_times, self.b_times * scale))

    def cosine(self, scale: float = 1.0) -> float:
        """Mean over the rows of the same seconds; nan where there are fewer than 4."""
        a, b = self.aligned(scale)
        return float(cosines(a, b).mean()) if len(a) >= 4 else float("nan")


@dataclass(frozen=True)
class Evidence:
    """Two sets, the cosine of every pair of rows, and a few videos that differ most."""

    a: FeatureSet
    b: FeatureSet
    cosines: NDArray[np.float64]  # (P,)
    samples: tuple[Sample, ...]
    videos: tuple[Video, ...]

    @property
    def fields(self) -> dict[str, tuple[Any, Any]]:
        """Fields of the specs that differ, by name."""
        mine, theirs = self.a.spec.to_dict(), self.b.spec.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine if mine[name] != theirs[name] and name != "weights"}

    def recorded(self, name: str) -> bool:
        """Whether both specs say what `name` is."""
        return all(getattr(part.spec, name) not in (None, "") for part in (self.a, self.b))


def guess(found: Evidence) -> list[Cause]:
    """Causes, the surest first; none where nothing speaks for any."""
    order = [SHOWN, LIKELY, CONSISTENT]
    causes = [*(cause for look in LOOKS for cause in look(found)), *from_specs(found)]
    if not causes and len(found.cosines):
        causes += from_statistics(found)
    return sorted(causes, key=lambda cause: order.index(cause.certainty))


def from_specs(found: Evidence) -> Iterator[Cause]:
    """What the specs themselves say, whose values the statistics then only illustrate."""
    by_name: dict[str, list[str]] = {}
    for name, (mine, theirs) in found.fields.items():
        if name in FIELDS and all(value not in (None, "", {}) for value in (mine, theirs)):
            by_name.setdefault(FIELDS[name], []).append(f"{name} {_short(mine)} against {_short(theirs)}")
    seen = f"; mean cosine {found.cosines.mean():.4f}" if len(found.cosines) else ""
    for cause, fields in by_name.items():
        yield Cause(cause, LIKELY, f"the specs say so: {', '.join(fields)}{seen}")


def _short(value: Any) -> str:
    text = " x ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:16] + "..."


def row_shape(found: Evidence) -> Iterator[Cause]:
    """Rows of another shape, of which some columns may be the other's."""
    a, b = found.a.spec.row_shape, found.b.spec.row_shape
    if a != b:
        shapes = " against ".join(" x ".join(map(str, shape)) for shape in (a, b))
        yield Cause("another stream, backbone or level", SHOWN, f"rows are of another shape: {shapes}")


def rounding(found: Evidence) -> Iterator[Cause]:
    """float16 of float32."""
    dtypes = found.a.spec.dtype, found.b.spec.dtype
    if dtypes[0] != dtypes[1] and len(found.cosines) and all(video.equal for video in found.videos):
        relative, _ = tolerance(found.a.spec, found.b.spec)
        evidence = f"{dtypes[0]} against {dtypes[1]}, and no value differs by more than {relative:.1e} of itself"
        yield Cause(f"rounding to {'float16' if 'float16' in dtypes else 'uint8'}", SHOWN, evidence)


def columns(found: Evidence) -> Iterator[Cause]:
    """The same values in another order of columns."""
    relative, absolute = tolerance(found.a.spec, found.b.spec)
    same, swapped, rows = 0, 0, 0
    for sample in found.samples:
        a, b = sample.aligned()
        if not len(a) or a.shape[1] < 2:
            continue
        rows += len(a)
        changed = ~np.isclose(a, b, rtol=relative, atol=absolute).all(axis=1)
        same += int(
            (np.isclose(np.sort(a, 1), np.sort(b, 1), rtol=relative, atol=absolute).all(axis=1) & changed).sum()
        )
        rolled = np.roll(b, b.shape[1] // 2, axis=1)
        swapped += int((np.isclose(a, rolled, rtol=relative, atol=absolute).all(axis=1) & changed).sum())
    if rows and swapped > 0.9 * rows:
        evidence = f"in {swapped} of {rows} rows the second half of B is the first of A, as of rgb and flow joined"
        yield Cause("halves in another order", SHOWN, evidence)
    elif rows and same > 0.9 * rows:
        evidence = f"in {same} of {rows} rows B has the very values of A in other columns"
        yield Cause("permuted columns", SHOWN, evidence)


def scaled(found: Evidence) -> Iterator[Cause]:
    """Rows of the same direction and another length."""
    ratios = []
    for sample in found.samples:
        a, b = sample.aligned()
        length = np.linalg.norm(a, axis=1)
        if len(a) and cosines(a, b).min() < 0.9999:
            return
        ratios.append(np.linalg.norm(b, axis=1)[length > 0] / length[length > 0])
    ratio = np.concatenate(ratios) if ratios else np.zeros(0)
    if len(ratio) and abs(ratio.mean() - 1) > 0.01:
        low, high = ratio.min(), ratio.max()
        yield Cause("rows scaled to another length", SHOWN, f"every cosine is 1; B is {low:.4g} to {high:.4g} times A")


def shifted(found: Evidence) -> Iterator[Cause]:
    """B's rows are those of A some rows later or earlier, in every video alike."""
    shifts = []
    for sample in found.samples:
        a, b = sample.aligned()
        before = float(cosines(a, b).mean()) if len(a) else 1.0
        tries = {k: _shifted_cosine(a, b, k) for k in range(-MOST_SHIFT, MOST_SHIFT + 1) if k and len(a) - abs(k) >= 4}
        if not tries or before > 1 - 1e-6:
            continue
        best = max(tries, key=lambda k: tries[k])
        if 1 - tries[best] < MUCH_CLOSER * (1 - before):
            shifts.append((best, before, tries[best], spacing(sample.a_times)))
        else:
            return
    if shifts and len({shift[0] for shift in shifts}) == 1:
        k, before, after, step = shifts[0]
        evidence = (
            f"B {abs(k)} rows {'later' if k > 0 else 'earlier'} is A: mean cosine {after:.4f}, unshifted {before:.4f}"
        )
        yield Cause(f"shifted by {k:+d} rows ({k * step:+.3f} s)", SHOWN if after > 0.999 else LIKELY, evidence)


def _shifted_cosine(a: NDArray[np.float32], b: NDArray[np.float32], k: int) -> float:
    """Mean cosine of row i of A with row i + k of B."""
    if k > 0:
        return float(cosines(a[:-k], b[k:]).mean())
    return float(cosines(a[-k:], b[:k]).mean())


def frame_rate(found: Evidence) -> Iterator[Cause]:
    """Rows that come at 30/25 of the rate, or times that run away in proportion to time."""
    ratios = np.array([video.rates[1] / video.rates[0] for video in found.videos])
    ratios = ratios[np.isfinite(ratios)]
    ratio = float(np.median(ratios)) if len(ratios) else float("nan")
    counted = f"B has {ratio:.4f} times as many rows a second as A"
    told = found.fields.get("fps", (None, None))
    if all(told):
        evidence = f"the specs say so; {counted}"
        yield Cause(f"{told[0]:g} against {told[1]:g} frames a second", LIKELY, evidence)
    elif (named := _named_ratio(ratio)) and np.ptp(ratios) < 0.01 * ratio:
        evidence = f"{counted}, which is {named[0]:g}/{named[1]:g}"
        yield Cause(f"{named[1]:g} against {named[0]:g} frames a second", LIKELY, evidence)
    stretches = np.array([video.stretch for video in found.videos])
    stretches = stretches[np.isfinite(stretches)]
    if not len(stretches) or not (named := _named_ratio(float(np.median(stretches)))):
        return
    scale = named[1] / named[0]
    better = [(sample.cosine(), sample.cosine(scale)) for sample in found.samples]
    better = [(before, after) for before, after in better if np.isfinite(before) and np.isfinite(after)]
    if not better or any(1 - after > LESS_DRIFT * (1 - before) for before, after in better):
        return
    before, after = (float(np.mean(column)) for column in zip(*better, strict=True))
    evidence = (
        f"B lasts {np.median(stretches):.4f} times as long as A, which is {named[0]:g}/{named[1]:g}; with B's seconds "
        f"times {scale:.4f} the mean cosine is {after:.4f} instead of {before:.4f}"
    )
    name = f"frames at {named[0]:g} a second stamped as {named[1]:g}: time drifts in proportion to time"
    yield Cause(name, SHOWN if after > 0.999 else LIKELY, evidence)


def _named_ratio(ratio: float) -> tuple[float, float] | None:
    """Two usual frame rates whose ratio, the first by the second, that is within half a per cent; None if none are."""
    pairs = [(first, second) for first in RATES for second in RATES if first != second]
    return next(((f, s) for f, s in pairs if abs(ratio * s / f - 1) < 0.005), None)


def untrimmed(found: Evidence) -> Iterator[Cause]:
    """Chunks of a long video that were joined without cutting off their overlap, in A or in B."""
    for one, name in ((False, "B"), (True, "A")):
        for sample in found.samples:
            good_times, bad_times = (sample.b_times, sample.a_times) if one else (sample.a_times, sample.b_times)
            good, bad = (sample.b, sample.a) if one else (sample.a, sample.b)
            spec = found.b.spec if one else found.a.spec
            seen = untrimmed_evidence(good, good_times, bad, bad_times, spec.fps, sample.duration)
            if seen is not None:
                text, sure = seen
                yield Cause(f"untrimmed overlap of chunks in {name}", SHOWN if sure else LIKELY, text)
                return


LOOKS: tuple[Callable[[Evidence], Iterator[Cause]], ...] = (
    row_shape, rounding, columns, scaled, untrimmed, shifted, frame_rate
)  # fmt: skip


def from_statistics(found: Evidence) -> Iterator[Cause]:
    """What the rows look like, where nothing in them proves a cause; the order is that of the evidence."""
    mean, low, high = (float(value) for value in (found.cosines.mean(), found.cosines.min(), found.cosines.max()))
    if mean > 1 - 1e-9:
        return
    share = systematic(found.samples)
    seen = f"mean cosine {mean:.4f} ({low:.4f} to {high:.4f})"
    moved = f"the mean row moved {share:.2f} times as much as single rows" if np.isfinite(share) else ""
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
    colours = [bgr] if grey else [bgr, scale] if normalise else [scale, bgr]
    if share >= SYSTEMATIC:
        yield from colours if crop else [*colours, place]
    else:
        yield from colours if crop else [place, *colours]


def systematic(samples: tuple[Sample, ...]) -> float:
    """How far the mean row of a video moved, by how far its single rows did (1 - correlation by 1 - cosine); median."""
    found = []
    for sample in samples:
        a, b = sample.aligned()
        if len(a) < 3 or a.shape[1] < 3:
            continue
        apart = 1 - cosines(a, b).mean()
        centred = [x.mean(0) - x.mean() for x in (a, b)]
        if apart > 1e-6:
            found.append((1 - float(cosines(centred[0][None], centred[1][None])[0])) / apart)
    return float(np.median(found)) if found else float("nan")
