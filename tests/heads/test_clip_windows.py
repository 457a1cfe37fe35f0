"""Batches of clips: which frames are asked for and changed, and that a training begins where stored features ended."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from heads.baselines import Linear, LinearConfig, MeanPool
from heads.checkpoint import INITIAL, file_sha256
from heads.clip_windows import ClipWindows, Part, Videos, joined
from heads.end_to_end import ClipBatch, ClipNetwork, Clips, EndToEnd, TuneOptions, gathered
from heads.gated import Gated, GatedConfig
from heads.head import Head, HeadError
from heads.initial import load_initial
from heads.plan import Crops
from heads.sources import Source
from heads.tuning_checks import require_stored_logits
from heads.windows import Windows
from stores.spec import FeatureSpec, Granularity
from stores.zarr_store import ZarrStore
from tests.heads.feature_stores import write_store
from tests.heads.test_end_to_end import Dropping

CPU = torch.device("cpu")
NOTHING: Clips = (torch.zeros(0, 2, 2, 3, dtype=torch.uint8), (), torch.zeros(0, 2, dtype=torch.int64))
ROWS = {"a": 5, "b": 3}
FRAMES = {
    name: np.random.default_rng(rows).integers(0, 256, (rows, 2, 2, 3)).astype(np.uint8) for name, rows in ROWS.items()
}


def pictures(frames: np.ndarray[Any, Any]) -> Clips:
    """Each frame as a clip of one row."""
    of_clips = torch.arange(len(frames))[:, None].unbind()
    return torch.from_numpy(frames), of_clips, torch.tensor([[0, 1]]).expand(len(frames), 2)


class Reader:
    """Gives frames from memory, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[list[Part], tuple[int, int] | None]] = []
        self.closed = 0

    def read(
        self, parts: Sequence[Part], draw: tuple[int, int] | None = None
    ) -> Generator[dict[str, Clips], None, None]:
        self.asked.append((list(parts), draw))
        self.given = self._clips(parts)  # kept, so that nobody but its reader ends it
        return self.given

    def _clips(self, parts: Sequence[Part]) -> Generator[dict[str, Clips], None, None]:
        try:
            for video, of_sets in parts:
                yield {name: pictures(FRAMES[video][slice(*rows)]) for name, rows in of_sets.items()}
        finally:
            self.closed += 1


def network(seed: int = 0) -> ClipNetwork:
    torch.manual_seed(seed)
    return ClipNetwork(Dropping().eval(), "dropping", Granularity.CLIP, (1, 2, 2, 3))


def rows_by(network: ClipNetwork, rows: dict[str, int]) -> dict[str, np.ndarray[Any, Any]]:
    """What the network gives of the first clips of each video, so many."""
    clip = Granularity.CLIP
    with torch.inference_mode():
        return {
            name: network.module(torch.from_numpy(FRAMES[name])[:count, None], frozenset({clip}))[clip][:, 0].numpy()
            for name, count in rows.items()
        }


@pytest.fixture
def store(tmp_path: Path) -> ZarrStore:
    """What the network gives of every clip, stored."""
    return write_store(tmp_path / "f.zarr", {"one": rows_by(network(), ROWS)})


def source(store: ZarrStore) -> Source:
    return Source("x", store, store["one"], {video: video for video in ROWS})


