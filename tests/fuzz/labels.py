"""Hostile label files: sound files of every form, changed at random; each is read, or refused with one line.

`python -m tests.fuzz.labels --cases 10000` changes every form that often, and prints what came of it. What is read is
also checked, corrected, counted and written, as the commands do. A case depends on its form and number alone.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import warnings
from collections import Counter
from pathlib import Path

from stores.errors import VlError
from stores.label_check import check
from stores.label_files import read_label_file
from stores.label_fix import fixed
from stores.label_stats import statistics
from stores.label_table import ReadOptions
from stores.label_writers import WRITABLE, write_labels
from stores.labels import Labels
from tests.stores.label_samples import FORMS, contents, options, write_sample

NASTY = (
    b"nan", b"inf", b"1e999", b"-1", b"", b"0", b"1_0", b"9" * 400, b"99999999", b"\x00", b"\xff\xfe", b'"', b"'", b",",
    b" ", b"\t", b"\n", b"\r", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b"null", b"true", b"NaN", b"ignore", b"c000",
    b"\xe2\x80\xae", b"\xc2\x85", b"=1+1", b"../../x", b"0x10", b"\xd9\xa1", b"\xc2\xb2", b"(10000000000, 3)", b"'|O'",
    b"http://[", b"\x1b[2J", b"1e300", b"\\ud800",
)  # fmt: skip
MANY = 500  # classes, of which matrices and folders of files take a second
LONG = 1e5  # seconds


def changed(data: bytes, chance: random.Random) -> bytes:
    """`data` with one to four changes: a byte, a nasty word put in or over, a piece cut, doubled or moved."""
    out = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        at = chance.randint(0, len(out))
        length = chance.choice([1, 1, 2, 4, 8, 30])
        match chance.randrange(6):
            case 0:
                out[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                out[at:at] = chance.choice(NASTY)
            case 2:
                out[at : at + length] = chance.choice(NASTY)
            case 3:
                del out[at : at + length]
            case 4:
                out[at:at] = out[at : at + length]
            case _:
                piece, to = out[at : at + length], chance.randint(0, len(out))
                out[to:to] = piece
    return bytes(out[: chance.randint(0, len(out))] if chance.random() < 0.05 else out)


def case(form: str, number: int, folder: Path) -> str:
    """What comes of one case: `read`, or the first words of the error.

    Raises:
        Exception: anything but a VlError is a bug.
        AssertionError: the error is not one printable line.
    """
    chance = random.Random(f"{form}:{number}")
    files = contents(form)
    name = chance.choice(sorted(files))
    path = write_sample(folder, form, {**files, name: changed(files[name], chance)})
    told = options(form)
    try:
        file = read_label_file(
            path, ReadOptions(told.classes, told.fps, chance.random() < 0.5), chance.choice([form, None])
        )
        check(file, None)
        mended, _ = fixed(file)
        assert Labels.from_dict(file.labels.to_dict()).fingerprint == file.labels.fingerprint
    except VlError as error:
        return refused(error, folder)
    if len(file.labels.classes) > MANY:
        return "read"
    # Where it is not refused at once, half a year of rows takes seconds.
    longest = max(max(entry.duration or 0.0, float(entry.spans.max(initial=0.0))) for entry in mended.videos.values())
    try:
        if not LONG < longest < 1e9:
            statistics(mended)
    except VlError as error:
        refused(error, folder)
    out = folder / f"out-{number}"
    try:
        write_labels(mended, out, chance.choice(WRITABLE))
    except VlError as error:
        refused(error, folder)
    return "read"


def refused(error: VlError, folder: Path) -> str:
    """The words of an error, which must be one line that no terminal obeys."""
    text = str(error).replace(str(folder), "")
    assert text.isprintable(), repr(text)
    assert len(text) < 1000, len(text)
    return "refused"


def run(form: str, cases: range) -> Counter[str]:
    """How often each thing came of it."""
    found: Counter[str] = Counter()
    for number in cases:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                found[case(form, number, Path(folder))] += 1
            except Exception as error:
                error.add_note(f"form {form}, case {number}")
                raise
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--form", choices=FORMS, default=None)
    given = parser.parse_args()
    for form in [given.form] if given.form else FORMS:
        found = run(form, range(given.first, given.first + given.cases))
        print(f"{form:14}{given.cases} cases: {found['read']} read, {found['refused']} refused", flush=True)


if __name__ == "__main__":
    main()
