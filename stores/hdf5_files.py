"""The one place where anything inside an HDF5 file is opened.

HDF5 can lead a reader to other files in four ways: external links, soft links, external storage and virtual
datasets. All are refused at every component of every path.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stores.errors import DamageError
from stores.names import printable


@contextmanager
def opened_hdf5(path: Path) -> Iterator[Any]:
    """The file for its structure alone; what the library makes of broken bytes becomes a DamageError."""
    import h5py

    try:
        with h5py.File(path, "r", locking=False) as hdf5:
            if hdf5.userblock_size:
                raise DamageError(f"{printable(path)} begins with {hdf5.userblock_size} foreign bytes: refused.")
            yield hdf5
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DamageError(f"{printable(path)} is damaged: {printable(error)}.") from error


def open_member(here: Any, name: bytes, where: str) -> Any:
    """The group or dataset `name` of a group, by its low-level id.

    Args:
        where: file and path, for the message.

    Raises:
        DamageError: it is missing, or it leads or may lead to another file.
    """
    import h5py

    if not here.links.exists(name):
        raise DamageError(f"{where} is missing.")
    if here.links.get_info(name).type != h5py.h5l.TYPE_HARD:
        shown = printable(name.decode(errors="replace"))
        raise DamageError(f"{where} leads through the link '{shown}', which may point to another file: refused.")
    member = h5py.h5o.open(here, name)
    if isinstance(member, h5py.h5d.DatasetID):
        stored = member.get_create_plist()
        if stored.get_layout() == h5py.h5d.VIRTUAL or stored.get_external_count():
            raise DamageError(f"{where} is put together from other files: refused.")
    return member
