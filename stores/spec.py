"""What a feature store is: a map from a video to rows, and every row carries the seconds it stands for.

Everything that reads features, labels, audio or predictions goes through the protocols of this file, so that
time lives with the rows and nobody recomputes it from a stride in a config.

Shape letters: N rows.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from stores.errors import SpecMismatchError, StoreError
from stores.names import printable

if TYPE_CHECKING:
    import pandas


class Granularity(StrEnum):
    """What one row stands for."""

    FRAME = "frame"  # one frame, or one equal slice of sound: (D,)
    CLIP = "clip"  # one window of frames, pooled over space and time: (D,)
    MAP = "map"  # one output time step of a network, not pooled: (H, W, D)
    SCENE = "scene"  # one shot between two cuts: (D,)
    SCORE = "score"  # class probabilities: (C,), the classes named in the spec


class Rows(NamedTuple):
    """Rows of one video, in order of time; of a clip-sampled set in order of clip, then crop, then time."""

    features: NDArray[Any]  # (N, *row_shape), of the spec's dtype
    times: NDArray[np.float64]  # (N, 2) seconds [start, end)


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that defines the numbers of a feature set, and nothing else.

    Two sets with equal `fingerprint` may be mixed; a head refuses features of another fingerprint. Decoder,
    library versions, device and precision are provenance: kept beside the rows, not part of this.
    """

    granularity: Granularity
    row_shape: tuple[int, ...]
    dtype: str = "float16"  # float16, float32 or uint8
    scale: float | None = None  # uint8 only: value = stored * scale + offset
    offset: float | None = None
    backbone: str = ""
    stream: str = ""  # rgb, flow or audio
    weights: str = ""  # what the user called them; not hashed, the digest is
    weights_sha256: str = ""
    random_weights: bool = False
    fps: float | None = None  # of the frames given to the network, or rows a second of sound
    stride: int | None = None  # frames from one row to the next
    window: int | None = None  # frames that one row sees, or one clip of a clip-sampled set has; None: one
    dense: str | None = None  # convolutional or windowed: two definitions, see the performance notes
    receptive_field: int | None = None  # frames that reach one row of the convolutional mode
    resize: str = ""
    crop: str = ""
    normalise: str = ""
    roi: tuple[int, int, int, int] | None = None  # x, y, width, height in pixels of the upright frame
    speed: int = 1  # a clip has every so many-th frame
    view: str = ""  # clips x crops of a clip-sampled set, as "4x3" (`stores.samples`); "": dense
    settings: Mapping[str, Any] = field(default_factory=dict)  # what only this backbone has (mel bands, ...)
    classes: tuple[str, ...] = ()  # names of the columns of score rows

    def __post_init__(self) -> None:
        if self.dtype not in {"float16", "float32", "uint8"}:
            raise StoreError(f"features are float16, float32 or uint8, not {self.dtype}.")
        if not self.row_shape or any(size < 1 for size in self.row_shape):
            raise StoreError(f"a row needs a shape of positive sizes, not {self.row_shape}.")
        if self.view and not re.fullmatch(r"[1-9]\d{0,3}x[1-9]\d{0,3}", self.view):
            raise StoreError(f"a view is clips x crops, as 4x3, not '{printable(self.view)}'.")
        if self.fps is not None:  # 15 and 15.0 are one rate, and must have one fingerprint
            object.__setattr__(self, "fps", float(self.fps))
        if self.speed < 1:
            raise StoreError(f"a speed is every 1st, 2nd, .. frame, not {self.speed}.")

    @property
    def crops(self) -> int:
        """Crops of every clip; 1 in a dense set."""
        return int(self.view.partition("x")[2] or 1)

    @property
    def samples(self) -> int:
        """Clips times crops of every video; 1 in a dense set, whose videos are seen whole."""
        return int(self.view.partition("x")[0] or 1) * self.crops

    @property
    def row_bytes(self) -> int:
        """Bytes of one row as stored."""
        return int(np.prod(self.row_shape)) * np.dtype(self.dtype).itemsize

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The spec that `to_dict` wrote.

        Raises:
            StoreError: a field is unknown or missing, for which a newer `vl` may be the reason.
        """
        known = {f.name for f in dataclasses.fields(cls)}
        if unknown := sorted(set(fields) - known):
            raise StoreError(f"this store was written by a newer vl: its spec has {', '.join(unknown)}.")
        values = dict(fields)
        try:
            values["granularity"] = Granularity(values["granularity"])
            values["row_shape"] = tuple(int(size) for size in values["row_shape"])
            values["speed"] = int(values.get("speed", 1))
            values["view"] = str(values.get("view", ""))
            values["classes"] = tuple(values.get("classes", ()))
            if values.get("roi") is not None:
                x, y, width, height = values["roi"]
                values["roi"] = (x, y, width, height)
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise StoreError(f"a feature spec is incomplete or malformed: {error!r}.") from error

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every field that defines the numbers (all but the weights' name)."""
        fields = self.to_dict()
        del fields["weights"]
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    def difference(self, other: FeatureSpec) -> str:
        """The fields in which the two differ, as `stride 8 is not 16`; empty where fingerprints agree."""
        mine, theirs = self.to_dict(), other.to_dict()
        return "; ".join(
            f"{name} {mine[name]} is not {theirs[name]}"
            for name in mine
            if name != "weights" and mine[name] != theirs[name]
        )

    def require_same(self, other: FeatureSpec, what: str) -> None:
        """Raise SpecMismatchError naming the differing fields unless `other` has this fingerprint."""
        if difference := self.difference(other):
            raise SpecMismatchError(f"{what}: {difference}.")


