"""Action-conditional metrics: how well a class is found where another one is, or just was.

Source: Tirupattur et al., CVPR 2021, equations 9 to 12. Differs from the released code: the window of
equation 11 unless `window="official"`, and F1 is the mean over pairs, as the paper's Table 2 demands.

Shape letters: T steps of one video, N steps of all, C classes; class i is asked for, given class j.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heads.metrics_ranking import average_precisions, by_class, checked

Window = Literal["paper", "official"]


def action_conditional(
    probs: Sequence[NDArray[Any]],
    labels: Sequence[NDArray[Any]],
    tau: int = 0,
    threshold: float | NDArray[np.float64] = 0.5,
    window: Window = "paper",
) -> dict[str, float]:
    """Precision, recall, F1 and AP of class i where class j holds, averaged over all pairs that occur.

    Args:
        probs: (T, C) probabilities of each video; videos may differ in T.
        labels: (T, C) 0 or 1 of each video.
        tau: 0 for steps at which j is present; else steps without j that follow one with j by `tau` or less.
        threshold: a probability from here on is a prediction; one for all classes, or (C,) one for each.
        window: `paper` is [t - tau, t], `official` the released code's [t - tau + 1, t], which published
            tables used.

    Returns:
        `precision`, `recall`, `f1` and `map`: means over the `num_pairs` ordered pairs i != j for which i is
        present under the condition at least once (nan if none is). Nothing predicted is precision 0.

    Raises:
        ValueError: probabilities are nan or outside [0, 1], labels are not 0 or 1, or the window is empty.
    """
    probs_NC, labels_NC = pooled_tables(probs, labels)
    given_NC = given_rows([np.asarray(table) for table in labels], labels_NC.shape[1], tau, window)
    threshold_C = np.broadcast_to(threshold, given_NC.shape[1])
    kinds: list[list[NDArray[np.float64]]] = [[], [], [], []]
    for j in range(labels_NC.shape[1]):
        p_NC, y_NC = probs_NC[given_NC[:, j]], labels_NC[given_NC[:, j]]
        truth_C = y_NC.sum(axis=0, dtype=np.int64)
        truth_C[j] = 0  # a class says nothing about itself
        pairs = np.flatnonzero(truth_C)
        p_NC, y_NC = p_NC[:, pairs], y_NC[:, pairs]
        predicted_NC = p_NC >= threshold_C[pairs]
        correct = (predicted_NC & (y_NC == 1)).sum(axis=0)
        precision = correct / np.maximum(predicted_NC.sum(axis=0), 1)
        recall = correct / truth_C[pairs]
        f1 = 2 * precision * recall / np.where(correct, precision + recall, 1)
        for kind, values in zip(kinds, (precision, recall, f1, by_class(p_NC, y_NC)), strict=True):
            kind.append(values)
    pooled = [np.concatenate(kind) if kind else np.empty(0) for kind in kinds]
    num_pairs = len(pooled[0])
    means = [float(values.mean()) if num_pairs else float("nan") for values in pooled]
    return {**dict(zip(("precision", "recall", "f1", "map"), means, strict=True)), "num_pairs": num_pairs}


def action_conditional_pair(
    probs: Sequence[NDArray[Any]],
    labels: Sequence[NDArray[Any]],
    i: int,
    j: int,
    tau: int = 0,
    window: Window = "paper",
) -> float:
    """AP(c_i | c_j, tau) of one pair; nan if i is never present under the condition."""
    probs_NC, labels_NC = pooled_tables(probs, labels)
    given_N = given_rows([np.asarray(table) for table in labels], labels_NC.shape[1], tau, window)[:, j]
    return float(average_precisions(probs_NC[given_N, i][None], labels_NC[given_N, i][None])[0])


def pooled_tables(
    probs: Sequence[NDArray[Any]], labels: Sequence[NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """(N, C) probabilities and labels of all videos, checked."""
    if len(probs) != len(labels):
        raise ValueError(f"{len(probs)} videos have probabilities, {len(labels)} have labels")
    tables = [checked(p, y, probabilities=True) for p, y in zip(probs, labels, strict=True)]
    if len({p.shape[1] for p, _ in tables}) > 1:
        raise ValueError(f"videos differ in classes: {sorted({p.shape[1] for p, _ in tables})}")
    if not tables:
        return np.empty((0, 0)), np.empty((0, 0), np.int8)
    return np.concatenate([p for p, _ in tables]), np.concatenate([y for _, y in tables])


def given_rows(labels: list[NDArray[Any]], num_classes: int, tau: int, window: Window) -> NDArray[np.bool_]:
    """(N, C) whether each class, as c_j, fulfils the condition; a video's window never reaches another video."""
    if window not in ("paper", "official"):
        raise ValueError(f"the window is paper or official, not {window!r}")
    if tau < 0 or (tau == 1 and window == "official"):
        raise ValueError(f"the {window} window of tau {tau} holds no earlier step")
    reach = tau if window == "paper" or tau == 0 else tau - 1
    tables = [np.empty((0, num_classes), bool)]
    for table in labels:
        present_TC = table == 1
        if tau == 0:
            tables.append(present_TC)
        elif len(table):
            seen_TC = np.cumsum(present_TC, axis=0)  # of steps up to t
            before_TC = np.zeros_like(seen_TC)
            before_TC[reach + 1 :] = seen_TC[: -reach - 1]  # of steps before t - reach
            tables.append(~present_TC & (seen_TC > before_TC))
    return np.concatenate(tables)
