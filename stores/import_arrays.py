"""Folders of arrays, one file a video: .npy, .npz and .pt.

    DIR/{video}.npy                        one set
    DIR/{stem}_rgb.npy, {stem}_flow.npy    two sets, where all feature files end so
    DIR/{stem}_times.npy                   (T, 2) seconds of its rows, as `vl export` writes them
    DIR/{stem}_timestamps_ms.npy           (T,) milliseconds at which its rows begin
    DIR/{stem}_fps.npy                     its frame rate

Nothing is allocated before the file is known to hold as many bytes as its header declares, and nothing is unpickled:
.pt files go through PyTorch's reader of tensors alone, which is the one use of PyTorch in this package.
"""

from __future__ import annotations

import ast
import math
import os
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stores.array_layouts import Unusable
from stores.foreign import require_proportion
from stores.import_inputs import InputFile, InputFiles, find_files
from stores.importing import MAX_ARRAY, ImportedVideo, ImportOptions, ImportSource, Item, Job, Notice, Part
from stores.names import printable
from stores.time_grid import TimeGridError, require_times, times_from_stamps

SUFFIXES = (".npy", ".npz", ".pt", ".pth")
KEYS = ("feats", "features")  # of the array in an .npz or a .pt
PAIR = ("_rgb", "_flow")
BESIDE = ("_times", "_timestamps_ms", "_fps")  # what a file says of the rows of another
MAX_HEADER = 10_000  # bytes of the header of an .npy; 128 is usual
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


@dataclass(frozen=True)
class ArrayNames:
    """Which part of a file's name is the video's, and which array of the file is taken."""

    prefix: str = ""
    suffix: str = ""
    key: str | None = None  # None: feats or features, or the only one

    def video_of(self, stem: str) -> str | None:
        """The video's id in a name without its ending; None where it is a name of something else."""
        folder, name = os.path.split(stem)
        if not (name.startswith(self.prefix) and name.endswith(self.suffix)):
            return None
        bare = name[len(self.prefix) : len(name) - len(self.suffix)]
        return os.path.join(folder, bare) if bare else None  # noqa: PTH118 (a name, no path of this machine)


def array_source(paths: Sequence[Path], options: ImportOptions, names: ArrayNames) -> ImportSource:
    """The videos in files and folders of arrays.

    Raises:
        StoreError: a path does not exist, two files give one video, or nothing is there.
        TimeGridError: neither the options nor any file say at what seconds rows are.
    """
    found = find_files(paths, SUFFIXES)
    videos, beside, ignored = _sort(found, names, options.stream)
    if not videos and not found.failures:
        raise Unusable("empty", f"no .npy, .npz or .pt features in {', '.join(printable(path) for path in paths)}.")
    if not options.timed:
        if options.grid is not None and options.grid.fps is None:
            require_source(any(kinds & set(BESIDE) for kinds in map(set, beside.values())), "--fps")
        elif options.grid is None:
            require_source(any(kinds & {"_times", "_timestamps_ms"} for kinds in map(set, beside.values())), "--stride")
    return ImportSource(_jobs(found, videos, beside, options, names), options, ignored)


def require_source(there: bool, missing: str) -> None:
    """TimeGridError unless some file says at what seconds rows are."""
    if there:
        return
    if missing == "--fps":
        raise TimeGridError(
            "--stride without --fps, and no file has a frame rate: give --fps, or {stem}_fps.npy files."
        )
    raise TimeGridError(
        "nobody says at what seconds the rows are. Give --fps and --stride (--window where rows overlap), or a "
        "--recipe such as charades-i3d."
    )


