"""Matrices in one npz file, read without pickle: nothing in it can run.

    VIDEO: (T, C) or (C,)  for each video [, classes: (C,) names]            np.savez(path, **{video: table, ...})
    scores: (N, C), videos: (N,) ids [, times: (N, 2) or (N,) seconds] [, classes: (C,) names]

A member is an npy file; its header is believed only as far as the archive's directory agrees with it, so that a lie
about the shape takes no memory.

Shape letters: N rows of all videos, T rows of one, C classes.
"""

from __future__ import annotations

import sys
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from heads.predictions import (
    MAX_BYTES,
    PredictionError,
    Predictions,
    Table,
    TablePredictions,
    require_names,
    seconds_of,
)
from stores.names import printable

MAGIC = b"PK\x03\x04"
ENDING = ".npy"
MAX_MEMBERS = 1_000_000
KIND = "npz matrices"
RESERVED = ("scores", "videos", "times", "classes")


class Member(NamedTuple):
    """One array, not yet read."""

    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    start: int  # bytes of the header


@dataclass(eq=False)
class NpzPredictions(Predictions):
    """A matrix a video, each read when it is asked for."""

    archive: zipfile.ZipFile | None = None
    members: dict[str, Member] = field(default_factory=dict)

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def num_rows(self, video: str) -> int:
        """Rows of `video`."""
        shape = self.members[video].shape
        return shape[0] if len(shape) == 2 else 1

    def read(self, video: str) -> Table:
        """Its scores; such a file knows no times."""
        assert self.archive is not None
        table = _read(self.path, self.archive, video, self.members[video])
        return (table if table.ndim == 2 else table[None]), None

    def close(self) -> None:
        """Give the file back."""
        if self.archive is not None:
            self.archive.close()


def read_npz(path: Path) -> Predictions:
    """The predictions in an npz file.

    Raises:
        PredictionError: the file is not sound, holds objects, or arrays of other shapes.
    """
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _unsound(path, error) from error
    try:
        return _open(path, archive)
    except BaseException:
        archive.close()
        raise


def _open(path: Path, archive: zipfile.ZipFile) -> Predictions:
    infos = archive.infolist()
    total = sum(info.file_size for info in infos)
    if len(infos) > MAX_MEMBERS or total > MAX_BYTES:
        raise PredictionError(
            f"{printable(path)} holds {len(infos)} arrays of {total >> 20} MiB, over the {MAX_MEMBERS} and "
            f"{MAX_BYTES >> 20} MiB allowed. Split it."
        )
    names = Counter(info.filename.removesuffix(ENDING) for info in infos)
    twice = [name for name, times in names.items() if times > 1]
    if twice:
        raise PredictionError(f"{printable(path)} has the array '{printable(twice[0])}' twice.")
    members = {info.filename.removesuffix(ENDING): _member(path, archive, info) for info in infos}
    classes: tuple[str, ...] | None = None
    if "classes" in members and len(members["classes"].shape) == 1 and members["classes"].dtype.kind in "US":
        classes = require_names(path, _texts(path, archive, "classes", members.pop("classes")), "'classes'")
    if {"scores", "videos"} <= set(members):
        return _pooled(path, archive, members, classes)
    if not members:
        raise PredictionError(f"{printable(path)} holds no matrix. Save one (T, C) array of scores a video.")
    return _of_videos(path, archive, members, classes)


def _of_videos(
    path: Path, archive: zipfile.ZipFile, members: dict[str, Member], classes: tuple[str, ...] | None
) -> Predictions:
    for name, member in members.items():
        if len(member.shape) not in (1, 2) or member.dtype.kind not in "fiu":
            raise PredictionError(
                f"{printable(path)}: '{printable(name)}' is {member.dtype} {member.shape}, no (T, C) or (C,) scores "
                "of a video (or name the arrays scores, videos and times)."
            )
    kinds = {len(member.shape) for member in members.values()}
    widths = sorted({member.shape[-1] for member in members.values()})
    if len(kinds) > 1 or len(widths) > 1:
        what = f"{widths[0]} and {widths[1]} classes" if len(widths) > 1 else "(T, C) and (C,) matrices"
        raise PredictionError(f"{printable(path)} holds videos of {what}. All must be alike.")
    rows = kinds == {2} and any(member.shape[0] != 1 for member in members.values())
    held = {name: member for name, member in members.items() if len(member.shape) == 1 or member.shape[0]}
    return NpzPredictions(
        path,
        KIND,
        "row" if rows else "video",
        _width(path, widths[0], classes),
        classes,
        times="none",
        archive=archive,
        members=held,
    )


