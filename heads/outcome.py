"""What a finished run says of itself: its scores, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from heads.checkpoint import RunConfig
from heads.cost import PeakMemory, cost_of
from heads.head import head_class
from heads.report import number
from heads.samples import SampledWindows
from heads.scoring import Question, score_store
from heads.train import SELECTION, Training
from heads.windows import Windows


def outcome(
    config: RunConfig,
    training: Training,
    train: Sequence[int],
    predictions: Mapping[str, str],
    memory: PeakMemory,
) -> dict[str, Any]:
    """What result.json holds, as JSON types.

    Args:
        training: at its end.
        train: indices of the training videos.
        predictions: split -> path of its scores.
        memory: that was watched.

    Returns:
        head, epochs, best_epoch, val (protocol, score), test (the same, chance, videos; null without test videos),
        predictions, cost (weights, multiply-adds of a pass over so many rows, seconds of the median epoch with its
        validation, bytes of memory and of what), random_weights, seconds.
    """
    position, head = training.position, head_class(config.head)
    seconds = [entry["seconds"] for entry in position.history]
    rows = typical_rows(config, training.windows, train)
    return {
        "head": config.head,
        "epochs": position.epoch,
        "best_epoch": position.best_epoch,
        "val": {"protocol": SELECTION[training.level, training.options.select][0], "score": position.best},
        "test": held_out(Path(predictions["test"])) if "test" in predictions else None,
        "predictions": dict(predictions),
        "cost": {
            **cost_of(head, config.options, training.windows.shapes, rows, seconds),
            "parameters": sum(weight.numel() for weight in training.model.parameters() if weight.requires_grad),
            "peak_memory": position.peak_memory,
            "peak_memory_of": memory.of,
        },
        "random_weights": config.random_weights,
        "seconds": round(sum(seconds), 3),
    }


def held_out(scores: Path) -> dict[str, Any]:
    """How the predictions at `scores` do under the protocol of their level, as JSON types; null for no number."""
    report = score_store(scores, Question(allow_missing=True))
    return {
        "protocol": report.protocol,
        "score": number(report.score),
        "chance": number(report.chance),
        "videos_scored": report.scored,
        "videos_expected": report.scored + len(report.missing),
    }


def typical_rows(config: RunConfig, windows: Windows | SampledWindows, train: Sequence[int]) -> int:
    """Rows of a forward pass: of a window, or where the head sees whole videos those of the median training video."""
    if head_class(config.head).level == "row":
        return config.training.window
    return int(np.median(windows.rows_V[list(train)]))
