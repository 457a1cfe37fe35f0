"""HDF5 files of strangers, read in a process of its own.

The HDF5 library (2.0) was seen to loop for ever on a damaged file of 3 kB, in H5Oget_info, where no signal handler of
Python runs. So a spawned process lists and reads, and one that does not answer in time is killed: that file fails, the
next one has a new process.
"""

from __future__ import annotations

import math
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.array_layouts import Unusable
from stores.errors import StoreError
from stores.foreign import require_proportion
from stores.hdf5_files import open_member, opened_hdf5
from stores.import_arrays import require_size
from stores.importing import UNREADABLE, reason_of, words_of
from stores.names import file_id, printable
from stores.spec import Failure

TIMEOUT_S = 60.0  # without an answer, beside the time that the bytes take
BYTES_PER_S = 20e6  # that a slow disk gives
MAX_DEPTH = 16  # groups below each other
MAX_CHUNK = 256 << 20  # bytes that one chunk unpacks to
FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})  # deflate, shuffle, fletcher32, szip, nbit, scale-offset, lzf

Parts = tuple[str, ...]  # the path of a dataset


class Hdf5Reader:
    """Lists and reads datasets, each answer waited for so long and no longer."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self.timeout_s = timeout_s
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def datasets(self, path: Path) -> list[Parts | Failure]:
        """The path of every dataset of a file that may be read; of what may not, a failure.

        Raises:
            Unusable: the file is damaged, or takes the library too long, or kills it.
        """
        found: list[Parts | Failure] = self._ask("datasets", path)
        return found

    def array(self, path: Path, parts: Parts) -> NDArray[Any]:
        """All values of a dataset; Unusable if it is damaged, leads elsewhere, or declares more than it has."""
        found: NDArray[Any] = self._ask("array", path, parts)
        return found

    def close(self) -> None:
        """End the process."""
        if self._process is not None and self._connection is not None:
            self._connection.close()
            self._process.kill()
            self._process.join()
        self._process = self._connection = None

    def _ask(self, what: str, path: Path, *rest: Any) -> Any:
        connection = self._started()
        patience = self.timeout_s + path.stat().st_size / BYTES_PER_S
        try:
            connection.send((what, path, *rest))
            if not connection.poll(patience):
                self.close()
                raise Unusable("timeout", f"the HDF5 library has not read it within {patience:.0f} s")
            good, *answer = connection.recv()
        except (EOFError, ConnectionError) as error:
            self.close()
            raise Unusable("crashed", "the HDF5 library broke down on it") from error
        if not good:
            raise Unusable(*answer)
        return answer[0]

    def _started(self) -> Connection:
        if self._connection is None:
            context = multiprocessing.get_context("spawn")
            self._connection, theirs = context.Pipe()
            self._process = context.Process(target=serve, args=(theirs,), daemon=True)
            self._process.start()
            theirs.close()
            self._connection.recv()  # imports are no part of the time for a file
        return self._connection


def serve(connection: Connection) -> None:
    """Answer until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this process
    connection.send("ready")
    while True:
        try:
            what, *rest = connection.recv()
        except EOFError:
            return
        try:
            answer = (True, list_datasets(*rest) if what == "datasets" else read_dataset(*rest))
        except (StoreError, *UNREADABLE) as error:
            connection.send((False, reason_of(error), words_of(error)))
        else:
            connection.send(answer)


def list_datasets(path: Path) -> list[Parts | Failure]:
    """The work of `Hdf5Reader.datasets`."""
    import h5py

    with opened_hdf5(path) as hdf5:
        root = {int(h5py.h5o.get_info(hdf5.id).addr)}
        return list(_walk(hdf5.id, (), printable(path.name), root))


def _walk(group: Any, above: Parts, file: str, seen: set[int]) -> Iterator[Parts | Failure]:
    """A group counts once, for links may loop."""
    import h5py

    if len(above) > MAX_DEPTH:
        yield Failure("/".join(above), "decode_error", f"more than {MAX_DEPTH} groups below each other")
        return
    for name in sorted(group):
        path = (*above, name.decode("utf-8", "surrogateescape"))
        shown = file_id("/".join(path))
        try:
            member = open_member(group, name, f"{file}: /{printable(shown)}")
        except (StoreError, *UNREADABLE) as error:
            yield Failure(shown, "decode_error", words_of(error))
            continue
        if isinstance(member, h5py.h5g.GroupID):
            address = int(h5py.h5o.get_info(member).addr)
            if address in seen:
                yield Failure(shown, "decode_error", "this group is met a second time: links lead in a circle")
                continue
            seen.add(address)
            yield from _walk(member, path, file, seen)
        elif isinstance(member, h5py.h5d.DatasetID):
            yield path


def read_dataset(path: Path, parts: Parts) -> NDArray[Any]:
    """The work of `Hdf5Reader.array`: sizes are known to be in proportion to what is stored before any is taken."""
    import h5py

    where = f"/{printable(file_id('/'.join(parts)))}"
    with opened_hdf5(path) as hdf5:
        here = hdf5.id
        for name in parts:
            here = open_member(here, name.encode("utf-8", "surrogateescape"), where)
        if not isinstance(here, h5py.h5d.DatasetID):
            raise Unusable("decode_error", f"{where} is no dataset")
        dtype = np.dtype(here.dtype)
        shape = tuple(int(size) for size in here.shape)
        if dtype.kind not in "fiub" or dtype.itemsize > 16:
            raise Unusable("wrong_dtype", f"it holds {printable(dtype)} {shape}, not numbers")
        num_bytes = math.prod(shape) * dtype.itemsize
        require_size(num_bytes)
        stored = here.get_create_plist()
        filters = [stored.get_filter(index)[0] for index in range(stored.get_nfilters())]
        if unknown := sorted(set(filters) - FILTERS):
            raise Unusable("decode_error", f"filter {unknown[0]} is none of HDF5's own: not read")
        require_proportion(where, num_bytes, here.get_storage_size())
        if num_bytes and not here.get_storage_size():
            raise Unusable("decode_error", f"shape {shape} was declared, and nothing was written")
        if stored.get_layout() == h5py.h5d.CHUNKED and math.prod(stored.get_chunk()) * dtype.itemsize > MAX_CHUNK:
            raise Unusable("too_large", f"one chunk {stored.get_chunk()} unpacks to more than {MAX_CHUNK} bytes")
        out = np.empty(shape, dtype)
        here.read(h5py.h5s.ALL, h5py.h5s.ALL, out)
    return out
