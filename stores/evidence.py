"""What is known of two feature sets that differ: their specs, a few videos side by side, and guesses drawn from that.

Shape letters: N, M rows of the two sets, P pairs of rows, D values of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from stores.alignment import Pairs, cosines, pair_rows
from stores.spec import FeatureSet

SHOWN, LIKELY, CONSISTENT = "shown", "likely", "consistent with"


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
