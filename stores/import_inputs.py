"""From files and folders to the files to import, each with the id of its video."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stores.errors import StoreError
from stores.names import file_id, paths_by_id, printable
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


def _take(path: Path, name: str, found: InputFiles) -> None:
    name = file_id(name)
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
    paths = paths_by_id(((file.name, file.path) for file in found.files), _clash)
    return InputFiles([InputFile(name, path) for name, path in paths.items()], found.failures, found.ignored)


def _clash(one: str, other: str, name: str) -> StoreError:
    return StoreError(f"'{one}' and '{other}' are both named '{name}'. Give one folder that holds both.")
