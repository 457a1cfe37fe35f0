"""`vl fuse`: means by hand, what goes along, and every difference by its name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stores import open_store
from stores.labels import Labels, VideoLabels
from stores.spec import FeatureSpec, Granularity, Rows
from stores.zarr_store import ZarrWriter
from tests.cli.commands import Said, runner

CLASSES = ("run", "jump")
LABELS = Labels(CLASSES, {"a": VideoLabels.of([(0, 0.0, 1.0)]), "b": VideoLabels.of([(1, 0.0, 2.0)])})
ONE = {"a": [[0.9, 0.2], [0.5, 0.4]], "b": [[0.0, 1.0]]}
TWO = {"a": [[0.1, 0.4], [0.7, 0.0]], "b": [[0.5, 0.25]]}


def store(path: str, scores: dict[str, Any], classes: tuple[str, ...] = CLASSES, **changes: Any) -> str:
    facts = {"level": "row", "split": "test", "expected": ["a", "b"], "labels": LABELS.to_dict(), "head": "mlad"}
    shift = changes.pop("shift", 0.0)
    with_windows = changes.pop("windows", False)
    spec = FeatureSpec(Granularity.SCORE, (len(classes),), dtype="float32", classes=classes)
    with ZarrWriter(path, {"scores": spec} | ({"windows": spec} if with_windows else {})) as writer:
        for video, rows in scores.items():
            table = np.array(rows, np.float32)
            starts = np.arange(len(table)) + shift
            times = np.stack([starts, starts + 1], axis=1)
            entry = writer.video(video, {"duration": float(len(table))})
            entry.append("scores", Rows(table, times))
            if with_windows:
                end = np.array([[times[-1, 1]] * 2])
                entry.append("windows", Rows(np.concatenate([table, table[:1]]), np.concatenate([times, end])))
            entry.commit()
        writer.attach("prediction", facts | changes)
    return path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


def fused(path: str = "fused.zarr") -> dict[str, NDArray[Any]]:
    scores = open_store(path)["scores"]
    return {video: scores.read(video).features for video in scores}


def test_the_mean_of_two_probabilities_stands_at_the_same_times(said: Said) -> None:
    store("one.zarr", ONE)
    store("two.zarr", TWO)
    code, out, err = said("fuse", "one.zarr", "two.zarr")
    assert (code, out, err) == (0, "fused.zarr: mean of 2 predictions of 2 videos\n", "")
    found = fused()
    np.testing.assert_allclose(found["a"], [[0.5, 0.3], [0.6, 0.2]], atol=1e-7)
    np.testing.assert_allclose(found["b"], [[0.25, 0.625]], atol=1e-7)
    scores = open_store("fused.zarr")["scores"]
    assert scores.times("a").tolist() == [[0.0, 1.0], [1.0, 2.0]]
    assert (scores.spec.classes, scores.spec.dtype) == (CLASSES, "float32")
    assert scores.entry("a").info["duration"] == 2.0


def test_weights_are_divided_by_their_sum(said: Said) -> None:
    store("one.zarr", ONE)
    store("two.zarr", TWO)
    assert said("fuse", "one.zarr", "two.zarr", "--weight", "3,1", "--out", "f.zarr", "--json")[0] == 0
    np.testing.assert_allclose(fused("f.zarr")["b"], [[0.125, 0.8125]], atol=1e-7)
    assert said("fuse", "one.zarr", "two.zarr", "one.zarr", "--out", "g.zarr")[0] == 0
    np.testing.assert_allclose(fused("g.zarr")["b"], [[0.5 / 3, 2.25 / 3]], atol=1e-7)
    assert open_store("f.zarr")["scores"].spec.fingerprint != open_store("g.zarr")["scores"].spec.fingerprint


def test_a_fused_store_is_scored_like_any_other(said: Said) -> None:
    store("one.zarr", ONE)
    store("two.zarr", TWO, random_weights=True, head="tconv")
    document = json.loads(said("fuse", "one.zarr", "two.zarr", "--json")[1])
    assert document == {"predictions": "fused.zarr", "fused": ["one.zarr", "two.zarr"], "videos": 2}
    code, out, _ = said("score", "fused.zarr")
    assert (code, "test: 2 of 2 videos scored, 3 rows" in out, "RANDOM WEIGHTS" in out) == (0, True, True)
    # run: .5 (yes), .6, .25 -> 1/2;  jump: .3, .2, .625 (yes) -> 1
    assert "map        0.7500" in out
    facts = open_store("fused.zarr").attachment("prediction")
    assert facts is not None
    assert (facts["split"], facts["expected"], facts["head"]) == ("test", ["a", "b"], "fusion of mlad, tconv")
    assert [entry["share"] for entry in facts["fused"]] == [0.5, 0.5]


def test_runs_are_fused_by_their_test_scores_or_those_of_another_split(said: Said) -> None:
    for run, scores in (("r1", ONE), ("r2", TWO)):
        Path(run).mkdir()
        (Path(run) / "config.json").write_text("{}")
        store(f"{run}/test.zarr", scores)
        store(f"{run}/val.zarr", {"a": scores["a"]}, split="val", expected=["a"])
    assert said("fuse", "r1", "r2")[0] == 0
    assert set(fused()) == {"a", "b"}
    assert said("fuse", "r1", "r2", "--split", "val", "--out", "val.zarr")[0] == 0
    assert set(fused("val.zarr")) == {"a"}
    facts = open_store("val.zarr").attachment("prediction")
    assert facts is not None
    assert facts["split"] == "val"


def test_windows_are_fused_too_where_all_have_them(said: Said) -> None:
    store("one.zarr", ONE, windows=True)
    store("two.zarr", TWO, windows=True)
    store("three.zarr", TWO)
    assert said("fuse", "one.zarr", "two.zarr")[0] == 0
    windows = open_store("fused.zarr")["windows"].read("a")
    np.testing.assert_allclose(windows.features, [[0.5, 0.3], [0.6, 0.2], [0.5, 0.3]], atol=1e-7)
    assert windows.times[-1].tolist() == [2.0, 2.0]
    assert said("score", "fused.zarr", "--protocol", "mlad-slide")[0] == 0
    assert said("fuse", "one.zarr", "three.zarr", "--out", "g.zarr")[0] == 0
    assert list(open_store("g.zarr")) == ["scores"]


OTHER_LABELS = Labels(CLASSES, {"a": VideoLabels.of([(1, 0.0, 1.0)]), "b": VideoLabels.of([])}).to_dict()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"scores": {"a": TWO["a"]}}, "only one.zarr has the video 'b'"),
        ({"scores": TWO | {"c": [[0.1, 0.1]]}}, "only two.zarr has the video 'c'"),
        ({"classes": ("run", "fall")}, "only two.zarr has the class 'fall'"),
        ({"classes": ("jump", "run")}, "classes stand in another order, 'run' and 'jump' at 0"),
        ({"scores": TWO | {"a": TWO["a"][:1]}}, "'a' has 2 rows and 1. Both need features on the same rows"),
        ({"shift": 0.5}, "'a' has 0 to 1 s in row 0, and 0.5 to 1.5 s"),
        ({"scores": TWO | {"b": [[-1.5, 0.2]]}}, "the scores of 'b' in two.zarr are no probabilities"),
        ({"scores": TWO | {"b": [[np.nan, 0.2]]}}, "the scores of 'b' in two.zarr are no probabilities"),
        ({"split": "val"}, "their split test and val differ"),
        ({"label_at": "start", "level": "video"}, "their level row and video differ"),
        ({"expected": ["a", "b", "c"]}, "their expected differ"),
        ({"labels": OTHER_LABELS}, "their labels differ"),
    ],
)
def test_stores_that_differ_are_refused_by_name_and_leave_nothing(
    said: Said, other: dict[str, Any], message: str
) -> None:
    store("one.zarr", ONE)
    scores = other.pop("scores", TWO)
    store("two.zarr", scores, **other)
    code, out, err = said("fuse", "one.zarr", "two.zarr")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert not Path("fused.zarr").exists()


def test_wrong_words_get_one_line(said: Said) -> None:
    store("one.zarr", ONE)
    store("two.zarr", TWO)
    for words, message in (
        (["one.zarr"], "two stores of scores or more, not 1"),
        (["one.zarr", "two.zarr", "--weight", "1"], "2 stores need 2 weights above 0, not 1"),
        (["one.zarr", "two.zarr", "--weight", "1,0"], "2 weights above 0, not 1,0"),
        (["one.zarr", "two.zarr", "--weight", "1,nan"], "2 weights above 0"),
        (["one.zarr", "two.zarr", "--weight", "a,b"], "--weight takes numbers, as 0.7,0.3, not 'a,b'"),
        (["one.zarr", "two.zarr", "--out", "two.zarr"], "two.zarr is there already"),
    ):
        code, out, err = said("fuse", *words)
        assert (code, out, err.count("\n"), message in err) == (2, "", 1, True), err
