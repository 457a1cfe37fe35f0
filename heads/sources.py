"""Which feature sets a head reads, and under what id each of them knows a video.

The first source is the time grid: its rows are the rows that are trained and scored; the others are joined to
it by time. Clip-sampled sets of several speeds are alternatives instead: each speed has a time grid of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.head import HEADS, Head, HeadError, head_class
from stores.errors import SpecMismatchError, StoreError
from stores.labels import match_videos
from stores.names import printable
from stores.spec import FeatureSet, FeatureSpec, FeatureStore, Granularity, VideoEntry

VIEW_FIELDS = frozenset({"speed", "view", "stride", "crop"})  # in which the sets of several speeds may differ


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

    def entry(self, video: str) -> VideoEntry:
        """What the set knows of a video, by its id in the grid's set."""
        return self.features.entry(self.ids[video])

    def times(self, video: str) -> NDArray[np.float64]:
        """(N, 2) seconds of all rows of a video, by its id in the grid's set."""
        return self.features.times(self.ids[video])

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
    beside: Sequence[FeatureStore] | None = None,
) -> list[Source]:
    """The sets of the stores that `head` takes, the time grid first.

    Args:
        head: says which role a set may play.
        stores: joined by video id, else by unique stem.
        wanted: names of sets, or `role=name`, in the order in which their features shall stand; empty: every
            dense set that the head takes, pictures first, then by name, scenes last. Clip-sampled sets are taken
            by name alone.
        options: of the head, those that differ from its defaults; they may leave a role out.
        beside: where the sets of `stores` are of clips whose networks learn: stores of rows for the other roles.

    Raises:
        HeadError: a wanted set is not there or not for this head, a role stays without a set, or a store beside clips
            has nothing for a role that they leave.
    """
    roles = head.roles_for(options or {})
    named = _by_name(stores)
    if beside is not None:
        named |= rows_beside(head, roles, stores, beside)
    chosen = [_wanted(head, named, text) for text in wanted] or _all_accepted(head, named)
    if wanted and (idle := [entry for entry in chosen if entry[0] not in roles]):
        raise HeadError(f"with these options {head.name} reads no {idle[0][0]} sets. Leave out {idle[0][2].name}.")
    chosen = [entry for entry in chosen if entry[0] in roles]
    for role in roles:
        if not any(chosen_role == role for chosen_role, _, _ in chosen):
            kinds = ", ".join(sorted(head.accepts))
            held = ", ".join(f"{name} ({found.spec.granularity})" for name, (_, found) in sorted(named.items()))
            way_out = " --features STORE gives stored ones." if beside is not None else ""
            way_out += f" To go without {role}: --set {head.without[role]}." if role in head.without else ""
            clips = "" if wanted else _clip_sampled(head, named)
            raise HeadError(
                f"{head.name} needs a set of {kinds} rows for {role}; there is {held or 'no set'}.{clips}{way_out}"
            )
    chosen.sort(key=lambda entry: head.roles.index(entry[0]))  # stable: the order within a role stays
    sources = _joined(chosen)
    require_alike(sources, {})
    return sources


def rows_beside(
    head: type[Head], roles: Sequence[str], clips: Sequence[FeatureStore], stores: Sequence[FeatureStore]
) -> dict[str, tuple[FeatureStore, FeatureSet]]:
    """Name to store and set of the stored rows for those `roles` of a head that no network on clips makes.

    Raises:
        HeadError: the rows of a network are of no use, networks make all roles or not that of the time grid, or a
            store has nothing for a role that they leave.
    """
    made = {name: head.role_of(found.spec) for name, (_, found) in _by_name(clips).items()}
    for name, role in made.items():
        if role is not None and role not in roles:
            raise HeadError(
                f"with these options {head.name} reads no {role} rows: the network of {name} would learn nothing."
            )
    left = [role for role in roles if role not in made.values()]
    if stores and not left:
        raise HeadError(f"networks make all that {head.name} reads, its {' and '.join(roles)} rows: omit --features.")
    if left[:1] == [*roles[:1]] and (stores or len(left) < len(roles)):
        raise HeadError(f"{head.name} has the times of its {roles[0]} rows, which a network has to make; none does.")
    for store in stores:
        if not any(head.role_of(store[name].spec) in left for name in store):
            held = ", ".join(f"{name} ({store[name].spec.granularity})" for name in sorted(store))
            raise HeadError(
                f"--features {printable(store.path)} holds {held or 'no set'}, and {head.name} leaves its "
                f"{' and '.join(left)} rows to it: a set of {', '.join(sorted(head.accepts))} rows."
            )
    return {name: held for name, held in _by_name(stores).items() if head.role_of(held[1].spec) in left}


def notes_beside(sources: Sequence[Source], stores: Sequence[FeatureStore]) -> list[str]:
    """What people should know of the stored rows that stand beside those of networks: which sets, and which do not."""
    notes = []
    for store in stores:
        used = [source.features.name for source in sources if source.store is store]
        idle = sorted(set(store) - set(used))
        unused = f"; left out: {', '.join(idle)}" if idle else ""
        notes.append(f"stored rows: {', '.join(used)} of {printable(store.path)}, which stay as they are{unused}")
    return notes


def by_speed(sources: Iterable[Source]) -> list[list[Source]]:
    """The sources of each speed and view, in order of their first mention; of dense sets all together."""
    groups: dict[tuple[int, str], list[Source]] = {}
    for source in sources:
        groups.setdefault((source.spec.speed, source.spec.view) if source.spec.view else (1, ""), []).append(source)
    return list(groups.values())


