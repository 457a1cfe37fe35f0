"""Labels as people give them, in seconds, and as rows want them: 0, 1 or -1 at any times.

A video has spans of time in which a class is present, and classes of which only the video is known. They
become a matrix where the rows are, never by counting rows: see `Labels.rows`.

Shape letters: N rows, C classes, S spans.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stores.errors import VlError
from stores.names import printable

LabelAt = Literal["centre", "start", "overlap"]
Boundary = Literal["strict", "inclusive"]
IGNORED = -1  # as a span's class: nobody annotated this stretch, so no class is known in it


class LabelError(VlError):
    """Labels that cannot be read, or that do not fit the videos."""


@dataclass(frozen=True, eq=False)
class VideoLabels:
    """What is known of one video.

    A span that ends before it starts is never active, but is kept, for a checker to name.
    """

    classes: NDArray[np.int32]  # (S,) index into Labels.classes, or IGNORED
    spans: NDArray[np.float64]  # (S, 2) start and end in seconds
    duration: float | None = None  # seconds, as the label file has it
    subset: str | None = None  # train, val, test, or as the label file has it
    video_level: tuple[int, ...] = ()  # classes present in the video at a time that nobody wrote down
    unknown: tuple[int, ...] = ()  # classes that nobody looked for in this video

    @classmethod
    def of(cls, segments: Iterable[tuple[int, float, float]], **rest: Any) -> Self:
        """From `(class, start, end)` triples; `rest` are the other fields."""
        triples = list(segments)
        return cls(
            np.array([triple[0] for triple in triples], np.int32),
            np.array([triple[1:] for triple in triples], np.float64).reshape(-1, 2),
            **rest,
        )


@dataclass(frozen=True, eq=False)
class Labels:
    """Classes and the labels of many videos, by the ids of the label file."""

    classes: tuple[str, ...]
    videos: Mapping[str, VideoLabels]
    label_at: LabelAt = "centre"  # where `rows` looks unless told
    notes: tuple[str, ...] = field(default=())  # what the reader decided, and dirt it found, for people

    @property
    def timed(self) -> bool:
        """Whether any span is known, without which a head of level row has nothing to learn."""
        return any(len(labels.classes) > 0 for labels in self.videos.values())

    @property
    def has_subsets(self) -> bool:
        """Whether the labels say which videos train and which test."""
        return any(labels.subset for labels in self.videos.values())

    def rows(
        self,
        video: str,
        times: ArrayLike,
        at: LabelAt | None = None,
        boundary: Boundary = "strict",
        duration: float | None = None,
    ) -> NDArray[np.int8]:
        """The labels of `video` at rows that stand for `times`.

        Args:
            video: an id of the label file.
            times: (N, 2) seconds, [start, end) of every row of the video, in any order unless `at` is start.
            at: `centre` takes a row's middle; `start` takes k * duration / N for row k, the grid of the
                Charades and MultiTHUMOS recipes; `overlap` takes every class that its row touches.
            boundary: `strict` takes start < t < end, `inclusive` takes start <= t <= end.
            duration: seconds, for `start`; else the label file's, else the end of the last row.

        Returns:
            (N, C) 1 where the class is present, 0 where not, -1 where nobody knows: in an ignored span,
            for a class not looked for, and for one known of the video as a whole only.

        Raises:
            LabelError: there is no such video.
        """
        labels = self._of(video)
        starts_N, ends_N = _points(np.asarray(times, np.float64), at or self.label_at, duration, labels)
        table_NC = np.zeros((len(starts_N), len(self.classes)), np.int8)
        table_NC[:, list(labels.video_level)] = -1
        covered = _rows_under(labels.spans, starts_N, ends_N, boundary)
        named = list(zip(labels.classes.tolist(), covered, strict=True))
        for index, rows in named:
            if index != IGNORED:
                table_NC[rows, index] = 1
        table_NC[:, list(labels.unknown)] = -1
        for index, rows in named:
            if index == IGNORED:
                table_NC[rows] = -1
        return table_NC

    def video(self, video: str) -> NDArray[np.int8]:
        """(C,) of `video` as a whole: 1 where a class is present at any time, -1 where nobody looked for it.

        An ignored span does not make the other classes unknown, unless nothing but ignored spans is there.
        """
        labels = self._of(video)
        table_C = np.zeros(len(self.classes), np.int8)
        ignored = labels.classes == IGNORED
        if ignored.any() and ignored.all() and not labels.video_level:
            table_C[:] = -1
        table_C[list(labels.unknown)] = -1
        forward = labels.spans[:, 1] >= labels.spans[:, 0]
        table_C[labels.classes[forward & ~ignored]] = 1
        table_C[list(labels.video_level)] = 1
        return table_C

    def only(self, videos: Iterable[str]) -> Labels:
        """The same labels of these videos alone."""
        return Labels(self.classes, {video: self._of(video) for video in videos}, self.label_at, self.notes)

    def to_dict(self) -> dict[str, Any]:
        """As JSON types, to be attached to a store."""
        return {
            "classes": list(self.classes),
            "label_at": self.label_at,
            "notes": list(self.notes),
            "videos": {
                video: {
                    "segments": [
                        [int(index), float(start), float(end)]
                        for index, (start, end) in zip(labels.classes, labels.spans, strict=True)
                    ],
                    "duration": labels.duration,
                    "subset": labels.subset,
                    "video_level": list(labels.video_level),
                    "unknown": list(labels.unknown),
                }
                for video, labels in self.videos.items()
            },
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Self:
        """The labels that `to_dict` wrote.

        Raises:
            LabelError: the document is not of that form.
        """
        try:
            videos = {
                str(video): VideoLabels.of(
                    [(int(index), float(start), float(end)) for index, start, end in entry["segments"]],
                    duration=None if entry["duration"] is None else float(entry["duration"]),
                    subset=None if entry["subset"] is None else str(entry["subset"]),
                    video_level=tuple(int(index) for index in entry["video_level"]),
                    unknown=tuple(int(index) for index in entry["unknown"]),
                )
                for video, entry in document["videos"].items()
            }
            classes = tuple(str(name) for name in document["classes"])
            label_at: LabelAt = document["label_at"]
            notes = tuple(str(note) for note in document["notes"])
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise LabelError(f"the attached labels are malformed: {error!r}. Give --labels a label file.") from error
        for video, labels in videos.items():
            _require_classes(video, labels, len(classes))
        if label_at not in ("centre", "start", "overlap"):
            raise LabelError(f"labels are taken at centre, start or overlap, not at {label_at!r}.")
        return cls(classes, videos, label_at, notes)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything but the notes; equal labels have equal fingerprints."""
        document = {name: value for name, value in self.to_dict().items() if name != "notes"}
        return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

    def problems(self) -> dict[str, int]:
        """How many spans are reversed, empty, or end after their video, and how many videos have no label."""
        kinds = {"reversed": 0, "empty": 0, "after the end": 0, "videos without labels": 0}
        for labels in self.videos.values():
            starts, ends = labels.spans.T
            kinds["reversed"] += int((ends < starts).sum())
            kinds["empty"] += int((ends == starts).sum())
            if labels.duration is not None:
                kinds["after the end"] += int((ends > labels.duration).sum())
            kinds["videos without labels"] += not (len(labels.classes) or labels.video_level)
        return kinds

    def _of(self, video: str) -> VideoLabels:
        if video not in self.videos:
            raise LabelError(f"the labels have no video '{printable(video)}'.")
        return self.videos[video]


