"""Labels kept with a store, as its attachment `labels`."""

from __future__ import annotations

from pathlib import Path

from stores.labels import LabelError, Labels, Matched, match_videos
from stores.names import printable
from stores.opening import open_store
from stores.zarr_store import ZarrStore, ZarrWriter


def attach_labels(labels: Labels, path: str | Path) -> Matched:
    """Attach `labels` to the store at `path`, in place of those attached before.

    Returns:
        Which videos have which labels, and what matches on neither side.

    Raises:
        LabelError: the store is no Zarr store, which alone can be added to, no video has labels, or a name is
            ambiguous.
        StoreError: there is no store.
    """
    store = open_store(path)
    name = printable(path)
    if not isinstance(store, ZarrStore):
        raise LabelError(f"{name} is never changed in place. 'vl convert {name} NAME.zarr' makes a store that can be.")
    matched = match_videos(sorted({video for name in store for video in store[name]}), labels.videos)
    if not matched.pairs:
        raise LabelError(
            f"no video of {name} has labels: it has '{printable(next(iter(matched.only_store), 'none'))[:80]}', the "
            f"labels '{printable(next(iter(matched.only_labels), 'none'))[:80]}'. Ids must be equal, or stems."
        )
    document = labels.to_dict()
    if store.attachment("labels") != document:
        with ZarrWriter(path, {}) as writer:
            writer.attach("labels", document)
    return matched