def _pooled(
    path: Path, archive: zipfile.ZipFile, members: dict[str, Member], classes: tuple[str, ...] | None
) -> Predictions:
    if odd := sorted(set(members) - set(RESERVED)):
        raise PredictionError(
            f"{printable(path)} has scores and videos, and also '{printable(odd[0])}'. Keep {', '.join(RESERVED)}."
        )
    shape, kind = members["scores"].shape, members["scores"].dtype.kind
    if len(shape) != 2 or kind not in "fiu":
        raise PredictionError(f"{printable(path)}: scores are (N, C) numbers, not {members['scores'].dtype} {shape}.")
    for name in {"videos", "times"} & set(members):
        if members[name].shape[:1] != shape[:1]:
            raise PredictionError(f"{printable(path)}: scores have shape {shape}, {name} {members[name].shape}.")
    if len(members["videos"].shape) != 1 or members["videos"].dtype.kind not in "US":
        raise PredictionError(f"{printable(path)}: videos are (N,) texts, not {members['videos'].dtype}.")
    width = _width(path, shape[1], classes)
    ids = _read(path, archive, "videos", members["videos"])
    seconds = seconds_of(path, _read(path, archive, "times", members["times"])) if "times" in members else None
    scores = _read(path, archive, "scores", members["scores"])
    archive.close()
    begins = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]])) if len(ids) else np.empty(0, np.intp)
    if len(np.unique(ids[begins])) < len(begins):  # a video's rows do not lie together
        order = np.argsort(ids, kind="stable")
        ids, scores, seconds = ids[order], scores[order], None if seconds is None else seconds[order]
        begins = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    videos = _decoded(path, "videos", ids[begins])
    parts = [slice(*ends) for ends in zip(begins.tolist(), [*begins[1:].tolist(), len(ids)], strict=True)]
    rows = seconds is not None or len(videos) < len(ids)
    return TablePredictions(
        path,
        KIND,
        "row" if rows else "video",
        width,
        classes,
        times="none" if seconds is None else "own",
        tables={video: scores[part] for video, part in zip(videos, parts, strict=True)},
        seconds=None if seconds is None else {v: seconds[part] for v, part in zip(videos, parts, strict=True)},
    )


def _width(path: Path, width: int, classes: tuple[str, ...] | None) -> int:
    if not width or (classes is not None and len(classes) != width):
        raise PredictionError(f"{printable(path)} has {width} columns of scores and {len(classes or ())} class names.")
    return width


def _texts(path: Path, archive: zipfile.ZipFile, name: str, member: Member) -> tuple[str, ...]:
    return _decoded(path, name, _read(path, archive, name, member))


def _decoded(path: Path, name: str, texts: NDArray[Any]) -> tuple[str, ...]:
    # numpy stores texts as code points and believes any number
    if (
        texts.dtype.kind == "U"
        and texts.size
        and int(np.ascontiguousarray(texts).view(np.uint32).max()) > sys.maxunicode
    ):
        raise PredictionError(f"{printable(path)}: '{printable(name)}' holds what is no text.")
    try:
        return tuple(text.decode() if isinstance(text, bytes) else str(text) for text in texts.tolist())
    except UnicodeDecodeError as error:
        raise PredictionError(f"{printable(path)}: '{printable(name)}' holds a text that is no UTF-8.") from error


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    """The header of an array; PredictionError if it is none, or says another size than the archive."""
    name = printable(info.filename)
    try:
        with archive.open(info) as file, warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy warns of headers that Python 2 wrote
            version = npy.read_magic(file)
            readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
            if version not in readers:
                raise PredictionError(f"{printable(path)}: '{name}' is an npy file of version {version}.")
            shape, fortran, dtype = readers[version](file)
            start = file.tell()
    except PredictionError:
        raise
    except Exception as error:  # whatever numpy, zlib and the archive make of bytes that somebody changed
        raise _unsound(path, error) from error
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        raise PredictionError(f"{printable(path)}: '{name}' holds objects ({dtype}). Save plain numbers and texts.")
    count = 1
    for size in shape:
        count *= int(size)
    if count < 0 or start + count * dtype.itemsize != info.file_size:
        raise PredictionError(
            f"{printable(path)}: '{name}' says it is {dtype} {shape}, but has {info.file_size - start} bytes."
        )
    return Member(info, tuple(int(size) for size in shape), dtype, fortran, start)


def _read(path: Path, archive: zipfile.ZipFile, name: str, member: Member) -> NDArray[Any]:
    count = int(np.prod(member.shape, dtype=np.int64))
    flat = np.empty(count, member.dtype)
    view = flat.view("u1").data if flat.nbytes else memoryview(b"")
    try:
        with archive.open(member.info) as file:
            file.read(member.start)
            filled = 0
            while filled < len(view) and (part := file.read(min(1 << 24, len(view) - filled))):
                view[filled : filled + len(part)] = part
                filled += len(part)
            file.read(1)  # the end, at which the checksum is compared
    except (OSError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError) as error:
        raise _unsound(path, error) from error
    if filled < len(view):
        raise PredictionError(f"{printable(path)}: '{printable(name)}' ends early. Save the file again.")
    if member.dtype.byteorder == ">" or not member.dtype.isnative:
        flat = flat.astype(member.dtype.newbyteorder("="))
    return flat.reshape(member.shape, order="F" if member.fortran else "C")


def _unsound(path: Path, error: Exception) -> PredictionError:
    said = printable(str(error) or type(error).__name__)[:120]
    return PredictionError(f"{printable(path)} is no sound npz file: {said}. Save it again with numpy.savez.")
