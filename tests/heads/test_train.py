"""Training learns, chooses honestly, and goes on after any interruption with the same numbers."""

import csv
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from heads.checkpoint import create_run, load_run, load_tensors, read_config
from heads.head import HeadError, head_class
from heads.optimise import learning_rate
from heads.options import TrainOptions, split_settings
from heads.predict import score_videos
from heads.protocols import ScoringError
from heads.run import carry_out, prepare, run_windows
from heads.run_plan import plan_run, require_resumable
from heads.scoring import Question, score_store
from heads.sources import find_sources
from heads.train import Epoch, Training
from stores import open_store
from stores.errors import InterruptedRunError, SpecMismatchError
from stores.labels import Labels, VideoLabels
from stores.spec import Failure
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.heads.feature_stores import Killed, Killer, Silent, planted, write_store

CPU = torch.device("cpu")
SETTINGS = {
    "linear": [],
    "meanpool": [],
    "mlad": ["embed=4", "num_layers=1", "schedule=onecycle", "lr=0.005"],
    "tconv": ["width=8"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ZarrStore:
    features, labels = planted()
    made = write_store(tmp_path_factory.mktemp("planted") / "f.zarr", {"one": features})
    (made.path.parent / "labels.json").write_text(json.dumps(labels.to_dict()))
    return made


@pytest.fixture(scope="module")
def labels() -> Labels:
    return planted()[1]


def begin(run: Path, store: ZarrStore, labels: Labels, head: str = "mlad", **training: Any) -> Path:
    """Plan a run and write its folder."""
    wanted = {"epochs": 3, "batch_size": 4, "checkpoint_seconds": 0.0, **training}
    words = [*SETTINGS[head], *(f"{name}={value}" for name, value in wanted.items())]
    options, train_options = split_settings(head_class(head), words)
    plan = plan_run(head, [store], labels, options=options, training=train_options)
    create_run(run, plan.config, plan.labels)
    return run


def weights(run: Path, name: str = "best") -> dict[str, Tensor]:
    return safetensors.torch.load_file(run / f"{name}.safetensors")


def assert_equal_runs(one: Path, other: Path) -> None:
    for name in ("best", "last"):
        left, right = weights(one, name), weights(other, name)
        assert left.keys() == right.keys()
        for key in left:
            assert torch.equal(left[key], right[key]), key
    lines = [[line.rsplit(",", 1)[0] for line in (run / "metrics.csv").read_text().split()] for run in (one, other)]
    assert lines[0] == lines[1]
    for split in ("val", "test"):
        scored, again = (open_store(path / f"{split}.zarr")["scores"] for path in (one, other))
        assert list(scored) == list(again)
        for video in scored:
            assert np.array_equal(scored.read(video).features, again.read(video).features)


@pytest.mark.parametrize("head", sorted(SETTINGS))
def test_every_head_learns_what_was_planted(head: str, tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    run = begin(tmp_path / "run", store, labels, head, epochs=25, checkpoint_seconds=60, lr=0.02)
    result = carry_out(run, device=CPU, observer=Silent())
    chance = 0.8 if head == "meanpool" else 0.25
    assert result["val"]["score"] > chance + (0.05 if head == "meanpool" else 0.3)
    assert result["val"]["protocol"] == ("video-map" if head == "meanpool" else "frame-map")
    test = open_store(Path(result["predictions"]["test"]))["scores"]
    config = read_config(run)
    assert list(test) == sorted(config.split["test"])
    for video in test:
        rows = store["one"].entry(video).num_rows
        times = store["one"].times(video)
        expected = [[0.0, times[-1, 1]]] if head == "meanpool" else times.tolist()
        assert test.times(video).tolist() == expected
        assert test.read(video).features.shape == ((1 if head == "meanpool" else rows), 3)


@pytest.mark.parametrize("head", ["mlad", "meanpool"])
def test_a_run_killed_at_any_step_ends_as_if_it_had_not_been(
    head: str, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    straight = begin(tmp_path / "straight", store, labels, head)
    watcher = Silent()
    carry_out(straight, device=CPU, observer=watcher)
    for at in range(1, watcher.steps + 1):
        # After the 2nd and every odd step nothing is saved but what was saved before.
        run = begin(tmp_path / f"killed{at}", store, labels, head, checkpoint_seconds=0 if at % 2 else 1e9)
        with pytest.raises(Killed):
            carry_out(run, device=CPU, observer=Killer(at))
        assert not (run / "result.json").exists()
        carry_out(run, device=CPU, observer=Silent())
        assert_equal_runs(straight, run)


def start_process(run: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys, time, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path\n"
        "from heads.run import carry_out\n"
        "from stores.errors import VlError\n"
        "from tests.heads.feature_stores import Silent\n"
        "class Slow(Silent):\n"
        "    def step(self, done, total):\n"
        "        print(done, flush=True)\n"
        "        time.sleep(0.05)\n"
        "try: carry_out(Path(sys.argv[1]), device=torch.device('cpu'), observer=Slow())\n"
        "except VlError as error: sys.exit(error.exit_code)\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(run)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)],
)
def test_a_signal_ends_the_process_and_the_run_goes_on(
    number: signal.Signals, code: int, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    torch.set_num_threads(1)
    save = 0.1 if number == signal.SIGKILL else 1e9
    run = begin(tmp_path / "run", store, labels, "linear", epochs=20, checkpoint_seconds=save)
    with start_process(run) as process:
        assert process.stdout is not None
        for _ in range(7):
            process.stdout.readline()
        sent = time.monotonic()
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(timeout=20) == code
        assert time.monotonic() - sent < 10
    watcher = Silent()
    carry_out(run, device=CPU, observer=watcher)
    assert watcher.notes
    assert watcher.notes[0].startswith("going on after")
    straight = begin(tmp_path / "straight", store, labels, "linear", epochs=20, checkpoint_seconds=save)
    carry_out(straight, device=CPU, observer=Silent())
    assert_equal_runs(straight, run)


def test_a_signal_during_validation_is_obeyed(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    run = begin(tmp_path / "run", store, labels, "linear")

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        yield from score_videos(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("heads.train.score_videos", interrupted)
        with pytest.raises(InterruptedRunError, match="--resume"):
            carry_out(run, device=CPU, observer=Silent())
    carry_out(run, device=CPU, observer=Silent())
    straight = begin(tmp_path / "straight", store, labels, "linear")
    carry_out(straight, device=CPU, observer=Silent())
    assert_equal_runs(straight, run)


def test_the_epoch_with_the_best_validation_is_kept(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    """With this rate the score goes up and down."""
    run = begin(tmp_path / "run", store, labels, "linear", epochs=12, lr=0.3, schedule="none")
    watcher = Silent()
    result = carry_out(run, device=CPU, observer=watcher)
    scores = [epoch.val for epoch in watcher.epochs if epoch.val is not None]
    assert len(scores) == 12
    assert result["val"]["score"] == max(scores) != scores[-1]
    assert result["best_epoch"] == 1 + scores.index(max(scores))


def test_selection_never_sees_the_test_videos(tmp_path: Path, labels: Labels) -> None:
    """Other features in the test videos change their scores and nothing else."""
    features, _ = planted()
    kept = []
    for name in ("one", "two"):
        store = write_store(tmp_path / name / "f.zarr", {"one": features})
        run = begin(tmp_path / name / "run", store, labels, "linear")
        carry_out(run, device=CPU, observer=Silent())
        kept.append(weights(run))
        for video in read_config(run).split["test"]:
            features[video] = features[video] + 1
    assert all(torch.equal(kept[0][key], kept[1][key]) for key in kept[0])


def test_patience_ends_a_run_that_no_longer_improves(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    run = begin(
        tmp_path / "run", store, labels, "linear", epochs=200, lr=0.3, schedule="none", patience=3, eval_every=1
    )
    watcher = Silent()
    result = carry_out(run, device=CPU, observer=watcher)
    assert result["epochs"] == result["best_epoch"] + 3 < 200


def test_a_run_without_validation_videos_keeps_the_last_epoch(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    (tmp_path / "train.txt").write_text("v00\n")
    options, training = split_settings(head_class("linear"), ["epochs=2"])
    plan = plan_run(
        "linear", [store], labels, options=options, training=training, lists={"train": tmp_path / "train.txt"}
    )
    create_run(tmp_path / "run", plan.config, plan.labels)
    result = carry_out(tmp_path / "run", device=CPU, observer=Silent())
    assert result["best_epoch"] == 2
    assert result["val"]["score"] is None
    assert "no validation videos: the last epoch is kept" in plan.notes


def test_unknown_labels_teach_nothing(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    """A class that nobody looked for in any training video keeps its first weights."""
    blind = {
        video: dataclasses.replace(entry, classes=entry.classes[:0], spans=entry.spans[:0], unknown=(0, 1, 2))
        if number % 2
        else dataclasses.replace(entry, unknown=(2,))
        for number, (video, entry) in enumerate(labels.videos.items())
    }
    unknown = Labels(labels.classes, blind)
    run = begin(tmp_path / "run", store, unknown, "linear", weight_decay=0)
    before = begin(tmp_path / "before", store, unknown, "linear", weight_decay=0, lr=1e-30)
    for path in (run, before):
        carry_out(path, device=CPU, observer=Silent())
    after, first = weights(run)["head.last.weight"], weights(before)["head.last.weight"]
    assert torch.equal(after[2], first[2])
    assert not torch.equal(after[:2], first[:2])


def test_the_loss_that_is_no_number_ends_the_run(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    run = begin(tmp_path / "run", store, labels, "linear", lr=1e38, clip=0, schedule="none", optimizer="sgd", epochs=9)
    with pytest.raises(HeadError, match="lower lr"):
        carry_out(run, device=CPU, observer=Silent())


def test_a_changed_store_does_not_go_on(tmp_path: Path, labels: Labels) -> None:
    features, _ = planted()
    store = write_store(tmp_path / "f.zarr", {"one": features})
    run = begin(tmp_path / "run", store, labels, "linear")
    features["v03.mp4"] = features["v03.mp4"] + 1
    write_store(tmp_path / "f.zarr", {"one": {"v03.mp4": features["v03.mp4"]}})
    with pytest.raises(SpecMismatchError, match="changed since the run began"):
        carry_out(run, device=CPU, observer=Silent())


def test_a_run_goes_on_only_with_its_own_settings(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    run = begin(tmp_path / "run", store, labels, "linear")
    config = read_config(run)
    require_resumable(run, config)
    other = dataclasses.replace(config, training=dataclasses.replace(config.training, lr=0.5))
    with pytest.raises(HeadError, match=r"begun with lr 0\.001, not 0\.5"):
        require_resumable(run, other)
    carry_out(run, device=CPU, observer=Silent())
    with pytest.raises(HeadError, match="finished"):
        require_resumable(run, config)


def test_row_heads_want_labels_with_times(store: ZarrStore, labels: Labels) -> None:
    timeless = Labels(labels.classes, {video: VideoLabels.of([], video_level=(0,)) for video in labels.videos})
    with pytest.raises(HeadError, match="no times"):
        plan_run("linear", [store], timeless)
    plan_run("meanpool", [store], timeless)


def test_missing_labels_say_what_to_do(store: ZarrStore) -> None:
    with pytest.raises(HeadError, match="--labels FILE"):
        plan_run("linear", [store], None)


def test_what_is_left_out_is_counted(tmp_path: Path, labels: Labels) -> None:
    features, _ = planted()
    features |= {"extra1.mp4": np.ones((5, 8), np.float32), "extra2.mp4": np.ones((5, 8), np.float32)}
    del features["v05.mp4"]
    store = write_store(tmp_path / "f.zarr", {"one": features})
    notes = plan_run("linear", [store], labels).notes
    assert "left out: 2 videos have features but no labels" in notes
    assert "left out: 1 videos have labels but no features" in notes


def test_videos_without_features_stay_in_their_split_and_in_its_count(tmp_path: Path) -> None:
    features, labels = planted(videos=12)
    subsets = ["train"] * 6 + ["val"] * 2 + ["test"] * 4
    named = {
        video: dataclasses.replace(entry, subset=subset)
        for (video, entry), subset in zip(labels.videos.items(), subsets, strict=True)
    }
    del features["v10.mp4"], features["v11.mp4"]  # of the test videos one fails, one is never tried
    path = tmp_path / "f.zarr"
    spec = write_store(path, {"one": features})["one"].spec
    with ZarrWriter(path, {"one": spec}) as writer:
        writer.fail(Failure("v10.mp4", "no_video", "no picture"))
    training = TrainOptions(epochs=1, batch_size=4)
    plan = plan_run("linear", [ZarrStore(path)], dataclasses.replace(labels, videos=named), training=training)
    assert plan.config.split["test"] == ("v08.mp4", "v09.mp4")
    assert plan.config.absent == {"train": (), "val": (), "test": ("v10.mp4", "v11")}
    counted = "2 of 4 test videos have no rows ('v10.mp4' is the first); 'vl score' counts them as missing"
    assert counted in plan.notes
    create_run(tmp_path / "run", plan.config, plan.labels)
    carry_out(tmp_path / "run", device=CPU, observer=Silent())
    scores = tmp_path / "run" / "test.zarr"
    with pytest.raises(ScoringError, match="2 of 4 videos of 'test' have scores"):
        score_store(scores, Question())
    report = score_store(scores, Question(allow_missing=True))
    assert (report.scored, report.missing) == (2, ("v10.mp4", "v11"))


def test_a_hash_split_counts_what_failed_and_not_what_was_never_given(tmp_path: Path) -> None:
    features, labels = planted(videos=30)
    whole = write_store(tmp_path / "whole.zarr", {"one": features})
    training = TrainOptions(epochs=1)
    wanted = plan_run("linear", [whole], labels, training=training).config
    failed, never = wanted.split["test"][:2]
    del features[failed], features[never]
    spec = write_store(tmp_path / "f.zarr", {"one": features})["one"].spec
    with ZarrWriter(tmp_path / "f.zarr", {"one": spec}) as writer:
        writer.fail(Failure(failed, "timeout", "showed no progress"))
    plan = plan_run("linear", [ZarrStore(tmp_path / "f.zarr")], labels, training=training)
    assert plan.config.absent == {"train": (), "val": (), "test": (failed,)}
    assert plan.config.split["test"] == wanted.split["test"][2:]
    assert "left out: 1 videos have labels but no features" in plan.notes


def schedule_of_pytorch(kind: str, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    schedulers: Mapping[str, Any] = {
        "onecycle": lambda: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, steps, cycle_momentum=False),
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
    }
    scheduler, rates = schedulers[kind](), []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_accumulated_batches_teach_what_one_large_batch_does(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    runs = []
    for size, accumulate in ((8, 1), (2, 4)):
        run = tmp_path / f"{size}"
        begin(run, store, labels, "linear", batch_size=size, accumulate=accumulate, optimizer="sgd", lr=0.5, clip=0.5)
        watcher = Silent()
        carry_out(run, device=CPU, observer=watcher)
        runs.append((weights(run, "last"), watcher.steps))
    (large, steps), (small, same_steps) = runs
    assert same_steps == steps  # the last update of an epoch takes the batches that are left
    for name, tensor in large.items():
        if name.startswith("model."):
            torch.testing.assert_close(small[name], tensor, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("head", ["linear", "meanpool"])
def test_balanced_classes_are_counted_in_the_training_videos(
    head: str, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    run = begin(tmp_path / "run", store, labels, head, class_weights="balanced")
    config = read_config(run)
    videos = list(config.split["train"]) + list(config.split["test"])
    windows = run_windows(config, find_sources(config.features, [store]), videos, labels, CPU)
    members = {"train": [*range(len(config.split["train"]))], "val": []}
    training = prepare(config, windows, members, run, Silent())
    positives, negatives = [0, 0, 0], [0, 0, 0]
    for video in config.split["train"]:
        named = labels.videos[config.matched[video]]
        rows = store["one"].times(video).mean(axis=1) if head == "linear" else [None]
        for row in rows:
            for index in range(3):
                spans = [span for kind, span in zip(named.classes, named.spans, strict=True) if kind == index]
                present = any(row is None or start < row < end for start, end in spans)
                positives[index] += present
                negatives[index] += not present
    assert training.class_weights is not None
    expected = [n / p for n, p in zip(negatives, positives, strict=True)]
    assert training.class_weights.tolist() == pytest.approx(expected, rel=1e-6)


class Witness(Silent):
    """Keeps the weights after every update."""

    def __init__(self) -> None:
        super().__init__()
        self.training: Training | None = None
        self.seen: list[dict[str, Tensor]] = []

    def step(self, done: int, total: int) -> None:
        assert self.training is not None
        self.seen.append({name: tensor.clone() for name, tensor in self.training.model.state_dict().items()})


def test_the_mean_of_the_weights_is_what_is_kept(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    run = begin(tmp_path / "run", store, labels, "linear", ema=0.6, epochs=2, lr=0.1)
    config = read_config(run)
    sources = find_sources(config.features, [store])
    videos = [video for split in config.split.values() for video in split]
    windows = run_windows(config, sources, videos, labels, CPU)
    members = {name: [videos.index(video) for video in split] for name, split in config.split.items()}
    witness = Witness()
    witness.training = prepare(config, windows, members, run, witness)
    mean = {name: tensor.double().clone() for name, tensor in witness.training.model.state_dict().items()}
    witness.training.run()
    assert len(witness.seen) >= 8
    kept = None
    best = load_tensors(run / "best.safetensors")[1]["epoch"]
    for step, now in enumerate(witness.seen):
        decay = min(0.6, (1 + step) / (10 + step))
        mean = {name: decay * mean[name] + (1 - decay) * tensor.double() for name, tensor in now.items()}
        if step + 1 == best * len(witness.seen) // 2:
            kept = mean
    assert kept is not None
    for name, tensor in weights(run).items():
        torch.testing.assert_close(tensor.double(), kept[name], atol=1e-6, rtol=1e-6)
    assert not torch.allclose(weights(run)["head.last.weight"], witness.seen[-1]["head.last.weight"])


def test_a_killed_run_that_accumulates_and_averages_goes_on_the_same(
    tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    options = {"batch_size": 2, "accumulate": 3, "ema": 0.9, "epochs": 2}
    straight = begin(tmp_path / "straight", store, labels, "tconv", **options)
    watcher = Silent()
    carry_out(straight, device=CPU, observer=watcher)
    for at in range(1, watcher.steps + 1):
        run = begin(tmp_path / f"killed{at}", store, labels, "tconv", **options)
        with pytest.raises(Killed):
            carry_out(run, device=CPU, observer=Killer(at))
        carry_out(run, device=CPU, observer=Silent())
        assert_equal_runs(straight, run)


def test_plateau_lowers_the_rate_when_pytorch_does(
    tmp_path: Path, store: ZarrStore, labels: Labels, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = [0.1, 0.3, 0.2, 0.3, 0.25, 0.4, 0.4, 0.1, 0.2, 0.3, 0.3, 0.35]
    told = iter(scores)
    monkeypatch.setattr(Training, "validate", lambda self, stop: next(told))
    options = {"schedule": "plateau", "plateau_patience": 2, "eval_every": 1, "epochs": len(scores), "lr": 0.5}
    watcher = Silent()
    carry_out(begin(tmp_path / "run", store, labels, "linear", **options), device=CPU, observer=watcher)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, "max", factor=0.1, patience=2, threshold=0)
    rates = []
    for score in scores:
        rates.append(optimizer.param_groups[0]["lr"])
        plateau.step(score)
    assert [epoch.lr for epoch in watcher.epochs] == pytest.approx(rates)
    assert len(set(rates)) > 2


def test_the_epoch_may_be_chosen_by_gap(tmp_path: Path) -> None:
    features, labels = planted(videos=100)
    store = write_store(tmp_path / "f.zarr", {"one": features})
    run = begin(tmp_path / "run", store, labels, "meanpool", select="gap", epochs=1, lr=1e-6)
    result = carry_out(run, device=CPU, observer=Silent())
    assert result["val"]["protocol"] == "gap"
    gap, mean = (score_store(run / "val.zarr", Question(protocol=name)).score for name in ("gap", "video-map"))
    assert result["val"]["score"] == pytest.approx(gap)
    assert gap != pytest.approx(mean)
    with pytest.raises(HeadError, match="select=gap is for heads that score whole videos; linear scores rows"):
        begin(tmp_path / "rows", store, labels, "linear", select="gap")


@pytest.mark.parametrize("kind", ["onecycle", "cosine"])
def test_schedules_are_pytorchs(kind: str) -> None:
    options = TrainOptions(lr=0.5, schedule=kind, warmup=0.0)  # type: ignore[arg-type]
    ours = [learning_rate(step, 1000, options) for step in range(1000)]
    np.testing.assert_allclose(ours, schedule_of_pytorch(kind, 1000), atol=0.5 * 0.004)


def test_warm_up_rises_evenly_and_no_schedule_stays() -> None:
    options = TrainOptions(lr=1.0, schedule="cosine", warmup=0.1)
    rates = [learning_rate(step, 100, options) for step in range(100)]
    np.testing.assert_allclose(rates[:10], np.arange(1, 11) / 11)
    assert rates[10] == 1.0
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[10:]))
    assert learning_rate(99, 100, TrainOptions(lr=0.25, schedule="none")) == 0.25


def test_metrics_csv_has_a_line_for_every_epoch(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    run = begin(tmp_path / "run", store, labels, "linear", eval_every=2)
    watcher = Silent()
    carry_out(run, device=CPU, observer=watcher)
    with (run / "metrics.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["epoch"] for line in lines] == ["1", "2", "3"]
    assert [bool(line["val"]) for line in lines] == [False, True, True]
    assert float(lines[1]["loss"]) == watcher.epochs[1].loss
    assert list(lines[0]) == [field.name for field in dataclasses.fields(Epoch)]


def test_a_run_scores_the_same_after_loading(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    """`vl predict` on the same features repeats the scores that the run wrote."""
    from heads.score_store import predict_store

    run = begin(tmp_path / "run", store, labels)
    carry_out(run, device=CPU, observer=Silent())
    predict_store(load_run(run), [store], tmp_path / "all.zarr", device=CPU)
    everything, test = open_store(tmp_path / "all.zarr")["scores"], open_store(run / "test.zarr")["scores"]
    assert list(everything) == list(store["one"])
    for video in test:
        np.testing.assert_allclose(everything.read(video).features, test.read(video).features, atol=1e-6)
    assert everything.spec.fingerprint == test.spec.fingerprint
