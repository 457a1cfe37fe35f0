"""`vl train-head` and `vl predict`: bare, in a row, resumable; wrong input gets one line and its exit code."""

import json
from pathlib import Path

import numpy as np
import pytest

from heads.checkpoint import read_config
from stores import open_store
from stores.errors import InterruptedRunError
from stores.zarr_store import ZarrWriter
from tests.cli.commands import Said, runner
from tests.heads.feature_stores import flat_spec, planted, write_store

QUICK = ("--epochs", "2", "--batch-size", "8", "--set", "embed=4", "--set", "num_layers=1")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Said:
    """Run `vl WORDS` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """store.zarr with attached labels."""
    features, labels = planted(videos=10)
    made = write_store(tmp_path / "store.zarr", {"one": features})
    with ZarrWriter(made.path, {}) as writer:
        writer.attach("labels", labels.to_dict())
    return made.path


def write_labels(path: Path, subset: bool = False) -> Path:
    _, labels = planted(videos=10)
    lines = ["video,start,end,label" + (",subset" if subset else "")]
    for number, (video, entry) in enumerate(labels.videos.items()):
        split = ("," + ("test" if number < 3 else "train")) if subset else ""
        for index, (start, end) in zip(entry.classes, entry.spans, strict=True):
            lines.append(f"{video},{start},{end},{labels.classes[index]}{split}")
    path.write_text("\n".join(lines))
    return path


def test_train_predict_and_score_work_bare_in_a_row(said: Said, store: Path) -> None:
    code, out, err = said("train-head", "mlad", "--features", "store.zarr", *QUICK)
    assert code == 0
    assert out.startswith("runs/mlad-001: mlad val frame-map ")
    assert "test predictions: runs/mlad-001/test.zarr" in out
    for line in ("features: one;", "videos: ", "labels attached to the store", "embed=4", "lr=0.0001", "epoch    2"):
        assert line in err
    code, out, _ = said("predict", "store.zarr", "--head", "runs/mlad-001")
    assert code == 0
    assert list(open_store(Path("predictions.zarr"))["scores"]) == list(open_store(store)["one"])
    code, out, _ = said("score", "runs/mlad-001")
    assert code == 0
    assert "frame-map" in out


def test_json_holds_the_result(said: Said, store: Path) -> None:
    code, out, _ = said("train-head", "linear", "--features", "store.zarr", "--epochs", "2", "--seeds", "2", "--json")
    document = json.loads(out)
    assert code == 0
    scores = [run["val"]["score"] for run in document["runs"]]
    assert [run["run"] for run in document["runs"]] == ["runs/linear-001", "runs/linear-002"]
    assert document["val"]["mean"] == pytest.approx(np.mean(scores))
    assert document["val"]["sd"] == pytest.approx(np.std(scores, ddof=1))
    first, second = (read_config(Path(run["run"])) for run in document["runs"])
    assert (first.training.seed, second.training.seed) == (0, 1)
    assert first.split == second.split


def test_seeds_give_mean_and_deviation_of_the_test_videos_and_go_on(said: Said, store: Path) -> None:
    words = ("train-head", "linear", "--features", "store.zarr", "--epochs", "2", "--seeds", "3", "--out", "r")
    code, out, err = said(*words)
    assert code == 0, err
    said_again = said("score", "r-seed0", "r-seed1", "r-seed2", "--json")[1]
    scores = [report["score"] for report in json.loads(said_again)["reports"]]
    assert f"test frame-map {np.mean(scores):.4f} ± {np.std(scores, ddof=1):.4f}, 3 seeds" in out
    assert all(f"test frame-map {score:.4f}" in out for score in scores)
    kept = {path: path.stat().st_mtime_ns for path in Path("r-seed0").iterdir()}
    Path("r-seed1/result.json").unlink()  # as if it had been cut off before its end
    code, again, err = said(*words)
    assert (code, again) == (0, out)
    assert "r-seed0 is finished" in err
    assert {path: path.stat().st_mtime_ns for path in Path("r-seed0").iterdir()} == kept
    code, _, err = said(*words, "--lr", "0.5")
    assert code == 2
    assert "begun with lr 0.001, not 0.5" in err


def test_subsets_of_the_labels_decide_the_split(said: Said, store: Path) -> None:
    labels = write_labels(store.parent / "l.csv", subset=True)
    code, _, err = said("train-head", "linear", "--features", store, "--labels", labels, "--out", "r", "--epochs", "1")
    assert code == 0, err
    split = read_config(Path("r")).split
    assert set(split["test"]) == {"v00.mp4", "v01.mp4", "v02.mp4"}
    assert split["val"]
    assert not set(split["val"]) & set(split["test"])


def test_list_files_decide_the_split(said: Said, store: Path) -> None:
    for name, videos in {"val": ["v00"], "test": ["v01", "v02.mp4"]}.items():
        Path(f"{name}.txt").write_text("\n".join(videos))
    code, _, _ = said(
        "train-head", "linear", "--features", store, "--out", "r", "--epochs", "1",
        "--val-list", "val.txt", "--test-list", "test.txt",
    )  # fmt: skip
    assert code == 0
    split = read_config(Path("r")).split
    assert (split["val"], split["test"]) == (("v00.mp4",), ("v01.mp4", "v02.mp4"))
    assert len(split["train"]) == 7


def test_an_interrupted_run_goes_on_by_resume_or_by_the_same_command(
    said: Said, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from heads.train import Training

    words = ("train-head", "linear", "--features", store, "--epochs", "3", "--set", "eval_every=1")
    close_epoch = Training.close_epoch

    def interrupted(self: Training, *arguments: object) -> None:
        close_epoch(self, *arguments)  # type: ignore[arg-type]
        self.save()
        raise InterruptedRunError("stopped by SIGTERM.")

    for name in ("one", "two"):
        monkeypatch.setattr(Training, "close_epoch", interrupted)
        assert said(*words, "--out", name)[0] == 75
        monkeypatch.setattr(Training, "close_epoch", close_epoch)
    code, _, err = said(*words, "--out", "one")
    assert code == 0
    assert "going on after 1 epochs" in err
    assert "epoch    1" not in err
    code, _, err = said("train-head", "--resume", "two")
    assert code == 0
    assert Path("one/best.safetensors").read_bytes() == Path("two/best.safetensors").read_bytes()


def test_a_finished_run_is_not_written_over(said: Said, store: Path) -> None:
    words = ("train-head", "linear", "--features", store, "--epochs", "1", "--out", "r")
    assert said(*words)[0] == 0
    before = {path: path.stat().st_mtime_ns for path in Path("r").iterdir()}
    for again in (words, ("train-head", "--resume", "r")):
        code, _, err = said(*again)
        assert code == 2
        assert "r is finished" in err
    assert {path: path.stat().st_mtime_ns for path in Path("r").iterdir()} == before


def test_random_weights_are_loud(said: Said, store: Path) -> None:
    features, _ = planted(videos=10)
    spec = flat_spec(8, random_weights=True, backbone="net")
    write_store(Path("random.zarr"), {"net": features}, specs={"net": spec})
    labels_file = write_labels(Path("l.csv"))
    words = (
        "train-head",
        "linear",
        "--features",
        "random.zarr",
        "--labels",
        labels_file,
        "--epochs",
        "1",
        "--out",
        "r",
    )
    code, out, err = said(*words)
    assert code == 0
    assert out.startswith("RANDOM WEIGHTS")
    assert "RANDOM WEIGHTS: these features come from a network that was never trained." in err
    assert "RANDOM WEIGHTS" in said("predict", "random.zarr", "--head", "r")[2]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["train-head"], 2, "give a HEAD and --features STORE"),
        (["train-head", "mlda", "--features", "store.zarr"], 2, "there is no head 'mlda'"),
        (["train-head", "mlad", "--features", "nothing.zarr"], 2, "no store nothing.zarr"),
        (["train-head", "mlad", "--features", "bare.zarr"], 2, "there are no labels: give --labels FILE"),
        (
            ["train-head", "mlad", "--features", "store.zarr", "--set", "depth=3"],
            2,
            "has no option 'depth'. It has branch",
        ),
        (["train-head", "mlad", "--features", "store.zarr", "--lr", "-1"], 2, "lr is a positive number, not -1.0"),
        (["train-head", "mlad", "--features", "store.zarr", "--optimizer", "lion"], 2, "one of adam, adamw, sgd"),
        (["train-head", "mlad", "--features", "store.zarr", "--sets", "two"], 2, "no set 'two'; there is one"),
        (["train-head", "meanpool", "--features", "store.zarr", "--window", "9"], 2, "sees whole videos"),
        (["train-head", "mlad", "--features", "store.zarr", "--device", "tpu"], 2, "a device is auto, cpu, cuda"),
        (["train-head", "mlad", "--features", "store.zarr", "--device", "cuda:99"], 2, "there is no cuda:99"),
        (["train-head", "mlad", "--resume", "runs/x"], 2, "takes everything from the run"),
        (["train-head", "--resume", "runs/x"], 2, "is no training run"),
        (["predict", "store.zarr", "--head", "nowhere"], 2, "is no training run"),
    ],
)
def test_wrong_input_gets_one_line_and_writes_nothing(
    words: list[str], code: int, message: str, said: Said, store: Path
) -> None:
    write_store(Path("bare.zarr"), {"one": {"v00.mp4": np.zeros((3, 8), np.float32)}})
    before = sorted(Path.cwd().iterdir())
    found, out, err = said(*words)
    assert (found, out) == (code, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert sorted(Path.cwd().iterdir()) == before


def test_features_of_other_settings_end_with_4(said: Said, store: Path) -> None:
    assert said("train-head", "linear", "--features", store, "--epochs", "1", "--out", "r")[0] == 0
    features, _ = planted(videos=2)
    write_store(Path("other.zarr"), {"one": features}, specs={"one": flat_spec(8, backbone="one", stride=4)})
    code, _, err = said("predict", "other.zarr", "--head", "r")
    assert code == 4
    assert "stride 4 is not None" in err
    assert not Path("predictions.zarr").exists()
