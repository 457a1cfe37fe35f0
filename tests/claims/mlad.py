"""MLAD's branches: over classes where labels go together, over time where one follows another.

Both branches have the same size: the full head with one layer and a branch alone with two differ by one scalar.

Shape letters: V videos, N rows, D features.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.metrics_conditional import action_conditional_pair
from stores.spec import FeatureSpec, Granularity
from tests.claims.experiment import Claim, Data, mean_ap

PARTNERS = 12  # classes that can be seen, and as many scenes
JOINERS = 2  # classes that go together with one of them
LEADERS = 3  # as many followers
LAG = 3  # rows from a leader to its follower


def co_occurring(rng: np.random.Generator, videos: int) -> Data:
    """A row's scene says which of twelve visible classes the two unseen ones, the joiners, go together with.

    Rows are independent. In each, every partner is present with probability 1/2 and then shows as +2 or -2, a coin
    of its own, along its own direction; one of 12 scenes, uniform, is 3 along a direction of its own; noise of
    deviation 0.4 is on everything. Joiner j is present exactly where partner (scene + 5 j) mod 12 is.

    Why over classes: a joiner is independent of the scene, of every linear map of its row (signs are coins) and of
    all other rows. What a class knows of its row by itself is its `embed` = 12 rectified units; a partner in its
    scene takes two of them, one for each sign, so that 12 units can serve 6 scenes of 12: about 0.75 at best. A
    class that looks at the others asks with its scene and gets the partner's presence.
    """
    rows = 8
    present = rng.random((videos, rows, PARTNERS)) < 0.5
    signs = rng.choice([-1.0, 1.0], present.shape)
    scene = rng.integers(0, PARTNERS, (videos, rows))
    x_VND = np.concatenate([2 * signs * present, 3 * np.eye(PARTNERS)[scene]], axis=2)
    asked = (scene[..., None] + 5 * np.arange(JOINERS)) % PARTNERS
    joiners = np.take_along_axis(present, asked, axis=2)
    return _frames(x_VND + 0.4 * rng.normal(size=x_VND.shape), np.concatenate([present, joiners], axis=2))


def following(rng: np.random.Generator, videos: int) -> Data:
    """Followers come three rows after their leaders, unseen.

    Each of 3 leaders is present in a row with probability 0.2, independently of everything, as well in the 3 rows
    before the video begins, and shows as 2 along its own direction under noise of deviation 0.3; follower j is
    present exactly 3 rows after leader j. 29 features are always 0: room for the position code, which is added.

    Why over time: followers are independent of the features and the position of their own row, so a head that
    looks at one row is at chance.
    """
    rows = 16
    leaders = rng.random((videos, rows + LAG, LEADERS)) < 0.2
    shown = 2 * leaders[:, LAG:] + 0.3 * rng.normal(size=(videos, rows, LEADERS))
    x_VND = np.concatenate([shown, np.zeros((videos, rows, 29))], axis=2)
    return _frames(x_VND, np.concatenate([leaders[:, LAG:], leaders[:, :rows]], axis=2))


def _frames(x_VND: NDArray[np.float64], labels: NDArray[np.bool_]) -> Data:
    spec = FeatureSpec(Granularity.FRAME, x_VND.shape[2:], "float32", backbone="made", stream="rgb")
    name = "made.rgb.frame"
    return Data({name: x_VND.astype(np.float32)}, {name: spec}, labels.astype(np.int8))


def given_partners(scores: list[NDArray[Any]], labels: list[NDArray[Any]]) -> float:
    """Mean over partners and joiners of AP(joiner | partner, tau 0)."""
    pairs = [(PARTNERS + j, i) for j in range(JOINERS) for i in range(PARTNERS)]
    return float(np.mean([action_conditional_pair(scores, labels, i, j, tau=0) for i, j in pairs]))


def given_leaders(scores: list[NDArray[Any]], labels: list[NDArray[Any]]) -> float:
    """Mean over followers of AP(follower | its leader, tau 5): the leader was there in the last 5 rows, and is not."""
    pairs = [(LEADERS + j, j) for j in range(LEADERS)]
    return float(np.mean([action_conditional_pair(scores, labels, i, j, tau=5) for i, j in pairs]))


COMMON = ("dropout=0", "batch_size=32", "variable_length=false", "schedule=onecycle")
BOTH = {"both branches": ("num_layers=1",)}
CLAIMS = (
    Claim(
        "mlad-cb",
        "mlad",
        co_occurring,
        2000,
        (*COMMON, "embed=12", "lr=0.02", "steps=1200", "pos_enc=false"),
        BOTH,
        {"branches=tb": ("branches=tb", "num_layers=2")},
        {"mAP joiners": mean_ap(*range(PARTNERS, PARTNERS + JOINERS)), "AC tau=0": given_partners},
    ),
    Claim(
        "mlad-tb",
        "mlad",
        following,
        1000,
        (*COMMON, "embed=16", "lr=0.02", "steps=700"),
        BOTH,
        {"branches=cb": ("branches=cb", "num_layers=2")},
        {"mAP follow": mean_ap(*range(LEADERS, 2 * LEADERS)), "AC tau=5": given_leaders},
    ),
)