@dataclass(frozen=True)
class VideoEntry:
    """What a store knows of one video in one feature set."""

    video: str
    num_rows: int
    sha256: str  # of the rows' bytes followed by the times' bytes
    info: Mapping[str, Any]  # duration (seconds), partial, source size; JSON types


@dataclass(frozen=True)
class Failure:
    """An input that could not be read, for one feature set or (set None) for all."""

    video: str
    reason: str  # one of the reason codes
    detail: str
    set_name: str | None = None


class FeatureSet(Protocol):
    """One named set of rows in a store; iterating gives the video ids in sorted order."""

    name: str
    spec: FeatureSpec
    provenance: Mapping[str, Any]

    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __contains__(self, video: object) -> bool: ...

    def entry(self, video: str) -> VideoEntry:
        """Length, digest and facts of `video`; StoreError if the set does not hold it."""
        ...

    def read(self, video: str, start: int = 0, stop: int | None = None) -> Rows:
        """Rows `start` to `stop` of `video`, as slices go; touches only the bytes they lie in."""
        ...

    def read_into(self, video: str, start: int, out: NDArray[Any]) -> None:
        """Fill `out` (n, *row_shape), contiguous and of the spec's dtype, with rows from `start` on."""
        ...

    def times(self, video: str) -> NDArray[np.float64]:
        """(N, 2) seconds of all rows of `video`."""
        ...

    def index(self) -> pandas.DataFrame:
        """One row a video: video, rows, start, end and duration (seconds), sha256; videos in sorted order."""
        ...

    def to_xarray(self, video: str) -> Any:
        """The rows of `video` as an xarray.DataArray; StoreError where xarray, an extra, is not installed."""
        ...


class FeatureStore(Protocol):
    """Named feature sets over videos; iterating gives set names in sorted order."""

    path: Path

    def __iter__(self) -> Iterator[str]: ...
    def __len__(self) -> int: ...
    def __contains__(self, set_name: object) -> bool: ...

    def __getitem__(self, set_name: str) -> FeatureSet:
        """The set of that name; StoreError listing the sets there are if it is not one of them."""
        ...

    @property
    def snapshot_id(self) -> str:
        """Hash of everything committed when the store was opened: same id, same rows."""
        ...

    def failures(self) -> list[Failure]:
        """Inputs that failed and have not succeeded since."""
        ...

    def attachment(self, kind: str) -> dict[str, Any] | None:
        """The newest JSON document attached under `kind` (`labels`, `prediction`), or None."""
        ...

    def attachments(self) -> dict[str, dict[str, Any]]:
        """The newest document of every kind."""
        ...

    def close(self) -> None:
        """Give the files back; the store may not be read after."""
        ...
