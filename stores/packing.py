"""Where an extraction writes, so that the store that was asked for is complete in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from stores import disk
from stores.errors import StoreError
from stores.hdf5_store import SUFFIXES, Hdf5Store, pack_hdf5
from stores.names import printable
from stores.remote import as_path, local_path
from stores.transfer import convert
from stores.zarr_store import ZarrStore


@contextmanager
def packed_at_end(out: Path) -> Iterator[Path]:
    """The Zarr store to write to: `out` itself, or for `NAME.h5` the store `NAME.parts.zarr` beside it.

    The latter begins as what `out` holds. When the block ends without an error it is packed, replaces `out` as a
    whole, and is removed; after an interruption it stays, and the same command goes on there.

    Raises:
        StoreError: a file that is no store is at `out`, or an HDF5 file would lie on an object store.
    """
    out = as_path(out)
    if out.suffix not in SUFFIXES:
        yield out
        return
    local_path(out)
    parts = out.with_name(f"{out.stem}.parts.zarr")
    partial = out.with_name(f".{parts.name}")  # the parts while not all are there yet, or no longer
    disk.remove_tree(partial)
    require_store(out)
    packed = None  # what the parts were when `out` held just that
    if out.exists() and not parts.exists():
        convert(out, partial)
        disk.rename_folder(partial, parts.name)
        packed = written(parts)
    yield parts
    if written(parts) != packed:
        with closing(ZarrStore(parts)) as store:
            pack_hdf5(store, out, replace=True)
    disk.rename_folder(parts, partial.name)
    disk.remove_tree(partial)


def written(parts: Path) -> list[tuple[str, int]]:
    """Commits, failures and attachments of a Zarr store: all their files, and when each was written."""
    return sorted((str(path), path.stat().st_mtime_ns) for path in parts.rglob("*.json"))


def require_store(out: Path) -> None:
    """StoreError if a file that is no store is at `out`."""
    if out.exists():
        try:
            Hdf5Store(out).close()
        except StoreError as error:
            raise StoreError(f"{printable(str(out))} would be replaced, and is no store: {error}") from error
