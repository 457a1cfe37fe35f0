"""Several processes train what one would: the same batches in shares, one writer, and a restart after a death."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.checkpoint import load_tensors, read_json
from heads.plan import Crops
from heads.ranks import Ranks
from stores import open_store
from stores.zarr_store import ZarrWriter
from tests.heads.feature_stores import planted, write_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store of 24 videos and their labels."""
    features, labels = planted()
    folder = tmp_path_factory.mktemp("planted")
    store = write_store(folder / "f.zarr", {"one": features})
    with ZarrWriter(store.path, {"one": store["one"].spec}) as writer:
        writer.attach("labels", labels.to_dict())
    return folder


def torchrun(place: Path, *words: object, processes: int = 2, restarts: int = 0) -> subprocess.CompletedProcess[str]:
    """What `torchrun` does with these words, on this machine alone."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    launch = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
        "--max-restarts",
        str(restarts),
    ]
    return subprocess.run(
        [sys.executable, *launch, *map(str, words)], capture_output=True, text=True, cwd=place, env=environment
    )


def train(place: Path, out: str, *words: str, processes: int = 2) -> Path:
    command = ("-m", "cli.main", "train-head", "mlad", "--features", "f.zarr", "--out", out)
    settings = ["embed=4", "num_layers=1", "optimizer=sgd", "lr=0.1", "epochs=3", "batch_size=5", "window=16"]
    given = [word for setting in settings for word in ("--set", setting)]
    if processes > 1:
        done = torchrun(place, *command, *given, *words, processes=processes)
    else:
        alone = [sys.executable, *command, *given, *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(alone, capture_output=True, text=True, cwd=place, env=environment)
    assert done.returncode == 0, done.stderr
    return place / out


def weights(run: Path) -> dict[str, Tensor]:
    tensors, _ = load_tensors(run / "last.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}


@pytest.mark.parametrize(
    "words",
    [(), ("--set", "accumulate=2", "--set", "class_weights=balanced")],
    ids=["batches of 5", "two batches an update, weighted"],
)
def test_two_processes_do_what_one_does(place: Path, words: tuple[str, ...]) -> None:
    """Batches of 5 are shares of 3 and 2, and the last one of an epoch leaves the second process without any."""
    settings = ("--set", "dropout=0.0", *words)
    name = "-".join(words).replace("=", "") or "plain"
    one, two = train(place, f"one{name}", *settings, processes=1), train(place, f"two{name}", *settings)
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    moved = 0.0
    for key, tensor in first.items():
        torch.testing.assert_close(second[key], tensor, rtol=0, atol=1e-6)
        moved = max(moved, float(tensor.abs().max()))
    assert moved > 0.01
    losses = [
        [line["loss"] for line in csv.DictReader((run / "metrics.csv").read_text().splitlines())] for run in (one, two)
    ]
    np.testing.assert_allclose(np.array(losses[1], float), np.array(losses[0], float), atol=1e-5)
    results = [read_json(run / "result.json") for run in (one, two)]
    for part in ("val", "test"):  # close scores may change places
        assert results[1][part]["score"] == pytest.approx(results[0][part]["score"], abs=2e-3)
    for part in ("val", "test"):  # written once, by one of them
        scored = [open_store(run / f"{part}.zarr")["scores"] for run in (one, two)]
        assert list(scored[0]) == list(scored[1])


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


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from heads.ranks import joined
from heads.run import carry_out
from tests.heads.feature_stores import Silent

class Dies(Silent):
    def step(self, done, total):
        marker = Path(sys.argv[1]) / "died"
        if os.environ["RANK"] == "1" and done == int(sys.argv[2]) and not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

with joined(torch.device("cpu")) as ranks:
    carry_out(Path(sys.argv[1]), device=torch.device("cpu"), observer=Dies(), ranks=ranks)
"""


def test_a_process_that_dies_costs_nothing_but_time(place: Path) -> None:
    """One of two is killed in the second epoch; torchrun starts both anew, and the weights are those of a straight run
    of two, dropout and all."""
    (place / "killed.py").write_text(KILLED)
    settings = ("--set", "dropout=0.3", "--set", "checkpoint_seconds=0")
    straight = train(place, "straight", *settings)
    killed = place / "killed"
    killed.mkdir()
    for name in ("config.json", "labels.json"):
        (killed / name).write_bytes((straight / name).read_bytes())
    done = torchrun(place, "killed.py", killed, 7, restarts=1)
    assert done.returncode == 0, done.stderr
    assert (killed / "died").exists()
    for key, tensor in weights(straight).items():
        assert torch.equal(weights(killed)[key], tensor), key
    assert (killed / "metrics.csv").read_text().count("\n") == 4


def test_a_run_of_several_needs_a_folder_and_one_seed(place: Path) -> None:
    done = torchrun(place, "-m", "cli.main", "train-head", "linear", "--features", "f.zarr")
    assert done.returncode != 0
    assert "several processes train one run: give --out, where a restart goes on, and one seed." in done.stderr
