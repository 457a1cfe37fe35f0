"""Several processes train what one would: the same batches in shares, one writer, and a restart after a death."""

from __future__ import annotations

import csv
import itertools
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import PrefixStore

from cli.main import run as vl
from heads.checkpoint import build_model, create_run, load_run, load_tensors, read_config, read_json, write_json
from heads.end_to_end import TuneOptions
from heads.head import HeadError, head_class
from heads.options import split_settings
from heads.plan import Crops
from heads.ranks import Ranks, fresh_part, local_device
from heads.run import carry_out, open_stores, require_shareable
from heads.run_plan import plan_run
from heads.score_store import write_scores
from heads.sources import find_sources
from heads.train import Position
from heads.windows import Windows
from stores import open_store
from stores.errors import InterruptedRunError
from stores.zarr_store import ZarrWriter
from tests.extract import narrow
from tests.extract.labelled import labelled_videos
from tests.heads.carry import CPU, videos_of
from tests.heads.feature_stores import Silent, planted, write_store
from tests.heads.processes import together, torchrun

EXACT = ("precision=fp64", "optimizer=sgd", "lr=0.1", "dropout=0.0", "epochs=3", "batch_size=5")
MLAD = ("embed=4", "num_layers=1", "window=16")
HEADS = {  # run -> head and settings
    # 31 crops in batches of 5 are shares of 3 and 2, and the last one leaves a process with none; in batches of 6, two
    # an update, that last one shares its update with a full one.
    "rows": ("mlad", (*MLAD, *EXACT)),
    "accumulated": ("mlad", (*MLAD, *EXACT, "batch_size=6", "accumulate=2", "class_weights=balanced")),
    "videos": ("gated", ("modalities=visual", "variant=global", "hidden=8", "heads=2", "ffn=8", *EXACT, "clip=0")),
}
# Three training videos in batches of 2: the second batch leaves one process without a share.
CLIPS = ("--augment", "jitter", "--batch-size", "2", "--chunk-scenes", "2", "--workers", "1", "--fps", "4")
RATES = ("--optimizer", "sgd", "--lr", "0.1", "--backbone-lr", "0.1", "--epochs", "1", "--precision", "fp64")
SET = ("--set", "embed=4", "--set", "num_layers=1", "--set", "dropout=0", "--set", "checkpoint_seconds=0")
TUNED = (*CLIPS, *RATES, *SET, "--window", "8")
RUNS = (*HEADS, "tuned")


