"""HDF5 files whose root keys are video ids: `[T, D]` each, or what `--layout` says.

    /{video}              the rows
    /{video}/{key}        the rows, with --key
    NAME_times.h5         beside NAME.h5: (T, 2) seconds under the same keys, as `vl export` writes them

Links of any kind, external storage and virtual datasets are refused, and so are filters that HDF5 would load from a
plugin, before anything is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.array_layouts import Unusable
from stores.errors import StoreError
from stores.foreign import require_proportion
from stores.hdf5_files import open_member, opened_hdf5
from stores.import_arrays import require_size, require_source
from stores.import_inputs import find_files, readable
from stores.importing import UNREADABLE, ImportedVideo, ImportOptions, ImportSource, Item, Job, Notice, Part, words_of
from stores.names import printable
from stores.spec import Failure
from stores.time_grid import require_times

SUFFIXES = (".h5", ".hdf5", ".hdf")
TIMES = "_times"
MAX_DEPTH = 16  # groups below each other
MAX_CHUNK = 256 << 20  # bytes that one chunk unpacks to
FILTERS = frozenset({1, 2, 3, 4, 5, 6, 32000})  # deflate, shuffle, fletcher32, szip, nbit, scale-offset, lzf


def hdf5_source(paths: Sequence[Path], options: ImportOptions, key: str | None) -> ImportSource:
    """The videos in HDF5 files.

    Raises:
        StoreError: a path does not exist, or nothing is there.
        TimeGridError: neither the options nor any file say at what seconds rows are.
    """
    found = find_files(paths, SUFFIXES)
    times = {file.path for file in found.files if file.stem.endswith(TIMES)}
    files = [file for file in found.files if file.path not in times]
    if not files and not found.failures:
        raise Unusable("empty", f"no .h5 features in {', '.join(printable(path) for path in paths)}.")
    times |= {beside for file in files if (beside := times_file(file.path)).is_file()}
    if options.grid is None or options.grid.fps is None:
        require_source(bool(times), "--stride" if options.grid is None else "--fps")

    def jobs() -> Iterator[Item]:
        yield from found.failures
        for file in files:
            beside = times_file(file.path)
            yield from _of_file(file.name, file.path, beside if beside in times else None, options, key)

    return ImportSource(jobs(), options, [str(path) for path in found.ignored])


def times_file(path: Path) -> Path:
    """Where the seconds of the rows in an HDF5 file would be."""
    return path.with_name(f"{path.stem}{TIMES}{path.suffix}")


def _of_file(name: str, path: Path, times: Path | None, options: ImportOptions, key: str | None) -> Iterator[Item]:
    import h5py

    found: list[Item] = []
    try:
        with opened_hdf5(path) as hdf5:
            root = {int(h5py.h5o.get_info(hdf5.id).addr)}
            for parts in _walk(hdf5.id, (), printable(name), root):
                if isinstance(parts, Failure):
                    found.append(parts)
                    continue
                if key is not None and parts[-1] != key:
                    found.append(Notice("other arrays", f"{name}: /{'/'.join(parts)} is no '{key}'"))
                    continue
                video = readable("/".join(parts[:-1] if key is not None else parts))
                read = partial(_read, path, times, parts, options)
                found.append(
                    Job(video, (options.stream,), read) if video else Notice("other arrays", f"{name}: /{key}")
                )
    except (StoreError, *UNREADABLE) as error:
        found.append(Failure(name, "decode_error", words_of(error)))
    if not found:
        found.append(Failure(name, "empty", "it has no dataset"))
    yield from found


def _walk(group: Any, above: tuple[str, ...], file: str, seen: set[int]) -> Iterator[tuple[str, ...] | Failure]:
    """The path of every dataset that may be read; of what may not, a failure. A group counts once (links may loop)."""
    import h5py

    if len(above) > MAX_DEPTH:
        yield Failure("/".join(above), "decode_error", f"more than {MAX_DEPTH} groups below each other")
        return
    for name in sorted(group):
        path = (*above, name.decode("utf-8", "surrogateescape"))
        shown = readable("/".join(path))
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


def _read(path: Path, times: Path | None, parts: tuple[str, ...], options: ImportOptions) -> ImportedVideo:
    array = _dataset(path, parts)
    if times is None or options.timed:
        return ImportedVideo({options.stream: Part(array)})
    found = _dataset(times, parts)
    return ImportedVideo({options.stream: Part(array, require_times(found, len(found)))})


def _dataset(path: Path, parts: tuple[str, ...]) -> NDArray[Any]:
    """All values of a dataset, once its sizes are known to be in proportion to what is stored."""
    import h5py

    where = f"/{printable(readable('/'.join(parts)))}"
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
