"""Networks under a head: exact gradients in bounded memory, what learns and what does not, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extract.r2plus1d import R2Plus1d18
from extract.resnet import ResNet18
from heads.asf import Asf, AsfConfig
from heads.baselines import LinearConfig, MeanPool
from heads.end_to_end import ClipBatch, ClipNetwork, EndToEnd, Trunk, TuneOptions, gathered
from heads.head import Batch, Head, HeadError
from heads.optimise import make_optimizer
from heads.options import TrainOptions
from heads.stan import Stan, StanConfig
from heads.stld import Stld, StldConfig
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
        clips[role] = (pixels, torch.arange(count).view(-1, frames).unbind(), one_row_each(sum(scenes)))
    times = torch.zeros(len(scenes), max(scenes), 2)
    labels = torch.randint(0, 2, (len(scenes), 3), generator=random, dtype=torch.int8)
    return ClipBatch({}, dict.fromkeys(SHAPES, mask), times, labels, clips=clips)


def one_row_each(clips: int) -> Tensor:
    """Of every clip its only row is wanted."""
    return torch.tensor([[0, 1]]).expand(clips, 2)


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
    clips = {"x": (frames, torch.arange(5)[:, None].unbind(), one_row_each(5))}
    return model, ClipBatch({}, mask, torch.zeros(1, 5, 2), labels, clips=clips)


def test_dropout_of_a_network_draws_the_same_again_when_its_chunk_is_run_again() -> None:
    model, batch = dropping(chunk=2)
    found = gradients(model, batch)
    plain, _ = dropping(chunk=2)
    trunk = plain.trunks["x"]
    frames, index, _ = batch.clips["x"]
    plain.train()
    torch.manual_seed(7)
    rows = torch.cat(
        [trunk(frames, part, torch.empty(0)) for part in torch.split(torch.stack(index), 2)]
    )  # the same chunks, and all of them kept
    with_rows = Batch({"x": rows[None, :, 0]}, batch.mask, batch.times, batch.labels)
    torch.autograd.backward(plain.head.loss(plain(with_rows), with_rows))
    expected = {name: weight.grad for name, weight in plain.named_parameters() if weight.grad is not None}
    assert_same(found, expected)
    assert len({float(value) for value in found["trunks.x.backbone.second.weight"].flatten()}) > 1


class Mapping3(nn.Module):
    """A network that gives 3 maps of 1 x 2 cells of a clip of 2 x 1 x 2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Linear(12, 24)

    def forward(self, frames: Tensor, levels: frozenset[Granularity]) -> dict[Granularity, Tensor]:
        x = frames.flatten(1).to(self.only.weight.dtype) / 255
        return {level: self.only(x).unflatten(1, (3, 1, 2, 4)) for level in levels}


def on_maps(kind: str, chunk: int) -> tuple[EndToEnd, ClipBatch]:
    """A video of 2 clips, of whose 6 maps it has 5, and one of a clip of which a window begins at the second map."""
    torch.manual_seed(5)
    head: Head = Asf(AsfConfig(4, 2, embed=4, groups=2, num_observations=3))
    if kind == "stld":
        head = Stld(StldConfig(4, 2, hidden=4, nhead=2, dim_feedforward=4, num_layers=1))
    network = ClipNetwork(Mapping3(), "maps", Granularity.MAP, (2, 1, 2, 3))
    model = EndToEnd(head, {"map": 4}, {"map": network}, ["map"], TuneOptions(chunk=chunk)).double()
    frames = torch.randint(0, 256, (6, 1, 2, 3), dtype=torch.uint8)
    wanted = torch.tensor([[0, 3], [0, 2], [1, 3]])
    mask = {"map": torch.arange(5) < torch.tensor([[5], [2]])}
    labels = torch.tensor([[1, 0], [0, 1]], dtype=torch.int8)
    clips = {"map": (frames, torch.arange(6).view(3, 2).unbind(), wanted)}
    return model, ClipBatch({}, mask, torch.zeros(2, 5, 2), labels, clips=clips)


