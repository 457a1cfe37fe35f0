"""How two feature stores differ: set by set and video by video, rows aligned by the seconds they stand for.

Two sets are equal if they have the same videos, the same times, and values that agree within one step of the coarser
of their dtypes. What may have caused a difference is guessed in `stores.causes`.

Shape letters: N rows, P pairs of rows, D values of a row.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.alignment import Pairs, blocks, cosines, pair_video, spacing, tolerance, values
from stores.causes import guess
from stores.errors import StoreError
from stores.evidence import Cause, Evidence, Sample
from stores.names import printable
from stores.spec import FeatureSet, FeatureStore

TIME_TOLERANCE = 1e-6  # seconds
SAMPLES = 12  # videos that causes are looked for in: those that differ most
SAMPLE_BYTES = 16 << 20  # of each of them, of one set


@dataclass(frozen=True)
class VideoDifference:
    """One video in two sets; where rows cannot be compared, cosines and distance are nan."""

    video: str
    rows: tuple[int, int]
    rates: tuple[float, float]  # rows a second; nan where there is one row
    offset: float  # seconds from the centre of A's first row to that of B's
    stretch: float  # seconds from B's first start to its last end, by those of A
    pairs: int  # rows that stand for the same seconds
    cosine_mean: float
    cosine_min: float
    cosine_low: float  # of the lowest hundredth: its upper end
    relative_l2: float  # length of the difference by that of A, over all pairs
    norm_ratio: float  # length of B's rows by that of A's, mean
    equal: bool


@dataclass(frozen=True)
class SetDifference:
    """One set of A against one of B."""

    names: tuple[str, str]
    spec: str  # fields that differ; "" if none
    only: tuple[tuple[str, ...], tuple[str, ...]]  # videos that one of the two has
    videos: tuple[VideoDifference, ...]
    causes: tuple[Cause, ...]
    comparable: bool  # rows of one shape and view
    cosines: Mapping[str, float] = field(default_factory=dict)  # mean, min and low over all rows of all videos

    @property
    def equal(self) -> bool:
        """Whether nothing differs beyond rounding."""
        return self.comparable and not any(self.only) and all(video.equal for video in self.videos)


@dataclass(frozen=True)
class Difference:
    """Two stores."""

    paths: tuple[str, str]
    sets: tuple[SetDifference, ...]
    only: tuple[tuple[str, ...], tuple[str, ...]]  # sets that one of the two has

    @property
    def equal(self) -> bool:
        """Whether nothing differs beyond rounding."""
        return not any(self.only) and all(part.equal for part in self.sets)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; what cannot be said is null."""
        document: dict[str, Any] = _plain(dataclasses.asdict(self))
        document["equal"] = self.equal
        for part, found in zip(self.sets, document["sets"], strict=True):
            found["equal"] = part.equal
        return document


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value


def compare_stores(a: FeatureStore, b: FeatureStore, sets: Sequence[tuple[str, str]] = ()) -> Difference:
    """How `b` differs from `a`; `sets` names pairs of sets, none stands for all that have the same name.

    Raises:
        StoreError: there is no pair of sets to compare, or a set is not there.
    """
    only: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    if not sets:
        sets = [(name, name) for name in a if name in b]
        only = (tuple(name for name in a if name not in b), tuple(name for name in b if name not in a))
    if not sets:
        has = " and ".join(f"{printable(s.path)} has {', '.join(s) or 'none'}" for s in (a, b))
        raise StoreError(f"no set is in both stores: {has}. Name pairs: --sets a=b.")
    found = tuple(compare_sets(a[first], b[second]) for first, second in sets)
    return Difference((str(a.path), str(b.path)), found, only)


def compare_sets(a: FeatureSet, b: FeatureSet) -> SetDifference:
    """How set `b` differs from set `a`."""
    both = [video for video in a if video in b]
    only = (tuple(video for video in a if video not in b), tuple(video for video in b if video not in a))
    comparable = a.spec.row_shape == b.spec.row_shape and a.spec.view == b.spec.view
    videos, rows = [], []
    for video in both:
        one, per_row = compare_video(a, b, video, comparable)
        videos.append(one)
        rows.append(per_row)
    every = np.concatenate(rows) if rows else np.zeros(0)
    spec = a.spec.difference(b.spec)
    part = SetDifference(
        (a.name, b.name), spec, only, tuple(videos), (), comparable, summary(every) if len(every) else {}
    )
    if all(video.equal for video in videos) and comparable and not (spec and _dtypes_differ(a, b)):
        return part
    worst = sorted(videos, key=lambda video: (video.equal, np.nan_to_num(video.cosine_mean, nan=-1)))[:SAMPLES]
    samples = tuple(sample(a, b, video.video, comparable) for video in worst)
    return dataclasses.replace(part, causes=tuple(guess(Evidence(a, b, every, samples, tuple(videos)))))


