"""A set as arrays: a folder of .npy files, or an HDF5 file whose root keys are the videos.

    OUT/{video}.npy           (N, *row)
    OUT/{video}_times.npy     (N, 2) seconds
    OUT/index.csv             video, file, rows, start, end, duration, sha256

    OUT.h5 /{video}           (N, *row)
    OUT_times.h5 /{video}     (N, 2) seconds

`vl import` takes both with the times that stand beside the rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stores import disk
from stores.errors import StoreError
from stores.export_index import index_row
from stores.exporting import Exported, file_names, index_csv, new_folder, npy_bytes, plain_rows, write_file
from stores.hdf5_store import SUFFIXES
from stores.import_hdf5 import times_file
from stores.names import printable
from stores.spec import FeatureSet


def export_npy(part: FeatureSet, out: Path) -> Exported:
    """A folder of .npy files, and their index."""
    done = Exported(notes=_notes(part))
    names = file_names(part)
    with new_folder(out) as folder:
        table = []
        for video in part:
            rows = plain_rows(part, video)
            write_file(folder, f"{names[video]}.npy", npy_bytes(rows.features))
            write_file(folder, f"{names[video]}_times.npy", npy_bytes(rows.times))
            table.append({**index_row(part, video), "file": f"{names[video]}.npy"})
            done.videos += 1
            done.rows += len(rows.times)
        write_file(folder, "index.csv", index_csv(table))
    return done


def export_hdf5(part: FeatureSet, out: Path) -> Exported:
    """Two HDF5 files of equal keys: the rows, and their seconds.

    Raises:
        StoreError: `out` does not end in .h5 or .hdf5, or one of the two is there.
    """
    import h5py

    if out.suffix not in SUFFIXES:
        raise StoreError(f"an HDF5 file ends in {' or '.join(SUFFIXES)}, not '{printable(out)}'.")
    targets = {"features": out, "times": times_file(out)}
    if targets["times"].exists():
        raise StoreError(f"{printable(targets['times'])} is there already: exporting never overwrites.")
    disk.ensure_directory(out.absolute().parent)
    done = Exported(notes=_notes(part))
    names = file_names(part)
    unfinished = {kind: disk.temporary(path) for kind, path in targets.items()}
    try:
        with h5py.File(unfinished["features"], "x") as features, h5py.File(unfinished["times"], "x") as times:
            for video in part:
                rows = plain_rows(part, video)
                _put(features, names[video], rows.features, video)
                _put(times, names[video], rows.times, video)
                done.videos += 1
                done.rows += len(rows.times)
        disk.publish(unfinished["times"], targets["times"])
        disk.publish(unfinished["features"], out)
    except BaseException as error:
        for path in unfinished.values():
            disk.drop_file(path)
        if isinstance(error, OSError | RuntimeError):
            with disk.reporting(out):
                raise OSError(getattr(error, "errno", None), str(error)) from error
        raise
    done.notes.append(f"the seconds of the rows are in {printable(targets['times'])}")
    return done


def _put(hdf5: Any, name: str, array: Any, video: str) -> None:
    dataset = hdf5.create_dataset(name, data=array)
    if name != video:
        dataset.attrs["video"] = printable(video)


def _notes(part: FeatureSet) -> list[str]:
    if part.spec.dtype != "uint8":
        return []
    return [f"bytes are written as the float32 values that they stand for: * {part.spec.scale} + {part.spec.offset}"]