@pytest.mark.parametrize("kind", ["asf", "stld"])
def test_heads_on_maps_learn_with_their_network_in_chunks_as_in_one_pass(kind: str) -> None:
    model, batch = on_maps(kind, chunk=2)
    found = gradients(model, batch)
    assert found["trunks.map.backbone.only.weight"].abs().sum() > 0
    plain, _ = on_maps(kind, chunk=0)
    assert_same(found, gradients(plain, batch))


def test_maps_lie_where_their_clips_do_without_those_behind_the_end_of_a_video() -> None:
    model, batch = on_maps("asf", chunk=1)
    frames, index, _ = batch.clips["map"]
    module = model.trunks["map"].backbone
    assert isinstance(module, Mapping3)
    each = [module(frames[of][None], frozenset({Granularity.MAP}))[Granularity.MAP][0] for of in index]
    with torch.no_grad():
        found = model.features("map", batch)
        expected = torch.stack([*each[0], each[1][0], each[1][1], *each[2][1:], *torch.zeros(3, 1, 2, 4)])
    torch.testing.assert_close(found.flatten(0, 1), expected)


class Convolution(nn.Module):
    """One over the frames of a clip, with a row for each of them; else one row of their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.only = nn.Conv1d(3, 4, 3, padding=1)

    def forward(
        self, frames: Tensor, levels: frozenset[Granularity], convolutional: bool = False
    ) -> dict[Granularity, Tensor]:
        x = self.only(frames.flatten(2).transpose(1, 2).to(self.only.weight.dtype) / 255).transpose(1, 2)
        return {level: x if convolutional else x.mean(1, keepdim=True) for level in levels}


def on_tiles(chunk: int) -> tuple[EndToEnd, ClipBatch]:
    """A video of 7 frames and rows in tiles of up to 3 rows with a frame of context: of 4, 5 and 2 frames."""
    torch.manual_seed(6)
    network = ClipNetwork(Convolution(), "tiles", Granularity.CLIP, (5, 1, 1, 3), convolutional=True, rows=3)
    model = EndToEnd(MeanPool(LinearConfig(4, 2)), {"x": 4}, {"x": network}, ["x"], TuneOptions(chunk=chunk)).double()
    frames = torch.randint(0, 256, (7, 1, 1, 3), dtype=torch.uint8)
    index = torch.arange(0, 4), torch.arange(2, 7), torch.arange(5, 7)
    wanted = torch.tensor([[0, 3], [1, 4], [1, 2]])
    mask = {"x": torch.ones(1, 7, dtype=torch.bool)}
    labels = torch.tensor([[1, 0]], dtype=torch.int8)
    return model, ClipBatch({}, mask, torch.zeros(1, 7, 2), labels, clips={"x": (frames, index, wanted)})


@pytest.mark.parametrize("chunk", [0, 1, 2])
def test_tiles_of_several_lengths_give_the_rows_and_gradients_of_the_whole_video(chunk: int) -> None:
    model, batch = on_tiles(chunk)
    whole, _ = on_tiles(0)
    network, frames = whole.trunks["x"].backbone, batch.clips["x"][0]
    assert isinstance(network, Convolution)
    rows = network(frames[None], frozenset({Granularity.CLIP}), True)[Granularity.CLIP]
    with torch.no_grad():
        torch.testing.assert_close(model.features("x", batch), rows.detach(), rtol=1e-12, atol=1e-12)
    with_rows = Batch({"x": rows}, batch.mask, batch.times, batch.labels)
    torch.autograd.backward(whole.head.loss(whole(with_rows), with_rows))
    expected = {name: weight.grad for name, weight in whole.named_parameters() if weight.grad is not None}
    assert_same(gradients(model, batch), expected, 1e-12)
    assert memory_plan(model, TrainOptions(), 7).at_once == min(chunk or 3, 3)


def test_every_clip_but_those_of_the_last_chunk_goes_through_twice_to_learn_and_once_to_score() -> None:
    model, batch = dropping(chunk=2)
    gradients(model, batch)
    network = model.trunks["x"].backbone
    assert isinstance(network, Dropping)
    assert network.seen == [2, 2, 1, 2, 2]  # backwards the second time
    network.seen.clear()
    with torch.inference_mode():
        model.eval()(batch)
    assert network.seen == [2, 2, 1]


def test_peak_memory_does_not_grow_with_the_scenes() -> None:
    model = stan(chunk=4).float()
    peaks = [peak_bytes(lambda scenes=scenes: gradients(model, batch_of((scenes,)))) for scenes in (8, 32)]  # type: ignore[misc]
    frames = [sum(pixels.numel() for pixels, *_ in batch_of((scenes,)).clips.values()) for scenes in (8, 32)]
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
    plan = memory_plan(model, TrainOptions(optimizer="adamw"), 3, 2)
    trunk, head = 12 * 6 + 6 + 6 * 4 + 4, 4 * 2 + 2
    assert plan.parameters == plan.gradients == 4 * (trunk + head)
    assert plan.optimizer == 2 * plan.gradients
    assert plan.frames == 5 * 12
    assert plan.at_once == 2
    model.eval()  # without dropout, which would keep what it drew
    assert memory_plan(model, TrainOptions(optimizer="sgd", momentum=0), 5).activations == 2 * 4 * (12 + 6)
    assert memory_plan(model, TrainOptions(optimizer="sgd", momentum=0), 5).optimizer == 0


def test_the_memory_plan_of_maps_counts_clips_and_not_their_rows() -> None:
    """5 maps come of 2 clips and 2 of a third one; of each clip the one layer keeps its 12 inputs."""
    model, _ = on_maps("stld", chunk=2)
    plan = memory_plan(model.float(), TrainOptions(), 5, 2)
    assert (plan.rows, plan.at_once) == (7, 2)
    assert plan.activations == 2 * 4 * 12
    assert plan.frames == 3 * 12
    at_least = 7 * 2 * 4 * 4  # of 7 more maps of 2 cells the first layer keeps its 4 inputs
    assert memory_plan(model, TrainOptions(), 10, 4).head >= plan.head + at_least


@pytest.mark.parametrize(
    ("rows", "chunk", "clips"),
    [((5, 5), 2, 2), ((2, 5), 2, 2 + 2), ((5, 2), 2, 2 + 2), ((2, 1), 2, 2 + 1), ((2, 5), 0, 2 + 5)],
)
def test_the_memory_plan_adds_what_is_kept_of_several_networks(rows: tuple[int, int], chunk: int, clips: int) -> None:
    """What goes through at once is kept until it is sent backward; of several chunks one at a time is."""
    networks = {name: ClipNetwork(Dropping(), name, Granularity.CLIP, (1, 2, 2, 3)) for name in ("one", "two")}
    roles = dict.fromkeys(networks, "x")
    model = EndToEnd(MeanPool(LinearConfig(8, 2)), {"x": 8}, networks, [*networks], TuneOptions(chunk=chunk), roles)
    plan = memory_plan(model.eval(), TrainOptions(), rows[0], others={"two": rows[1:]})
    assert plan.activations == clips * 4 * (12 + 6)


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


def test_gathered_rows_are_weighted_means() -> None:
    """Of rows 1, 2 and 4: the second alone, 1/4 of the first and 3/4 of the third, and none."""
    rows = torch.tensor([[1.0], [2.0], [4.0]], dtype=torch.float64, requires_grad=True)
    index = torch.tensor([[[1, 0], [0, 2], [0, 0]]])
    weight = torch.tensor([[[1.0, 0.0], [0.25, 0.75], [0.0, 0.0]]])
    found, present = gathered(rows, index, weight)
    assert found.tolist() == [[[2.0], [3.25], [0.0]]]
    assert present.tolist() == [[True, True, False]]
    torch.autograd.backward(found.sum())
    assert rows.grad is not None
    assert rows.grad.flatten().tolist() == [0.25, 1.0, 0.75]
    none, present = gathered(torch.zeros(0, 2, 3), index, torch.zeros_like(weight))
    assert none.shape == (1, 3, 2, 3)
    assert not present.any()
