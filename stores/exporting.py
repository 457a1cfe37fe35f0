"""From a store to the files that other tools take: what all forms share.

Rows are checked against their digests on the way. What is written appears under its name when it is complete: a folder
or file of a temporary name is renamed at the end.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores import disk
from stores.alignment import dequantised
from stores.copying import checked_rows
from stores.errors import StoreError
from stores.names import printable, slug
from stores.spec import FeatureSet, FeatureStore, Rows

KINDS = ("npy", "hdf5", "tfrecord", "opentad", "actionformer", "csv", "parquet")
MAX_NAME = 200  # bytes of one part of a file name


@dataclass
class Exported:
    """What was written."""

    videos: int = 0
    rows: int = 0
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return vars(self)


def export_store(store: FeatureStore, kind: str, out: Path, set_name: str | None = None) -> Exported:
    """Write a store, or one of its sets, as `kind` to the file or folder `out`.

    Args:
        kind: one of `KINDS`; `tfrecord`, `csv` and `parquet` take all sets if none is named.

    Raises:
        StoreError: `out` is there, there is no such set or kind, or the set cannot be written so.
        DamageError: rows are not those that were committed.
    """
    if kind not in KINDS:
        raise StoreError(f"--to is {', '.join(KINDS[:-1])} or {KINDS[-1]}, not '{printable(kind)}'.")
    if out.exists() or out.is_symlink():
        raise StoreError(f"{printable(out)} is there already: exporting never overwrites. Give another name.")
    if kind in ("csv", "parquet"):
        from stores.export_index import export_index

        return export_index(store, kind, out, set_name)
    if kind == "tfrecord":
        from stores.export_tfrecord import export_tfrecord

        return export_tfrecord(store, out, set_name)
    part = choose_set(store, set_name)
    if kind == "npy":
        from stores.export_arrays import export_npy

        return export_npy(part, out)
    if kind == "hdf5":
        from stores.export_arrays import export_hdf5

        return export_hdf5(part, out)
    from stores.export_detection import export_detection

    return export_detection(store, part, kind, out)


def choose_set(store: FeatureStore, set_name: str | None) -> FeatureSet:
    """The set of that name, or the only one; StoreError, listing all, if it is not clear which."""
    if set_name is None and len(store) != 1:
        raise StoreError(f"{printable(store.path)} has {len(store)} sets: say --set NAME, one of {', '.join(store)}.")
    return store[set_name if set_name is not None else next(iter(store))]


def plain_rows(part: FeatureSet, video: str) -> Rows:
    """All rows of a video, uint8 as the float32 values that they stand for.

    Raises:
        DamageError: they are not those that were committed.
    """
    stored = stored_rows(part, video)
    if part.spec.dtype != "uint8":
        return stored
    return Rows(dequantised(stored.features, part.spec), stored.times)


def stored_rows(part: FeatureSet, video: str) -> Rows:
    """All rows of a video as they are stored; DamageError if they are not those that were committed."""
    blocks = list(checked_rows(part, video))
    if not blocks:
        return part.read(video)
    return Rows(*(np.concatenate(column) for column in zip(*blocks, strict=True)))


def file_names(videos: Iterable[str], shorten: Callable[[str], str] = str) -> dict[str, str]:
    """A relative path for each video, its id where that is one that stays inside the folder and nobody else has.

    Another id becomes a slug and a hash.

    >>> file_names(["a.mp4", "../b"])
    {'a.mp4': 'a.mp4', '../b': 'b-9c4afd18f9'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    folders: set[str] = set()
    for video in videos:
        name = shorten(video)
        if not _stays_inside(name) or not _is_free(name, taken, folders):
            name = f"{slug(video)}-{hashlib.sha256(video.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"
        names[video] = name
        taken.add(name.casefold())
        folders.update(str(parent).casefold() for parent in PurePosixPath(name).parents if str(parent) != ".")
    return names


def _stays_inside(name: str) -> bool:
    parts = name.split("/")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        return False
    odd = any(part in ("", ".", "..") or part.startswith(".") or part != part.strip() for part in parts)
    return not odd and max(sizes) <= MAX_NAME and name.isprintable() and "\\" not in name


def _is_free(name: str, taken: set[str], folders: set[str]) -> bool:
    lower = name.casefold()
    above = {str(parent) for parent in PurePosixPath(lower).parents}
    return lower not in taken and lower not in folders and not above & taken


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill; it gets its name when the block ends without an error, and else goes."""
    disk.ensure_directory(out.absolute().parent)
    unfinished = disk.temporary(out.absolute())
    with disk.reporting(out):
        disk.make_directory(unfinished)
    try:
        yield unfinished
        with disk.reporting(out):
            disk.sync_tree(unfinished, ())
        disk.rename_folder(unfinished, out.name)
    except BaseException:
        disk.remove_tree(unfinished)
        raise


def write_file(folder: Path, name: str, data: bytes) -> None:
    """A durable file in a folder that is not named yet."""
    path = folder / name
    with disk.reporting(path):
        if not path.parent.is_dir():
            disk.ensure_directory(path.parent)
        file = disk.NewFile(path)
        try:
            file.write(data)
            file.sync()
        finally:
            file.drop()


def npy_bytes(array: NDArray[Any]) -> bytes:
    """An array as an .npy file."""
    out = io.BytesIO()
    np.save(out, array, allow_pickle=False)
    return out.getvalue()


def index_csv(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows of one form as csv, which spreadsheets take for text and numbers, whatever videos are called."""
    import csv

    from stores.names import spreadsheet_text

    out = io.StringIO()
    writer: Any = None
    for row in rows:
        safe = {key: spreadsheet_text(value) if isinstance(value, str) else value for key, value in row.items()}
        if writer is None:
            writer = csv.DictWriter(out, list(safe), lineterminator="\n")
            writer.writeheader()
        writer.writerow(safe)
    return out.getvalue().encode()
