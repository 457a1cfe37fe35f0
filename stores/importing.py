"""From other people's feature files to a store: what all formats share.

A format's file gives jobs, one a video; here each is read, put on its time grid, checked for the known defects, and
written. Every video ends as done, there already or failed with a reason; running the same import again goes on.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from stores.array_layouts import Unusable, arrange, as_stored, require_width
from stores.durations import Durations
from stores.errors import StoreError
from stores.labels import Labels, VideoLabels
from stores.names import printable, slug
from stores.packing import packed_at_end
from stores.spec import Failure, FeatureSpec, Granularity, Rows
from stores.time_grid import LONGEST_S, TimeGrid, misfit, untrimmed
from stores.zarr_store import ZarrStore, ZarrWriter, is_zarr_store

MAX_ARRAY = 4 << 30  # bytes of one video's rows
DETAIL_CHARS = 300
# All that the readers of broken and forged files were seen to raise.
UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
    OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class ImportOptions:
    """What the user says of the features."""

    backbone: str
    grid: TimeGrid | None = None  # None: the files have the times
    stream: str = "rgb"
    level: Granularity = Granularity.CLIP
    dtype: str = "float16"
    layout: str = "TD"
    crops: str = "keep"
    width: int | None = None  # values of a row, by the recipe
    durations: Labels | None = None  # whose durations the rows are held against
    source: Mapping[str, Any] = field(default_factory=dict)  # format and recipe: recorded, not compared

    @property
    def timed(self) -> bool:
        """Whether the grid alone says where rows lie, whatever times files have."""
        return self.grid is not None and self.grid.fps is not None


class Part(NamedTuple):
    """The rows of one stream of a video, as a file has them."""

    array: NDArray[Any]
    times: NDArray[np.float64] | None = None  # (N, 2) seconds; None: the grid says
    fps: float | None = None  # the video's own, for a grid that has none
    stored: Mapping[str, Any] | None = None  # fields of the spec for rows that are (N, D) and stored as they are


class ImportedVideo(NamedTuple):
    """Everything that was read of one video."""

    parts: Mapping[str, Part]  # by stream
    info: Mapping[str, Any] = {}
    labels: VideoLabels | None = None
    warnings: tuple[tuple[str, str], ...] = ()  # kind and words


class Job(NamedTuple):
    """A video, or one stream of it, that can be read."""

    video: str
    streams: tuple[str, ...]
    read: Callable[[], ImportedVideo]
    again: bool = False  # read it even if it is there already, for its labels
    of_set: bool = False  # other streams of the video have jobs of their own: this one fails for its set alone


class Notice(NamedTuple):
    """Something that is wrong with more than one video."""

    kind: str
    words: str


Item = Job | Failure | Notice


@dataclass
class ImportSource:
    """What a format makes of some paths."""

    items: Iterable[Item]
    options: ImportOptions  # those that were given, with what the files say
    ignored: Sequence[str] = ()  # files that are no features by their names
    classes: Callable[[], tuple[str, ...]] | None = None  # of the videos' labels, asked when all were read


@dataclass
class ImportSummary:
    """What became of every video."""

    done: int = 0
    there: int = 0
    failures: list[Failure] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)  # by set
    warnings: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))  # by kind
    ignored: list[str] = field(default_factory=list)  # files that are no features by their names
    labels: int = 0  # videos whose labels are attached

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "done": self.done,
            "there_already": self.there,
            "failed": len(self.failures),
            "failures": [vars(failure) for failure in self.failures],
            "rows": dict(self.rows),
            "warnings": {kind: {"count": len(words), "videos": words} for kind, words in self.warnings.items()},
            "ignored": self.ignored,
            "labels": self.labels,
        }


def import_videos(source: ImportSource, out: Path, on_video: Callable[[str], None] | None = None) -> ImportSummary:
    """Write all videos of a source to the store `out`, .zarr or .h5.

    Args:
        on_video: is told of each video that was looked at.

    Raises:
        SpecMismatchError: the store has a set of this name that was made otherwise.
        NoSpaceError: the disk is full; what was committed is safe.
    """
    summary = ImportSummary(ignored=list(source.ignored))
    with packed_at_end(out) as path, Sink(path, source.options, summary) as sink:
        for item in source.items:
            if isinstance(item, Notice):
                summary.warnings[item.kind].append(item.words)
            elif isinstance(item, Failure):
                sink.fail(item)
            else:
                sink.take(item)
                if on_video is not None:
                    on_video(item.video)
        if source.classes is not None and sink.labels:
            sink.attach(source.classes())
    return summary


class Sink:
    """Takes videos one by one; knows what the store holds."""

    def __init__(self, path: Path, options: ImportOptions, summary: ImportSummary) -> None:
        self.path = path
        self.options = options
        self.summary = summary
        self.labels: dict[str, VideoLabels] = {}
        self._specs: dict[str, FeatureSpec] = {}  # by set, of those that this import writes
        self._held: dict[str, set[str]] = defaultdict(set)  # by set
        self._seen: set[tuple[str, tuple[str, ...]]] = set()
        self._known_failures: list[Failure] = []
        self._attached: Labels | None = None
        self._writer: ZarrWriter | None = None
        if is_zarr_store(path):
            with closing(ZarrStore(path)) as store:
                self._held.update({name: set(store.unchecked(name)) for name in store})
                self._known_failures = store.failures()
                document = store.attachment("labels")
            self._attached = Labels.from_dict(document) if document else None
        self._durations = Durations(options.durations or self._attached)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Commit what is complete."""
        if self._writer is not None:
            self._writer.flush()

    def take(self, job: Job) -> None:
        """One video: done, there already or failed."""
        if (job.video, job.streams) in self._seen:
            self.fail(Failure(job.video, "duplicate", "a video of this id came before"))
            return
        self._seen.add((job.video, job.streams))
        missing = [stream for stream in job.streams if job.video not in self._held[self.set_name(stream)]]
        if not missing and not job.again:
            self.summary.there += 1
            return
        try:
            found = job.read()
            rows = {stream: self._rows(stream, found.parts[stream]) for stream in missing}
            for stream, (spec, _, _) in rows.items():
                self._require_shape(self.set_name(stream), spec)
        except (StoreError, *UNREADABLE) as error:
            of_set = self.set_name(job.streams[0]) if job.of_set else None
            self.fail(Failure(job.video, reason_of(error), words_of(error), of_set))
            return
        if found.labels is not None:
            self.labels[job.video] = found.labels
        if not missing:
            self.summary.there += 1
            return
        info = dict(found.info)
        duration = self._durations.of(job.video)
        if duration is not None:
            info["duration"] = duration
        writer = self._writer_of({self.set_name(stream): spec for stream, (spec, _, _) in rows.items()})
        video = writer.video(job.video, info)
        for stream, (_, stored, grid) in rows.items():
            name = self.set_name(stream)
            self._look(job.video, name, stored, grid, duration)
            video.append(name, stored)
            self.summary.rows[name] += len(stored.times)
        video.commit()
        for kind, words in found.warnings:
            self.summary.warnings[kind].append(f"{job.video}: {words}")
        self.summary.done += 1

    def fail(self, failure: Failure) -> None:
        """Note it, in the store as well."""
        self.summary.failures.append(failure)
        if failure not in self._known_failures:
            self._writer_of({}).fail(failure)

    def attach(self, classes: tuple[str, ...]) -> None:
        """Keep the labels of all videos with the store, beside those that are attached."""
        before = self._attached
        if before is not None and before.classes[: len(classes)] != classes[: len(before.classes)]:
            raise StoreError(f"{printable(self.path)} has labels of other classes attached. Import into another --out.")
        if before is not None and len(before.classes) > len(classes):
            classes = before.classes
        videos = {**(before.videos if before else {}), **self.labels}
        labels = Labels(classes, videos)
        self.summary.labels = len(self.labels)
        if before is None or labels.fingerprint != before.fingerprint:
            self._writer_of({}).attach("labels", labels.to_dict())

    def set_name(self, stream: str) -> str:
        """BACKBONE.STREAM.LEVEL."""
        return f"{slug(self.options.backbone)}.{slug(stream)}.{self.options.level}"

    def _rows(self, stream: str, part: Part) -> tuple[FeatureSpec, Rows, TimeGrid | None]:
        """The spec of a part, its rows as stored, and the grid they are on."""
        options = self.options
        if part.array.nbytes > MAX_ARRAY:
            raise Unusable("too_large", f"{part.array.nbytes} bytes of rows, more than {MAX_ARRAY}")
        if part.stored is not None:
            features, crops, fields = part.array, 1, dict(part.stored)
        else:
            found = arrange(part.array, options.layout, options.level, options.crops)
            require_width(found, options.width, options.layout)
            features, crops = as_stored(found.features_ND, options.dtype), found.crops
            fields = {"dtype": options.dtype}
        steps, grid = len(features) // crops, None
        if part.times is not None:
            times = part.times
            if len(times) != steps:
                raise Unusable("no_times", f"{steps} rows and the times of {len(times)}")
            fields |= {"fps": None}
        elif options.grid is None:
            raise Unusable("no_times", "no file says at what seconds its rows are, and no --fps and --stride do")
        elif options.grid.fps is None and part.fps is None:
            raise Unusable("no_times", "no file says its frame rate, and no --fps does")
        else:
            grid = options.grid
            if part.fps is not None and not 0 < part.fps < 1e6:
                raise Unusable("no_times", f"its frame rate is {part.fps}")
            times = grid.times(steps, part.fps)
        if np.abs(times).max() > LONGEST_S:
            raise Unusable("no_times", f"its rows end at {times[-1, 1]:.3g} s, which no video does")
        return (
            self._spec({**fields, "stream": stream}, features, crops),
            Rows(features, np.tile(times, (crops, 1))),
            grid,
        )

    def _spec(self, fields: Mapping[str, Any], features: NDArray[Any], crops: int) -> FeatureSpec:
        options = self.options
        plain: dict[str, Any] = options.grid.spec_fields(options.level) if options.grid is not None else {}
        plain |= {"view": f"1x{crops}"} if crops > 1 else {}
        return FeatureSpec(
            options.level,
            features.shape[1:],
            backbone=options.backbone,
            weights="imported",
            **{**plain, **fields},
        )

    def _require_shape(self, name: str, spec: FeatureSpec) -> None:
        """Unusable if the rows are of another shape than those of the set before."""
        before = self._specs.get(name)
        if before is not None and (before.row_shape, before.view) != (spec.row_shape, spec.view):
            old, new = (f"{part.row_shape} {part.view}".strip() for part in (before, spec))
            raise Unusable("wrong_shape", f"rows {new}, and those of the other videos are {old}")

    def _writer_of(self, specs: Mapping[str, FeatureSpec]) -> ZarrWriter:
        """A writer for these sets; one that knows more sets takes the place of the one before."""
        new = {name: spec for name, spec in specs.items() if name not in self._specs}
        if self._writer is None or new:
            if self._writer is not None:
                self._writer.flush()
            known = {**self._specs, **new}
            self._writer = ZarrWriter(self.path, known, provenance=dict.fromkeys(known, self.options.source))
            self._specs = known
        return self._writer

    def _look(self, video: str, name: str, rows: Rows, grid: TimeGrid | None, duration: float | None) -> None:
        """Warn of the known defects."""
        warnings, features = self.summary.warnings, rows.features
        width = self.options.width
        if width is not None and grid is not None and features.dtype != np.uint8 and features.shape[-1] != width:
            warnings["width"].append(f"{video}: {features.shape[-1]} values in a row, the recipe has {width}")
        if len(features) > 2 and (features[0] == features[1]).all() and (features == features[0]).all():
            warnings["constant"].append(f"{video}: all {len(features)} rows of {name} are equal")
        times = rows.times[: len(rows.times) // self._specs[name].samples]  # of one crop: the others have the same
        overlap = untrimmed(times, grid, duration)
        if overlap is not None:
            warnings["untrimmed"].append(f"{video}: {overlap}")
        elif (words := misfit(times, duration)) is not None:
            warnings["duration"].append(f"{video}: {words}")


def reason_of(error: BaseException) -> str:
    """The reason code of what went wrong with one file."""
    if isinstance(error, Unusable):
        return error.reason
    if isinstance(error, OSError):
        return "unreadable"
    return "oom" if isinstance(error, MemoryError) else "decode_error"


def words_of(error: BaseException) -> str:
    """One line of what a reader said."""
    text = str(error).partition("\n")[0] or type(error).__name__
    return printable(text)[:DETAIL_CHARS]
