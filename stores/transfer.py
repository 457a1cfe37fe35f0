"""From stores to a store: converting between the formats, and merging."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from stores.copying import checked_rows
from stores.errors import SpecMismatchError, StoreError
from stores.hdf5_store import SUFFIXES, pack_hdf5
from stores.names import printable
from stores.opening import open_store
from stores.remote import as_path
from stores.spec import FeatureStore
from stores.zarr_store import ZarrWriter

SHOWN = 5  # of a long list in an error


def convert(source: Path | str, target: Path | str) -> None:
    """Write the store `source` as `target`, whose suffix chooses the format: equal rows, times, specs and documents.

    Raises:
        StoreError: the suffix is none of a store, or `target` is there.
        DamageError: rows of `source` are not those that were committed.
    """
    target = as_path(target)
    if target.exists():
        raise StoreError(f"{printable(target)} is there already: converting never overwrites. Give another name.")
    if target.suffix in SUFFIXES:
        pack_hdf5(open_store(source), target)
    elif target.suffix == ".zarr":
        merge([source], target)
    else:
        raise StoreError(f"a store ends in .zarr, {' or '.join(SUFFIXES)}, not '{printable(target)}'.")


def merge(
    sources: Sequence[Path | str], target: Path | str, *, on_video: Callable[[str, str], None] | None = None
) -> None:
    """Copy all videos of `sources` into the Zarr store `target`; run again, it goes on where it stopped.

    Args:
        sources: stores of either format.
        target: a new store, or one that holds part of this already; its rows count like those of a source.
        on_video: is told (video, set) of each one that is copied.

    Raises:
        SpecMismatchError: sets of one name were made otherwise.
        StoreError: a video has other rows in one source than in another, or documents differ.
        DamageError: rows of a source are not those that were committed.
    """
    target = as_path(target)
    stores = [open_store(source) for source in sources]
    held = [open_store(target), *stores] if target.exists() and any(target.iterdir()) else stores
    _require_specs(held)
    _require_rows(held)
    attachments = _same_attachments(held)
    done = {(name, video) for store in held[: len(held) - len(stores)] for name in store for video in store[name]}
    for store in stores:
        specs = {name: store[name].spec for name in store}
        provenance = {name: store[name].provenance for name in store}
        with ZarrWriter(target, specs, provenance=provenance) as writer:
            for name in store:
                for video in store[name]:
                    if (name, video) in done:
                        continue
                    done.add((name, video))
                    rows_writer = writer.video(video, store[name].entry(video).info)
                    for rows in checked_rows(store[name], video):
                        rows_writer.append(name, rows)
                    rows_writer.commit()
                    if on_video is not None:
                        on_video(video, name)
    _carry_documents(stores, target, attachments)


def _require_specs(stores: Sequence[FeatureStore]) -> None:
    for index, first in enumerate(stores):
        for other in stores[index + 1 :]:
            for name in sorted(set(first) & set(other)):
                difference = first[name].spec.difference(other[name].spec)
                if difference:
                    raise SpecMismatchError(
                        f"set '{name}' of {printable(first.path)} and of {printable(other.path)} differ: {difference}."
                    )


def _require_rows(stores: Sequence[FeatureStore]) -> None:
    seen: dict[tuple[str, str], tuple[str, Path]] = {}
    differing = []
    for store in stores:
        for name in store:
            for video in store[name]:
                here = store[name].entry(video).sha256
                sha256, path = seen.setdefault((name, video), (here, store.path))
                if here != sha256:
                    both = f"{printable(path)} and {printable(store.path)}"
                    differing.append(f"'{printable(video)}' in '{name}' of {both}")
    if differing:
        more = f" and {len(differing) - SHOWN} more" if len(differing) > SHOWN else ""
        raise StoreError(
            f"{len(differing)} videos have other rows in one store than in another: "
            f"{'; '.join(differing[:SHOWN])}{more}. Extract them again into one store, or leave one out."
        )


def _same_attachments(stores: Sequence[FeatureStore]) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for store in stores:
        for kind, document in store.attachments().items():
            if found.setdefault(kind, document) != document:
                raise StoreError(
                    f"the stores have different documents '{kind}' attached, the last of them {printable(store.path)}: "
                    "attach the same one to all, then merge."
                )
    return found


def _carry_documents(stores: Sequence[FeatureStore], target: Path, attachments: dict[str, dict[str, object]]) -> None:
    """Failures of videos that no source has, and the attachments."""
    merged = open_store(target)
    known = set(merged.failures())
    present = merged.attachments()
    with ZarrWriter(target, {}) as writer:
        for failure in sorted({failure for store in stores for failure in store.failures()} - known, key=str):
            writer.fail(failure)
        for kind, document in attachments.items():
            if present.get(kind) != document:
                writer.attach(kind, document)
