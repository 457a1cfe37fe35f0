"""Which feature sets a head reads, and under what id each of them knows a video.

The first source is the time grid: its rows are the rows that are trained and scored; the others are joined to
it by time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heads.head import Head, HeadError
from stores.errors import SpecMismatchError, StoreError
from stores.labels import match_videos
from stores.names import printable
from stores.spec import FeatureSet, FeatureSpec, FeatureStore


@dataclass(frozen=True)
class Source:
    """One feature set, and the role it plays for a head."""

    role: str
    store: FeatureStore
    features: FeatureSet
    ids: Mapping[str, str]  # id in the grid's set -> id in this one; without those that this one lacks

    @property
    def spec(self) -> FeatureSpec:
        """What defines the set's numbers."""
        return self.features.spec

    def to_dict(self) -> dict[str, Any]:
        """What a run keeps of it, as JSON types."""
        return {
            "role": self.role,
            "set": self.features.name,
            "store": str(self.store.path.resolve()),
            "snapshot_id": self.store.snapshot_id,
            "fingerprint": self.spec.fingerprint,
            "spec": self.spec.to_dict(),
        }


def choose_sources(
    head: type[Head],
    stores: Sequence[FeatureStore],
    wanted: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
) -> list[Source]:
    """The sets of the stores that `head` takes, the time grid first.

    Args:
        head: says which role a set may play.
        stores: joined by video id, else by unique stem.
        wanted: names of sets, or `role=name`, in the order in which their features shall stand; empty: every
            set of base speed and view that the head takes, pictures first, then by name.
        options: of the head, those that differ from its defaults; they may leave a role out.

    Raises:
        HeadError: a wanted set is not there or not for this head, or a role stays without a set.
    """
    named = _by_name(stores)
    roles = head.roles_for(options or {})
    chosen = [_wanted(head, named, text) for text in wanted] or _all_accepted(head, named)
    if wanted and (idle := [entry for entry in chosen if entry[0] not in roles]):
        raise HeadError(f"with these options {head.name} reads no {idle[0][0]} sets. Leave out {idle[0][2].name}.")
    chosen = [entry for entry in chosen if entry[0] in roles]
    for role in roles:
        if not any(chosen_role == role for chosen_role, _, _ in chosen):
            kinds = ", ".join(sorted(head.accepts))
            held = ", ".join(f"{name} ({found.spec.granularity})" for name, (_, found) in sorted(named.items()))
            way_out = f" To go without {role}: --set {head.without[role]}." if role in head.without else ""
            raise HeadError(
                f"{head.name} needs a set of {kinds} rows for {role}; there is {held or 'no set'}.{way_out}"
            )
    chosen.sort(key=lambda entry: head.roles.index(entry[0]))  # stable: the order within a role stays
    return _joined(chosen)


def find_sources(recorded: Sequence[Mapping[str, Any]], stores: Sequence[FeatureStore]) -> list[Source]:
    """The sets that a trained head asks for, by the specs it was trained on.

    Raises:
        SpecMismatchError: the set of that name was made with other settings; the message names them.
        StoreError: there is neither that name nor any set of that fingerprint.
    """
    named = _by_name(stores)
    chosen = []
    for entry in recorded:
        spec, name = FeatureSpec.from_dict(entry["spec"]), str(entry["set"])
        same = [other for other, (_, held) in named.items() if held.spec.fingerprint == spec.fingerprint]
        if name in named and name not in same:
            difference = named[name][1].spec.difference(spec)
            raise SpecMismatchError(
                f"{name} of {printable(named[name][0].path)} is not what the head was trained on: {difference}. "
                "Extract again with the head's settings, or train on these features."
            )
        if not same:
            where = ", ".join(printable(store.path) for store in stores)
            raise StoreError(
                f"the head was trained on {name}, which {where} does not hold; there is {', '.join(sorted(named))}."
            )
        chosen.append((str(entry["role"]), *named[name if name in same else same[0]]))
    return _joined(chosen)


def require_equal_times(head: type[Head], sources: Sequence[Source], videos: Iterable[str]) -> None:
    """HeadError if the head wants the rows of all roles to stand for the same times, and those of a video do not."""
    if not head.equal_times:
        return
    grid = sources[0]
    for video in videos:
        for source in sources[1:]:
            name = source.ids.get(video)
            if name is not None and not np.array_equal(grid.features.times(video), source.features.times(name)):
                raise HeadError(
                    f"{head.name} joins rows one by one, and '{printable(video)}' has other times in "
                    f"{source.features.name} than in {grid.features.name}. Extract both with the same scenes."
                )


def _by_name(stores: Sequence[FeatureStore]) -> dict[str, tuple[FeatureStore, FeatureSet]]:
    named: dict[str, tuple[FeatureStore, FeatureSet]] = {}
    for store in stores:
        for name in store:
            if name in named:
                raise StoreError(
                    f"{printable(named[name][0].path)} and {printable(store.path)} both hold {name}. "
                    "'vl merge' makes one store of both."
                )
            named[name] = (store, store[name])
    return named


def _wanted(
    head: type[Head], named: Mapping[str, tuple[FeatureStore, FeatureSet]], text: str
) -> tuple[str, FeatureStore, FeatureSet]:
    given, _, name = text.rpartition("=")
    if name not in named:
        raise HeadError(f"there is no set '{printable(name)}'; there is {', '.join(sorted(named)) or 'none'}.")
    store, features = named[name]
    role = head.role_of(features.spec)
    if role is None:
        kinds = ", ".join(sorted(head.accepts))
        raise HeadError(f"{head.name} takes {kinds} rows; {name} holds {features.spec.granularity} rows.")
    if given and given not in head.roles:
        raise HeadError(f"{head.name} has no role '{printable(given)}', only {', '.join(head.roles)}.")
    return given or role, store, features


def _all_accepted(
    head: type[Head], named: Mapping[str, tuple[FeatureStore, FeatureSet]]
) -> list[tuple[str, FeatureStore, FeatureSet]]:
    found = []
    for name in sorted(named, key=lambda name: (named[name][1].spec.stream != "rgb", name)):
        store, features = named[name]
        role = head.role_of(features.spec)
        if role is not None and features.spec.speed == 1 and not features.spec.view:
            found.append((role, store, features))
    return found


def _joined(chosen: Iterable[tuple[str, FeatureStore, FeatureSet]]) -> list[Source]:
    sources: list[Source] = []
    for role, store, features in chosen:
        grid = sources[0] if sources else None
        if grid is None or store is grid.store:
            ids = {video: video for video in features}
        else:
            ids = match_videos(grid.ids, features).pairs
        if grid is not None and not any(video in grid.ids for video in ids):
            raise StoreError(f"{features.name} shares no video with {grid.features.name}.")
        sources.append(Source(role, store, features, ids))
    return sources
