"""Bootstrap intervals of `vl score`, and the comparison of two predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from heads import scoring
from heads.metrics_bootstrap import Interval
from heads.report import with_interval
from stores.labels import Labels, VideoLabels
from tests.cli.commands import Said, report
from tests.cli.score.stores import predicted, seconds


def predicted_many(path: Path, noise: float, seed: int, **changes: Any) -> dict[str, NDArray[np.float32]]:
    """Scores of 12 videos, right but for the noise; `run` is in every other video."""
    names = [f"v{number:02d}" for number in range(12)]
    labels = Labels(
        ("run",), {name: VideoLabels.of([(0, 0.0, 2.0 + k % 3)] if k % 2 else []) for k, name in enumerate(names)}
    )
    rng = np.random.default_rng(seed)
    scores = {}
    for name in names:
        truth = labels.rows(name, seconds(6))
        scores[name] = np.clip(0.5 * truth + noise * rng.random(truth.shape), 0, 1).astype(np.float32)
    facts: dict[str, Any] = {"classes": ("run",), "expected": names, "labels": labels.to_dict()}
    predicted(path, scores, **(facts | changes))
    return scores


def test_a_bootstrap_prints_the_interval_of_the_score_and_its_ground(said: Said) -> None:
    predicted_many(Path("p.zarr"), noise=1.0, seed=0)
    found = report(said, "p.zarr", "--bootstrap", "200")
    interval = found["interval"]
    assert interval["low"] < found["score"] < interval["high"]
    assert (interval["resamples"], interval["videos"], interval["level"]) == (200, 12, 0.95)
    line = f"map        {found['score']:.4f} [{interval['low']:.4f}, {interval['high']:.4f}] 95 % over 200 resamples"
    assert f"{line} of 12 videos\n" in said("p.zarr", "--bootstrap", "200")[1]
    assert report(said, "p.zarr", "--bootstrap", "200")["interval"] == interval
    assert report(said, "p.zarr", "--bootstrap", "200", "--bootstrap-seed", "1")["interval"] != interval
    assert report(said, "p.zarr")["interval"] is None
    assert report(said, "p.zarr")["score"] == found["score"]


def test_a_score_outside_its_own_interval_is_warned_of(said: Said) -> None:
    predicted_many(Path("p.zarr"), noise=1.0, seed=0)
    found = scoring.score_store(Path("p.zarr"), scoring.Question())
    for low, high, warned in ((found.score, 1.0, 0), (0.0, found.score, 0), (0.0, 0.01, 1), (0.99, 1.0, 1)):
        warnings = with_interval(found, Interval(low, high, 10, 12)).warnings
        assert ["outside its interval" in warning for warning in warnings] == [True] * warned


def test_two_runs_are_compared_on_the_same_draws(said: Said) -> None:
    predicted_many(Path("good.zarr"), noise=0.6, seed=0)
    predicted_many(Path("bad.zarr"), noise=4.0, seed=1)
    found = report(said, "good.zarr", "--compare", "bad.zarr", "--bootstrap", "300")
    good, bad = found["reports"]
    assert found["difference"] == good["score"] - bad["score"]
    assert 0 < found["interval"]["low"] < found["difference"] < found["interval"]["high"]
    assert found["p_value"] == pytest.approx(2 / 301)  # no draw of videos turns it around
    turned = report(said, "bad.zarr", "--compare", "good.zarr", "--bootstrap", "300")
    assert turned["interval"]["low"] == pytest.approx(-found["interval"]["high"])
    assert good["interval"] == report(said, "good.zarr", "--bootstrap", "300")["interval"]
    code, out, _ = said("good.zarr", "--compare", "bad.zarr")
    lines = out.splitlines()
    assert (code, lines[0]) == (0, "good.zarr")
    assert lines.index("bad.zarr") < len(lines) - 3
    assert lines[-2].startswith(f"map        +{found['difference']:.4f} [")
    assert "95 % over 1000 resamples of 12 videos" in lines[-2]
    assert lines[-1] == f"{'p':10} {2 / 1001:.4f}  (two-sided)"
    same = report(said, "good.zarr", "--compare", "good.zarr")
    assert (same["difference"], same["interval"]["low"], same["p_value"]) == (0.0, 0.0, 1.0)


def test_the_order_of_videos_in_a_store_changes_no_comparison(said: Said) -> None:
    scores = predicted_many(Path("a.zarr"), noise=1.0, seed=0)
    predicted_many(Path("b.zarr"), noise=1.0, seed=0, expected=sorted(scores, reverse=True))
    found = report(said, "a.zarr", "--compare", "b.zarr")
    assert (found["interval"]["low"], found["interval"]["high"], found["p_value"]) == (0.0, 0.0, 1.0)


def test_runs_that_answer_different_questions_are_not_compared(said: Said) -> None:
    scores = predicted_many(Path("a.zarr"), noise=1.0, seed=0)
    names = sorted(scores)
    predicted_many(Path("fewer.zarr"), noise=1.0, seed=0, expected=names[:-1])
    predicted_many(Path("other.zarr"), noise=1.0, seed=0, classes=("jump", "run")[1:], split="val")
    short = Labels(("run",), {name: VideoLabels.of([(0, 0.0, 1.0)]) for name in names})
    predicted_many(Path("relabelled.zarr"), noise=1.0, seed=0, labels=short.to_dict())
    wide = {name: np.repeat(table, 2, axis=1) for name, table in scores.items()}
    predicted(Path("wide.zarr"), wide, classes=("run", "jump"), expected=names, labels=short.to_dict())
    videos = {name: table.max(axis=0, keepdims=True) for name, table in scores.items()}
    predicted(Path("video.zarr"), videos, classes=("run",), expected=names, labels=short.to_dict(), level="video")
    for other, message in (
        ("fewer", "only a.zarr has the video 'v11'"),
        ("other", "split test and val"),
        ("relabelled", "the labels of 'v00' differ"),
        ("wide", "only wide.zarr has the class 'jump'"),
        ("video", "protocol frame-map and video-map"),
    ):
        code, out, err = said("a.zarr", "--compare", f"{other}.zarr")
        assert (code, out, err.count("\n"), message in err) == (2, "", 1, True), (other, err)
