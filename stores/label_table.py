"""Labels as a reader finds them, each with its place in the file, and the classes they are numbered by in the end.

A place is a number that `locate` turns into words (`row 17`), so that whoever looks at the labels later can say where
each of them stands. A reader fills a `LabelTable` and ends with `named` or `numbered`, which give a `LabelFile`.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores.label_names import MAX_CLASSES, class_names, names_beside
from stores.label_text import number_of, table_rows
from stores.labels import IGNORED, LabelAt, LabelError, Labels, VideoLabels
from stores.names import printable

IGNORE = "ignore"  # the label of a stretch that nobody annotated
_UNKNOWN = -2  # while reading: a class that the names of classes do not have
_FILE = 1 << 32  # a place in the n-th of several files is n * _FILE + row
SUBSETS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def subset_of(name: str) -> str:
    """train, val or test for each way of writing them; any other name as it is."""
    return SUBSETS.get(name.strip().lower(), name.strip())


@dataclass(frozen=True)
class ReadOptions:
    """What a label file does not say about itself."""

    classes: Path | None = None  # names of the classes
    fps: float | None = None  # frames a second, where a file counts frames
    lenient: bool = False  # keep reading past labels of unknown classes, for a checker to name them


@dataclass(frozen=True)
class Part:
    """One of the files that hold the labels together, and the subset it stands for."""

    path: Path
    subset: str | None = None


@dataclass(frozen=True)
class Stray:
    """A label that could not be taken over as it stands."""

    video: str
    label: str
    place: int


@dataclass(frozen=True, eq=False)
class LabelFile:
    """Labels, and where in the file each of them stands."""

    path: Path
    form: str  # one of FORMATS
    labels: Labels
    locate: Callable[[int], str]  # a place in words
    places: Mapping[str, NDArray[np.int64]]  # of each video's spans, in their order
    video_places: Mapping[str, int]  # where a video is first named
    numbers: tuple[int, ...] | None = None  # the file's number of each class, if it numbers them
    unknown: tuple[Stray, ...] = ()  # labels of classes without a name; only where the reader was lenient
    repeated: tuple[Stray, ...] = ()  # classes of a whole video that are given again


class LabelTable:
    """Spans as they are read, in flat arrays: ten million rows stay within 400 MB.

    Args:
        parts: the files; messages name the one that a place is in.
        options: what the caller knows.
        locate: a place in words; without, the row of its file.
    """

    def __init__(self, parts: Sequence[Part], options: ReadOptions, locate: Callable[[int], str] | None = None) -> None:
        self.parts = parts
        self.path = parts[0].path
        self.options = options
        self.locate = locate or self._row
        self.videos: dict[str, int] = {}
        self.labels: dict[str, int] = {}
        self.notes: list[str] = []
        self.subsets: dict[int, str] = {}
        self.durations: dict[int, float] = {}
        self.unlooked: dict[int, list[int]] = {}  # video -> labels that nobody looked for
        self._video_places = array("q")
        self._span_video, self._span_label, self._places = array("q"), array("i"), array("q")
        self._starts, self._ends = array("d"), array("d")
        self._whole: dict[int, dict[int, int]] = {}
        self._repeated: list[tuple[int, int, int]] = []

    def _row(self, place: int) -> str:
        number, row = divmod(place, _FILE)
        return f"{self.parts[number].path.name}, row {row}" if len(self.parts) > 1 else f"row {row}"

    def error(self, place: int, text: str) -> LabelError:
        """An error with the file and the place in it."""
        if self.locate == self._row:
            number, row = divmod(place, _FILE)
            return LabelError(f"{self.parts[number].path}, row {row}: {text}")
        return LabelError(f"{self.path}, {self.locate(place)}: {text}")

    def rows(self, required: Sequence[str], more: Iterable[str]) -> Iterator[tuple[int, int, dict[str, str]]]:
        """(number of the part, place, column -> text) of all rows of all parts, for the known columns there are."""
        wanted, unused = {*required, *more}, set()
        for number, part in enumerate(self.parts):
            found = table_rows(part.path)
            columns = [name.strip().lower() for name in next(found, (0, []))[1]]
            twice = next((name for name in columns if name in wanted and columns.count(name) > 1), None)
            if twice is not None:
                raise LabelError(f"{part.path} has the column {twice} twice.")
            missing = next((name for name in required if name not in columns), None)
            if missing is not None:
                raise LabelError(f"{part.path} has no column {missing}. Is it another --format?")
            unused |= {printable(name) for name in columns if name not in wanted}
            place = {name: index for index, name in enumerate(columns) if name in wanted}
            for row, fields in found:
                yield number, number * _FILE + row, {name: fields[column].strip() for name, column in place.items()}
        if unused:
            self.notes.append(f"columns not used: {', '.join(sorted(unused))}"[:300])

    def place(self, part: int, row: int) -> int:
        """The place of a row in a part."""
        return part * _FILE + row

    def video(self, name: str, place: int) -> int:
        """Number of the video, in order of appearance."""
        if not name:
            raise self.error(place, "the video has no name.")
        number = self.videos.setdefault(name, len(self.videos))
        if number == len(self._video_places):
            self._require_text(name, place)
            self._video_places.append(place)
        return number

    def label(self, name: str, place: int) -> int:
        """Number of the class, in order of appearance; IGNORED for `ignore`."""
        if name == IGNORE:
            return IGNORED
        if name not in self.labels:
            self._require_text(name, place)
        if name not in self.labels and len(self.labels) == MAX_CLASSES:
            raise self.error(place, f"more than {MAX_CLASSES} different labels. Is it the right column?")
        return self.labels.setdefault(name, len(self.labels))

    def _require_text(self, name: str, place: int) -> None:
        """File names may hold bytes that are no text, and these names come from file names too."""
        try:
            name.encode()
        except UnicodeEncodeError:
            raise self.error(place, f"'{printable(name)[:60]}' is no UTF-8. Rename it.") from None

    def span(self, video: int, label: int, start: float, end: float, place: int) -> None:
        """A class from `start` to `end` seconds."""
        self._span_video.append(video)
        self._span_label.append(label)
        self._starts.append(start)
        self._ends.append(end)
        self._places.append(place)

    def whole(self, video: int, label: int, place: int) -> None:
        """A class of the whole video."""
        if label == IGNORED:
            raise self.error(place, f"the label '{IGNORE}' needs a start and an end.")
        known = self._whole.setdefault(video, {})
        if label in known:
            self._repeated.append((video, label, place))
        known.setdefault(label, place)

    def seconds(self, value: Any, column: str, place: int) -> float:
        """A time or duration: finite and not negative."""
        seconds = number_of(value)
        if not 0 <= seconds < float("inf"):
            shown = printable(str(value))[:60]
            raise self.error(place, f"{column} is '{shown}', not a number of seconds from 0 on.")
        return seconds

    def set_duration(self, video: int, value: Any, place: int, column: str = "duration") -> None:
        """The duration of a video, which may not change from row to row."""
        self._fact(self.durations, video, self.seconds(value, column, place), column, place)

    def set_subset(self, video: int, name: str, place: int) -> None:
        """The subset of a video, which may not change from row to row."""
        self._fact(self.subsets, video, subset_of(name), "subset", place)

    def _fact(self, known: dict[int, Any], video: int, value: object, what: str, place: int) -> None:
        if known.setdefault(video, value) != value:
            name = printable(next(name for name, index in self.videos.items() if index == video))
            old = printable(str(known[video]))
            raise self.error(place, f"{what} {printable(str(value))} for '{name}', which had {old} before.")

    def named(self, form: str, label_at: LabelAt = "centre") -> LabelFile:
        """The labels by the names they have; in the order of the names of classes, if given, else sorted."""
        if self.options.classes is None:
            classes = tuple(sorted(self.labels, key=_natural))
            return self._finish(form, label_at, classes, {name: index for index, name in enumerate(classes)})
        numbers = {name: int(name) for name in self.labels if name.isascii() and name.isdigit() and len(name) < 10}
        names = class_names(self.options.classes, numbers.values())
        if len(numbers) == len(self.labels) and not set(numbers) & set(names.values()):
            return self.numbered(form, numbers, label_at=label_at)
        order = [names[number] for number in sorted(names)]
        self._require_named([name for name in self.labels if name not in set(order)], len(order))
        return self._finish(form, label_at, tuple(order), {name: index for index, name in enumerate(order)})

    def numbered(
        self,
        form: str,
        ids: Mapping[str, int],
        default: Callable[[], Mapping[int, str]] | None = None,
        label_at: LabelAt = "centre",
    ) -> LabelFile:
        """The labels by their numbers, `ids`; the columns follow the numbers.

        The names are those of the options, else of a file beside the labels, else `default()`.
        """
        source = self.options.classes or names_beside(self.path)
        if source is None:
            if max(ids.values(), default=0) >= MAX_CLASSES:
                label = max(ids, key=lambda name: ids[name])
                raise LabelError(f"{self.path} has class {label}, over the {MAX_CLASSES} classes allowed.")
            names = dict(default()) if default else {number: str(number) for number in range(max(ids.values()) + 1)}
        else:
            names = class_names(source, ids.values())
            if source != self.options.classes:
                self.notes.append(f"class names from {source.name} beside the labels")
        order = {number: index for index, number in enumerate(sorted(names))}
        self._require_named([label for label, number in ids.items() if number not in order], len(names))
        index = {label: order[number] for label, number in ids.items() if number in order}
        return self._finish(form, label_at, tuple(names[number] for number in order), index, tuple(order))

    def _require_named(self, missing: Sequence[str], count: int) -> None:
        if missing and not self.options.lenient:
            label = self.labels[missing[0]]
            place = next((p for p, c in zip(self._places, self._span_label, strict=True) if c == label), None)
            if place is None:
                place = next(known[label] for known in self._whole.values() if label in known)
            raise self.error(
                place, f"class {printable(missing[0])[:60]}, for which the {count} class names have no name."
            )

    def _finish(
        self,
        form: str,
        label_at: LabelAt,
        classes: tuple[str, ...],
        index: Mapping[str, int],
        numbers: tuple[int, ...] | None = None,
    ) -> LabelFile:
        renumber = np.array([index.get(name, _UNKNOWN) for name in self.labels] + [IGNORED], np.int32)
        video_S = np.array(self._span_video, np.int64)
        class_S = renumber[np.array(self._span_label, np.int32)]
        places_S = np.array(self._places, np.int64)
        texts, names = list(self.labels), list(self.videos)
        strays = [
            Stray(names[video_S[at]], texts[self._span_label[at]], int(places_S[at]))
            for at in np.flatnonzero(class_S == _UNKNOWN).tolist()
        ]
        strays += [
            Stray(names[video], texts[label], place)
            for video, known in self._whole.items()
            for label, place in known.items()
            if renumber[label] == _UNKNOWN
        ]
        keep = np.flatnonzero(class_S != _UNKNOWN)
        order = keep[np.argsort(video_S[keep], kind="stable")]
        spans = np.stack([np.array(self._starts), np.array(self._ends)], axis=1)[order]
        bounds = np.searchsorted(video_S[order], np.arange(len(self.videos) + 1)).tolist()
        class_S, places_S = class_S[order], places_S[order]
        videos, places = {}, {}
        for name, number in self.videos.items():
            mine = slice(bounds[number], bounds[number + 1])
            level = tuple(int(renumber[label]) for label in self._whole.get(number, ()))
            videos[name] = VideoLabels(
                class_S[mine],
                spans[mine],
                self.durations.get(number),
                self.subsets.get(number),
                tuple(index for index in level if index != _UNKNOWN),
                tuple(int(renumber[label]) for label in self.unlooked.get(number, ())),
            )
            places[name] = places_S[mine]
        labels = Labels(classes, videos, label_at, tuple(self.notes))
        if dirt := ", ".join(f"{count} {kind}" for kind, count in labels.problems().items() if count):
            labels = Labels(classes, videos, label_at, (*self.notes, f"as found in the file: {dirt}"))
        return LabelFile(
            self.path,
            form,
            labels,
            self.locate,
            places,
            dict(zip(self.videos, self._video_places, strict=True)),
            numbers,
            tuple(strays),
            tuple(Stray(names[video], texts[label], place) for video, label, place in self._repeated),
        )


def _natural(name: str) -> tuple[int, int, str]:
    """Whole numbers by size and before all others, so that class 10 comes after class 9."""
    is_number = name.isascii() and name.isdigit() and len(name) < 10
    return (0, int(name), name) if is_number else (1, 0, name)
