"""From a path to the store that lies there, told by its content."""

from __future__ import annotations

from pathlib import Path

from stores.errors import StoreError
from stores.names import printable
from stores.remote import as_path, is_remote
from stores.spec import FeatureStore

HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
VIDEO_SUFFIXES = frozenset({".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"})


def open_store(path: Path | str) -> FeatureStore:
    """The feature store at `path`, a folder `.zarr` or a file `.h5`.

    Raises:
        StoreError: there is none; the message says what is there instead.
        DamageError: it is one whose bytes are not those that were written.
    """
    path = as_path(path)
    name = printable(path)
    if path.is_dir():
        return _open_folder(path, name)
    if not path.exists():
        raise StoreError(f"there is no store {name}. 'vl extract' makes one.")
    if is_remote(path):
        raise StoreError(f"{name} is one object, not a store: of those on object stores only NAME.zarr are read.")
    if not path.is_file():
        raise StoreError(f"{name} is not a feature store: it is no regular file.")
    with path.open("rb") as file:
        magic = file.read(len(HDF5_MAGIC))
    if magic == HDF5_MAGIC:
        from stores.hdf5_store import Hdf5Store

        return Hdf5Store(path)
    if path.suffix.lower() in VIDEO_SUFFIXES:
        raise StoreError(f"{name} is a video, not a store: 'vl extract {name}' makes a store from it.")
    raise StoreError(f"{name} is not a feature store: it is no .zarr folder and no HDF5 file.")


def _open_folder(path: Path, name: str) -> FeatureStore:
    from stores.zarr_store import ZarrStore, is_zarr_store

    if is_zarr_store(path):
        return ZarrStore(path)
    entries = sorted(path.iterdir())
    if not entries:
        raise StoreError(f"{name} is an empty folder, not a store. 'vl extract' makes one.")
    if (path / "zarr.json").exists() or (path / ".zgroup").exists() or (path / ".zarray").exists():
        raise StoreError(f"{name} is Zarr, but no store of vl: it has no commits. 'vl import' takes foreign features.")
    videos = sum(entry.suffix.lower() in VIDEO_SUFFIXES for entry in entries)
    if videos:
        raise StoreError(f"{name} is a folder of {videos} videos, not a store: 'vl extract {name}' makes a store.")
    stores = [printable(entry.name) for entry in entries if is_zarr_store(entry)]
    inside = f"; {', '.join(stores[:3])} in it would be one" if stores else ""
    raise StoreError(f"{name} is a folder without commits, not a store{inside}.")
