"""Zarr v3 groups of strangers, whose arrays are videos: NAME.zarr/{video}, or NAME.zarr/{video}/{key} with --key.

Read under the guards of foreign arrays: no links, known codecs, chunks that are there and no larger than they say.
Stores of this project are merged instead.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stores.array_layouts import Unusable
from stores.arrays import METADATA_LIMIT
from stores.errors import StoreError
from stores.files import FilePool
from stores.foreign import ForeignArray, require_proportion
from stores.import_arrays import require_size, require_source
from stores.importing import UNREADABLE, ImportedVideo, ImportOptions, ImportSource, Item, Job, Part, words_of
from stores.names import file_id, printable
from stores.spec import Failure
from stores.zarr_store import is_zarr_store

METADATA = "zarr.json"
MAX_DEPTH = 16
DTYPES = ("float16", "float32", "float64")


def zarr_source(paths: Sequence[Path], options: ImportOptions, key: str | None) -> ImportSource:
    """The videos in Zarr groups.

    Raises:
        StoreError: a path is no Zarr v3 group, or a store of this project.
        TimeGridError: the options do not say at what seconds rows are.
    """
    require_source(options.timed, "--fps" if options.grid is not None else "--stride")
    for path in paths:
        if is_zarr_store(path):
            raise StoreError(f"{printable(path)} is a store already: 'vl merge' copies it into another.")
        if not (path / METADATA).is_file():
            raise StoreError(f"{printable(path)} is no Zarr v3 group: it has no {METADATA}.")

    def items() -> Iterator[Item]:
        for path in paths:
            real = path.resolve()
            pool = FilePool(real.parent)
            for item in list(_walk(pool, real.name, 0)) or [Failure(path.name, "empty", "it has no array")]:
                if isinstance(item, Failure):
                    yield item
                    continue
                parts = item.split("/")[1:] or [real.stem]
                if key is None or parts[-1] == key:
                    name = file_id("/".join(parts[:-1] if key is not None else parts))
                    yield Job(name or real.stem, (options.stream,), partial(_read, pool, item, options.stream))

    return ImportSource(items(), options)


def _metadata(pool: FilePool, key: str) -> dict[str, Any]:
    file = pool.open(os.path.join(key, METADATA))  # noqa: PTH118 (strings, as the pool takes them)
    if file.size > METADATA_LIMIT:
        raise Unusable("too_large", f"its {METADATA} has {file.size} bytes")
    return dict(json.loads(file.read(file.size)))


def _walk(pool: FilePool, key: str, depth: int) -> Iterator[str | Failure]:
    """The key of every array, in order; of what cannot be read, a failure."""
    try:
        fields = _metadata(pool, key)
        if fields.get("node_type") == "array":
            yield key
            return
        folder = os.path.join(pool.root, key)  # noqa: PTH118
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    except (StoreError, *UNREADABLE) as error:
        yield Failure(file_id(key), "decode_error", words_of(error))
        return
    if depth >= MAX_DEPTH:
        yield Failure(file_id(key), "decode_error", f"more than {MAX_DEPTH} groups below each other")
        return
    for name in names:
        yield from _walk(pool, f"{key}/{name}", depth + 1)


def _read(pool: FilePool, key: str, stream: str) -> ImportedVideo:
    fields = _metadata(pool, key)
    shape = tuple(int(size) for size in fields["shape"])
    if fields.get("data_type") not in DTYPES:
        raise Unusable("wrong_dtype", f"it holds {printable(fields.get('data_type'))} {shape}, not floats")
    dtype = np.dtype(str(fields["data_type"]))
    if not shape or min(shape) < 1:
        raise Unusable("empty", f"it holds an array of shape {shape}, without a value")
    num_bytes = math.prod(shape) * dtype.itemsize
    require_size(num_bytes)
    sizes = {}
    base, _, last = key.rpartition("/")
    root = os.path.join(pool.root, key)  # noqa: PTH118
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)  # noqa: PTH118
            sizes[f"{last}/{os.path.relpath(path, root)}"] = os.lstat(path).st_size
    require_proportion(key, num_bytes, sum(sizes.values()))
    out = np.empty(shape, dtype)
    ForeignArray(pool, base, last, fields, shape, dtype, sizes).read_into(0, out)
    return ImportedVideo({stream: Part(out)})
