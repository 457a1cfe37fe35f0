"""From files and folders to the files to import, each with the id of its video."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stores.errors import StoreError
from stores.names import printable
from stores.spec import Failure


@dataclass(frozen=True)
class InputFile:
    """One file to read."""

    name: str  # relative path with its ending; what is no UTF-8 percent-encoded
    path: Path

    @property
    def stem(self) -> str:
        """The name without its ending."""
        return os.path.splitext(self.name)[0]  # noqa: PTH122 (a name, no path of this machine)


@dataclass
class InputFiles:
    """Everything that was found, in order of the names' bytes."""

    files: list[InputFile] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)  # of a fitting name, and no regular file
    ignored: list[Path] = field(default_factory=list)  # of other names


def find_files(paths: Iterable[Path], suffixes: Sequence[str]) -> InputFiles:
    """The files in `paths`, folders searched to the bottom, whose names end as `suffixes` say.

    A file that is given by its name is always taken. A folder that is reached twice is searched once.

    Raises:
        StoreError: a path does not exist, or two files have one name.
    """
    found = InputFiles()
    visited: set[tuple[int, int]] = set()
    for given in paths:
        path = Path(os.path.abspath(given))  # noqa: PTH100 (links keep the user's names)
        if not path.exists():
            raise StoreError(f"there is no '{printable(given)}'. Give a file of features, or a folder of them.")
        if path.is_dir():
            _search(path, path, suffixes, visited, found)
        else:
            _take(path, path.name, found)
    return _checked(found)


def _search(
    folder: Path, root: Path, suffixes: Sequence[str], visited: set[tuple[int, int]], found: InputFiles
) -> None:
    try:
        status = folder.stat()
        entries = sorted(folder.iterdir(), key=lambda entry: os.fsencode(entry.name))
    except OSError as error:
        found.failures.append(Failure(_name(folder, root), "unreadable", f"cannot be listed: {error.strerror}"))
        return
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    for entry in entries:
        if entry.name.startswith("."):
            found.ignored.append(entry)
        elif entry.is_dir():
            _search(entry, root, suffixes, visited, found)
        elif entry.name.lower().endswith(tuple(suffixes)):
            _take(entry, _name(entry, root), found)
        else:
            found.ignored.append(entry)


def _name(path: Path, root: Path) -> str:
    return os.path.relpath(path, root)


def readable(name: str) -> str:
    """A name as an id: in normal form C, bytes that are no UTF-8 percent-encoded."""
    plain = "".join(f"%{ord(letter) - 0xDC00:02X}" if 0xDC80 <= ord(letter) <= 0xDCFF else letter for letter in name)
    return unicodedata.normalize("NFC", plain)


def _take(path: Path, name: str, found: InputFiles) -> None:
    name = readable(name)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        found.failures.append(Failure(name, "unreadable", f"cannot be read: {error.strerror}"))
        return
    if stat.S_ISREG(mode):
        found.files.append(InputFile(name, path))
    else:
        found.failures.append(Failure(name, "not_regular", "is not a regular file"))


def _checked(found: InputFiles) -> InputFiles:
    paths: dict[str, Path] = {}
    for file in found.files:
        other = paths.setdefault(file.name, file.path)
        if other != file.path:
            raise StoreError(
                f"'{printable(other)}' and '{printable(file.path)}' are both named '{printable(file.name)}'. "
                "Give one folder that holds both."
            )
    names = sorted(paths, key=lambda name: name.encode())
    return InputFiles([InputFile(name, paths[name]) for name in names], found.failures, found.ignored)
