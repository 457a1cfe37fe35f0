"""What `--speeds` and `--views` say."""

from __future__ import annotations

import re

from extract.backbone import BackboneError
from extract.views import Views

MOST_CLIPS = 1000  # of a video
CROPS = (1, 3)


def parse_views(speeds: str | None, views: str | None) -> tuple[Views, ...]:
    """What `--speeds` and `--views` ask for; nothing where neither is given.

    Args:
        speeds: as "4,2,8"; None is speed 1.
        views: clips x crops of each speed, as "4x3,3x3,3x3", or one for all; None is the central clip and crop.

    Raises:
        BackboneError: they make no sense, or do not fit each other.

    >>> parse_views("4,2", "4x3,3x1")
    (Views(speed=4, clips=4, crops=3), Views(speed=2, clips=3, crops=1))
    """
    if speeds is None and views is None:
        return ()
    rates = [_speed(word) for word in _words("--speeds", speeds or "1")]
    if len(set(rates)) < len(rates):
        raise BackboneError(f"--speeds {speeds} names a speed twice.")
    grids = [_grid(word) for word in _words("--views", views or "1x1")]
    if len(grids) == 1:
        grids *= len(rates)
    if len(grids) != len(rates):
        raise BackboneError(
            f"--views has {len(grids)} entries and --speeds {len(rates)}: give one view for each speed, or one for all."
        )
    return tuple(Views(speed, clips, crops) for speed, (clips, crops) in zip(rates, grids, strict=True))


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise BackboneError(f"{option} '{text}' has an empty entry.")
    return words


def _speed(word: str) -> int:
    if not re.fullmatch(r"[1-9]\d{0,3}", word):
        raise BackboneError(f"--speeds takes whole numbers of 1 or more (4 is every 4th frame), not '{word}'.")
    return int(word)


def _grid(word: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9]\d{0,3})x([1-9]\d{0,3})", word)
    if found is None or int(found[1]) > MOST_CLIPS or int(found[2]) not in CROPS:
        raise BackboneError(
            f"--views takes clips x crops, as 10x3, with 1 to {MOST_CLIPS} clips and 1 or 3 crops, not '{word}'."
        )
    return int(found[1]), int(found[2])