def require_alike(sources: Sequence[Source], trained: Mapping[str, FeatureSpec]) -> None:
    """HeadError unless the sets are all dense, or every speed has the same sets but for speed and view.

    Args:
        trained: name to spec of the sets of one speed that a head was trained on; empty: those of the first speed.
    """
    groups = by_speed(sources)
    first = groups[0]
    expected = trained or {source.features.name: source.spec for source in first}
    if dense := next((source for source in sources if not source.spec.view), None):
        if sampled := next((source for source in sources if source.spec.view), None):
            raise HeadError(
                f"{dense.features.name} is dense and {sampled.features.name} clip-sampled. Choose one kind with --sets."
            )
        return
    for group in groups:
        if len(group) != len(expected):
            names = " and ".join(source.features.name for source in group)
            raise HeadError(
                f"{names} cannot be seen in place of {' and '.join(expected)}: give as many of every speed."
            )
        for source, (name, spec) in zip(group, expected.items(), strict=True):
            if difference := view_difference(source.spec, spec):
                raise HeadError(f"{source.features.name} cannot be seen in place of {name}: {difference}.")


def view_difference(spec: FeatureSpec, other: FeatureSpec) -> str:
    """In what two specs differ beside speed and view, as `difference` says it."""
    plain = {name: getattr(other, name) for name in VIEW_FIELDS}
    return dataclasses.replace(spec, **plain).difference(other)


def find_views(
    recorded: Sequence[Mapping[str, Any]], stores: Sequence[FeatureStore], wanted: Sequence[str]
) -> list[Source]:
    """Clip-sampled sets that a trained head shall see in place of its own: other speeds or views of the same kind.

    Args:
        wanted: names of the sets, as `choose_sources` takes them, without roles.

    Raises:
        HeadError: a set is not there, or is of another kind than the head was trained on.
    """
    named = _by_name(stores)
    specs = [(str(entry["role"]), str(entry["set"]), FeatureSpec.from_dict(entry["spec"])) for entry in recorded]
    _, own, first = specs[0]
    if not first.view:
        raise HeadError(f"the head was trained on {own}, which is dense: --sets chooses clip-sampled sets.")
    chosen = []
    for text in wanted:
        if text not in named:
            raise HeadError(f"there is no set '{printable(text)}'; there is {', '.join(sorted(named)) or 'none'}.")
        store, features = named[text]
        chosen.append((role_like(features, specs), store, features))
    sources = _joined(chosen)
    of_one_speed = {name: spec for _, name, spec in specs if (spec.speed, spec.view) == (first.speed, first.view)}
    require_alike(sources, of_one_speed)
    return sources


def role_like(features: FeatureSet, specs: Sequence[tuple[str, str, FeatureSpec]]) -> str:
    """The role of the recorded (role, set, spec) that a set is another speed or view of."""
    for role, _, spec in specs:
        if not view_difference(features.spec, spec):
            return role
    _, name, spec = specs[0]
    difference = view_difference(features.spec, spec)
    raise SpecMismatchError(f"{features.name} is not what the head was trained on ({name}): {difference}.")


def find_sources(
    recorded: Sequence[Mapping[str, Any]], stores: Sequence[FeatureStore], beside: Sequence[FeatureStore] = ()
) -> list[Source]:
    """The sets that a trained head asks for, by the specs it was trained on.

    Args:
        beside: stores for what `stores`, which are of clips, do not hold; both may have sets of one name.

    Raises:
        SpecMismatchError: the set of that name was made with other settings; the message names them.
        StoreError: there is neither that name nor any set of that fingerprint.
    """
    named = _by_name(beside) | _by_name(stores)
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
            where = ", ".join(printable(store.path) for store in (*stores, *beside))
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
    if features.spec.view and head.views is None:
        able = ", ".join(sorted(other for other in HEADS if head_class(other).views is not None))
        raise HeadError(
            f"{head.name} takes no clip-sampled sets, and {name} has {features.spec.view} clips x crops of a video; "
            f"{able} do."
        )
    if given and given not in head.roles:
        raise HeadError(f"{head.name} has no role '{printable(given)}', only {', '.join(head.roles)}.")
    return given or role, store, features


def _all_accepted(
    head: type[Head], named: Mapping[str, tuple[FeatureStore, FeatureSet]]
) -> list[tuple[str, FeatureStore, FeatureSet]]:
    def place(name: str) -> tuple[bool, bool, str]:
        spec = named[name][1].spec
        return spec.granularity is Granularity.SCENE, spec.stream != "rgb", name  # scenes are too long for a grid

    found = []
    for name in sorted(named, key=place):
        store, features = named[name]
        role = head.role_of(features.spec)
        if role is not None and features.spec.speed == 1 and not features.spec.view:
            found.append((role, store, features))
    return found


def _clip_sampled(head: type[Head], named: Mapping[str, tuple[FeatureStore, FeatureSet]]) -> str:
    """Words on clip-sampled sets that nobody asked for, for an error."""
    names = [name for name, (_, found) in sorted(named.items()) if found.spec.view and head.role_of(found.spec)]
    if not names or head.views is None:
        return ""
    return f" Clip-sampled sets are taken by name: --sets {','.join(names)}."


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
