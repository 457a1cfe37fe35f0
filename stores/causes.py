"""What may have made two feature sets differ, each guess with the evidence it rests on.

Three degrees: "shown" where the rows themselves prove it, "likely" where the specs say so or rows and times agree with
nothing else, "consistent with" where the statistics are as that defect makes them (`stores.symptoms`), which others
might, too. From features alone nobody can tell swapped colours from pixels that were scaled otherwise.

Shape letters: P pairs of rows, D values of a row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.alignment import cosines, spacing, tolerance
from stores.evidence import CONSISTENT, LIKELY, SHOWN, Cause, Evidence
from stores.symptoms import from_statistics
from stores.untrimmed import untrimmed_evidence

RATES = (25.0, 30.0, 24.0, 50.0, 60.0)  # frames a second between which videos are confused
MOST_SHIFT = 64  # rows
MUCH_CLOSER = 0.25  # a shift explains the difference if it leaves less than this share of it
LESS_DRIFT = 0.6  # another scale of time does if it leaves less than this: its frames lie between those of A
MOST = 0.75  # of the videos must agree on a shift or a drift
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
        unknown: tuple[Any, ...] = (
            ("", {}, None) if name == "stride" else ("", {})
        )  # elsewhere None says that there is none
        if name in FIELDS and not any(value in unknown for value in (mine, theirs)):
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
    shifts, looked = [], 0
    for sample in found.samples:
        a, b = sample.aligned()
        before = float(cosines(a, b).mean()) if len(a) else 1.0
        tries = {k: _shifted_cosine(a, b, k) for k in range(-MOST_SHIFT, MOST_SHIFT + 1) if k and len(a) - abs(k) >= 4}
        if not tries or before > 1 - 1e-6:
            continue
        looked += 1
        best = max(tries, key=lambda k: tries[k])
        if 1 - tries[best] < MUCH_CLOSER * (1 - before):
            shifts.append((best, before, tries[best], spacing(sample.a_times)))
    usual = Counter(shift[0] for shift in shifts).most_common(1)
    if usual and usual[0][1] >= MOST * looked:
        k, before, after, step = next(shift for shift in shifts if shift[0] == usual[0][0])
        agree = f"in {usual[0][1]} of {looked} videos"
        closer = f"mean cosine {after:.4f}, unshifted {before:.4f}"
        evidence = f"{agree} B {abs(k)} rows {'later' if k > 0 else 'earlier'} is A ({closer})"
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
    gained = sum(1 - after <= LESS_DRIFT * (1 - before) for before, after in better)
    if not better or gained < MOST * len(better):
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
