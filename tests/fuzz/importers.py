"""Damaged and forged files for every importer: `python -m tests.fuzz.importers --cases 10000 [--kind npy]`.

Good files are cut, flipped, filled, doubled and given other numbers, where checksums would catch that also with right
checksums; then a folder of them is imported. Each must be imported or fail with one line; whatever is imported must be
finite and in order of time; nothing else may be raised, and no process may die.
"""

from __future__ import annotations

import argparse
import io
import random
import shutil
import struct
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import torch
import zarr

from stores import StoreError, open_store
from stores.import_arrays import ArrayNames, array_source
from stores.import_csv import csv_source
from stores.import_hdf5 import hdf5_source
from stores.import_yt8m import yt8m_source
from stores.import_zarr import zarr_source
from stores.importing import ImportOptions, ImportSource, import_videos
from stores.importing_options import make_options
from tests.stores.yt8m_files import frame_record, masked, random_frames, video_record

BATCH = 50  # files of one import
NUMBERS = [0, 1, -1, 255, 2**15, 2**31 - 1, -(2**31), 2**32 - 1, 2**62, -(2**63), 2**63 - 1]
WORDS = ["nan", "inf", "-1", "1e999", '"', ",", "\n", "\0", "é", "=1+1", "video", "start", "0x1", "", " "]


def mutate(data: bytes, rng: random.Random) -> bytes:
    """`data` with one to four things wrong."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not out:
            return bytes(out)
        at = rng.randrange(len(out)) if rng.random() < 0.5 else rng.randrange(min(len(out), 256))
        kind = rng.randrange(7)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            out[at:at] = out[at : at + rng.randint(1, 64)]
        elif kind == 4:
            del out[at : at + rng.randint(1, 16)]
        elif kind == 5:
            size = rng.choice([2, 4, 8])
            out[at : at + size] = (rng.choice(NUMBERS) % 256**size).to_bytes(size, "little")
        else:
            out[at : at + rng.randint(1, 32)] = bytes([rng.choice([0, 255])]) * rng.randint(1, 32)
    return bytes(out)


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Text whose cells are changed, or bytes as of any file."""
    if rng.random() < 0.4:
        return mutate(data, rng)
    lines = [line.split(",") for line in data.decode("latin-1").split("\n")]
    for _ in range(rng.randint(1, 3)):
        line = rng.choice(lines)
        line[rng.randrange(len(line))] = rng.choice(WORDS)
        if rng.random() < 0.2:
            lines.insert(rng.randrange(len(lines)), list(rng.choice(lines)))
    return "\n".join(map(",".join, lines)).encode("latin-1")


def array(rng: random.Random) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    shape = rng.choice([(5, 8), (5, 1, 1, 8), (1, 5, 8)])
    return np.random.default_rng(rng.randrange(2**32)).standard_normal(shape).astype(np.float32)


def npy_case(rng: random.Random) -> bytes:
    out = io.BytesIO()
    np.save(out, array(rng))
    data = out.getvalue()
    if rng.random() < 0.3:  # another header of the same length
        header = data[10:128].rstrip()
        wrong = rng.choice([b"(5, 8)", b"(-5, 8)", b"(10**9, 8)", b"(1e3, 8)", b"(True, 8)", b"((5,), 8)", b"(9" * 30])
        header = header.replace(b"(5, 8)", wrong).replace(b"'<f4'", rng.choice([b"'<f4'", b"'|O'", b"'<U9'", b"[]"]))
        data = data[:10] + header.ljust(117)[:117] + b"\n" + data[128:]
    return mutate(data, rng) if rng.random() < 0.7 else data


def npz_case(rng: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA])) as archive:
        archive.writestr("feats.npy", npy_case(rng))
        if rng.random() < 0.2:
            archive.writestr(rng.choice(["features.npy", "../x.npy", "feats"]), npy_case(rng))
    return mutate(out.getvalue(), rng) if rng.random() < 0.5 else out.getvalue()


def pt_case(rng: random.Random) -> bytes:
    out = io.BytesIO()
    tensor = torch.from_numpy(array(rng))
    torch.save(rng.choice([tensor, {"feats": tensor}, [tensor], {"a": 1, "features": tensor}, tensor.half()]), out)
    if rng.random() < 0.5:
        return mutate(out.getvalue(), rng)
    with zipfile.ZipFile(io.BytesIO(out.getvalue())) as archive:  # a pickle changed, and right checksums
        members = {name: archive.read(name) for name in archive.namelist()}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, mutate(data, rng) if name.endswith(".pkl") and rng.random() < 0.8 else data)
    return out.getvalue()


def hdf5_case(rng: random.Random) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as hdf5:
        hdf5.create_dataset(
            f"a{(name := rng.randrange(2**40))}", data=array(rng), compression=rng.choice([None, "gzip", "lzf"])
        )
        hdf5.create_dataset(f"g{name}/b", data=array(rng))
        if rng.random() < 0.2:
            hdf5["link"] = rng.choice([h5py.SoftLink("/a"), h5py.ExternalLink("/etc/passwd", "/x")])
            hdf5[f"g{name}/again"] = hdf5["/"]
    return mutate(out.getvalue(), rng)


