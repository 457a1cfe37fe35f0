"""Which axis of a stranger's array is time.

Shape letters: T rows in time, D features, C crops, H x W cells of a map, N rows as stored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stores.errors import StoreError
from stores.spec import Granularity

LAYOUTS = ("TD", "DT", "CTD", "TCD")
CROPS = ("keep", "mean")


class Unusable(StoreError):
    """One file or video cannot be imported, and why; the others can.

    Args:
        reason: one of the reason codes.
        detail: what is wrong, with the values.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Arranged(NamedTuple):
    """Rows in the order in which a store has them: of several crops one after the other, each in order of time."""

    features_ND: NDArray[Any]  # (N, *row_shape)
    crops: int  # N / crops rows of each

    @property
    def steps(self) -> int:
        """T."""
        return len(self.features_ND) // self.crops


def arrange(array: NDArray[Any], layout: str, level: Granularity, crops: str = "keep") -> Arranged:
    """The rows of an array.

    Args:
        array: for `TD` [T, D] with any axes of one element before D, as [T, 1, 1, D] and [1, T, D]; for `DT` [D, T]
            with such axes before T; [C, T, D] and [T, C, D] for `CTD` and `TCD`; maps are
            [T, H, W, D] or [1, T, H, W, D].
        layout: one of `LAYOUTS`.
        crops: `keep` them all, or take their `mean`.

    Raises:
        Unusable: an array of this shape is not of that layout.
    """
    shape = array.shape
    if not array.size:
        raise Unusable("empty", f"it holds an array of shape {shape}, without a value")
    if level is Granularity.MAP:
        if len(shape) == 5 and shape[0] == 1:
            array = array[0]
        if layout != "TD" or array.ndim != 4:
            raise Unusable("wrong_shape", f"maps are [T, H, W, D], and this is {shape}")
        return Arranged(array, 1)
    if layout in ("TD", "DT"):
        lengths = [size for size in shape[:-1] if size != 1]
        if array.ndim < 2 or len(lengths) > 1:
            raise Unusable("wrong_shape", _not_two(shape))
        array = array.reshape(lengths[0] if lengths else 1, shape[-1])
        return Arranged(array if layout == "TD" else array.T, 1)
    if array.ndim != 3:
        raise Unusable("wrong_shape", f"--layout {layout} is for three axes, and this is {shape}")
    array_CTD = array if layout == "CTD" else array.swapaxes(0, 1)
    if crops == "mean":
        return Arranged(array_CTD.mean(0, dtype=np.float64).astype(array.dtype), 1)
    return Arranged(array_CTD.reshape(-1, shape[-1]), len(array_CTD))


def _not_two(shape: tuple[int, ...]) -> str:
    if len(shape) == 3:
        return f"shape {shape} may be crops: say --layout CTD or --layout TCD (C crops, T time, D features)"
    if len(shape) == 4:
        return f"shape {shape} is no [T, D]; if it is [T, H, W, D] say --level map"
    return f"shape {shape} is no [T, D]"


def require_width(found: Arranged, width: int | None, layout: str) -> None:
    """Unusable if the first axis is as wide as a recipe's rows, and the last is not: it is D then, not time."""
    last = found.features_ND.shape[-1]
    if width is not None and last != width and found.steps == width:
        other = "DT" if layout == "TD" else "TD"
        raise Unusable("wrong_shape", f"{width} rows of {last}, and a row has {width} values: say --layout {other}")


def as_stored(features: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Rows in the dtype of the store.

    Args:
        features: floats of any size and byte order; nothing else, for integers would need a scale that nobody gave.
        dtype: float16 or float32.

    Raises:
        Unusable: a value is no finite number, or too large for the dtype.
    """
    if features.dtype.kind != "f":
        raise Unusable(
            "wrong_dtype", f"its values are {features.dtype}: floats are imported, others have no known scale"
        )
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(features, dtype=dtype)
    finite = np.isfinite(cast)
    if finite.all():
        return cast
    bad = int(np.flatnonzero(~finite.reshape(len(cast), -1).all(1))[0])
    row = features[bad]
    if not np.isfinite(row).all():
        raise Unusable("not_finite", f"row {bad} has a value that is no finite number")
    way_out = "say --dtype float32" if dtype == "float16" else "it cannot be imported"
    raise Unusable("overflow", f"row {bad} has {float(np.abs(row).max()):.6g}, too large for {dtype}: {way_out}")
