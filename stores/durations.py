"""Seconds of videos by what labels have, to hold rows against."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing
from pathlib import Path, PurePosixPath

from stores.errors import StoreError
from stores.labels import Labels, match_videos
from stores.names import printable
from stores.opening import open_store


class Durations:
    """Looks videos up in labels whose ids may differ in their endings."""

    def __init__(self, labels: Labels | None) -> None:
        self._labels = labels
        self._near: dict[str, list[str]] = defaultdict(list)
        for name in labels.videos if labels is not None else ():
            for key in {PurePosixPath(name).name, PurePosixPath(name).stem}:
                self._near[key].append(name)

    def of(self, video: str) -> float | None:
        """Its seconds; None where no label file has them."""
        if self._labels is None:
            return None
        if video not in self._labels.videos:
            keys = (PurePosixPath(video).name, PurePosixPath(video).stem)
            pairs = match_videos([video], {name for key in keys for name in self._near.get(key, ())}).pairs
            if video not in pairs:
                return None
            video = pairs[video]
        return self._labels.videos[video].duration


def read_durations(path: Path) -> Labels:
    """The labels whose durations rows are held against: those of a label file, or attached to a store."""
    if path.is_dir() or path.suffix in {".h5", ".hdf5"}:
        with closing(open_store(path)) as store:
            document = store.attachment("labels")
        if document is None:
            raise StoreError(f"{printable(path)} has no labels attached, and so no durations.")
        found = Labels.from_dict(document)
    else:
        from stores.label_files import read_labels

        found = read_labels(path)
    if all(labels.duration is None for labels in found.videos.values()):
        raise StoreError(f"{printable(path)} has no duration of any video.")
    return found
