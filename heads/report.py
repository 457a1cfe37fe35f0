"""A score, and what it stands on; no torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from heads.metrics_bootstrap import LEVEL, Interval


@dataclass(frozen=True)
class Report:
    """A score and what it stands on."""

    path: Path
    protocol: str
    text: str
    values: Mapping[str, float]  # the first is the score
    chance: float | None  # mean over classes of their share of positives
    taken: str  # where the labels were looked up
    split: str
    scored: int
    missing: tuple[str, ...]
    extra: int  # videos with scores that are not asked for
    rows: int
    classes: tuple[str, ...]
    positives: tuple[int, ...]  # of each class, in the rows scored
    average_precision: tuple[float | None, ...]  # of each class; None where it has no positive
    random_weights: bool
    warnings: tuple[str, ...] = field(default=())
    kind: str = "store of scores"  # the form of the predictions
    notes: tuple[str, ...] = ()  # what was decided
    unknown: tuple[str, ...] = ()  # videos with scores that the labels do not have at all
    columns: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)  # more about each class
    interval: Interval | None = None  # of the score, where a bootstrap was asked for

    @property
    def score(self) -> float:
        """The number."""
        return next(iter(self.values.values()))

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; a number that does not exist is null."""
        return {
            "path": str(self.path),
            "form": self.kind,
            "protocol": self.protocol,
            "score": number(self.score),
            "interval": interval_dict(self.interval),
            "values": {name: number(value) for name, value in self.values.items()},
            "chance": number(self.chance),
            "labels_taken": self.taken,
            "split": self.split,
            "videos_scored": self.scored,
            "videos_expected": self.scored + len(self.missing),
            "missing": list(self.missing),
            "extra_videos": self.extra,
            "unknown_videos": list(self.unknown),
            "notes": list(self.notes),
            "rows": self.rows,
            "random_weights": self.random_weights,
            "warnings": list(self.warnings),
            "classes": [
                {"class": name, "positives": positives, "ap": value}
                | {column: values[place] for column, values in self.columns.items()}
                for place, (name, positives, value) in enumerate(
                    zip(self.classes, self.positives, self.average_precision, strict=True)
                )
            ],
        }


def with_interval(report: Report, interval: Interval) -> Report:
    """The report with its bootstrap, and a warning where the replicates lie beside the score."""
    beside = not interval.low <= report.score <= interval.high
    lost = (
        "the score lies outside its interval: classes or pairs of few videos leave many replicates, or repeat in them"
    )
    warnings = (*report.warnings, lost) if beside and not np.isnan(report.score) else report.warnings
    return dataclasses.replace(report, interval=interval, warnings=warnings)


def interval_dict(interval: Interval | None) -> dict[str, Any] | None:
    """As JSON types."""
    if interval is None:
        return None
    ends = {"low": number(interval.low), "high": number(interval.high)}
    return {**dataclasses.asdict(interval), **ends, "level": LEVEL}


def number(value: float | None) -> float | None:
    """What JSON can hold: no nan."""
    return None if value is None or np.isnan(value) else float(value)