def _dtypes_differ(a: FeatureSet, b: FeatureSet) -> bool:
    return a.spec.dtype != b.spec.dtype


def compare_video(
    a: FeatureSet, b: FeatureSet, video: str, comparable: bool = True
) -> tuple[VideoDifference, NDArray[np.float64]]:
    """What became of one video, and the cosine of every pair of rows."""
    a_times, b_times = a.times(video), b.times(video)
    same_times = a_times.shape == b_times.shape and bool(np.allclose(a_times, b_times, rtol=0, atol=TIME_TOLERANCE))
    pairs = pair_video(a, b, video) if comparable else Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64))
    relative, absolute = tolerance(a.spec, b.spec)
    found, ratios, apart, length, within = [np.zeros(0)], [np.zeros(0)], 0.0, 0.0, True
    for block in blocks(a, b, video, pairs):
        found.append(cosines(*block))
        x, y = block.a.astype(np.float64), block.b.astype(np.float64)
        apart += float(((y - x) ** 2).sum())
        length += float((x**2).sum())
        norms = np.linalg.norm(x, axis=1)
        ratios.append(np.linalg.norm(y, axis=1)[norms > 0] / norms[norms > 0])
        allowed = relative * np.maximum(np.abs(x), np.abs(y)) + absolute
        within = within and bool((np.abs(y - x) <= allowed).all())
    per_row, ratio = np.concatenate(found), np.concatenate(ratios)
    cosine = summary(per_row) if len(per_row) else dict.fromkeys(("mean", "min", "low"), float("nan"))
    return (
        VideoDifference(
            video=video,
            rows=(len(a_times), len(b_times)),
            rates=(rate(a_times), rate(b_times)),
            offset=float(b_times[0].mean() - a_times[0].mean()) if len(a_times) and len(b_times) else float("nan"),
            stretch=span(b_times) / span(a_times) if span(a_times) else float("nan"),
            pairs=len(pairs.a),
            cosine_mean=cosine["mean"],
            cosine_min=cosine["min"],
            cosine_low=cosine["low"],
            relative_l2=(apart / length) ** 0.5 if length else (float("inf") if apart else 0.0),
            norm_ratio=float(ratio.mean()) if len(ratio) else float("nan"),
            equal=comparable and same_times and within,
        ),
        per_row,
    )


def summary(cosines_P: NDArray[np.float64]) -> dict[str, float]:
    """Mean, least and 1 % quantile."""
    return {
        "mean": float(cosines_P.mean()),
        "min": float(cosines_P.min()),
        "low": float(np.quantile(cosines_P, 0.01)),
    }


def rate(times: NDArray[np.float64]) -> float:
    """Rows a second; nan where that cannot be said."""
    step = spacing(times)
    return 1 / step if len(times) > 1 and step > 0 else float("nan")


def span(times: NDArray[np.float64]) -> float:
    """Seconds from the first start to the last end."""
    return float(times[:, 1].max() - times[:, 0].min()) if len(times) else 0.0


def sample(a: FeatureSet, b: FeatureSet, video: str, comparable: bool) -> Sample:
    """The first rows of a video in both sets, as many as fit into memory, for `guess` to look at."""
    a_times, b_times = a.times(video), b.times(video)
    limit = max(16, SAMPLE_BYTES // (4 * int(np.prod(a.spec.row_shape))))
    rows = [np.arange(min(len(times), limit)) for times in (a_times, b_times)]
    empty = np.zeros((0, 1), np.float32)
    if not comparable or a.spec.view or not all(map(len, rows)):
        return Sample(video, empty, empty, a_times, b_times, _duration(a, b, video))
    return Sample(video, values(a, video, rows[0]), values(b, video, rows[1]), a_times, b_times, _duration(a, b, video))


def _duration(a: FeatureSet, b: FeatureSet, video: str) -> float | None:
    """Seconds of the video, as the first of the two that knows has it."""
    known: Iterable[Any] = (part.entry(video).info.get("duration") for part in (a, b))
    return next((float(seconds) for seconds in known if seconds), None)