def _sort(
    found: InputFiles, names: ArrayNames, stream: str
) -> tuple[dict[str, dict[str, InputFile]], dict[str, dict[str, InputFile]], list[str]]:
    """By video its files by stream, by stem the files beside them, and the rest."""
    beside: dict[str, dict[str, InputFile]] = {}
    ignored = [str(path) for path in found.ignored]
    features = []
    for file in found.files:
        kind = next((kind for kind in BESIDE if file.stem.endswith(kind) and file.name.endswith(".npy")), None)
        if kind is not None:
            beside.setdefault(file.stem.removesuffix(kind), {})[kind] = file
        elif names.video_of(file.stem) is None:
            ignored.append(str(file.path))
        else:
            features.append(file)
    paired = bool(features) and not names.suffix and all(file.stem.endswith(PAIR) for file in features)
    videos: dict[str, dict[str, InputFile]] = {}
    for file in features:
        stem, name = file.stem, stream
        if paired:
            ending = next(ending for ending in PAIR if stem.endswith(ending))
            stem, name = stem.removesuffix(ending), ending[1:]
        video = names.video_of(stem)
        if video is None:
            ignored.append(str(file.path))
            continue
        of_video = videos.setdefault(video, {})
        if name in of_video:
            both = f"'{printable(of_video[name].name)}' and '{printable(file.name)}'"
            raise Unusable("duplicate", f"{both} are both the video '{printable(video)}'. Give one of them.")
        of_video[name] = file
    told = {stem for files in videos.values() for stream, file in files.items() for stem in _stems(file, stream)}
    for stem in set(beside) - told:  # of features that are not there
        ignored += [str(file.path) for file in beside.pop(stem).values()]
    return videos, beside, ignored


def _stems(file: InputFile, stream: str) -> tuple[str, str]:
    """The names under which other files say something of the rows of this one; the second goes before."""
    return file.stem.removesuffix(f"_{stream}"), file.stem


def _jobs(
    found: InputFiles,
    videos: Mapping[str, Mapping[str, InputFile]],
    beside: Mapping[str, Mapping[str, InputFile]],
    options: ImportOptions,
    names: ArrayNames,
) -> Iterator[Item]:
    yield from found.failures
    if options.timed:
        for stem, kinds in beside.items():
            yield Notice("times not used", f"{stem}: {', '.join(sorted(kinds))}")
    for video, files in videos.items():
        for stream, file in files.items():
            said = {kind: found for stem in _stems(file, stream) for kind, found in beside.get(stem, {}).items()}
            read = partial(_read, file, stream, {} if options.timed else said, options, names.key)
            yield Job(video, (stream,), read, of_set=stream != options.stream or len(files) > 1)


def _read(
    file: InputFile, stream: str, said: Mapping[str, InputFile], options: ImportOptions, key: str | None
) -> ImportedVideo:
    return ImportedVideo({stream: _part(read_array(file.path, key), said, options)})


def _part(array: NDArray[Any], said: Mapping[str, InputFile], options: ImportOptions) -> Part:
    if "_times" in said:
        times = read_array(said["_times"].path, None)
        return Part(array, require_times(times, len(times)))
    fps = None
    if "_fps" in said:
        values = read_array(said["_fps"].path, None)
        if values.size != 1 or values.dtype.kind not in "fiu":
            raise Unusable("no_times", f"{printable(said['_fps'].name)} is no number of frames a second")
        fps = float(values.reshape(-1)[0])
        if not 0 < fps < 1e6:
            raise Unusable("no_times", f"{printable(said['_fps'].name)} has {fps} frames a second")
    if "_timestamps_ms" in said:
        stamps = read_array(said["_timestamps_ms"].path, None)
        if stamps.dtype.kind not in "fiu":
            raise Unusable(
                "no_times", f"{printable(said['_timestamps_ms'].name)} holds {stamps.dtype}, not milliseconds"
            )
        window = options.grid.window if options.grid is not None else None
        return Part(array, times_from_stamps(stamps / 1000, window / fps if window and fps else None))
    return Part(array, fps=fps)


