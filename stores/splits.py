"""Which videos train, which choose the model, and which are scored: always whole videos.

By list files, else by the subsets of the labels, else by a hash of the id: a video's place then depends on
the seed and its own name alone, so that adding videos moves no other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from stores.label_files import SUBSETS
from stores.labels import LabelError, Labels, match_videos
from stores.names import printable

SPLITS = ("train", "val", "test")
SHARES = (0.7, 0.1, 0.2)
VAL_OF_TRAIN = 0.15  # what validation takes of the training videos where nobody named any
MAX_LIST_BYTES = 64 << 20


def split_videos(
    ids: Iterable[str],
    labels: Labels | None,
    *,
    seed: int,
    lists: Mapping[str, str | Path] | None = None,
) -> dict[str, list[str]]:
    """The videos of `train`, `val` and `test`, each sorted.

    Args:
        ids: videos to split; those without labels belong to no split when the labels have subsets.
        labels: their labels; None splits by `lists` or by the hash.
        seed: of the hash.
        lists: split name -> a file with one id (or stem) a line; `#` begins a comment. What stands in no list
            is in no split, but without a train list all that is left trains.

    Where train and test are given and no validation, a hashed share of 15 % of train becomes validation.

    Raises:
        LabelError: an id in a list is not among `ids`, or in two lists; a subset has an unknown name, or
            some videos have one and others not.
    """
    videos = sorted(dict.fromkeys(ids))
    if lists:
        split = _from_lists(videos, lists)
    elif labels is not None and labels.has_subsets:
        split = _from_subsets(videos, labels)
    else:
        return _by_hash(videos, seed)
    if not split["val"] and len(split["train"]) > 1:
        split["train"], split["val"] = _without_share(split["train"], seed)
    return split


def position_in_hash(video: str, seed: int) -> float:
    """Where `video` lies in [0, 1), from SHA-256 of seed and id: the same on every machine."""
    digest = hashlib.sha256(f"{seed}:{video}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def _by_hash(videos: list[str], seed: int) -> dict[str, list[str]]:
    """70/10/20; where chance leaves a split of few videos empty, the nearest one goes there."""
    order = sorted(videos, key=lambda video: position_in_hash(video, seed))
    last_train = sum(position_in_hash(video, seed) < SHARES[0] for video in order)
    last_val = sum(position_in_hash(video, seed) < SHARES[0] + SHARES[1] for video in order)
    if len(order) >= len(SPLITS):
        last_val = min(max(last_val, 2), len(order) - 1)
        last_train = min(max(last_train, 1), last_val - 1)
    return {
        "train": sorted(order[:last_train]),
        "val": sorted(order[last_train:last_val]),
        "test": sorted(order[last_val:]),
    }


def _without_share(train: list[str], seed: int) -> tuple[list[str], list[str]]:
    """(train, val): the share of `train` that the hash puts lowest, one at least, all but one at most."""
    order = sorted(train, key=lambda video: position_in_hash(video, seed))
    count = sum(position_in_hash(video, seed) < VAL_OF_TRAIN for video in order)
    count = min(max(count, 1), len(order) - 1)
    return sorted(order[count:]), sorted(order[:count])


def _from_subsets(videos: list[str], labels: Labels) -> dict[str, list[str]]:
    split: dict[str, list[str]] = {name: [] for name in SPLITS}
    without = []
    for video, named in match_videos(videos, labels.videos).pairs.items():
        subset = labels.videos[named].subset
        if not subset:
            without.append(video)
        elif subset.lower() in SUBSETS:
            split[SUBSETS[subset.lower()]].append(video)
        else:
            raise LabelError(
                f"'{printable(video)}' has the subset '{printable(subset)}', not one of "
                f"{', '.join(sorted(SUBSETS))}. Rename it in the labels, or give list files."
            )
    if without:
        raise LabelError(
            f"{len(without)} videos have no subset while others have one; '{printable(without[0])}' is the "
            "first. Give every video its subset, or none."
        )
    return split


def _from_lists(videos: list[str], lists: Mapping[str, str | Path]) -> dict[str, list[str]]:
    split: dict[str, list[str]] = {name: [] for name in SPLITS}
    place: dict[str, str] = {}
    for name, path in lists.items():
        if name not in SUBSETS:
            raise LabelError(f"there is no split '{printable(name)}'. There are: {', '.join(SPLITS)}.")
        matched = match_videos(videos, _read_list(Path(path)))
        if matched.only_labels:
            shown = ", ".join(f"'{printable(video)}'" for video in matched.only_labels[:3])
            raise LabelError(
                f"{path} lists {len(matched.only_labels)} videos that are not among the {len(videos)} with labels: "
                f"{shown}. Take them out, or label them."
            )
        for video in matched.pairs:
            if video in place:
                raise LabelError(f"'{printable(video)}' is listed for {place[video]} and again for {name}.")
            place[video] = name
            split[SUBSETS[name]].append(video)
    if not any(SUBSETS[name] == "train" for name in lists):
        split["train"] = [video for video in videos if video not in place]
    return {name: sorted(chosen) for name, chosen in split.items()}


def _read_list(path: Path) -> list[str]:
    """Ids of a list file, one a line."""
    try:
        if path.stat().st_size > MAX_LIST_BYTES:
            raise LabelError(f"{path} is larger than the {MAX_LIST_BYTES >> 20} MiB that a list may have.")
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelError(f"{path} is no list of video ids: it is no UTF-8 text.") from error
    except OSError as error:
        raise LabelError(f"{path} cannot be read: {error.strerror}.") from error
    names = [line.partition("#")[0].strip() for line in text.splitlines()]
    if not any(names):
        raise LabelError(f"{path} lists no video.")
    return [name for name in names if name]
