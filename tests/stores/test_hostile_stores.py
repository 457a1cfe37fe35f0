"""Stores made to harm: none leads to another file, runs code, hangs, or takes the memory."""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from numcodecs.zstd import Zstd
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from stores import DamageError, FeatureSpec, Granularity, StoreError, open_store
from stores.foreign import require_declared, require_proportion
from stores.records import record_path
from stores.segments import Layout, pack_index
from stores.transfer import convert
from stores.zarr_store import ZarrWriter
from tests.memory import PEAK_MIB
from tests.stores.samples import CLIP, assert_rows, only_record, put, reseal, rows_of

ROWS = rows_of(CLIP, 100)
SHARD = "clip/features/c.0.0"
METADATA = "clip/features/zarr.json"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good store to spoil."""
    with ZarrWriter(tmp_path / "s.zarr", {"clip": CLIP}) as writer:
        put(writer, "v", {"clip": ROWS})
    return tmp_path / "s.zarr"


def read(path: Path) -> Any:
    return open_store(path)["clip"].read("v")


def metadata(path: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((path / "segments" / only_record(path).name / METADATA).read_text())
    return fields


# ---- Zarr: other files


def test_a_shard_that_is_a_link_is_refused(path: Path) -> None:
    shard = path / "segments" / only_record(path).name / SHARD
    shard.rename(path.parent / "victim")
    shard.symlink_to(path.parent / "victim")
    with pytest.raises(DamageError, match="is a link or leads through one"):
        read(path)


@pytest.mark.parametrize("part", ["", "clip", "clip/features"])
def test_a_folder_of_a_segment_that_is_a_link_is_refused(path: Path, part: str) -> None:
    folder = path / "segments" / only_record(path).name / part
    folder.rename(path.parent / "victim")
    folder.symlink_to(path.parent / "victim")
    with pytest.raises(DamageError, match="is a link or leads through one"):
        read(path)


@pytest.mark.parametrize("part", ["segments", "commits", "failures", "attachments"])
def test_a_folder_of_the_store_that_is_a_link_is_refused(path: Path, part: str) -> None:
    (path / part).rename(path.parent / "victim")
    (path / part).symlink_to(path.parent / "victim")
    with pytest.raises(StoreError, match="is a link"):
        open_store(path)


def test_a_record_that_is_a_link_is_not_followed(path: Path) -> None:
    record = record_path(path, only_record(path).name)
    record.rename(path.parent / "victim")
    record.symlink_to(path.parent / "victim")
    store = open_store(path)
    assert not list(store)
    assert len(store.damage) == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("which", ["record", "shard"])
def test_a_pipe_is_not_waited_for(path: Path, which: str) -> None:
    name = only_record(path).name
    file = record_path(path, name) if which == "record" else path / "segments" / name / SHARD
    file.unlink()
    os.mkfifo(file)
    start = time.monotonic()
    with pytest.raises(StoreError):
        read(path)
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("key", ["../../../victim", "clip/../../../../victim"])
def test_a_record_cannot_name_files_outside(path: Path, key: str) -> None:
    (path.parent / "victim").write_bytes(b"secret")
    record = only_record(path)
    files = {**record.files, f"clip/features/{key}": (6, "0" * 64)}
    forged = dataclasses.replace(record, files_json=json.dumps(files).encode())
    record_path(path, record.name).write_bytes(forged.to_bytes())
    with pytest.raises(DamageError, match="is a link or leads through one"):
        read(path)


# ---- Zarr: other layouts


def foreign(path: Path, **options: Any) -> dict[str, bytes | None]:
    """The features as zarr-python writes them with other options, in place of ours."""
    folder = path.parent / "foreign"
    array = zarr.create_array(str(folder), shape=ROWS.features.shape, dtype="float16", fill_value=np.nan, **options)
    array[:] = ROWS.features
    files: dict[str, bytes | None] = {SHARD: None}
    for file in folder.rglob("*"):
        if file.is_file():
            files[f"clip/features/{file.relative_to(folder)}"] = file.read_bytes()
    return files


FOREIGN: dict[str, dict[str, Any]] = {
    "plain": {"chunks": (32, 6), "compressors": None},
    "zstd": {"chunks": (32, 4), "compressors": ZstdCodec(level=3)},
    "gzip": {"chunks": (100, 6), "compressors": GzipCodec()},
    "blosc": {"chunks": (32, 6), "compressors": BloscCodec(cname="zstd")},
    "crc32c": {"chunks": (64, 3), "compressors": Crc32cCodec()},
    "zstd and crc32c": {"chunks": (64, 3), "compressors": [ZstdCodec(), Crc32cCodec()]},
    "transposed": {"chunks": (32, 6), "compressors": None, "filters": TransposeCodec(order=(1, 0))},
}


@pytest.mark.parametrize("options", FOREIGN.values(), ids=list(FOREIGN))
def test_other_layouts_are_read_if_they_are_harmless(path: Path, options: dict[str, Any]) -> None:
    reseal(path, foreign(path, **options))
    assert_rows(read(path), ROWS)
    part = open_store(path)["clip"]
    assert_rows(part.read("v", 30, 70), type(ROWS)(ROWS.features[30:70], ROWS.times[30:70]))


def test_a_missing_chunk_of_another_layout_is_damage_and_not_fill_values(path: Path) -> None:
    files = foreign(path, **FOREIGN["zstd"])
    files["clip/features/c/1/0"] = None
    reseal(path, files)
    with pytest.raises(DamageError, match="lacks the chunk c/1/0"):
        read(path)


def test_other_codecs_and_versions_are_refused(path: Path) -> None:
    good = metadata(path)
    changes: list[tuple[dict[str, Any], str]] = [
        ({"codecs": [{"name": "bytes"}, {"name": "pickle"}]}, "codec pickle is not allowed"),
        ({"codecs": [{"name": "bytes"}, {"name": "zstd"}, {"name": "gzip"}]}, "at most one"),
        ({"codecs": [{"name": "zstd"}]}, "is not read"),
        ({"zarr_format": 2}, "not a regular Zarr v3 array"),
        ({"chunk_grid": {"name": "rectilinear"}}, "not a regular Zarr v3 array"),
        ({"codecs": "bytes"}, "is not read"),
    ]
    for change, message in changes:
        reseal(path, {METADATA: json.dumps({**good, **change}).encode()})
        with pytest.raises(StoreError, match=message):
            read(path)


@pytest.mark.parametrize("shape", [[10**12, 6], [100, 10**10], [100], [-1, 6]])
def test_a_shape_that_is_not_that_of_the_spec_is_damage(path: Path, shape: list[int]) -> None:
    reseal(path, {METADATA: json.dumps({**metadata(path), "shape": shape}).encode()})
    with pytest.raises(DamageError, match="the spec says"):
        read(path)


# ---- Zarr: bombs


def bomb(path: Path, num_rows: int, chunk: int, payload: bytes) -> None:
    """A store whose one chunk of `num_rows` rows is `payload`."""
    spec = FeatureSpec(Granularity.CLIP, (1024,), "float16")
    with ZarrWriter(path, {"clip": spec}, compress="zstd") as writer:
        put(writer, "v", {"clip": rows_of(spec, 1)})
    layout = Layout((num_rows, 1024), np.dtype("float16"), chunk, chunk, "zstd")
    shard = payload + pack_index(layout, [(0, len(payload))])
    record = only_record(path)
    span = record.videos["v"]["clip"]._replace(length=num_rows)
    forged = dataclasses.replace(record, rows={"clip": num_rows}, videos={"v": {"clip": span}})
    record_path(path, record.name).write_bytes(forged.to_bytes())
    reseal(path, {SHARD: shard, METADATA: json.dumps(layout.to_dict()).encode()})


READ_AND_MEASURE = f"""{PEAK_MIB}
import sys
from stores import StoreError, open_store
try:
    open_store(sys.argv[1])["clip"].read("v", 0, 1)