def clips_of(store: ZarrStore, reader: Reader) -> ClipWindows:
    def labels(video: str, times: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return np.arange(len(times), dtype=np.int8)[:, None].repeat(2, axis=1) % 2

    clips = Videos(store, reader, {"one": network()})
    return ClipWindows([source(store)], ["a", "b"], device=CPU, clips=clips, seed=11, labels=labels)


def crops(video: Sequence[int], start: Sequence[int], length: int) -> Crops:
    return Crops(np.array(video), np.array(start), length)


def test_a_batch_has_the_real_rows_of_its_windows_one_after_the_other(store: ZarrStore) -> None:
    reader = Reader()
    windows = clips_of(store, reader)
    (batch,) = windows.batches([crops([1, 0], [1, 3], 3)], epoch=4)
    assert reader.asked == [([("b", {"one": (1, 3)}), ("a", {"one": (3, 5)})], (11, 4))]
    assert isinstance(batch, ClipBatch)
    assert batch.mask["x"].tolist() == [[True, True, False], [True, True, False]]
    frames, index, _ = batch.clips["one"]
    wanted = np.concatenate([FRAMES["b"][1:3], FRAMES["a"][3:5]])
    np.testing.assert_array_equal(frames[torch.stack(index)][:, 0].numpy(), wanted)
    stored = Windows([source(store)], ["a", "b"], device=CPU, labels=None)
    same = stored.batch(crops([1, 0], [1, 3], 3))
    assert torch.equal(batch.times, same.times)
    assert torch.equal(batch.mask["x"], same.mask["x"])
    assert batch.videos == same.videos == ("b", "a")
    assert batch.labels is not None
    assert batch.labels[:, :2, 0].tolist() == [[1, 0], [1, 0]]


def test_scoring_sees_frames_as_extraction_does(store: ZarrStore) -> None:
    reader = Reader()
    list(clips_of(store, reader).batches([crops([0], [0], 5)]))
    assert reader.asked[0][1] is None


def test_whoever_stops_in_the_middle_closes_the_reader(store: ZarrStore) -> None:
    reader = Reader()
    given = clips_of(store, reader).batches([crops([0], [0], 5)] * 3)
    next(given)
    given.close()  # type: ignore[attr-defined]  # a generator, of which callers only know that it iterates
    assert reader.closed == 1


def test_joined_clips_keep_their_frames() -> None:
    """The second video's rows look at its own frames, also where they share some."""
    first = torch.zeros(2, 1, 1, 3, dtype=torch.uint8), (torch.tensor([0, 1]),), torch.tensor([[1, 4]])
    second = (
        torch.arange(3, dtype=torch.uint8)[:, None, None, None].expand(3, 1, 1, 3) + 5,
        (torch.tensor([0, 1]), torch.tensor([1, 2])),
        torch.tensor([[0, 4], [0, 2]]),
    )
    frames, index, wanted = joined([first, second])
    assert [frames[of][:, 0, 0, 0].tolist() for of in index] == [[0, 0], [5, 6], [6, 7]]
    assert wanted.tolist() == [[1, 4], [0, 4], [0, 2]]


def test_other_roles_come_stored_at_the_times_of_the_clips(store: ZarrStore, tmp_path: Path) -> None:
    """A clip is a fifth of a second and stands beside the mean of two rows of sound; b has no sound."""
    sound = np.arange(16, dtype=np.float32).reshape(8, 2)
    mel = write_store(tmp_path / "m.zarr", {"mel": {"a": sound}}, rates={"mel": 10.0})
    sources = [
        Source("visual", store, store["one"], {video: video for video in ROWS}),
        Source("audio", mel, mel["mel"], {"a": "a"}),
    ]
    clips = Videos(store, Reader(), {"one": network()})
    windows = ClipWindows(sources, ["a", "b"], device=CPU, clips=clips)
    plan = [crops([1, 0], [0, 2], 3)]
    (batch,) = windows.batches(plan)
    assert isinstance(batch, ClipBatch)
    assert set(batch.features) == {"audio"}
    assert set(batch.clips) == {"one"}
    assert batch.features["audio"].tolist() == [[[0, 0]] * 3, [[9, 10], [13, 14], [0, 0]]]
    assert batch.mask["audio"].tolist() == [[False] * 3, [True, True, False]]
    assert batch.mask["visual"].all()
    head = Gated(GatedConfig(4, 2, 2, heads=2, ffn=4, hidden=4))
    widths = {"visual": 4, "audio": 2}
    model = EndToEnd(head, widths, {"one": network()}, ["one"], TuneOptions(chunk=2), {"one": "visual"})
    stored = Windows(sources, ["a", "b"], device=CPU)
    assert require_stored_logits(model, windows, stored, range(2), window=3) < 1e-6
    learned = head.blocks["audio"]
    torch.autograd.backward(model.head.loss(model(batch), replace(batch, labels=torch.ones(2, 2, dtype=torch.int8))))
    assert all(weight.grad is not None for weight in learned.parameters())
    assert model.get_parameter("trunks.one.backbone.first.weight").grad is not None


@pytest.mark.parametrize("kind", [Linear, MeanPool])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_a_training_begins_with_the_logits_of_stored_features(store: ZarrStore, kind: type[Head], shift: float) -> None:
    clips = clips_of(store, Reader())
    options, roles = TuneOptions(chunk=2), {"one": "x"}
    model = EndToEnd(kind(LinearConfig(4, 2)), {"x": 4}, {"one": network()}, ["one"], options, roles)
    model.train()
    stored = Windows([source(store)], ["a", "b"], device=CPU)
    with torch.no_grad():
        model.get_parameter("trunks.one.backbone.second.bias").add_(shift)
        model.get_parameter("head.last.weight").fill_(0.3)
    if shift:
        with pytest.raises(HeadError, match=r"'a' differ by 0\.12 from those of stored features, where rounding"):
            require_stored_logits(model, clips, stored, range(2), window=3)
    else:
        assert require_stored_logits(model, clips, stored, range(2), window=3) < 1e-6
        assert model.training


@pytest.mark.parametrize("tuned", [True, False])
def test_a_run_begins_with_a_head_alone_or_with_its_networks_too(tmp_path: Path, tuned: bool) -> None:
    def build(seed: int) -> EndToEnd:
        torch.manual_seed(seed)
        fresh = ClipNetwork(Dropping(), "dropping", Granularity.CLIP, (1, 2, 2, 3))
        return EndToEnd(Linear(LinearConfig(4, 2)), {"x": 4}, {"x": fresh}, ["x"], TuneOptions())

    class Config:
        init: dict[str, str]

    trained, model = build(1), build(2)
    before = model.trunks["x"].state_dict()["backbone.first.weight"].clone()
    tensors = {name: tensor for name, tensor in trained.state_dict().items() if tuned or "trunks" not in name}
    safetensors.torch.save_file(tensors, tmp_path / INITIAL)
    config = Config()
    config.init = {"weights_sha256": file_sha256(tmp_path / INITIAL)}
    load_initial(model, tmp_path, config)  # type: ignore[arg-type]  # of a config this is all that is read
    assert torch.equal(model.get_parameter("head.last.weight"), trained.get_parameter("head.last.weight"))
    expected = trained.get_parameter("trunks.x.backbone.first.weight") if tuned else before
    assert torch.equal(model.get_parameter("trunks.x.backbone.first.weight"), expected)


def test_rows_at_times_of_their_own_are_those_that_stored_ones_would_be(tmp_path: Path) -> None:
    """Seven pictures a video at 1 a second, and sound at 0.4 and 2 a second; of one the end is silent."""
    random = np.random.default_rng(2)
    for rate, lengths in ((0.4, (3, 2)), (2.0, (14, 5))):
        rows = {
            "one": {name: random.normal(size=(7, 2)).astype(np.float32) for name in "ab"},
            "two": {
                name: random.normal(size=(length, 2)).astype(np.float32)
                for name, length in zip("ab", lengths, strict=True)
            },
        }
        specs = {
            "one": FeatureSpec(Granularity.FRAME, (2,), dtype="float32", stream="rgb"),
            "two": FeatureSpec(Granularity.FRAME, (2,), dtype="float32", stream="audio"),
        }
        store = write_store(tmp_path / f"{rate}.zarr", rows, specs=specs, rates={"one": 1.0, "two": rate})
        sources = [
            Source(role, store, store[name], {"a": "a", "b": "b"})
            for role, name in (("visual", "one"), ("audio", "two"))
        ]
        learning = {name: network() for name in rows}
        windows = ClipWindows(sources, ["a", "b"], device=CPU, clips=Videos(store, Reader(), learning))
        assert list(windows.joined) == ["two"]
        of = crops([1, 0], [2, 1], 5)
        stored = Windows(sources, ["a", "b"], device=CPU).batch(of)
        parts = windows.parts(of)
        assert [part["one"] for _, part in parts] == [(2, 7), (1, 6)]
        made = np.concatenate([rows["two"][name][slice(*part["two"])] for name, part in parts])
        used = {name: of_name["two"] for name, of_name in parts}
        assert used == ({"b": (0, 2), "a": (0, 3)} if rate == 0.4 else {"b": (4, 5), "a": (2, 12)})
        found, _ = gathered(torch.from_numpy(made), *windows.gathered(windows.joined["two"], of))
        torch.testing.assert_close(found, stored.features["audio"])
        batch = windows.clip_batch(of, [dict.fromkeys(rows, NOTHING)] * 2)
        assert torch.equal(batch.mask["audio"], stored.mask["audio"])
        assert torch.equal(batch.mask["visual"], stored.mask["visual"])
        assert not stored.mask["audio"].all()


def test_sets_of_one_role_stand_side_by_side_as_stored_ones_do(tmp_path: Path) -> None:
    """The second has half as many rows a second, ends early in one video and has nothing of the other."""
    networks = {"one": network(), "two": network(seed=1)}
    rows = {"one": rows_by(networks["one"], ROWS), "two": rows_by(networks["two"], {"a": 2})}
    store = write_store(tmp_path / "both.zarr", rows, rates={"one": 5.0, "two": 2.5})
    sources = [Source("x", store, store["one"], {"a": "a", "b": "b"}), Source("x", store, store["two"], {"a": "a"})]
    head = Linear(LinearConfig(8, 2))
    model = EndToEnd(head, {"x": 8}, networks, ["one", "two"], TuneOptions(chunk=2), dict.fromkeys(networks, "x"))
    random = torch.Generator().manual_seed(2)
    mean, deviation = torch.randn(8, generator=random), torch.rand(8, generator=random) + 0.5
    model.standardise.set_statistics({"x": (mean, deviation)})
    stored = Windows(sources, ["a", "b"], device=CPU)
    stored.fill_missing(model.standardise.means)
    clips = ClipWindows(sources, ["a", "b"], device=CPU, clips=Videos(store, Reader(), networks))
    of = crops([1, 0], [0, 1], 4)
    (batch,) = clips.batches([of])
    assert isinstance(batch, ClipBatch)
    expected = stored.batch(of)
    assert torch.equal(batch.mask["x"], expected.mask["x"])
    found = [model.features("one", batch), model.features("two", batch, first=4)]
    real = batch.mask["x"]
    torch.testing.assert_close(torch.cat(found, dim=2)[real], expected.features["x"][real])
    assert torch.equal(found[1][0], mean[4:].expand(4, 4))  # of video b
    assert not torch.equal(found[1][1, 2], mean[4:])  # row 3 of video a is within the second row
    assert torch.equal(found[1][1, 3], mean[4:])
    torch.testing.assert_close(model.eval()(batch).logits[real], model(expected).logits[real])
    model.train()
    labels = torch.ones(2, 4, 2, dtype=torch.int8)
    torch.autograd.backward(head.loss(model(batch), replace(batch, labels=labels)))
    for name in networks:
        assert model.get_parameter(f"trunks.{name}.backbone.first.weight").grad is not None
