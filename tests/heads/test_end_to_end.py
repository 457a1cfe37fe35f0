"""Networks under a head: exact gradients in bounded memory, what learns and what does not, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extract.r2plus1d import R2Plus1d18
from extract.resnet import ResNet18
from heads.baselines import LinearConfig, MeanPool
from heads.end_to_end import ClipBatch, ClipNetwork, EndToEnd, Trunk, TuneOptions
from heads.head import Batch, Head, HeadError
from heads.optimise import make_optimizer
from heads.options import TrainOptions
from heads.stan import Stan, StanConfig
from heads.tuning_checks import memory_plan
from stores.spec import Granularity
from tests.bench.table import peak_bytes
from tests.extract.narrow import NarrowR2Plus1d18, NarrowResNet18
from tests.extract.networks import randomised

SHAPES = {"spatial": (1, 56, 56, 3), "temporal": (4, 28, 28, 3)}
BOTH = ("spatial", "temporal")


def networks() -> dict[str, ClipNetwork]:
    image, clip = randomised(NarrowResNet18()), randomised(NarrowR2Plus1d18())
    return {
        "spatial": ClipNetwork(image, "resnet18", Granularity.FRAME, SHAPES["spatial"]),
        "temporal": ClipNetwork(clip, "r2plus1d_18", Granularity.CLIP, SHAPES["temporal"]),
    }


def stan(learning: tuple[str, ...] = BOTH, dropout: float = 0.5, **options: Any) -> EndToEnd:
    """A small STAN over narrow networks, in double precision, always with the same weights."""
    torch.manual_seed(0)
    head = Stan(StanConfig(128, 128, 3, embed=16, ffn=16, num_layers=1, dropout=dropout))
    widths = {"spatial": 128, "temporal": 128}
    return EndToEnd(head, widths, networks(), learning, TuneOptions(learning, **options)).double()


def batch_of(scenes: tuple[int, ...], seed: int = 0) -> ClipBatch:
    """Videos of so many scenes each, of noise."""
    random = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(scenes)) < torch.tensor(scenes)[:, None]
    clips = {}
    for role, (frames, *shape) in SHAPES.items():
        count = sum(scenes) * frames
        pixels = torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=random)
        clips[role] = (pixels, torch.arange(count).view(-1, frames))
    times = torch.zeros(len(scenes), max(scenes), 2)
    labels = torch.randint(0, 2, (len(scenes), 3), generator=random, dtype=torch.int8)
    return ClipBatch({}, dict.fromkeys(SHAPES, mask), times, labels, clips=clips)


def gradients(model: EndToEnd, batch: Batch, seed: int = 7) -> dict[str, Tensor]:
    """Of every weight that learns, with the same draws of dropout."""
    model.train()
    torch.manual_seed(seed)
    model.zero_grad(set_to_none=True)
    loss = model.head.loss(model(batch), batch)
    torch.autograd.backward(loss)
    return {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def assert_same(found: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        largest = max(float(gradient.abs().max()), 1e-30)
        assert float((found[name] - gradient).abs().max()) <= tolerance * largest, name


@pytest.mark.parametrize(
    ("scenes", "options"),
    [((5, 2), {"chunk": 2}), ((1, 3), {"chunk": 1}), ((3, 1), {"chunk": 0, "checkpoint_activations": True})],
)
def test_gradients_in_chunks_are_those_of_one_pass(scenes: tuple[int, ...], options: dict[str, Any]) -> None:
    """The head's dropout is drawn after the rows are made, and must be drawn alike in both."""
    batch = batch_of(scenes)
    assert_same(gradients(stan(**options), batch), gradients(stan(chunk=0), batch))


