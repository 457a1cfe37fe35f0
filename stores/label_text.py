"""Text of label files, read under guard: sizes, encodings, rows with their numbers, json, seconds.

Whatever goes wrong becomes one LabelError that has the file and the row.
"""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from stores.labels import LabelError
from stores.names import printable

MAX_BYTES = 512 << 20  # of a csv file
MAX_JSON_BYTES = 128 << 20  # json takes about ten times its size in memory
MAX_ROWS = 10_000_000


@contextmanager
def reading(path: Path, limit: int) -> Iterator[TextIO]:
    """The file as text without its byte-order mark; what goes wrong while it is read becomes a LabelError."""
    if not path.is_file():
        raise LabelError(f"there is no label file {path}.")
    if (size := path.stat().st_size) > limit:
        raise LabelError(f"{path} has {size >> 20} MiB, over the {limit >> 20} MiB allowed here.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise LabelError(
            f"{path}, row {_undecodable_row(path)}: {error.reason}: this is no UTF-8. Save the file as UTF-8."
        ) from error


def _undecodable_row(path: Path) -> int:
    """Number of the first line that is no UTF-8, for the decoder reads ahead and cannot tell."""
    with path.open("rb") as file:
        for row, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return row
    return 1  # mended in the meantime


def beginning(path: Path) -> str:
    """The first 64 Ki characters, by which a file is known."""
    with reading(path, MAX_BYTES) as file:
        return file.read(1 << 16)


def table_rows(path: Path, delimiter: str = ",", skip: int = 0) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of every row, the header first; empty rows are passed over, all others are as wide as it.

    The first `skip` lines of the file are no part of the table.
    """
    with reading(path, MAX_BYTES) as file:
        for _ in range(skip):
            file.readline()
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        width = 0
        try:
            for number, fields in enumerate(reader):
                if number > MAX_ROWS:
                    raise LabelError(f"{path} has more than {MAX_ROWS} rows.")
                if fields:
                    width = width or len(fields)
                    if len(fields) != width:
                        raise LabelError(
                            f"{path}, row {skip + reader.line_num}: {len(fields)} fields where the header has {width}."
                        )
                    yield skip + reader.line_num, fields
        except csv.Error as error:
            raise LabelError(f"{path}, row {skip + reader.line_num}: {printable(str(error))}.") from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank."""
    with reading(path, MAX_BYTES) as file:
        for number, line in enumerate(file, 1):
            if number > MAX_ROWS:
                raise LabelError(f"{path} has more than {MAX_ROWS} rows.")
            if line.strip():
                yield number, line.strip()


def parse_json(path: Path) -> Any:
    """The document in `path`; a name that stands twice in one object is an error, for one of the two would be lost."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise LabelError(f"{path} has '{printable(twice)[:100]}' twice in one object.")
        return entries

    with reading(path, MAX_JSON_BYTES) as file:
        text = file.read()
    try:
        document = json.loads(text, object_pairs_hook=once)
        if "\\ud" in text.lower():
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeEncodeError as error:
        raise LabelError(f"{path} has half a character, as {error.object[error.start]!a}, which is no text.") from error
    except json.JSONDecodeError as error:
        raise LabelError(f"{path}, row {error.lineno}: this is no sound json: {error.msg}.") from error
    except (RecursionError, ValueError) as error:  # nested a thousand deep; a number of 5000 digits
        raise LabelError(f"{path} is no sound json: {printable(str(error))[:100]}.") from error


def number_of(value: Any) -> float:
    """`value` as a number, nan where it is none: float() would also take 1_000, and True as 1."""
    try:
        return math.nan if isinstance(value, bool) or "_" in str(value) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def whole_number(value: Any) -> int | None:
    """`value` as a number from 0 to 999,999,999, None where it is none."""
    if isinstance(value, str):
        return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else None
    whole = type(value) is int or (type(value) is float and value.is_integer())
    return int(value) if whole and 0 <= value < 1e9 else None
