"""Late fusion: the mean of several models' probabilities, as one more store of scores; no torch.

Source: the late fusion of rgb and flow of Tirupattur et al., CVPR 2021, section 4.

Shape letters: N rows, C classes, S stores.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.answers import WINDOWS, score_set
from heads.protocols import ScoringError
from stores import disk, open_store
from stores.labels import Labels
from stores.names import printable
from stores.spec import FeatureSet, FeatureSpec, FeatureStore, Granularity, Rows
from stores.zarr_store import ZarrWriter

SCORES = "scores"
AGREE = ("level", "split", "label_at", "boundary")  # facts of the predictions that must be the same


def fuse_stores(paths: Sequence[Path], out: Path, weights: Sequence[float] = ()) -> list[str]:
    """Write the mean of the probabilities of several stores of scores as the new store `out`.

    Args:
        paths: stores of scores of the same videos, times and classes.
        out: a new store NAME.zarr; it goes with the labels, split and expected videos that the stores agree on.
        weights: how much each store counts; they are divided by their sum. Empty: all the same.

    Returns:
        The ids of the fused videos.

    Raises:
        ScoringError: the stores differ (the first difference is named), scores are no probabilities, `out` is there
            already, or the weights do not fit.
    """
    shares = _shares(len(paths), weights)
    if out.exists():
        raise ScoringError(f"{printable(out)} is there already. Give --out a new name, or remove it.")
    stores = [open_store(path) for path in paths]
    try:
        averages = [score_set(path, store) for path, store in zip(paths, stores, strict=True)]
        sets = {SCORES: averages}
        if all(WINDOWS in store for store in stores):
            sets[WINDOWS] = [store[WINDOWS] for store in stores]
        for features in sets.values():
            _require_alike(paths, features)
        attachment = _agreed(paths, stores, shares)
        specs = {name: _fused_spec(features, shares) for name, features in sets.items()}
        videos = [video for video in averages[0] if averages[0].entry(video).num_rows]
        try:
            with ZarrWriter(out, specs) as writer:
                writer.attach("prediction", attachment)
                for video in videos:
                    entry = writer.video(video, averages[0].entry(video).info)
                    for name, features in sets.items():
                        entry.append(name, _mean_rows(paths, features, video, shares))
                    entry.commit()
        except BaseException:
            disk.remove_tree(out)  # half a store of scores would be taken for a whole one
            raise
        return videos
    finally:
        for store in stores:
            store.close()


def _shares(stores: int, weights: Sequence[float]) -> NDArray[np.float64]:
    """(S,) that sum to 1."""
    if stores < 2:
        raise ScoringError(f"fusion takes two stores of scores or more, not {stores}.")
    weights_S = np.array(weights or [1.0] * stores, np.float64)
    if len(weights_S) != stores or not (weights_S > 0).all() or not np.isfinite(weights_S).all():
        given = ",".join(f"{weight:g}" for weight in weights_S)
        raise ScoringError(f"{stores} stores need {stores} weights above 0, not {given}.")
    shares_S: NDArray[np.float64] = weights_S / weights_S.sum()
    return shares_S


def _require_alike(paths: Sequence[Path], sets: Sequence[FeatureSet]) -> None:
    """ScoringError, naming the first difference, unless all hold the same classes and videos."""
    first = sets[0]
    for path, other in zip(paths[1:], sets[1:], strict=True):
        both = f"{printable(paths[0])} and {printable(path)} do not fuse"
        for what, left, right in (
            ("class", first.spec.classes, other.spec.classes),
            ("video", tuple(_held(first)), tuple(_held(other))),
        ):
            if lone := sorted(set(left) ^ set(right)):
                holder = paths[0] if lone[0] in left else path
                raise ScoringError(f"{both}: only {printable(holder)} has the {what} '{printable(lone[0])}'.")
        if first.spec.classes != other.spec.classes:
            place = next(k for k, name in enumerate(first.spec.classes) if other.spec.classes[k] != name)
            names = f"'{printable(first.spec.classes[place])}' and '{printable(other.spec.classes[place])}'"
            raise ScoringError(f"{both}: their classes stand in another order, {names} at {place}.")


def _held(features: FeatureSet) -> list[str]:
    return [video for video in features if features.entry(video).num_rows]


def _agreed(paths: Sequence[Path], stores: Sequence[FeatureStore], shares: NDArray[np.float64]) -> dict[str, Any]:
    """The facts about the fused prediction; ScoringError where those of the stores contradict each other."""
    facts: list[dict[str, Any]] = [dict(store.attachment("prediction") or {}) for store in stores]
    agreed: dict[str, Any] = {}
    for name in (*AGREE, "expected", "labels"):
        known = [
            (path, of_store[name])
            for path, of_store in zip(paths, facts, strict=True)
            if of_store.get(name) is not None
        ]
        for path, value in known[1:]:
            if _comparable(name, value) != _comparable(name, known[0][1]):
                shown = f" {printable(known[0][1])} and {printable(value)}" if name in AGREE else ""
                raise ScoringError(
                    f"{printable(known[0][0])} and {printable(path)} do not fuse: their {name}{shown} differ."
                )
        agreed[name] = known[0][1] if known else None
    heads = [str(of_store.get("head") or "unknown") for of_store in facts]
    return {
        **agreed,
        "head": f"fusion of {', '.join(heads)}",
        "fused": [
            {"store": str(path.resolve()), "share": share} for path, share in zip(paths, shares.tolist(), strict=True)
        ],
        "random_weights": any(of_store.get("random_weights") for of_store in facts),
    }


def _comparable(name: str, value: Any) -> Any:
    """A fact in a form in which equal means equal."""
    if name == "expected":
        return sorted(map(str, value))
    if name == "labels" and isinstance(value, Mapping):
        return Labels.from_dict(value).fingerprint
    return value


def _fused_spec(sets: Sequence[FeatureSet], shares: NDArray[np.float64]) -> FeatureSpec:
    """Hashed over what was fused, and how."""
    digest = hashlib.sha256()
    for features, share in zip(sets, shares.tolist(), strict=True):
        digest.update(f"{features.spec.fingerprint} {share!r}\n".encode())
    first = sets[0].spec
    return FeatureSpec(
        granularity=Granularity.SCORE,
        row_shape=first.row_shape,
        dtype="float32",
        backbone="fusion",
        weights_sha256=digest.hexdigest(),
        random_weights=any(features.spec.random_weights for features in sets),
        settings=first.settings,
        classes=first.classes,
    )


def _mean_rows(paths: Sequence[Path], sets: Sequence[FeatureSet], video: str, shares: NDArray[np.float64]) -> Rows:
    """The weighted mean of one video's probabilities, on times that all stores give."""
    first = sets[0].read(video)
    mean_NC = np.zeros(first.features.shape)
    for path, features, share in zip(paths, sets, shares, strict=True):
        rows = features.read(video)
        if not ((rows.features >= 0) & (rows.features <= 1)).all():
            raise ScoringError(
                f"the scores of '{printable(video)}' in {printable(path)} are no probabilities, so no mean of them "
                "makes sense. Apply a sigmoid before they are stored."
            )
        if not np.array_equal(first.times, rows.times):
            raise ScoringError(_times_differ(paths[0], path, video, first.times, rows.times))
        mean_NC += share * rows.features.astype(np.float64)
    return Rows(mean_NC.astype(np.float32), first.times)


def _times_differ(first: Path, other: Path, video: str, left: NDArray[np.float64], right: NDArray[np.float64]) -> str:
    both = f"{printable(first)} and {printable(other)} do not fuse: '{printable(video)}' has"
    if len(left) != len(right):
        return f"{both} {len(left)} rows and {len(right)}. Both need features on the same rows."
    row = int(np.flatnonzero((left != right).any(axis=1))[0])
    seconds = [f"{times[row, 0]:g} to {times[row, 1]:g} s" for times in (left, right)]
    return f"{both} {seconds[0]} in row {row}, and {seconds[1]}. Both need features on the same rows."
