"""The names of classes for label files that number them, or that use some of them only.

c000 Holding some clothes       Charades
7 BaseballPitch                 THUMOS
BaseballPitch                   category_idx.txt: one name a line, counted as the label file counts
{"1": "BaseballPitch"}          MultiTHUMOS
Index,...,Name,...              vocabulary.csv of YouTube-8M
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from pathlib import Path

from stores.label_text import parse_json, reading, whole_number
from stores.labels import LabelError

MAX_NAMES_BYTES = 16 << 20
MAX_CLASSES = 20_000  # five times the largest vocabulary of the field, YouTube-8M's 3862


def names_beside(path: Path) -> Path | None:
    """`<stem>_classes.json` or `.txt` beside a label file, where there is one."""
    beside = [path.with_name(f"{path.stem}_classes{ending}") for ending in (".json", ".txt")]
    return next((file for file in beside if file.is_file()), None)


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The names in a file of classes, in the order of their numbers.

    Raises:
        LabelError: the file is absent or not sound, or does not give every class one number and one name.
    """
    names = class_names(Path(path), ())
    return tuple(names[number] for number in sorted(names))


def class_names(source: Path, ids: Iterable[int]) -> dict[int, str]:
    """Class number -> name.

    Args:
        source: a file of one of the forms above.
        ids: the numbers that the label file uses: names without a number begin at 1 where none of them is 0.

    Raises:
        LabelError: the file does not give every class one number and one name of its own, or there are too many.
    """
    with reading(source, MAX_NAMES_BYTES) as file:
        text = file.read()
    if text.lstrip()[:1] == "{":
        document = parse_json(source)
        pairs = [(str(number), str(name)) for number, name in document.items()]
    elif text[:6].lower() == "index,":
        pairs = _vocabulary(source, text)
    else:
        pairs = _from_lines([line.strip() for line in text.splitlines() if line.strip()], ids)
    numbered = [(whole_number(number), name) for number, name in pairs]
    names = {number: name for number, name in numbered if number is not None}
    if not pairs or len(names) < len(pairs) or len(set(names.values())) < len(pairs):
        raise LabelError(f"{source} must give every class one number and one name of its own.")
    if len(names) > MAX_CLASSES:
        raise LabelError(f"{source} has {len(names)} classes, over the {MAX_CLASSES} that are allowed.")
    return names


def _from_lines(lines: list[str], ids: Iterable[int]) -> list[tuple[str, str]]:
    coded = [line.partition(" ") for line in lines]
    if lines and all(code[:1] == "c" and code[1:].isdecimal() for code, _, _ in coded):
        return [(code[1:], name or code) for code, _, name in coded]
    if lines and all(code.isdecimal() and name for code, _, name in coded):
        return [(code, name) for code, _, name in coded]
    first = min(1, min(ids, default=0))
    return [(str(number), line) for number, line in enumerate(lines, first)]


def _vocabulary(source: Path, text: str) -> list[tuple[str, str]]:
    """Columns Index and Name; a few entities have no name and keep their number."""
    try:
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        return [(row["Index"], row["Name"] or row["Index"]) for row in rows]
    except (csv.Error, KeyError, TypeError) as error:
        raise LabelError(f"{source} is no vocabulary.csv with the columns Index and Name.") from error