class Dropping(nn.Module):
    """A network with dropout of its own; what it saw is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.drop, self.second = nn.Linear(12, 6), nn.Dropout(0.5), nn.Linear(6, 4)
        self.seen: list[int] = []

    def forward(self, frames: Tensor, levels: frozenset[Granularity]) -> dict[Granularity, Tensor]:
        if not frames.is_meta:
            self.seen.append(len(frames))
        x = frames.flatten(1).to(self.first.weight.dtype) / 255
        return {level: self.second(self.drop(self.first(x)).relu())[:, None] for level in levels}


def dropping(chunk: int) -> tuple[EndToEnd, ClipBatch]:
    torch.manual_seed(3)
    network = ClipNetwork(Dropping(), "dropping", Granularity.CLIP, (1, 2, 2, 3))
    head: Head = MeanPool(LinearConfig(4, 2))
    model = EndToEnd(head, {"x": 4}, {"x": network}, ["x"], TuneOptions(chunk=chunk)).double()
    frames = torch.randint(0, 256, (5, 2, 2, 3), dtype=torch.uint8)
    mask = {"x": torch.ones(1, 5, dtype=torch.bool)}
    labels = torch.tensor([[1, 0]], dtype=torch.int8)
    batch = ClipBatch({}, mask, torch.zeros(1, 5, 2), labels, clips={"x": (frames, torch.arange(5)[:, None])})
    return model, batch


def test_dropout_of_a_network_draws_the_same_again_when_its_chunk_is_run_again() -> None:
    model, batch = dropping(chunk=2)
    found = gradients(model, batch)
    plain, _ = dropping(chunk=2)
    trunk = plain.trunks["x"]
    frames, index = batch.clips["x"]
    plain.train()
    torch.manual_seed(7)
    rows = torch.cat(
        [trunk(frames, part, torch.empty(0)) for part in torch.split(index, 2)]
    )  # the same chunks, and all of them kept
    with_rows = Batch({"x": rows[None]}, batch.mask, batch.times, batch.labels)
    torch.autograd.backward(plain.head.loss(plain(with_rows), with_rows))
    expected = {name: weight.grad for name, weight in plain.named_parameters() if weight.grad is not None}
    assert_same(found, expected)
    assert len({float(value) for value in found["trunks.x.backbone.second.weight"].flatten()}) > 1


def test_every_clip_goes_through_twice_to_learn_and_once_to_score() -> None:
    model, batch = dropping(chunk=2)
    gradients(model, batch)
    network = model.trunks["x"].backbone
    assert isinstance(network, Dropping)
    assert network.seen == [2, 2, 1, 1, 2, 2]  # backwards the second time
    network.seen.clear()
    with torch.inference_mode():
        model.eval()(batch)
    assert network.seen == [2, 2, 1]


def test_peak_memory_does_not_grow_with_the_scenes() -> None:
    model = stan(chunk=4).float()
    peaks = [peak_bytes(lambda scenes=scenes: gradients(model, batch_of((scenes,)))) for scenes in (8, 32)]  # type: ignore[misc]
    frames = [sum(pixels.numel() for pixels, _ in batch_of((scenes,)).clips.values()) for scenes in (8, 32)]
    grown = (peaks[1] - frames[1]) / (peaks[0] - frames[0])  # the frames themselves lie beside the device
    assert grown <= 1.1, peaks


def test_a_frozen_network_gets_no_gradient_and_stays_in_evaluation_mode() -> None:
    model = stan(("spatial",))
    found = gradients(model, batch_of((2, 1)))
    assert not any(name.startswith("trunks.temporal") for name in found)
    assert any(name.startswith("trunks.spatial") for name in found)
    assert not any(module.training for module in model.trunks["temporal"].modules())


def statistics(model: EndToEnd) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in model.named_buffers() if "running" in name}


def test_batch_norm_keeps_its_statistics_unless_it_is_tuned() -> None:
    batch = batch_of((3, 2))
    model = stan(chunk=2)
    before = statistics(model)
    gradients(model, batch)
    assert all(torch.equal(before[name], value) for name, value in statistics(model).items())
    assert not any(part.training for part in model.modules() if isinstance(part, nn.BatchNorm2d | nn.BatchNorm3d))
    tuned = stan(chunk=0, batch_norm="tuned", freeze=("resnet18.layer1",))
    gradients(tuned, batch)
    moved = {name for name, value in statistics(tuned).items() if not torch.equal(before[name], value)}
    still = set(before) - moved
    assert still == {name for name in before if name.startswith("trunks.spatial.backbone.layer1")}


@pytest.mark.parametrize("options", [{"chunk": 2}, {"chunk": 0, "checkpoint_activations": True}])
def test_tuned_batch_norm_goes_with_neither_chunks_nor_checkpoints(options: dict[str, Any]) -> None:
    with pytest.raises(HeadError, match="batch_norm=tuned takes its statistics from all clips"):
        TuneOptions(batch_norm="tuned", **options)


def test_patterns_freeze_what_they_name_alone() -> None:
    model = stan(freeze=("resnet18.layer[12].*", "conv1", "head.classify.h"))
    still = {name for name, weight in model.named_parameters() if not weight.requires_grad}
    assert still == {
        name
        for name, _ in model.named_parameters()
        if name.startswith(
            (
                "trunks.spatial.backbone.layer1.",
                "trunks.spatial.backbone.layer2.",
                "trunks.spatial.backbone.conv1.",
                "trunks.spatial.backbone.fc.",  # rows do not depend on the classifiers
                "trunks.temporal.backbone.fc.",
                "head.classify.h.",
            )
        )
    }


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        (("layer9.*",), r"--freeze layer9\.\* names no weight\. There are head\.streams, .*resnet18\.conv1"),
        (("resnet18", "r2plus1d_18"), "no network learns: all is frozen"),
    ],
)
def test_freezing_nothing_or_everything_is_an_error(freeze: tuple[str, ...], message: str) -> None:
    with pytest.raises(HeadError, match=message):
        stan(freeze=freeze)


def test_networks_and_head_learn_at_their_own_rates() -> None:
    model = stan(dropout=0.0, backbone_lr=0.001)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    options = TrainOptions(optimizer="sgd", momentum=0, weight_decay=0, lr=0.5)
    optimizer = make_optimizer(model, options, torch.device("cpu"))
    found = gradients(model, batch_of((2, 1)))
    for group in optimizer.param_groups:
        group["lr"] = 0.5 * group["lr_share"]
    optimizer.step()
    for name, gradient in found.items():
        rate = 0.001 if name.startswith("trunks") else 0.5
        torch.testing.assert_close(model.get_parameter(name), before[name] - rate * gradient)


@pytest.mark.parametrize(
    ("learning", "freeze_proj_t", "count"),
    [(("spatial",), True, 45_494_612), (("spatial",), False, 45_954_260), (BOTH, False, 77_254_385)],
)
def test_weights_to_be_trained_are_the_papers_at_true_size(
    learning: tuple[str, ...], freeze_proj_t: bool, count: int
) -> None:
    """Section 5.2 of the notes on heads, which derives them from the paper's Table 4; nothing is allocated."""
    with torch.device("meta"):
        image = ClipNetwork(ResNet18(), "resnet18", Granularity.FRAME, (1, 224, 224, 3))
        clip = ClipNetwork(R2Plus1d18(), "r2plus1d_18", Granularity.CLIP, (12, 112, 112, 3))
        head = Stan(StanConfig(512, 512, 20, freeze_proj_t=freeze_proj_t))
        both = {"spatial": image, "temporal": clip}
        model = EndToEnd(head, {"spatial": 512, "temporal": 512}, both, learning, TuneOptions(learning))
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == count


