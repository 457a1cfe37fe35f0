"""`vl table`: every head that fits, once, on one split; what does not fit or breaks is named; cut off, it goes on."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

import heads.table
from cli.main import run as vl
from heads.checkpoint import read_config
from heads.run import carry_out
from stores import open_store
from stores.errors import InterruptedRunError
from stores.zarr_store import ZarrWriter
from tests.heads.feature_stores import flat_spec, planted, write_store

Said = Callable[..., tuple[int, str, str]]
HEADS = ("--heads", "linear,meanpool")
QUICK = ("--epochs", "2", "--seeds", "2", "--set", "batch_size=8", "--set", "lr=0.05")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Said:
    """Run `vl table --features store.zarr WORDS` beside a store with labels: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    write(Path("store.zarr"))

    def run(*words: object, store: str = "store.zarr") -> tuple[int, str, str]:
        capsys.readouterr()
        code = vl(["table", "--features", store, *[str(word) for word in words]])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def write(path: Path, **fields: Any) -> None:
    features, labels = planted(videos=12)
    write_store(path, {"cnn": features}, specs={"cnn": flat_spec(8, backbone="cnn", **fields)})
    with ZarrWriter(path, {}) as writer:
        writer.attach("labels", labels.to_dict())


def lines_of(folder: str = "table") -> dict[str, dict[str, str]]:
    with Path(folder, "table.csv").open() as file:
        return {line["head"]: line for line in csv.DictReader(file)}


def finished(folder: str = "table") -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in Path(folder, "runs").glob("*/*") if path.is_file()}


def precision(run: Path, of_videos: bool) -> float:
    """scikit-learn's mean AP of a run's test videos: over rows, or over videos by their highest row."""
    _, labels = planted(videos=12)
    scores, truth = [], []
    stored = open_store(run / "test.zarr")["scores"]
    for video in read_config(run).split["test"]:
        rows, entry = stored.read(video), labels.videos[video.removesuffix(".mp4")]
        seen = np.zeros((len(rows.features), 3))
        for index, (start, end) in zip(entry.classes, entry.spans, strict=True):
            seen[(rows.times.mean(1) > start) & (rows.times.mean(1) < end) | of_videos, index] = 1
        scores.append(rows.features.max(0, keepdims=True) if of_videos else rows.features)
        truth.append(seen[:1] if of_videos else seen)
    all_scores, all_truth = np.concatenate(scores), np.concatenate(truth)
    present = all_truth.any(0)
    return float(np.mean([average_precision_score(all_truth[:, c], all_scores[:, c]) for c in np.flatnonzero(present)]))


def test_every_head_that_fits_is_scored_and_the_others_say_why(said: Said) -> None:
    small = ("mlad:embed=4", "mlad:num_layers=1", "tconv:width=4")
    code, out, err = said(*QUICK, *(word for setting in small for word in ("--set", setting)))
    assert code == 0, err
    lines = lines_of()
    assert sorted(lines) == ["asf", "gated", "linear", "meanpool", "mlad", "stan", "stld", "tconv"]
    for head, role in (("asf", "map"), ("stld", "map"), ("gated", "audio"), ("stan", "spatial")):
        reason = f"rows for {role}; there is cnn (frame)"
        assert reason in lines[head]["status"]
        assert lines[head]["video_map"] == ""
        assert any(head in line and reason in line for line in out.splitlines())
        assert any(line.startswith(f"{head} does not fit") for line in err.splitlines())
    splits = set()
    for head in ("linear", "meanpool", "mlad", "tconv"):
        runs = [Path("table/runs", f"{head}-seed{seed}") for seed in (0, 1)]
        splits |= {json.dumps(dict(read_config(run).split)) for run in runs}
        found = [precision(run, of_videos=True) for run in runs]
        assert float(lines[head]["video_map"]) == pytest.approx(np.mean(found))
        assert float(lines[head]["video_map_sd"]) == pytest.approx(np.std(found, ddof=1))
        shown = f"| {head} | {np.mean(found):.4f} ± {np.std(found, ddof=1):.4f} |"
        assert shown in out
        if head == "meanpool":
            assert lines[head]["frame_map"] == ""
            continue
        found = [precision(run, of_videos=False) for run in runs]
        assert float(lines[head]["frame_map"]) == pytest.approx(np.mean(found))
        assert float(lines[head]["frame_map_sd"]) == pytest.approx(np.std(found, ddof=1))
    assert len(splits) == 1
    assert out.startswith(Path("table/table.md").read_text())
    assert lines["linear"]["parameters"] == str(8 * 3 + 3)
    assert lines["linear"]["multiply_adds"] == str(8 * 3 * int(lines["linear"]["of_rows"]))
    assert lines["meanpool"]["multiply_adds"] == str(8 * 3)
    assert all(float(lines[head]["seconds_per_epoch"]) > 0 for head in ("linear", "mlad"))
    assert lines["mlad"]["seeds"] == "0 1"


