"""What a store holds, as a table: a row for each video and set."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stores import disk
from stores.errors import StoreError
from stores.names import printable
from stores.spec import FeatureSet, FeatureStore

if TYPE_CHECKING:
    from stores.exporting import Exported

COLUMNS = ("video", "rows", "start", "end", "duration", "sha256")


def index_row(part: FeatureSet, video: str) -> dict[str, Any]:
    """What a set knows of a video: rows, the seconds that they span, the video's duration, digest."""
    entry = part.entry(video)
    times = part.times(video)
    start, end = (float(times[:, 0].min()), float(times[:, 1].max())) if len(times) else (None, None)
    values = (video, entry.num_rows, start, end, entry.info.get("duration"), entry.sha256)
    return dict(zip(COLUMNS, values, strict=True))


def index_rows(store: FeatureStore, set_name: str | None = None) -> Iterator[dict[str, Any]]:
    """The rows of the table, set by set."""
    for name in store if set_name is None else (set_name,):
        part = store[name]
        for video in part:
            yield {"set": name, **index_row(part, video)}


def export_index(store: FeatureStore, kind: str, out: Path, set_name: str | None) -> Exported:
    """Write the table as csv, or as Parquet with the extra `parquet`.

    Raises:
        StoreError: for Parquet, pyarrow is not installed.
    """
    from stores.exporting import Exported, index_csv

    table = list(index_rows(store, set_name))
    data = index_csv(table) if kind == "csv" else _parquet(table)
    disk.ensure_directory(out.absolute().parent)
    disk.write_atomically(out, data)
    return Exported(len({row["video"] for row in table}), sum(row["rows"] for row in table))


def _parquet(table: list[dict[str, Any]]) -> bytes:
    import pandas

    out = io.BytesIO()
    frame = pandas.DataFrame(table, columns=["set", *COLUMNS])
    try:
        frame.to_parquet(out, engine="pyarrow", index=False)
    except ImportError as error:
        reason = printable(str(error).partition(".")[0])
        raise StoreError(f"Parquet needs pyarrow: pip install 'vl[parquet]', or say --to csv ({reason}).") from error
    return out.getvalue()