def read_array(path: Path, key: str | None) -> NDArray[Any]:
    """The array in an .npy, .npz or .pt file.

    Raises:
        Unusable: it holds something else than one array of numbers, or less than it declares.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if not size:
            raise Unusable("empty", "it has no bytes")
        if path.suffix in (".pt", ".pth"):
            from stores.import_pt import read_pt

            return read_pt(file, size, key)
        start = file.read(4)
        file.seek(0)
        return _read_npz(file, size, key) if start == b"PK\x03\x04" else read_npy(file, size)


def read_npy(file: BinaryIO, size: int) -> NDArray[Any]:
    """The array of an open .npy file that has `size` bytes; Unusable if it is none, or not whole."""
    start = file.read(12)
    if start[:6] != b"\x93NUMPY" or start[6:8] not in (b"\x01\x00", b"\x02\x00") or len(start) < 12:
        raise Unusable("decode_error", "it is no .npy file of version 1 or 2")
    wide = start[6] == 2
    (length,) = struct.unpack("<I", start[8:12]) if wide else struct.unpack("<H", start[8:10])
    if length > MAX_HEADER:
        raise Unusable("decode_error", f"its header declares {length} bytes, more than any array needs")
    rest = file.read(length - (0 if wide else 2))
    shape, fortran, dtype = _header(((b"" if wide else start[10:12]) + rest).decode("latin-1"))
    if dtype.hasobject:
        raise Unusable("decode_error", "it holds Python objects, and reading them could run code: not read")
    if dtype.kind not in "fiub" or any(axis < 0 for axis in shape):
        raise Unusable("wrong_dtype", f"it holds {printable(dtype)} {shape}, not numbers")
    declared, there = math.prod(shape) * dtype.itemsize, size - 12 - len(rest)
    if declared != there:
        raise Unusable("decode_error", f"shape {shape} of {dtype} needs {declared} bytes, and it has {there}")
    require_size(declared)
    flat = np.empty(declared, np.uint8)
    if declared and _read_into(file, flat) != declared:
        raise Unusable("decode_error", "it ends before its last value")
    array = flat.view(dtype)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def _header(text: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and dtype in the header of an .npy file, which is a Python dictionary of literals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd literals; they are read or refused
        fields = ast.literal_eval(text.strip())
        if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
            raise Unusable("decode_error", "its header is not that of an .npy file")
        shape, kind = fields["shape"], fields["descr"]
        if not (isinstance(shape, tuple) and all(type(axis) is int for axis in shape) and isinstance(kind, str)):
            raise Unusable("wrong_dtype", f"it holds {printable(kind)} {printable(shape)}, not one array of numbers")
        return shape, bool(fields["fortran_order"]), np.dtype(kind)


def require_size(num_bytes: int) -> None:
    """Unusable if one video has more rows than memory is meant for."""
    if num_bytes > MAX_ARRAY:
        raise Unusable("too_large", f"an array of {num_bytes} bytes, more than {MAX_ARRAY}")


def _read_into(file: BinaryIO, out: NDArray[np.uint8]) -> int:
    done = 0
    while done < len(out):
        part = file.read(min(len(out) - done, 16 << 20))
        if not part:
            break
        out[done : done + len(part)] = np.frombuffer(part, np.uint8)
        done += len(part)
    return done


def _read_npz(file: BinaryIO, size: int, key: str | None) -> NDArray[Any]:
    with zipfile.ZipFile(file) as archive:
        members = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        entry = members[choose_key(list(members), key)]
        if entry.compress_type not in (STORED, DEFLATED) or entry.flag_bits & 1:
            raise Unusable(
                "decode_error", f"'{printable(entry.filename)}' is packed in a way that numpy does not write"
            )
        require_proportion(entry.filename, entry.file_size, min(entry.compress_size, size))
        require_size(entry.file_size)
        with archive.open(entry) as member:
            return read_npy(member, entry.file_size)  # type: ignore[arg-type]  # read() is all that is used


def choose_key(there: Sequence[str], key: str | None) -> str:
    """The array to take of several; Unusable, naming them, if it is not clear which."""
    wanted = [key] if key is not None else [name for name in KEYS if name in there] or list(there)
    if len(wanted) == 1 and wanted[0] in there:
        return wanted[0]
    listed = ", ".join(printable(name) for name in there[:8]) or "none"
    what = f"it has no '{printable(key)}'" if key is not None else "say which array with --key"
    raise Unusable("no_array", f"{what}; it has {listed}")