def test_the_memory_plan_counts_what_can_be_counted_by_hand() -> None:
    """Of a clip its second layer needs the 6 outputs of the ReLU, which needs them too, and the first 12 inputs."""
    model, _ = dropping(chunk=2)
    model = model.float().train()
    plan = memory_plan(model, TrainOptions(optimizer="adamw"), rows=5)
    trunk, head = 12 * 6 + 6 + 6 * 4 + 4, 4 * 2 + 2
    assert plan.parameters == plan.gradients == 4 * (trunk + head)
    assert plan.optimizer == 2 * plan.gradients
    assert plan.frames == 5 * 12
    assert plan.at_once == 2
    model.eval()  # without dropout, which would keep what it drew
    assert memory_plan(model, TrainOptions(optimizer="sgd", momentum=0), rows=5).activations == 2 * 4 * (12 + 6)
    assert memory_plan(model, TrainOptions(optimizer="sgd", momentum=0), rows=5).optimizer == 0


def test_networks_are_copied_so_that_models_never_share_weights() -> None:
    handed = networks()
    options = TuneOptions(BOTH)
    head = Stan(StanConfig(128, 128, 3, embed=16, ffn=16, num_layers=1))
    model = EndToEnd(head, {"spatial": 128, "temporal": 128}, handed, BOTH, options)
    trunk = model.trunks["spatial"]
    assert isinstance(trunk, Trunk)
    with torch.no_grad():
        next(trunk.parameters()).add_(1)
    assert not torch.equal(next(trunk.parameters()), next(handed["spatial"].module.parameters()))
    assert not any(weight.requires_grad for weight in handed["spatial"].module.parameters())
