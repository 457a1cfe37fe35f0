"""Options of the trainer do what they are called: against updates that are spelled out, and run against run."""

import copy
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from heads.checkpoint import create_run, read_config
from heads.head import head_class
from heads.optimise import learning_rate
from heads.options import split_settings
from heads.run import carry_out, prepare, run_windows
from heads.run_plan import plan_run
from heads.sources import find_sources
from heads.train import Training
from stores import open_store
from stores.labels import Labels
from stores.zarr_store import ZarrStore
from tests.heads.feature_stores import Silent, planted, write_store

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ZarrStore:
    return write_store(tmp_path_factory.mktemp("planted") / "f.zarr", {"one": planted()[0]})


@pytest.fixture(scope="module")
def labels() -> Labels:
    return planted()[1]


def begin(run: Path, store: ZarrStore, labels: Labels, head: str = "linear", **training: Any) -> Path:
    wanted = {"epochs": 2, "batch_size": 4, **training}
    options, train_options = split_settings(head_class(head), [f"{key}={value}" for key, value in wanted.items()])
    plan = plan_run(head, [store], labels, options=options, training=train_options)
    create_run(run, plan.config, plan.labels)
    return run


def prepared(run: Path, store: ZarrStore, labels: Labels) -> Training:
    config = read_config(run)
    videos = [video for split in config.split.values() for video in split]
    windows = run_windows(config, find_sources(config.features, [store]), videos, labels, CPU)
    members = {name: [videos.index(video) for video in split] for name, split in config.split.items()}
    return prepare(config, windows, members, run, Silent())


def weights(run: Path) -> dict[str, Tensor]:
    return safetensors.torch.load_file(run / "best.safetensors")


def differ(one: Path, other: Path) -> list[str]:
    """Names of the weights that two runs do not share to the last bit."""
    left, right = weights(one), weights(other)
    return [name for name in left if not torch.equal(left[name], right[name])]


def update(
    kind: str, weight: Tensor, gradient: Tensor, state: dict[str, Tensor], step: int, lr: float, decay: float
) -> Tensor:
    """One weight after an update, as the papers of the optimisers have it; `step` from 1."""
    if kind == "adamw":
        weight = weight - lr * decay * weight
    else:
        gradient = gradient + decay * weight
    if kind == "sgd":
        state["m"] = 0.8 * state["m"] + gradient if step > 1 else gradient
        return weight - lr * state["m"]
    state["m"] = 0.9 * state.get("m", 0 * gradient) + 0.1 * gradient
    state["v"] = 0.999 * state.get("v", 0 * gradient) + 0.001 * gradient**2
    mean, variance = state["m"] / (1 - 0.9**step), state["v"] / (1 - 0.999**step)
    return weight - lr * mean / (variance.sqrt() + 1e-8)


@pytest.mark.parametrize("clip", [0.0, 0.01])
@pytest.mark.parametrize("kind", ["sgd", "adam", "adamw"])
def test_updates_are_those_of_the_optimiser(
    kind: str, clip: float, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    run = begin(
        tmp_path / "run", store, labels, optimizer=kind, clip=clip, weight_decay=0.1, momentum=0.8, lr=0.1, warmup=0.3,
        schedule="cosine",
    )  # fmt: skip
    training = prepared(run, store, labels)
    model = copy.deepcopy(training.model).double().train()
    plans = [training.plan(epoch) for epoch in range(2)]
    steps = sum(map(len, plans))
    states: dict[str, dict[str, Tensor]] = {name: {} for name, _ in model.named_parameters()}
    clipped = 0
    for step, crops in enumerate((crops for plan in plans for crops in plan), start=1):
        batch = training.windows.batch(crops)
        model.zero_grad()
        torch.autograd.backward(model.head.loss(model(batch), batch))
        gradients = {name: tensor.grad for name, tensor in model.named_parameters() if tensor.grad is not None}
        norm = torch.stack([(gradient**2).sum() for gradient in gradients.values()]).sum().sqrt()
        share = min(1.0, clip / float(norm)) if clip else 1.0
        clipped += share < 1
        lr = learning_rate(step - 1, steps, training.options)
        with torch.no_grad():
            for name, tensor in model.named_parameters():
                tensor.copy_(update(kind, tensor, share * gradients[name], states[name], step, lr, 0.1))
    training.run()
    assert clipped == (steps if clip else 0)
    for name, tensor in training.model.named_parameters():
        torch.testing.assert_close(tensor.double(), model.get_parameter(name), atol=2e-5, rtol=1e-4)


def test_a_seed_fixes_every_weight_and_another_gives_others(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    """From the first weights on, and with dropout, which draws at every step."""
    runs = [begin(tmp_path / f"{n}", store, labels, "tconv", width=4, seed=seed) for n, seed in enumerate((5, 5, 6))]
    first = [prepared(run, store, labels).model.state_dict()["head.last.weight"].clone() for run in runs]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    for number, run in enumerate(runs):
        torch.manual_seed(1000 + number)  # what went on before must not matter
        carry_out(run, device=CPU, observer=Silent())
    assert differ(runs[0], runs[1]) == []
    assert {"head.layers.0.weight", "head.last.weight"} <= set(differ(runs[0], runs[2]))
    assert read_config(runs[0]).split == read_config(runs[2]).split


@pytest.mark.parametrize("head", ["linear", "meanpool"])
def test_rows_in_memory_and_rows_from_disk_train_the_same(
    head: str, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    runs = [begin(tmp_path / str(kept), store, labels, head, resident=kept) for kept in ("true", "false")]
    for run in runs:
        carry_out(run, device=CPU, observer=Silent())
    assert differ(*runs) == []
    scores = [open_store(run / "test.zarr")["scores"] for run in runs]
    for video in scores[0]:
        assert (scores[0].read(video).features == scores[1].read(video).features).all()


def test_bfloat16_trains_float32_weights_nearly_as_float32_does(
    tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    runs = [begin(tmp_path / name, store, labels, precision=name, epochs=5, lr=0.05) for name in ("fp32", "bf16")]
    results = [carry_out(run, device=CPU, observer=Silent()) for run in runs]
    full, half = (weights(run)["head.last.weight"] for run in runs)
    assert half.dtype == torch.float32
    assert 0 < float((full - half).abs().max()) < 0.05
    assert not torch.equal(half, half.bfloat16().float())  # the weights themselves are not rounded
    assert results[0]["test"]["score"] == pytest.approx(results[1]["test"]["score"], abs=0.05)
