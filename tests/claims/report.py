"""One line for each pair of a head and its ablation: both means, their difference, and whether every seed agrees."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np

from tests.claims.experiment import Arm, Experiment

MARGIN = 0.05  # of AP: a smaller difference on some seed does not count as showing
HEADER = f"{'claim':22} | {'figure':12} | {'with the part':38} | {'without':38} | {'differ by':13} | chance | shows"


def lines(experiment: Experiment, seeds: Sequence[int]) -> Iterable[str]:
    """The table's lines of one experiment; parameters stand in brackets."""
    began = time.process_time()
    outcomes = [experiment.carry_out(seed) for seed in seeds]
    spent = time.process_time() - began
    by_chance = [chance for _, chance in outcomes]
    for figure in by_chance[0]:
        for full in experiment.full:
            for ablation in experiment.ablations:
                ours, theirs = ([arms[name] for arms, _ in outcomes] for name in (full, ablation))
                gaps = [a.figures[figure] - b.figures[figure] for a, b in zip(ours, theirs, strict=True)]
                agree = sum(gap > MARGIN for gap in gaps)
                chance = np.mean([values[figure] for values in by_chance])
                yield (
                    f"{experiment.name:22} | {figure:12} | {_arm(full, ours, figure):38} | "
                    f"{_arm(ablation, theirs, figure):38} | {_spread(gaps):13} | {chance:6.3f} | "
                    f"{'yes' if agree == len(gaps) else 'NO'}, {agree} of {len(gaps)}"
                )
    yield f"{experiment.name}: {spent:.0f} s of CPU time"


def _arm(name: str, arms: Sequence[Arm], figure: str) -> str:
    return f"{name} ({arms[0].parameters}): {_spread([arm.figures[figure] for arm in arms])}"


def _spread(values: Sequence[float]) -> str:
    deviation = np.std(values, ddof=1) if len(values) > 1 else 0.0
    return f"{np.mean(values):.3f} ± {deviation:.3f}"