def test_chance_is_the_share_of_test_videos_and_rows_with_a_class(said: Said) -> None:
    said(*QUICK, *HEADS)
    run = Path("table/runs/linear-seed0")
    _, labels = planted(videos=12)
    counts, rows_on, rows = np.zeros(3), np.zeros(3), 0
    test = read_config(run).split["test"]
    for video in test:
        entry = labels.videos[video.removesuffix(".mp4")]
        times = open_store(Path("store.zarr"))["cnn"].times(video).mean(1)
        rows += len(times)
        for index, (start, end) in zip(entry.classes, entry.spans, strict=True):
            counts[index] += 1
            rows_on[index] += ((times > start) & (times < end)).sum()
    line = lines_of()["linear"]
    assert float(line["video_chance"]) == pytest.approx(np.mean(counts[counts > 0] / len(test)))
    assert float(line["frame_chance"]) == pytest.approx(np.mean(rows_on[rows_on > 0] / rows))


def test_what_is_finished_is_not_trained_again(said: Said) -> None:
    assert said(*QUICK, *HEADS)[0] == 0
    before, table = finished(), Path("table/table.csv").read_bytes()
    code, _, err = said(*QUICK, *HEADS)
    assert code == 0
    assert "4 of them finished" in err
    assert "epoch" not in err
    assert finished() == before
    assert Path("table/table.csv").read_bytes() == table
    code, out, _ = said("--epochs", "2", "--seeds", "3", "--set", "batch_size=8", "--set", "lr=0.05", *HEADS, "--json")
    assert code == 0
    assert all(finished()[path] == when for path, when in before.items())
    assert [line["seeds"] for line in json.loads(out)["lines"]] == [[0, 1, 2]] * 2


