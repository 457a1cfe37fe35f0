"""What readers of predictions in text share: limits, encodings, and json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from heads.predictions import MAX_BYTES, PredictionError
from stores.names import printable

MAX_JSON = 1 << 30  # bytes; in memory it takes about ten times as much


@contextmanager
def require_encoding(path: Path) -> Iterator[TextIO]:
    """The file as text without its byte-order mark; what goes wrong while it is read becomes a PredictionError."""
    require_size(path, MAX_BYTES)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise PredictionError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise PredictionError(f"{printable(path)} is no UTF-8: {error.reason}. Save the file as UTF-8.") from error


def require_size(path: Path, limit: int) -> None:
    """PredictionError if the file is larger."""
    if (size := path.stat().st_size) > limit:
        raise PredictionError(f"{printable(path)} has {size >> 20} MiB, over the {limit >> 20} MiB allowed. Split it.")


def read_json(path: Path) -> Any:
    """The document; PredictionError if it is none, or names something twice in one object."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for place, name in enumerate(names) if name in names[:place])
            raise PredictionError(f"{printable(path)} has '{printable(twice)[:100]}' twice in one object.")
        return entries

    require_size(path, MAX_JSON)
    with require_encoding(path) as file:
        text = file.read()
    try:
        return json.loads(text, object_pairs_hook=once)
    except json.JSONDecodeError as error:
        raise PredictionError(f"{printable(path)}, row {error.lineno}: this is no sound json: {error.msg}.") from error
    except (RecursionError, ValueError) as error:  # nested a thousand deep; a number of 5000 digits
        raise PredictionError(f"{printable(path)} is no sound json: {printable(str(error))[:100]}.") from error
