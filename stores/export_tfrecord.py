"""A set of YouTube-8M's kind as TFRecords: what was imported becomes the same bytes again, shard by shard."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stores import disk
from stores.errors import StoreError
from stores.exporting import Exported, file_names, new_folder, stored_rows
from stores.labels import Labels
from stores.names import printable
from stores.spec import FeatureSet, FeatureStore
from stores.tfrecord import framed
from stores.yt8m import OFFSET, SCALE, STREAMS, encode, new_form

NEW_SHARD = "features-{:05d}.tfrecord"
VIDEOS_PER_SHARD = 1000  # of videos that no shard was known for


def export_tfrecord(store: FeatureStore, out: Path, set_name: str | None) -> Exported:
    """A folder of TFRecord files.

    Videos that came from TFRecords go to their shard and place there, others to new shards. Rows of uint8 with
    YouTube-8M's scale are frame level; one row of floats a video is video level.

    Raises:
        StoreError: the sets are of another kind.
    """
    chosen = [store[name] for name in ([set_name] if set_name else store)]
    parts = {part.spec.stream: part for part in chosen}
    if len(parts) < len(chosen):
        raise StoreError(f"several sets have one stream: {', '.join(store)}. Choose one with --set.")
    _require_kind(parts)
    document = store.attachment("labels")
    labels = Labels.from_dict(document) if document else None
    places: dict[str, list[tuple[int, str]]] = defaultdict(list)
    new = 0
    videos = sorted({video for part in parts.values() for video in part})
    for video in videos:
        known = _form(parts, video)
        if known is None:
            places[NEW_SHARD.format(new // VIDEOS_PER_SHARD)].append((new, video))
            new += 1
        else:
            places[str(known["shard"])].append((int(known["record"]), video))
    done = Exported()
    names = file_names(places)
    with new_folder(out) as folder:
        for shard, members in places.items():
            path = folder / names[shard]
            with disk.reporting(path):
                if not path.parent.is_dir():
                    disk.ensure_directory(path.parent)
                file = disk.NewFile(path)
                try:
                    for _, video in sorted(members):
                        file.write(framed(_record(parts, video, labels, done)))
                        done.videos += 1
                    file.sync()
                finally:
                    file.drop()
    inexact = sum(not (_form(parts, video) or {"exact": True})["exact"] for video in videos)
    if inexact:
        done.notes.append(f"{inexact} records hold the same values and not the same bytes as those imported")
    if new:
        done.notes.append(f"{new} videos did not come from TFRecords: they are in new shards")
    return done


def _form(parts: Mapping[str, FeatureSet], video: str) -> Mapping[str, Any] | None:
    """How the record of a video was written; None if it never was one."""
    for part in parts.values():
        if video in part and (form := part.entry(video).info.get("tfrecord")) is not None:
            return dict(form)
    return None


def _record(parts: Mapping[str, FeatureSet], video: str, labels: Labels | None, done: Exported) -> bytes:
    rows: dict[str, NDArray[Any]] = {
        stream: stored_rows(part, video).features for stream, part in parts.items() if video in part
    }
    done.rows += sum(map(len, rows.values()))
    form = _form(parts, video)
    if form is not None and form["exact"]:
        return encode(form, rows)
    known = labels.videos.get(video) if labels is not None else None
    of_video = (*known.video_level, *known.classes[known.classes >= 0].tolist()) if known is not None else ()
    return encode(new_form(video, tuple(dict.fromkeys(of_video)), rows), rows)


def _require_kind(parts: Mapping[str, FeatureSet]) -> None:
    """StoreError unless the sets are what YouTube-8M's records hold."""
    for stream, part in parts.items():
        spec = part.spec
        if stream not in STREAMS or len(spec.row_shape) != 1:
            raise StoreError(
                f"'{part.name}' holds {stream or 'other'} rows {spec.row_shape}: TFRecords take rgb and audio."
            )
        if spec.dtype == "uint8":
            if not (np.isclose(spec.scale or 0, SCALE) and np.isclose(spec.offset or 0, OFFSET)):
                raise StoreError(f"'{part.name}' has another scale than YouTube-8M's: {spec.scale}, {spec.offset}.")
        elif any(part.entry(video).num_rows != 1 for video in part):
            raise StoreError(
                f"'{part.name}' holds several {spec.dtype} rows a video: frame-level TFRecords take uint8."
            )
    if len({part.spec.dtype == "uint8" for part in parts.values()}) != 1:
        held = ", ".join(printable(part.name) for part in parts.values()) or "no set"
        raise StoreError(f"TFRecords take sets of one level; there is {held}. Choose one with --set.")