def test_a_table_that_is_cut_off_goes_on(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    from heads.train import Training

    close_epoch, seen = Training.close_epoch, 0

    def interrupted(self: Training, *arguments: Any) -> None:
        nonlocal seen
        close_epoch(self, *arguments)
        seen += 1
        if seen == 3:  # in the second run
            self.save()
            raise InterruptedRunError("stopped by SIGTERM.")

    monkeypatch.setattr(Training, "close_epoch", interrupted)
    code, out, err = said(*QUICK, *HEADS)
    assert (code, out) == (75, "")
    assert "stopped while linear-seed1 trained; the same command goes on" in err
    monkeypatch.setattr(Training, "close_epoch", close_epoch)
    before = {path: when for path, when in finished().items() if "linear-seed0" in str(path)}
    code, _, err = said(*QUICK, *HEADS)
    assert code == 0
    assert "going on after 1 epochs" in err
    assert all(finished()[path] == when for path, when in before.items())
    cut = Path("table/table.csv").read_text()
    assert said(*QUICK, *HEADS, "--out", "straight")[0] == 0
    scores = [{key: line[key] for key in line if "map" in key} for line in lines_of().values()]
    assert scores == [{key: line[key] for key in line if "map" in key} for line in lines_of("straight").values()]
    assert cut.count("\n") == 3


def test_a_head_that_breaks_stops_no_other(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ("--set", "linear:lr=1e38", "--set", "linear:clip=0", "--set", "linear:optimizer=sgd")
    words = ("--epochs", "9", "--seeds", "2", "--set", "batch_size=8", "--set", "schedule=none", *HEADS)
    code, out, err = said(*words, *broken)
    assert code == 3
    assert "linear-seed0 failed: the head gives" in err
    lines = lines_of()
    assert lines["linear"]["video_map"] == ""
    assert "linear-seed1 failed: the head gives" in lines["linear"]["status"]
    assert lines["meanpool"]["seeds"] == "0 1"
    assert "linear-seed1 failed" in out

    def out_of_memory(run: Path, **arguments: Any) -> Any:
        if run.name == "meanpool-seed1":
            raise RuntimeError("CUDA out of memory.")
        return carry_out(run, **arguments)

    monkeypatch.setattr(heads.table, "carry_out", out_of_memory)
    code, _, err = said(*QUICK, *HEADS, "--out", "other")
    assert code == 3
    assert "Traceback" in err
    lines = lines_of("other")
    assert lines["meanpool"]["status"] == "meanpool-seed1 failed: CUDA out of memory."
    assert (lines["meanpool"]["seeds"], lines["meanpool"]["video_map_sd"]) == ("0", "")
    assert lines["linear"]["seeds"] == "0 1"


def test_a_table_of_nothing_but_failures_is_written_too(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(run: Path, **arguments: Any) -> Any:
        raise RuntimeError("no luck")

    monkeypatch.setattr(heads.table, "carry_out", broken)
    assert said(*QUICK, *HEADS)[0] == 3
    assert lines_of()["linear"]["status"] == "linear-seed0 failed: no luck; linear-seed1 failed: no luck"
    assert len(matplotlib.image.imread("table/table.png")) > 100


def redness(picture: Path) -> int:
    """Pixels of a loud red."""
    pixels = matplotlib.image.imread(picture)
    return int(((pixels[..., 0] > 0.6) & (pixels[..., 1] < 0.3) & (pixels[..., 2] < 0.3)).sum())


def test_random_weights_are_loud_everywhere(said: Said) -> None:
    write(Path("random.zarr"), random_weights=True)
    code, out, err = said(*QUICK, *HEADS, "--out", "random", store="random.zarr")
    assert code == 0
    assert out.startswith("**RANDOM WEIGHTS")
    assert "| linear (RANDOM WEIGHTS) |" in out
    assert "RANDOM WEIGHTS" in err
    assert {line["weights"] for line in lines_of("random").values()} == {"RANDOM WEIGHTS"}
    said(*QUICK, *HEADS)
    assert {line["weights"] for line in lines_of().values()} == {"trained"}
    assert redness(Path("random/table.png")) > 5000
    assert redness(Path("table/table.png")) == 0


def test_a_head_that_was_asked_for_and_does_not_fit_ends_with_3(said: Said) -> None:
    code, _, err = said(*QUICK, "--heads", "linear,asf")
    assert code == 3
    assert "asf does not fit" in err


def test_sets_say_what_each_head_may_read(said: Said) -> None:
    features, labels = planted(videos=12)
    specs = {"cnn": flat_spec(8, backbone="cnn"), "mel": flat_spec(8, backbone="mel", stream="audio")}
    write_store(Path("two.zarr"), dict.fromkeys(specs, features), specs=specs)
    with ZarrWriter(Path("two.zarr"), {}) as writer:
        writer.attach("labels", labels.to_dict())
    words = ("--epochs", "1", "--seeds", "1", "--heads", "linear,gated", "--set", "gated:ffn=8")
    assert said(*words, store="two.zarr")[0] == 0
    assert {head: line["sets"] for head, line in lines_of().items()} == {"linear": "cnn mel", "gated": "cnn mel"}
    code, _, err = said(*words, "--sets", "mel", "--out", "sound", store="two.zarr")
    assert code == 3
    assert "gated does not fit: gated needs a set of clip, frame rows for visual" in err
    assert lines_of("sound")["linear"]["sets"] == "mel"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--heads", "asf,gated"], "no head fits. asf: asf needs a set of map rows for map; there is cnn (frame)"),
        (["--heads", "mlda"], "there is no head 'mlda'"),
        (["--sets", "mel"], "there is no set 'mel'; there is cnn"),
        (["--set", "embed=4"], "For an option of one head write HEAD:embed=4"),
        (["--set", "mlda:embed=4"], "there is no head 'mlda'"),
        (["--set", "mlad:depth=4"], "mlad has no option 'depth'"),
        (["--set", "lr=-1"], "lr is a positive number"),
    ],
)
def test_wrong_input_gets_one_line_and_writes_nothing(words: list[str], message: str, said: Said) -> None:
    code, out, err = said(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert not Path("table").exists()


def test_runs_of_other_settings_are_not_mixed_in(said: Said) -> None:
    assert said(*QUICK, *HEADS)[0] == 0
    code, _, err = said(*QUICK, *HEADS, "--set", "lr=0.5")
    assert code == 2
    assert "linear-seed0 was begun with lr 0.05, not 0.5" in err
