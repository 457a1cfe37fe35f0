"""From files and folders to a list of videos, each with an id that is the same on every machine.

An id is the path relative to the folder that was given (a file that was given by name: its name), with the
extension, in Unicode normal form C; bytes that are no UTF-8 are percent-encoded. Only regular files are taken:
opening a FIFO would hang any decoder. Inside a folder, a name tells what is tried: files with the suffix of a video
are, all others are `ignored` (labels, subtitles, thumbnails), as are names that begin with a dot. A file that was
given by name is always tried.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extract.decode import Reason
from stores.errors import VlError
from stores.names import file_id, paths_by_id, printable
from stores.spec import Failure

_NAMES = (
    "3g2 3gp asf avi divx dv f4v flv gif ivf m1v m2t m2ts m2v m4v mj2 mkv mov mp4 mpe mpeg mpg mpv mts mxf nut ogm ogv "
    "qt rm rmvb ts vob webm wmv y4m"
)
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _NAMES.split())


class InputError(VlError):
    """What was given cannot be made a list of videos."""


@dataclass(frozen=True)
class VideoInput:
    """One video to decode."""

    id: str
    path: Path  # absolute


@dataclass
class Inputs:
    """Everything that was found; a file is in exactly one of the three lists, each sorted by bytes."""

    videos: list[VideoInput] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)  # neither a regular file nor a folder, or unreadable
    ignored: list[Path] = field(default_factory=list)  # not a video by its name


def enumerate_videos(paths: Iterable[Path | str]) -> Inputs:
    """All videos in `paths`, which are files or folders; folders are searched to the bottom.

    A folder that is reached in two ways (a link beside it, a loop) is searched once, under its own name where it
    has one.

    Raises:
        InputError: a path does not exist, or two different files would get the same id.
    """
    found = Inputs()
    for given in paths:
        path = Path(os.path.abspath(given))  # noqa: PTH100  # resolve() would replace the user's names by link targets
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise InputError(
                f"'{printable(str(given))}' cannot be read: {error.strerror}. Give a video file or a folder of videos."
            ) from error
        if stat.S_ISDIR(mode):
            _search(path, found)
        else:
            _take(path, file_id(path.name), found)
    return _checked(found)


def shard(inputs: Sequence[VideoInput], index: int, count: int) -> list[VideoInput]:
    """Part `index` (from 0) of `count` equal parts of `inputs`; the parts are disjoint and together are everything."""
    assert 0 <= index < count, (index, count)
    return list(inputs[index::count])


def _search(root: Path, found: Inputs) -> None:
    """Take every file below `root`: real folders first, so that a link never hides the real place."""
    visited: set[tuple[int, int]] = set()
    links = [root]
    while links:
        folders = [links.pop(0)]
        while folders:
            folder = folders.pop()
            for entry in _entries(folder, root, visited, found):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif _is_folder(entry):
                    links.append(Path(entry.path))
                elif _tried(entry):
                    _take(Path(entry.path), file_id(os.path.relpath(entry.path, root)), found)
                else:
                    found.ignored.append(Path(entry.path))


def _entries(folder: Path, root: Path, visited: set[tuple[int, int]], found: Inputs) -> Iterator[os.DirEntry[str]]:
    """What lies in `folder`, sorted by bytes, without hidden folders and feature stores; nothing on a second visit."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        name = file_id(os.path.relpath(folder, root))
        found.failures.append(Failure(name, Reason.UNREADABLE, f"the folder cannot be listed: {error.strerror}"))
        return
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    for entry in entries:
        if _is_folder(entry) and (entry.name.startswith(".") or entry.name.endswith(".zarr")):
            found.ignored.append(Path(entry.path))
        else:
            yield entry


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; a link to itself does not."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _tried(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder gets a status: a video by its name, or no regular file at all."""
    if entry.name.startswith("."):
        return False
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122
    try:
        return suffix in VIDEO_SUFFIXES or not stat.S_ISREG(entry.stat().st_mode)
    except OSError:  # a link to nowhere: its name tells nothing of a video
        return False


def _take(path: Path, video_id: str, found: Inputs) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        found.failures.append(Failure(video_id, Reason.UNREADABLE, f"cannot be read: {error.strerror}"))
        return
    if stat.S_ISREG(mode):
        found.videos.append(VideoInput(video_id, path))
    else:
        found.failures.append(Failure(video_id, Reason.NOT_REGULAR, f"is {_kind(mode)}, not a regular file"))


def _kind(mode: int) -> str:
    """What a file is if it is not a regular one, in words."""
    kinds = {
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
    }
    return kinds.get(stat.S_IFMT(mode), "a special file")


def _checked(found: Inputs) -> Inputs:
    """`found` in order, each path once, or an InputError if two paths share an id."""
    paths = paths_by_id(((video.id, video.path) for video in found.videos), _clash)
    failures = {failure.video: failure for failure in found.failures}
    return Inputs(
        [VideoInput(video_id, path) for video_id, path in paths.items()],
        [failures[video_id] for video_id in sorted(failures, key=lambda video_id: video_id.encode())],
        sorted(set(found.ignored), key=os.fsencode),
    )


def _clash(one: str, other: str, video_id: str) -> InputError:
    return InputError(
        f"'{one}' and '{other}' would both have the id '{video_id}'. Give one folder that contains both, or extract "
        "them into two stores."
    )