def _require_classes(video: str, labels: VideoLabels, num_classes: int) -> None:
    used = {*labels.classes.tolist(), *labels.video_level, *labels.unknown}
    if labels.spans.size and not np.isfinite(labels.spans).all():
        raise LabelError(f"the labels of '{printable(video)}' hold a time that is no number.")
    if used and not (min(used) >= IGNORED and max(used) < num_classes):
        wrong = max(used) if max(used) >= num_classes else min(used)
        raise LabelError(f"the labels of '{printable(video)}' name class {wrong}, but there are {num_classes} classes.")


def _points(
    times: NDArray[np.float64], at: LabelAt, duration: float | None, labels: VideoLabels
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The stretch that decides each row's labels: (N,) starts and (N,) ends, equal for a point."""
    assert times.ndim == 2, "times are (N, 2) seconds"
    assert times.shape[1] == 2, "times are (N, 2) seconds"
    if at == "overlap":
        return times[:, 0], times[:, 1]
    if at == "centre":
        points = times.mean(axis=1)
    elif at == "start":
        whole = duration if duration is not None else labels.duration
        if whole is None:
            whole = float(times[-1, 1]) if len(times) else 0.0
        points = np.arange(len(times)) * whole / max(len(times), 1)
    else:
        raise LabelError(f"labels are taken at centre, start or overlap, not at {at!r}.")
    return points, points


def _rows_under(
    spans: NDArray[np.float64], starts_N: NDArray[np.float64], ends_N: NDArray[np.float64], boundary: Boundary
) -> Sequence[slice | NDArray[np.bool_]]:
    """For each span the rows under it: a slice where rows lie in order of time, as they do but for odd windows."""
    if boundary not in ("strict", "inclusive"):
        raise LabelError(f"a boundary is strict or inclusive, not {boundary!r}.")
    strict = boundary == "strict"
    begins, finishes = spans.T
    # A reversed span holds no time, and an open one without length holds none either.
    holds = finishes > begins if strict else finishes >= begins
    if (np.diff(starts_N) >= 0).all() and (np.diff(ends_N) >= 0).all():
        first = np.searchsorted(ends_N, begins, side="right" if strict else "left")
        last = np.searchsorted(starts_N, finishes, side="left" if strict else "right")
        return [slice(*rows) for rows in np.stack([first, np.where(holds, last, 0)], axis=1).tolist()]
    return [
        ((starts_N < finish) & (ends_N > begin) if strict else (starts_N <= finish) & (ends_N >= begin)) & real
        for begin, finish, real in zip(begins, finishes, holds, strict=True)
    ]


@dataclass(frozen=True)
class Matched:
    """Which videos of a store have which labels."""

    pairs: dict[str, str]  # id in the store -> id in the labels, in the store's order
    only_store: tuple[str, ...]
    only_labels: tuple[str, ...]


# Endings that a label file may give a video other than the store's own ("a.avi" for "a.mp4"); any other
# ending belongs to the name, as in "take.1" and "take.2".
_ENDING = re.compile(
    r"\.(3gp|avi|flac|flv|gif|h264|h5|m2ts|m4a|m4v|mkv|mov|mp3|mp4|mpe?g|mts|mxf|npy|npz|og[gv]|opus|pt|ts|vob"
    r"|wav|webm|wmv|y4m)",
    re.IGNORECASE,
)


def _whole(video: str) -> str:
    return unicodedata.normalize("NFC", video)


def _path(video: str) -> str:
    return str(PurePosixPath(_whole(video)).with_suffix("")) if PurePosixPath(video).name else _whole(video)


def _name(video: str) -> str:
    return PurePosixPath(_whole(video)).name


def _stem(video: str) -> str:
    return PurePosixPath(_whole(video)).stem


def _known_path(video: str) -> str:
    return _path(video) if _ENDING.fullmatch(PurePosixPath(video).suffix) else _whole(video)


def _known_stem(video: str) -> str:
    return PurePosixPath(_known_path(video)).name


# From the strictest way of naming a video to the loosest, as (key in the store, key in the labels).
_WAYS: tuple[tuple[Callable[[str], str], Callable[[str], str]], ...] = (
    (_whole, _whole),
    (_path, _known_path),
    (_name, _name),
    (_stem, _whole),
    (_stem, _known_stem),
)


def match_videos(store_ids: Iterable[str], label_ids: Iterable[str]) -> Matched:
    """Pair the videos of a store with those of a label file: by exact id, else by unique stem.

    The stem is the relative path without its ending, or the file's name without folder and ending.

    Raises:
        LabelError: two videos on one side answer to one name on the other; it names them.
    """
    in_store, in_labels = list(dict.fromkeys(store_ids)), list(dict.fromkeys(label_ids))
    pairs: dict[str, str] = {}
    free_store, free_labels = in_store, in_labels
    for store_key, label_key in _WAYS:
        by_key: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
        for video in free_store:
            by_key[store_key(video)][0].append(video)
        for video in free_labels:
            by_key[label_key(video)][1].append(video)
        for videos, named in by_key.values():
            if videos and named:
                _require_one(videos, named)
                pairs[videos[0]] = named[0]
        taken = set(pairs.values())
        free_store = [video for video in free_store if video not in pairs]
        free_labels = [video for video in free_labels if video not in taken]
    ordered = {video: pairs[video] for video in in_store if video in pairs}
    return Matched(ordered, tuple(free_store), tuple(free_labels))


def _require_one(videos: list[str], named: list[str]) -> None:
    if len(videos) > 1 or len(named) > 1:
        many, one = (videos, named[0]) if len(videos) > 1 else (named, videos[0])
        where = "labels" if len(videos) > 1 else "store"
        shown = ", ".join(f"'{printable(video)}'" for video in many[:4])
        raise LabelError(f"'{printable(one)}' of the {where} could be any of {shown}. Write full ids in the labels.")