def csv_case(rng: random.Random) -> bytes:
    header = rng.choice(["video,start,end,f0,f1", "video,time,f0,f1", "start,end,f0,f1,f2"])
    name = rng.randrange(2**40)
    rows = [header, *(f"v{name},{i},{i + 1},{rng.random()},1" for i in range(5))]
    rows += [f"w{name},{i},{i + 1},{rng.random()},1" for i in range(3)]
    return mutate_text("\n".join(rows).encode(), rng)


def yt8m_case(rng: random.Random) -> bytes:
    frames = np.random.default_rng(rng.randrange(2**32))
    name = f"{rng.randrange(2**40):x}"
    out = b""
    for number in range(3):
        rgb, audio = random_frames(frames, 6, 16)
        record = frame_record(f"{name}-{number}", [1, 3861], rgb, audio, audio_first=rng.random() < 0.5)
        if rng.random() < 0.2:
            record = video_record(f"{name}-{number}", [7], [0.5] * 16, [1.0, 2.0])
        if rng.random() < 0.7:
            record = mutate(record, rng)
        length = struct.pack("<Q", len(record))
        out += length + masked(length) + record + masked(record)
    return mutate(out, rng) if rng.random() < 0.3 else out


def write_zarr(path: Path, rng: random.Random) -> None:
    group = zarr.open_group(str(path), mode="w")
    for name in ("a", "b"):
        group.create_array(name, data=array(rng), chunks="auto", fill_value=0)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    for file in rng.sample(files, rng.randint(1, 2)):
        if rng.random() < 0.1:
            file.unlink()
            file.symlink_to("/etc/passwd")
        else:
            file.write_bytes((mutate_text if rng.random() < 0.3 else mutate)(file.read_bytes(), rng))


def arrays(paths: list[Path], options: ImportOptions) -> ImportSource:
    return array_source(paths, options, ArrayNames())


CASES: dict[str, tuple[str, Callable[[random.Random], bytes], Callable[[list[Path], ImportOptions], ImportSource]]] = {
    "npy": (".npy", npy_case, arrays),
    "npz": (".npz", npz_case, arrays),
    "pt": (".pt", pt_case, arrays),
    "hdf5": (".h5", hdf5_case, lambda paths, options: hdf5_source(paths, options, None, timeout_s=5.0)),
    "yt8m": (".tfrecord", yt8m_case, yt8m_source),
    "csv": (".csv", csv_case, csv_source),
}
KINDS = (*CASES, "zarr")


def fuzz(kind: str, cases: int, seed: int, folder: Path) -> Counter[str]:
    """Import so many cases; how many videos were imported, and how many failed, by reason."""
    found: Counter[str] = Counter()
    for first in range(0, cases, BATCH):
        place = folder / str(first)
        place.mkdir()
        options = make_options("yt8m") if kind == "yt8m" else make_options(kind, backbone="net", fps=1.0, stride=1)
        try:
            if kind == "zarr":
                for number in range(first, min(cases, first + BATCH)):
                    write_zarr(place / f"{number}.zarr", random.Random(f"{seed} {number}"))
                    source = partial(zarr_source, [place / f"{number}.zarr"], options, None)
                    found += outcome(source, place / f"{number}-out.zarr")
                continue
            suffix, make, take = CASES[kind]
            (place / "in").mkdir()
            for number in range(first, min(cases, first + BATCH)):
                (place / "in" / f"{number}{suffix}").write_bytes(make(random.Random(f"{seed} {number}")))
            found += outcome(partial(take, [place / "in"], options), place / "out.zarr")
        finally:
            shutil.rmtree(place)
    return found


def outcome(source: Callable[[], ImportSource], out: Path) -> Counter[str]:
    """Import, and look at everything that came of it."""
    found: Counter[str] = Counter()
    words = ""
    try:
        summary = import_videos(source(), out)
    except StoreError as error:
        words = str(error)
    if words:
        assert words.isprintable(), words
        return Counter({"refused": 1})
    found["imported"] = summary.done
    for failure in summary.failures:
        assert failure.detail, failure
        assert failure.detail.isprintable(), failure
        found[failure.reason] += 1
    if not summary.done:
        return found
    store = open_store(out)
    for name in store:
        for video in store[name]:
            rows = store[name].read(video)
            assert np.isfinite(rows.features).all(), video
            assert (np.diff(rows.times[:, 0]) >= 0).all(), video
    store.close()
    return found


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kind", choices=KINDS)
    asked = parser.parse_args()
    memory = Path("/dev/shm")
    for kind in [asked.kind] if asked.kind else KINDS:
        folder = Path(tempfile.mkdtemp(prefix="vl-fuzz-", dir=memory if memory.is_dir() else None))
        start = time.monotonic()
        try:
            found = fuzz(kind, asked.cases, asked.seed, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        told = ", ".join(f"{count} {reason}" for reason, count in found.most_common())
        print(f"{kind}: {asked.cases} cases in {time.monotonic() - start:.0f} s: {told}", flush=True)


if __name__ == "__main__":
    main()