@pytest.fixture(scope="module", autouse=True)
def _narrow_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        narrow.stand_in(patch)
        yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 24 videos and their labels, and one with five short videos."""
    folder = tmp_path_factory.mktemp("planted")
    features, labels = planted()
    store = write_store(folder / "f.zarr", {"one": features})
    with ZarrWriter(store.path, {"one": store["one"].spec}) as writer:
        writer.attach("labels", labels.to_dict())
    labelled_videos(folder / "videos", [12, 18, 24, 30, 36])
    return folder


def begin(place: Path, run: Path, head: str, settings: tuple[str, ...]) -> Path:
    """Plan a run on the store."""
    store = open_store(place / "f.zarr")
    options, training = split_settings(head_class(head), settings)
    plan = plan_run(head, [store], planted()[1], options=options, training=training)
    create_run(run, plan.config, plan.labels)
    return run


@pytest.fixture(scope="module")
def alone(place: Path) -> Path:
    """A folder with the runs, each carried out by one process."""
    folder = place / "alone"
    for name, (head, settings) in HEADS.items():
        carry_out(begin(place, folder / name, head, settings), device=CPU, observer=Silent())
    words = ("finetune", "mlad", place / "videos", "--backbone", "resnet18", "--out", folder / "tuned")
    assert vl([str(word) for word in (*words, *TUNED)]) == 0
    return folder


@pytest.fixture(scope="module")
def shared(place: Path, alone: Path) -> Path:
    """A folder with the same runs, and `dropped`, which is `tuned` with dropout, each carried out by two."""
    folder = place / "shared"
    for name in RUNS:
        begun(alone / name, folder / name)
    begun(alone / "tuned", folder / "dropped", epochs=2, dropout=0.3)
    runs = (folder / name for name in (*RUNS, "dropped"))
    ended = together(place, "tests.heads.carry", "--say", place / "said", *runs)
    assert [process.code for process in ended] == [0, 0], ended
    return folder


def begun(run: Path, copy: Path, epochs: int | None = None, **options: object) -> Path:
    """The same run, with other options of its head, of which nothing is done."""
    copy.mkdir(parents=True)
    shutil.copy(run / "labels.json", copy)
    config = read_json(run / "config.json")
    training = config["training"] if epochs is None else {**config["training"], "epochs": epochs}
    write_json(copy / "config.json", {**config, "training": training, "options": {**config["options"], **options}})
    return copy


def weights(run: Path, name: str = "last") -> dict[str, Tensor]:
    tensors, _ = load_tensors(run / f"{name}.safetensors")
    return {key.removeprefix("model."): tensor for key, tensor in tensors.items() if not key.startswith("random")}


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_do_what_one_does(alone: Path, shared: Path, name: str) -> None:
    """In float64 down to the order of additions: weights, losses and the scores of all videos."""
    first, second = weights(alone / name), weights(shared / name)
    assert first.keys() == second.keys()
    for key, tensor in first.items():
        if tensor.is_floating_point():
            assert tensor.dtype == torch.float64, key
            torch.testing.assert_close(second[key], tensor, rtol=0, atol=1e-12)
    losses = [
        [line["loss"] for line in csv.DictReader((folder / name / "metrics.csv").read_text().splitlines())]
        for folder in (alone, shared)
    ]
    np.testing.assert_allclose(np.array(losses[1], float), np.array(losses[0], float), rtol=1e-12)
    results = [read_json(folder / name / "result.json") for folder in (alone, shared)]
    for part in ("val", "test"):
        assert results[1][part]["score"] == pytest.approx(results[0][part]["score"], abs=2e-3)  # close scores may swap
        one, two = (open_store(folder / name / f"{part}.zarr")["scores"] for folder in (alone, shared))
        assert list(one) == list(two)  # each video once, whoever scored it
        for video in one:
            np.testing.assert_allclose(two.read(video).features, one.read(video).features, atol=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_what_was_compared_has_learned(alone: Path, name: str) -> None:
    """Head and network, by far more than the two ways may differ."""
    clips = videos_of(alone / name)
    config = read_config(alone / name)
    torch.manual_seed(config.training.seed)
    fresh = build_model(config, clips.networks if clips else None).state_dict()
    trained = weights(alone / name)
    for part in ("head", "trunks") if clips else ("head",):
        named = [key for key, tensor in fresh.items() if key.startswith(part) and tensor.is_floating_point()]
        assert max(float((trained[key] - fresh[key]).abs().max()) for key in named) > 1e-3, part


def test_every_process_is_heard_once(place: Path, shared: Path) -> None:
    said = [read_json(place / f"said.{rank}") for rank in (0, 1)]
    assert sorted(said[0]["collected"]) == [*range(20), 100, 101, 102]
    assert said[1]["collected"] == []
    assert said[0]["copied"] == said[1]["copied"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
@pytest.mark.parametrize("samples", [1, 2, 5, 8])
def test_shares_are_every_sample_once(samples: int, world: int) -> None:
    crops = Crops(np.arange(samples), np.arange(samples) * 10, 16)
    seen = []
    for rank in range(world):
        ranks = Ranks(rank, world)
        share = ranks.share(crops)
        assert share.length == 16
        assert (share.start_B == share.video_B * 10).all()
        assert len(share.video_B)  # a process without a share computes one that does not count
        if ranks.has_share(crops):
            seen += share.video_B.tolist()
    assert sorted(seen) == list(range(samples))


def test_each_scores_its_share_of_the_videos_once(alone: Path, tmp_path: Path) -> None:
    class First(Ranks):
        """The first of two, to whom the other gives nothing."""

        def gather(self, value: Any) -> list[Any]:
            return [value, []]

    run = load_run(alone / "rows")
    held = run.config.split["train"]
    (store,) = open_stores(run.config)
    windows = Windows(find_sources(run.config.features, [store]), held, device=CPU)
    own = range(len(held))
    write_scores(tmp_path / "s.zarr", run, windows, own, expected=held, split=None, labels=None, ranks=First(0, 2))
    assert list(open_store(tmp_path / "s.zarr")["scores"]) == sorted(held[0::2])


def test_those_who_start_anew_hear_nothing_of_the_dead() -> None:
    """torchrun keeps its store; the third process of an earlier attempt has asked and died before it was answered."""
    store = dist.HashStore()  # type: ignore[attr-defined]  # it is there

    def attempt() -> list[PrefixStore]:
        with ThreadPoolExecutor(3) as pool:
            return list(pool.map(lambda rank: fresh_part(store, rank, 3), (2, 1, 0)))

    store.set("vl/2/asks", "nobody")
    for number in ("first", "second"):
        parts = attempt()
        assert not any(part.check(["said"]) for part in parts)
        parts[0].set("said", number)
        assert [part.get("said").decode() for part in parts] == [number] * 3


def test_a_process_that_dies_costs_nothing_but_time(shared: Path, tmp_path: Path) -> None:
    """One of two is killed within an epoch; torchrun starts both anew, and the weights are to the bit those of two that
    were left alone, dropout and changed frames and all."""
    straight, killed = shared / "dropped", begun(shared / "dropped", tmp_path / "killed")
    done = torchrun(tmp_path, "tests.heads.carry", f"{killed}@2", restarts=1)
    assert done.returncode == 0, done.stderr
    assert (killed / "died").exists()
    for file in ("last", "best"):
        one, other = weights(straight, file), weights(killed, file)
        assert one.keys() == other.keys()
        assert all(torch.equal(other[key], tensor) for key, tensor in one.items())
    lines = [(run / "metrics.csv").read_text().splitlines() for run in (straight, killed)]
    assert [line.rsplit(",", 1)[0] for line in lines[0]] == [line.rsplit(",", 1)[0] for line in lines[1]]  # no seconds


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train_command", ("train-head", "linear", "--features", "f.zarr")),
        ("finetune_command", ("finetune", "stan-small", "videos")),
    ],
)
def test_a_run_of_several_needs_a_folder_and_one_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(f"cli.{command}.together", lambda _device: nullcontext((CPU, Ranks(0, 2))))
    assert vl([*words]) == 2
    said = capsys.readouterr().err
    assert "several processes train one run: give --out, where a restart goes on, and one seed." in said


def test_batch_norm_is_tuned_by_one_process_alone() -> None:
    tuned = TuneOptions(batch_norm="tuned", chunk=0)
    require_shareable(tuned, Ranks())
    require_shareable(TuneOptions(), Ranks(1, 2))
    with pytest.raises(HeadError, match=r"each process sees its share alone\. Train with --batch-norm frozen"):
        require_shareable(tuned, Ranks(1, 2))


def test_processes_that_found_different_checkpoints_do_not_go_on(place: Path, tmp_path: Path) -> None:
    class Elsewhere(Ranks):
        """One of two, of which the other has done three epochs."""

        def gather(self, value: Any) -> list[Any]:
            return [value, Position(epoch=3)]

    run = begin(place, tmp_path / "run", "linear", ("epochs=1",))
    with pytest.raises(HeadError, match=r"found different checkpoints: .* must be one folder for all"):
        carry_out(run, device=CPU, observer=Silent(), ranks=Elsewhere())


def test_a_signal_to_another_process_ends_a_validation_here(place: Path, tmp_path: Path) -> None:
    run = begin(place, tmp_path / "run", "linear", ("epochs=1", "batch_size=4", "window=16"))

    class Told(Ranks):
        """Hears of a signal to another process the first time that is asked after the eight updates of the epoch."""

        asked: ClassVar = itertools.count(1)

        def highest(self, values: list[int]) -> list[int]:
            return [int(signal.SIGTERM), 0] if next(self.asked) == 9 else values

    with pytest.raises(InterruptedRunError, match=r"stopped by SIGTERM\. 'vl train-head --resume"):
        carry_out(run, device=CPU, observer=Silent(), ranks=Told())
    _, state = load_tensors(run / "last.safetensors")
    assert (state["epoch"], state["batch"]) == (0, 8)
    assert carry_out(run, device=CPU, observer=Silent())["epochs"] == 1


def test_every_process_has_a_gpu_of_its_own_or_none_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda")
    assert local_device(cuda) == cuda
    for name, value in (("LOCAL_RANK", "1"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert local_device(cuda) == torch.device("cuda", 1)
    assert local_device(CPU) == CPU
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(HeadError, match="torchrun started 2 processes here for 1 GPUs"):
        local_device(cuda)
