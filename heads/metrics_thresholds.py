"""The threshold of every class that gives the best F1 on validation predictions.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics_ranking import checked


def best_thresholds(probs: NDArray[Any], labels: NDArray[Any]) -> NDArray[np.float64]:
    """For each class the probability from which on a prediction gives the best F1.

    Args:
        probs: (N, C) probabilities.
        labels: (N, C) 0, 1, or -1 where nobody knows, which is left out.

    Returns:
        (C,) one of the probabilities of the class, the highest if several are best; nan for a class without
        positives, of which nothing can be said.

    Raises:
        ValueError: a probability is nan or outside [0, 1], a label is none of these, or the shapes differ.

    >>> best_thresholds(np.array([[0.9], [0.6], [0.4]]), np.array([[1], [1], [0]])).tolist()
    [0.6]
    """
    probs, labels = checked(probs, labels, unknown=True, probabilities=True)
    best_C = np.full(probs.shape[1], np.nan)
    for index, (of_class, truth) in enumerate(zip(probs.T, labels.T, strict=True)):
        positives_P = np.sort(of_class[truth > 0])
        if not positives_P.size:
            continue
        known_N = np.sort(of_class[truth >= 0])
        found_P = len(positives_P) - np.searchsorted(positives_P, positives_P)
        passed_P = len(known_N) - np.searchsorted(known_N, positives_P)
        f1_P = 2 * found_P / (passed_P + len(positives_P))  # a best threshold always lies at a positive
        best_C[index] = positives_P[len(f1_P) - 1 - f1_P[::-1].argmax()]
    return best_C
