"""Names: what may be printed, and what may stand on disk.

Nothing on disk is named after a video; ids come from file names of strangers, so they are escaped before they
reach a terminal.
"""

from __future__ import annotations

import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

from stores.errors import StoreError, VlError

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a cell that a spreadsheet would run
_SET_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,127}")
_KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_SEGMENT = re.compile(r"[0-9]{20}-[0-9a-f]{12}")


def printable(text: object) -> str:
    r"""`text` with everything that could steer a terminal written as an escape.

    >>> printable("a\x1b[2Jb.mp4")
    'a\\x1b[2Jb.mp4'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def slug(text: str, limit: int = 60) -> str:
    """`text` as a harmless part of a file name: lower case, digits, `_`, `-`, `.`; add a hash where it must be unique.

    >>> slug("../../My Video.mp4")
    'my-video.mp4'
    """
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-.")[:limit].strip("-.") or "unnamed"


def spreadsheet_text(text: str) -> str:
    """`text` as a cell that a spreadsheet takes for text: an apostrophe before what it would run.

    >>> spreadsheet_text("=1+1"), spreadsheet_text("a.mp4")
    ("'=1+1", 'a.mp4')
    """
    return f"'{text}" if text.startswith(FORMULA) else text


def require_set_name(name: str) -> str:
    """`name` itself; StoreError unless it may name a feature set."""
    if not _SET_NAME.fullmatch(name):
        raise StoreError(
            f"'{printable(name)}' cannot name a feature set: use lower case letters, digits, '_', '.' and '-'."
        )
    return name


def require_kind(kind: str) -> str:
    """`kind` itself; StoreError unless it may name a kind of attachment."""
    if not _KIND.fullmatch(kind):
        raise StoreError(f"'{printable(kind)}' cannot name an attachment: use lower case letters, digits, '_' and '-'.")
    return kind


def new_segment_name() -> str:
    """A name nobody else takes; names sort by the time they were given."""
    return f"{time.time_ns():020d}-{secrets.token_hex(6)}"


def is_segment_name(name: str) -> bool:
    """Whether `name` has the form of `new_segment_name`."""
    return _SEGMENT.fullmatch(name) is not None


def file_id(name: str) -> str:
    r"""The id of a path as the operating system gives it: in normal form C, bytes that are no UTF-8 percent-encoded.

    >>> file_id("e\u0301t\udce9.mp4")
    '\xe9t%E9.mp4'
    """
    plain = "".join(f"%{ord(letter) - 0xDC00:02X}" if 0xDC80 <= ord(letter) <= 0xDCFF else letter for letter in name)
    return unicodedata.normalize("NFC", plain)


def paths_by_id(files: Iterable[tuple[str, Path]], clash: Callable[[str, str, str], VlError]) -> dict[str, Path]:
    """Id to path, in the order of the ids' bytes; a path may come twice.

    Args:
        files: ids and paths.
        clash: the error for two printable paths that share a printable id.
    """
    paths: dict[str, Path] = {}
    for name, path in files:
        other = paths.setdefault(name, path)
        if other != path:
            raise clash(printable(other), printable(path), printable(name))
    return {name: paths[name] for name in sorted(paths, key=lambda name: name.encode())}
