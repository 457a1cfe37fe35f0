"""Where an extraction writes, so that the store that was asked for is complete in the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stores.errors import StoreError
from stores.hdf5_store import SUFFIXES, Hdf5Store, pack_hdf5
from stores.names import printable
from stores.zarr_store import ZarrStore


@contextmanager
def packed_at_end(out: Path) -> Iterator[Path]:
    """The Zarr store to write to: `out` itself, or for `NAME.h5` the store `NAME.parts.zarr` beside it.

    The latter is packed when the block ends without an error, and stays: the same command resumes there, and packs
    again. A store that was packed before is replaced at once and as a whole.

    Raises:
        StoreError: a file that is no store is at `out`.
    """
    if out.suffix not in SUFFIXES:
        yield out
        return
    if out.exists():
        try:
            Hdf5Store(out).close()
        except StoreError as error:
            raise StoreError(f"{printable(out)} would be replaced, and is no store: {error}") from error
    parts = out.with_name(f"{out.stem}.parts.zarr")
    yield parts
    store = ZarrStore(parts)
    pack_hdf5(store, out, replace=True)
    store.close()
