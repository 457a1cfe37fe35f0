"""A feature set in a notebook: a pandas index of its videos, a video's rows as xarray, a few lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from stores.errors import StoreError
from stores.export_index import COLUMNS, index_row
from stores.names import printable
from stores.spec import FeatureSet, FeatureSpec, FeatureStore

if TYPE_CHECKING:
    import pandas

AXES = {1: ("feature",), 3: ("height", "width", "feature")}


def index_frame(part: FeatureSet) -> pandas.DataFrame:
    """One row a video: video, rows, start, end and duration (seconds), sha256; videos in sorted order."""
    import pandas

    return pandas.DataFrame([index_row(part, video) for video in part], columns=list(COLUMNS))


def as_xarray(part: FeatureSet, video: str) -> Any:
    """The rows of `video` as a DataArray: dimension `time` (centres of the rows), with coordinates start and end.

    uint8 rows are the float32 values that they stand for.

    Raises:
        StoreError: the set has no such video, or xarray is not installed.
    """
    from stores.exporting import plain_rows

    try:
        import xarray
    except ImportError as error:
        raise StoreError("this needs xarray: pip install 'vl[xarray]', or take the numpy rows of read().") from error
    rows = plain_rows(part, video)
    axes = AXES.get(rows.features.ndim - 1) or tuple(f"axis{number}" for number in range(1, rows.features.ndim))
    return xarray.DataArray(
        rows.features,
        dims=("time", *axes),
        coords={
            "time": rows.times.mean(1),
            "start": ("time", rows.times[:, 0]),
            "end": ("time", rows.times[:, 1]),
        },
        name=part.name,
        attrs={"video": video, "fingerprint": part.spec.fingerprint},
    )


def set_text(part: FeatureSet) -> str:
    """One line: videos, rows, their shape and rate."""
    rows = sum(part.entry(video).num_rows for video in part)
    return f"{part.name}: {len(part)} videos, {rows} rows of {spec_text(part.spec)}"


def spec_text(spec: FeatureSpec) -> str:
    """Shape, dtype and rate of rows."""
    text = f"{' x '.join(map(str, spec.row_shape))} {spec.dtype}"
    if spec.fps is not None:
        text += f", {spec.fps:g} fps, stride {spec.stride or 1}"
    text += f", window {spec.window}" if spec.window else ""
    text += f", {spec.view} clips x crops" if spec.view else ""
    return text + (", RANDOM WEIGHTS" if spec.random_weights else "")


def store_text(store: FeatureStore) -> str:
    """The path, and a line for each set."""
    take = getattr(store, "unchecked", store.__getitem__)  # two writers that disagree are no reason to show nothing
    lines = [f"{type(store).__name__} {printable(store.path)}"]
    return "\n  ".join([*lines, *(set_text(take(name)) for name in store)])
