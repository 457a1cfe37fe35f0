"""What is wrong with labels, by kind, with the row of each: a checker names dirt and never hides it.

Kinds that are about one segment: reversed, empty, ends after its video, starts after its video, duplicate, overlap
with the same class. About classes: unknown class, ids off by one, no positives in a subset, names nearly the same.
About videos: no labels.

Shape letters: S segments of one video.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stores.label_table import LabelFile
from stores.labels import IGNORED, VideoLabels
from stores.names import printable

KINDS = {
    "reversed": "ends before it starts",
    "empty": "ends where it starts",
    "late": "ends after its video",
    "beyond": "starts after its video",
    "duplicate": "is there already",
    "overlap": "overlaps the same class",
    "unknown-class": "has a class without a name",
    "off-by-one": "class ids are off by one",
    "no-labels": "video without labels",
    "no-positives": "class without positives",
    "similar-names": "classes with nearly the same name",
}
MIN_LETTERS = 4  # of names that one letter may tell apart by mistake; "at" and "by" are words
MAX_ALIKE = 50


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    kind: str  # one of KINDS
    where: str  # `row 17`, `video 'v', action 3`; empty where it is about the whole file
    text: str


@dataclass
class Report:
    """How often each kind was found, and the first few of each, or all."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    shown: dict[str, list[Finding]] = field(default_factory=lambda: {kind: [] for kind in KINDS})
    without_duration: int = 0  # videos whose end nobody knows: nothing in them can be late

    @property
    def total(self) -> int:
        """How many findings there are, of all kinds."""
        return sum(self.counts.values())


def check(file: LabelFile, limit: int | None = 5) -> Report:
    """Everything that is wrong with the labels in `file`; of each kind at most `limit` are shown, None shows all."""
    report = Report(without_duration=sum(entry.duration is None for entry in file.labels.videos.values()))

    def room(kind: str) -> int | None:
        return None if limit is None else max(limit - len(report.shown[kind]), 0)

    def note(kind: str, where: str, text: str) -> None:
        report.counts[kind] += 1
        if room(kind) != 0:
            report.shown[kind].append(Finding(kind, where, text))

    for video, entry in file.labels.videos.items():
        name = printable(video)
        if not (len(entry.classes) or entry.video_level):
            note("no-labels", file.locate(file.video_places[video]), f"'{name}'")
        for kind, wrong_S in wrong_segments(entry).items():
            wrong = np.flatnonzero(wrong_S)
            report.counts[kind] += len(wrong)
            for index in wrong[: room(kind)].tolist():
                where = file.locate(int(file.places[video][index]))
                shown = "" if name[:100] in where else f"'{name}': "  # json names its videos
                report.shown[kind].append(Finding(kind, where, shown + segment_text(file, entry, index)))
    for stray in file.repeated:
        note("duplicate", file.locate(stray.place), f"'{printable(stray.video)}' has {printable(stray.label)} already")
    for stray in file.unknown:
        text = f"'{printable(stray.video)}': class {printable(stray.label)} has no name"
        note("unknown-class", file.locate(stray.place), text)
    for kind, text in (*_off_by_one(file), *_without_positives(file), *_similar(file.labels.classes)):
        note(kind, "", text)
    return report


def segment_text(file: LabelFile, entry: VideoLabels, index: int) -> str:
    """`Jump 3.5 to 2.25 of 10`, in seconds."""
    number = int(entry.classes[index])
    name = "ignore" if number == IGNORED else printable(file.labels.classes[number])
    start, end = (f"{time:.15g}" for time in entry.spans[index].tolist())
    return f"{name} {start} to {end}" + (f" of {entry.duration:.15g}" if entry.duration is not None else "")


def wrong_segments(entry: VideoLabels) -> dict[str, NDArray[np.bool_]]:
    """Kind -> (S,) which segments of the video are so; a segment may be several."""
    starts, ends = entry.spans.T
    duration = np.inf if entry.duration is None else entry.duration
    repeated = copies(entry)
    return {
        "reversed": ends < starts,
        "empty": ends == starts,
        "late": ends > duration,
        "beyond": starts >= duration,
        "duplicate": repeated,
        "overlap": _overlapping(entry, repeated),
    }


def copies(entry: VideoLabels) -> NDArray[np.bool_]:
    """(S,) which segments are there already, with the same class, start and end."""
    seen: set[tuple[int, float, float]] = set()
    repeated = []
    for number, (start, end) in zip(entry.classes.tolist(), entry.spans.tolist(), strict=True):
        repeated.append((number, start, end) in seen)
        seen.add((number, start, end))
    return np.array(repeated, bool)


