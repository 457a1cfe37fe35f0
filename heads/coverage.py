"""Which videos are to be scored, which of them have scores, and what the columns of the scores are called; no torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from heads.predictions import Predictions
from heads.protocols import ScoringError
from stores.label_files import SUBSETS
from stores.label_names import read_class_names
from stores.labels import Labels, match_videos
from stores.names import printable


@dataclass(frozen=True)
class Coverage:
    """Of the videos of a split, those that have scores."""

    pairs: dict[str, str]  # id in the predictions -> id in the labels
    missing: tuple[str, ...]
    extra: tuple[str, ...]  # have scores and are not in the split
    unknown: tuple[str, ...]  # those of them that the labels do not have in any split
    left_out: int = 0  # videos of the split that another prediction has no scores of


def choose_split(labels: Labels, predictions: Predictions, asked: str | None) -> str:
    """What was asked for, else what was predicted, else the test videos of the labels, else all."""
    return asked or str(predictions.facts.get("split") or ("test" if labels.has_subsets else "all"))


def cover(
    predictions: Predictions,
    labels: Labels,
    split: str,
    *,
    own_labels: bool,
    common_with: Sequence[Iterable[str]] = (),
) -> Coverage:
    """Which videos of the split have scores.

    The videos of a split are those that a label file given for scoring puts there; else those that the prediction
    was to cover; else those that the labels put there.

    Args:
        predictions: what is scored.
        labels: of at least the videos of the split.
        split: its name, or all.
        own_labels: whether the labels were given for scoring.
        common_with: ids of the videos that other predictions have scores of; only videos of all of them count.

    Raises:
        ScoringError: videos that were to be predicted have no labels, or the labels have no video of the split.
    """
    held = list(predictions)
    wanted = [
        video
        for video, entry in labels.videos.items()
        if split == "all" or (entry.subset and same_subset(entry.subset, split))
    ]
    expected = predictions.facts.get("expected")
    if isinstance(expected, list) and predictions.facts.get("split") == split and not (own_labels and wanted):
        ids = [str(video) for video in expected]
        named = match_videos(ids, labels.videos).pairs
        if without := [video for video in ids if video not in named]:
            raise ScoringError(
                f"{len(without)} videos of '{printable(split)}' have no labels, '{printable(without[0])}' first."
            )
        there = set(held)
        pairs = {video: named[video] for video in ids if video in there}
        missing = {video: named[video] for video in ids if video not in there}
        extra = tuple(sorted(there - set(pairs)))
    else:
        if not wanted:
            held_subsets = sorted({entry.subset for entry in labels.videos.values() if entry.subset})
            known = f" (they have: {', '.join(map(printable, held_subsets[:8]))})" if held_subsets else ""
            raise ScoringError(
                f"the labels have no video of subset '{printable(split)}'{known}. Score --split all, or another."
            )
        matched = match_videos(held, wanted)
        pairs = matched.pairs
        missing = {video: video for video in matched.only_labels}
        extra = matched.only_store
    count = len(pairs) + len(missing)
    for others in common_with:
        common = set(match_videos(others, labels.videos).pairs.values()) & set(pairs.values())
        pairs = {video: label for video, label in pairs.items() if label in common}
        missing = {}
    unknown = match_videos(extra, labels.videos).only_store if extra else ()
    left_out = count - len(pairs) if common_with else 0
    return Coverage(pairs, tuple(missing), extra, unknown, left_out)


def same_subset(one: str, other: str) -> bool:
    """Whether two names stand for one subset: testing is test."""
    return SUBSETS.get(one.lower(), one.lower()) == SUBSETS.get(other.lower(), other.lower())


def require_covered(predictions: Predictions, coverage: Coverage, split: str, *, allow_missing: bool) -> None:
    """ScoringError, naming the first videos without scores, unless there are none or they are allowed."""
    pairs, missing = coverage.pairs, coverage.missing
    path = printable(predictions.path)
    if missing and not allow_missing:
        shown = ", ".join(f"'{printable(video)}'" for video in missing[:3])
        raise ScoringError(
            f"{len(pairs)} of {len(pairs) + len(missing)} videos of '{printable(split)}' have scores in "
            f"{path}; {shown}{' and others' if len(missing) > 3 else ''} have none. Predict them, or "
            "give --allow-missing to score the rest."
        )
    if not pairs:
        raise ScoringError(f"{path} has scores of no video of '{printable(split)}' that has labels.")


def column_names(predictions: Predictions, labels: Labels, classes: Path | None) -> tuple[tuple[str, ...], str]:
    """The class of every column, and where that is from if the file does not say it; "" if it does.

    Raises:
        ScoringError: the file numbers its columns, and nobody says which classes these are.
    """
    if predictions.classes is not None:
        return predictions.classes, ""
    count, path = predictions.num_classes, printable(predictions.path)
    if classes is not None:
        names = read_class_names(classes)
        if len(names) == count:
            return names, f"columns in the order of {printable(classes)}"
        if not (predictions.partial and len(names) < count):
            raise ScoringError(f"{path} has {count} columns, but {printable(classes)} names {len(names)} classes.")
        return (*names, *(f"class {number}" for number in range(len(names), count))), f"names of {printable(classes)}"
    if predictions.coded:
        for coded in (str, lambda number: f"c{number:03d}"):
            names = tuple(coded(number) for number in range(count))
            if set(labels.classes) <= set(names):
                return names, "columns are the class numbers of the labels"
        if len(labels.classes) == count:
            return labels.classes, f"columns in the order of the labels' {count} classes"
    raise ScoringError(
        f"{path} does not name its {count} columns. Give --classes FILE with one name a line in their order"
        f"{'' if predictions.coded else ', or save an array classes beside the scores'}."
    )
