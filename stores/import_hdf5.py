"""HDF5 files whose root keys are video ids: `[T, D]` each, or what `--layout` says.

    /{video}              the rows
    /{video}/{key}        the rows, with --key
    NAME_times.h5         beside NAME.h5: (T, 2) seconds under the same keys, as `vl export` writes them

Links of any kind, external storage and virtual datasets are refused, and so are filters that HDF5 would load from a
plugin, before anything is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from stores.array_layouts import Unusable
from stores.errors import StoreError
from stores.hdf5_worker import TIMEOUT_S, Hdf5Reader, Parts
from stores.import_arrays import require_source
from stores.import_inputs import InputFile, find_files
from stores.importing import (
    UNREADABLE,
    ImportedVideo,
    ImportOptions,
    ImportSource,
    Item,
    Job,
    Notice,
    Part,
    reason_of,
    words_of,
)
from stores.names import file_id, printable
from stores.spec import Failure
from stores.time_grid import require_times

SUFFIXES = (".h5", ".hdf5", ".hdf")
TIMES = "_times"


def hdf5_source(
    paths: Sequence[Path], options: ImportOptions, key: str | None, timeout_s: float = TIMEOUT_S
) -> ImportSource:
    """The videos in HDF5 files.

    Args:
        key: the dataset of each group that counts; None: all datasets do.
        timeout_s: seconds after which a file that the library makes nothing of is given up.

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
        reader = Hdf5Reader(timeout_s)
        try:
            for file in files:
                beside = times_file(file.path)
                yield from _of_file(file, beside if beside in times else None, options, key, reader)
        finally:
            reader.close()

    return ImportSource(jobs(), options, [str(path) for path in found.ignored])


def times_file(path: Path) -> Path:
    """Where the seconds of the rows in an HDF5 file would be."""
    return path.with_name(f"{path.stem}{TIMES}{path.suffix}")


def _of_file(
    file: InputFile, times: Path | None, options: ImportOptions, key: str | None, reader: Hdf5Reader
) -> Iterator[Item]:
    try:
        found = reader.datasets(file.path)
    except (StoreError, *UNREADABLE) as error:
        yield Failure(file.name, reason_of(error), words_of(error))
        return
    if not found:
        yield Failure(file.name, "empty", "it has no dataset")
    for parts in found:
        if isinstance(parts, Failure):
            yield parts
            continue
        video = file_id("/".join(parts[:-1] if key is not None else parts))
        if not video or (key is not None and parts[-1] != key):
            yield Notice("other arrays", f"{file.name}: /{'/'.join(parts)} is no '{key}' of a group")
            continue
        yield Job(video, (options.stream,), partial(_read, file.path, times, parts, options, reader))


def _read(path: Path, times: Path | None, parts: Parts, options: ImportOptions, reader: Hdf5Reader) -> ImportedVideo:
    array = reader.array(path, parts)
    if times is None or options.timed:
        return ImportedVideo({options.stream: Part(array)})
    found = reader.array(times, parts)
    return ImportedVideo({options.stream: Part(array, require_times(found, len(found)))})