def _overlapping(entry: VideoLabels, repeated: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(S,) begins before an earlier segment of the same class has ended; duplicates are left to themselves."""
    overlapping = np.zeros(len(entry.classes), bool)
    usable = np.flatnonzero((entry.spans[:, 1] > entry.spans[:, 0]) & ~repeated)
    order = usable[np.lexsort((entry.spans[usable, 0], entry.classes[usable]))]
    reached, current = -np.inf, None
    for index in order.tolist():
        number, (start, end) = int(entry.classes[index]), entry.spans[index].tolist()
        if number != current:
            reached, current = -np.inf, number
        overlapping[index] = start < reached
        reached = max(reached, end)
    return overlapping


def _off_by_one(file: LabelFile) -> Iterator[tuple[str, str]]:
    """Numbers that begin at 1, where columns begin at 0; ids that reach one past the names."""
    numbers, labels = file.numbers, file.labels
    if numbers is None:
        return
    if numbers and min(numbers) == 1:
        text = f"class ids run from 1 to {max(numbers)}: most code wants 0 to {max(numbers) - 1} (subtract 1)"
        yield "off-by-one", text
    strays = {int(stray.label.lstrip("c")) for stray in file.unknown if stray.label.lstrip("c").isdecimal()}
    used = {index for entry in labels.videos.values() for index in (*entry.classes.tolist(), *entry.video_level)}
    if numbers and strays == {max(numbers) + 1} and 0 not in used:
        yield "off-by-one", f"class {max(strays)} is one past the {len(numbers)} names, and the first is never used"
    if numbers and strays == {min(numbers) - 1} and len(labels.classes) - 1 not in used:
        yield "off-by-one", f"class {min(strays)} is one before the {len(numbers)} names, and the last is never used"


def _without_positives(file: LabelFile) -> Iterator[tuple[str, str]]:
    """Classes that no video of a subset has: their average precision is nan there, and they cannot be learnt."""
    found: dict[str, set[int]] = defaultdict(set)
    for entry in file.labels.videos.values():
        forward = entry.spans[:, 1] > entry.spans[:, 0]
        found[entry.subset or ""] |= {*entry.classes[forward].tolist(), *entry.video_level}
    for subset, present in sorted(found.items()):
        for index, name in enumerate(file.labels.classes):
            if index not in present:
                where = f"in {printable(subset)}" if subset else "in any video" + " without a subset" * (len(found) > 1)
                yield "no-positives", f"{printable(name)} has no positive {where}"


def _similar(classes: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Pairs that differ in case, spaces and signs only, in one letter, or in two that changed places.

    Names so far apart share what is left of them without some one letter, so no name is compared with all others.
    """
    plain: dict[str, list[int]] = defaultdict(list)
    shortened: dict[str, list[int]] = defaultdict(list)
    letters = ["".join(letter for letter in name.casefold() if letter.isalnum()) for name in classes]
    for index, word in enumerate(letters):
        plain[word].append(index)
        if len(word) >= MIN_LETTERS and len(word) <= 200:
            for at, letter in enumerate(word):
                if not letter.isdigit():  # numbered names are told apart by their digits
                    shortened[word[:at] + word[at + 1 :]].append(index)
    pairs = {pair for same in plain.values() for pair in itertools.pairwise(same)}
    for shorter, same in shortened.items():
        others = [*same, *(plain[shorter] if len(shorter) >= MIN_LETTERS and shorter in plain else ())]
        if len(others) > MAX_ALIKE:  # names that one letter tells apart on purpose
            continue
        for position, a in enumerate(others):
            pairs |= {(min(a, b), max(a, b)) for b in others[position + 1 :] if a != b and _one_apart(letters, a, b)}
    for a, b in sorted(pairs):
        yield "similar-names", f"{printable(classes[a])} and {printable(classes[b])}"


def _one_apart(words: list[str], a: int, b: int) -> bool:
    """Whether two words are one letter inserted, deleted, replaced, or swapped with its neighbour apart."""
    short, long = sorted((words[a], words[b]), key=len)
    if len(long) - len(short) > 1:
        return False
    start = next((at for at, (x, y) in enumerate(zip(short, long, strict=False)) if x != y), len(short))
    if len(short) < len(long):
        return short[start:] == long[start + 1 :]
    swapped = short[start : start + 2] == long[start : start + 2][::-1] and short[start + 2 :] == long[start + 2 :]
    return swapped or short[start + 1 :] == long[start + 1 :]