except StoreError as error:
    print("refused", error)
print(peak_mib())
"""


def refused_with_mib(path: Path) -> int:
    """Reads the store in a process of its own; returns the memory that took."""
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", READ_AND_MEASURE, str(path)], capture_output=True, text=True, check=True, cwd=root
    )
    first, mib = done.stdout.splitlines()
    assert first.startswith("refused"), done.stdout
    return int(mib)


def test_few_bytes_that_declare_many_rows_are_refused(tmp_path: Path) -> None:
    bomb(tmp_path / "s.zarr", 1 << 25, 1 << 25, Zstd(checksum=True).encode(bytes(1 << 20)))
    assert refused_with_mib(tmp_path / "s.zarr") < 300


def test_a_chunk_that_unpacks_to_more_than_it_may_is_refused(tmp_path: Path) -> None:
    bomb(tmp_path / "s.zarr", 1, 1, Zstd(checksum=True).encode(bytes(512 << 20)))
    assert refused_with_mib(tmp_path / "s.zarr") < 300


@pytest.mark.parametrize("codec", ["zstd", "gzip", "blosc"])
@pytest.mark.parametrize("size", [1, 255, 256, 70_000, 1_000_000])
def test_the_declared_size_of_a_chunk_is_read_before_it_is_unpacked(codec: str, size: int) -> None:
    from numcodecs.blosc import Blosc

    pack: Callable[[bytes], bytes] = {
        "zstd": Zstd(checksum=True).encode,
        "gzip": gzip.compress,
        "blosc": Blosc().encode,
    }[codec]
    packed = bytes(pack(bytes(size)))
    require_declared(codec, packed, size)
    for wrong in (size - 1, size + 1):
        with pytest.raises(ValueError, match="declares"):
            require_declared(codec, packed, wrong)
    with pytest.raises(ValueError):
        require_declared(codec, b"", size)


def test_the_limit_is_a_thousand_times_and_256_mib() -> None:
    require_proportion("a", 256 << 20, 1)
    require_proportion("a", 1 << 40, 1 << 31)
    with pytest.raises(StoreError):
        require_proportion("a", (256 << 20) + 1, 1000)


# ---- HDF5


@pytest.fixture
def packed(path: Path) -> Path:
    """A good HDF5 store to spoil."""
    convert(path, path.parent / "s.h5")
    return path.parent / "s.h5"


def victim(packed: Path) -> Path:
    """A file with the dataset that hostile files point to; a pipe in its place would hang who opens it."""
    file = packed.with_name("victim.h5")
    with h5py.File(file, "w") as hdf5:
        hdf5["secret"] = ROWS.features
        hdf5["features"] = ROWS.features
    return file


def external_link(hdf5: Any, file: Path) -> None:
    del hdf5["sets/clip/features"]
    hdf5["sets/clip/features"] = h5py.ExternalLink(str(file), "/secret")


def external_link_of_a_group(hdf5: Any, file: Path) -> None:
    del hdf5["sets/clip"]
    hdf5["sets/clip"] = h5py.ExternalLink(str(file), "/")


def soft_link(hdf5: Any, file: Path) -> None:
    hdf5.move("sets/clip/features", "elsewhere")
    hdf5["sets/clip/features"] = h5py.SoftLink("/elsewhere")


def external_storage(hdf5: Any, file: Path) -> None:
    del hdf5["sets/clip/features"]
    hdf5["sets/clip"].create_dataset(
        "features", ROWS.features.shape, "float16", external=[(str(file), 0, h5py.h5f.UNLIMITED)]
    )


def virtual_dataset(hdf5: Any, file: Path) -> None:
    del hdf5["sets/clip/features"]
    layout = h5py.VirtualLayout(ROWS.features.shape, "float16")
    layout[:] = h5py.VirtualSource(str(file), "secret", ROWS.features.shape)
    hdf5["sets/clip"].create_virtual_dataset("features", layout)


def link_to_the_index(hdf5: Any, file: Path) -> None:
    hdf5.move("index", "elsewhere")
    hdf5["index"] = h5py.ExternalLink(str(file), "/secret")


def compressed(hdf5: Any, file: Path) -> None:
    del hdf5["sets/clip/features"]
    hdf5["sets/clip"].create_dataset("features", ROWS.features.shape, "float16", compression="gzip")


def group_in_place_of_an_array(hdf5: Any, file: Path) -> None:
    del hdf5["sets/clip/features"]
    hdf5.create_group("sets/clip/features")


def other_shape(hdf5: Any, file: Path) -> None:
    del hdf5["sets/clip/features"]
    hdf5["sets/clip/features"] = ROWS.features[:50]


def bomb_of_an_index(hdf5: Any, file: Path) -> None:
    del hdf5["index"]
    hdf5.create_dataset("index", (1 << 36,), "uint8")


def unwritten_array(hdf5: Any, file: Path) -> None:
    del hdf5["sets/clip/features"]
    hdf5["sets/clip"].create_dataset("features", ROWS.features.shape, "float16")


SPOILERS: dict[Callable[[Any, Path], None], str] = {
    external_link: "leads through the link 'features'",
    external_link_of_a_group: "leads through the link 'clip'",
    soft_link: "leads through the link 'features'",
    external_storage: "put together from other files",
    virtual_dataset: "put together from other files",
    link_to_the_index: "leads through the link 'index'",
    compressed: "is not contiguous",
    group_in_place_of_an_array: "has something else at 'features'",
    other_shape: "the index says",
    bomb_of_an_index: "declares 68719476736 bytes",
    unwritten_array: "declares 1200 bytes",
}


@pytest.mark.parametrize("spoil", SPOILERS, ids=lambda spoil: spoil.__name__)
def test_hdf5_that_leads_elsewhere_is_refused(packed: Path, spoil: Callable[[Any, Path], None]) -> None:
    file = victim(packed)
    with h5py.File(packed, "r+") as hdf5:
        spoil(hdf5, file)
    file.unlink()
    os.mkfifo(file)  # whoever opens it now waits for ever
    with pytest.raises(DamageError, match=SPOILERS[spoil]):
        read(packed)


def test_foreign_hdf5_is_no_store_of_ours(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as hdf5:
        hdf5["features"] = np.zeros(5)
    with pytest.raises(StoreError, match="is HDF5, but no store of vl") as caught:
        open_store(tmp_path / "f.h5")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.99])
def test_truncated_hdf5_is_damage(packed: Path, keep: float) -> None:
    os.truncate(packed, max(8, int(packed.stat().st_size * keep)))
    with pytest.raises(DamageError):
        read(packed)


def test_flipped_bytes_of_the_structure_never_crash(packed: Path) -> None:
    good = packed.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(good)
        data[int(rng.integers(0, min(len(good), 4096)))] ^= 1 << int(rng.integers(8))
        packed.write_bytes(data)
        try:
            rows = read(packed)
        except StoreError:
            continue
        assert rows.features.shape == ROWS.features.shape
