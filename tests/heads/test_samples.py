"""Heads on clip-sampled sets: samples as items, batches of one speed, all views of a video as one score."""

from collections import Counter
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from heads.asf import Asf, cooccurrence
from heads.baselines import MeanPool
from heads.checkpoint import create_run, load_run, load_tensors, read_config
from heads.head import HEADS, Batch, Head, HeadError, Scores, head_class
from heads.mlad import Mlad
from heads.options import split_settings
from heads.predict import Reading, score_videos
from heads.run import carry_out, prepare, run_windows
from heads.run_plan import plan_run, require_resumable
from heads.samples import SampledWindows, ViewScores, clip_labels
from heads.score_store import predict_store
from heads.sources import choose_sources, find_sources
from heads.standardise import Model
from heads.stld import Stld
from stores import open_store
from stores.errors import DamageError, SpecMismatchError
from stores.labels import IGNORED, Labels, VideoLabels
from stores.spec import Granularity, Rows
from stores.zarr_store import ZarrStore, ZarrWriter
from tests.heads.feature_stores import Killed, Killer, Silent
from tests.heads.sampled_stores import (
    STEPS,
    VIEWS,
    WIDTH,
    clip_times,
    name_of,
    planted_labels,
    sampled_spec,
    write_sampled,
)

CPU = torch.device("cpu")
ALL = [name_of(speed) for speed in VIEWS]
SMALL = ["num_observations=4", "embed=8", "groups=2", "dropout=0", "batch_size=8", "lr=0.02"]


@pytest.fixture(scope="module")
def labels() -> Labels:
    return planted_labels()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, labels: Labels) -> ZarrStore:
    return write_sampled(tmp_path_factory.mktemp("sampled") / "s.zarr", labels)


def windows_of(store: ZarrStore, labels: Labels, sets: list[str], **options: Any) -> SampledWindows:
    sources = choose_sources(Asf, [store], sets)
    return SampledWindows(
        sources,
        list(store[sets[0]]),
        device=CPU,
        labels=lambda video, times: clip_labels(labels, video[:-4], times, "strict"),
        video_labels=lambda video: labels.video(video[:-4]),
        **options,
    )


def test_a_batch_holds_samples_with_their_own_rows_times_and_labels(store: ZarrStore, labels: Labels) -> None:
    windows = windows_of(store, labels, ALL)
    seen: Counter[tuple[str, float, int]] = Counter()
    for crops in windows.scoring_batches(range(16), batch_size=7):
        batch = windows.batch(crops)
        assert batch.labels is not None
        for place, video in enumerate(batch.videos):
            times = batch.times[place].numpy()
            speed = round(times[-1, 1] - times[0, 0])
            part = store[name_of(speed)]
            rows = part.read(video)
            (start,) = [
                at
                for at in range(0, len(rows.features), STEPS)
                if np.array_equal(rows.features[at : at + STEPS], batch.features["map"][place].numpy())
            ]
            assert np.array_equal(rows.times[start : start + STEPS], times)
            span = [(times[0, 0], times[-1, 1])]
            entry = labels.videos[video[:-4]]
            by_hand = [
                int(any(c == label and begin < span[0][1] and end > span[0][0]
                        for label, (begin, end) in zip(entry.classes, entry.spans, strict=True)))
                for c in range(3)
            ]  # fmt: skip
            assert batch.labels[place].tolist() == by_hand
            seen[video, speed, start] += 1
        assert batch.mask["map"].all()
    of_clips = [clip_labels(labels, "v04", np.array([span]), "strict") for span in spans_of(store, "v04.mp4")]
    assert [table.tolist() for table in windows.label_tables([4])] == [[found.tolist()] for found in of_clips]
    assert len(seen) == 16 * 30
    assert set(seen.values()) == {1}


def spans_of(store: ZarrStore, video: str) -> list[tuple[float, float]]:
    """Seconds of every sample, speed after speed."""
    times = [store[name].times(video) for name in ALL]
    return [(of_set[at, 0], of_set[at + STEPS - 1, 1]) for of_set in times for at in range(0, len(of_set), STEPS)]


def test_labels_of_a_clip_by_hand() -> None:
    entry = VideoLabels.of([(0, 1.0, 4.0), (1, 6.0, 8.0), (IGNORED, 20.0, 30.0)], unknown=(3,), video_level=(2,))
    labels = Labels(("a", "b", "c", "d"), {"v": entry})

    def of(start: float, end: float, boundary: Literal["strict", "inclusive"] = "strict") -> list[int]:
        middle = (start + end) / 2
        found: list[int] = clip_labels(labels, "v", np.array([(start, middle), (middle, end)]), boundary).tolist()
        return found

    assert of(0, 2) == [1, 0, -1, -1]
    assert of(3, 7) == [1, 1, -1, -1]
    assert of(4, 6) == [0, 0, -1, -1]
    assert of(4, 6, "inclusive") == [1, 1, -1, -1]
    assert of(2, 3) == [1, 0, -1, -1]  # inside a label
    assert of(18, 21) == [-1, -1, -1, -1]
    untimed = Labels(("a", "b"), {"v": VideoLabels.of([], video_level=(1,))})
    assert clip_labels(untimed, "v", np.array([(0.0, 1.0)]), "strict").tolist() == [0, 1]


def test_batches_of_mixed_speeds_are_of_one_speed_each_and_always_the_same(store: ZarrStore, labels: Labels) -> None:
    windows = windows_of(store, labels, ALL)
    train = [0, 2, 3, 7, 11]
    sizes = [len(samples) for samples in windows.samples_of(range(16))]
    assert sizes == [16 * 12, 16 * 9, 16 * 9]
    bounds = np.cumsum([0, *sizes])
    drawn: Counter[int] = Counter()
    for epoch in range(60):
        plan = windows.training_batches(train, batch_size=8, seed=3, epoch=epoch)
        again = windows.training_batches(train, batch_size=8, seed=3, epoch=epoch)
        assert len(plan) == 8 + 6 + 6  # 60, 45 and 45 samples in batches of 8
        order: dict[int, list[int]] = {0: [], 1: [], 2: []}
        for crops, same in zip(plan, again, strict=True):
            assert np.array_equal(crops.video_B, same.video_B)
            speeds = set(np.searchsorted(bounds, crops.video_B, side="right") - 1)
            assert len(speeds) == 1
            assert {int(video) for video in windows.video_I[crops.video_B]} <= set(train)
            drawn[speed := int(speeds.pop())] += 1
            order[speed] += crops.video_B.tolist()
        for speed, samples in order.items():
            once = samples[: [60, 45, 45][speed]]
            assert len(set(once)) == len(once), "no sample comes again before all have come"
    # 1200 draws with equal chances: 400 of each, give or take 16 (one standard deviation).
    assert all(abs(count - 400) < 65 for count in drawn.values()), drawn
    others = [windows.training_batches(train, batch_size=8, seed=seed, epoch=0) for seed in (3, 4)]
    assert any(not np.array_equal(a.video_B, b.video_B) for a, b in zip(*others, strict=True))


def test_one_speed_gives_every_sample_once_an_epoch(store: ZarrStore, labels: Labels) -> None:
    windows = windows_of(store, labels, ALL[:1])
    plan = windows.training_batches([1, 5], batch_size=5, seed=0, epoch=2)
    samples = np.concatenate([crops.video_B for crops in plan]).tolist()
    assert sorted(samples) == [*range(12, 24), *range(60, 72)]


def test_batches_and_statistics_are_the_same_from_memory_and_from_disk(store: ZarrStore, labels: Labels) -> None:
    kept, streamed = (windows_of(store, labels, ALL, resident=resident) for resident in (True, False))
    assert (kept.resident, streamed.resident) == (True, False)
    plan = kept.training_batches(range(16), batch_size=8, seed=0, epoch=0)
    for one, other in zip(kept.batches(plan), streamed.batches(plan), strict=True):
        assert torch.equal(one.features["map"], other.features["map"])
        assert torch.equal(one.times, other.times)
        assert one.labels is not None
        assert other.labels is not None
        assert torch.equal(one.labels, other.labels)
    every = np.concatenate(
        [store[name].read(f"v{v:02d}.mp4").features.reshape(-1, WIDTH) for name in ALL for v in (1, 4)]
    )
    for windows in (kept, streamed):
        mean, std = windows.statistics([1, 4])["map"]
        np.testing.assert_allclose(mean.numpy(), every.mean(0), atol=1e-5)
        np.testing.assert_allclose(std.numpy(), every.std(0), rtol=1e-5)


class FirstFeature(Head):
    """The logit is the first feature of a sample's first row and place."""

    name: ClassVar[str] = "first"
    level: ClassVar[Literal["row", "video"]] = "video"
    roles: ClassVar[tuple[str, ...]] = ("map",)
    accepts: ClassVar[frozenset[Granularity]] = frozenset({Granularity.MAP})
    config_class: ClassVar[type[Any]] = object

    def forward(self, batch: Batch) -> Scores:
        return Scores(batch.features["map"][:, 0, 0, 0, :2])


@pytest.mark.parametrize(("how", "head"), [("max", Stld), ("mean", Asf), ("mean", MeanPool)])
def test_thirty_views_of_a_video_become_one_score(
    how: Literal["max", "mean"], head: type[Head], store: ZarrStore, labels: Labels
) -> None:
    assert head.views == how
    windows = windows_of(store, labels, ALL)
    stub = FirstFeature()
    stub.views = how  # type: ignore[misc]
    model = Model(stub, {"map": WIDTH})
    found = dict(score_videos(model, windows, [3, 0, 9], Reading("video", 1, 1, batch_size=5)))
    assert set(found) == {0, 3, 9}
    for video, scores in found.items():
        views = [
            1 / (1 + np.exp(-store[name].read(f"v{video:02d}.mp4").features[at, 0, 0, :2].astype(np.float64)))
            for name in ALL
            for at in range(0, store[name].entry(f"v{video:02d}.mp4").num_rows, STEPS)
        ]
        assert len(views) == 30
        expected = np.max(views, axis=0) if how == "max" else np.sum(views, axis=0) / 30
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, expected[None], rtol=1e-5)


def test_views_are_joined_by_hand() -> None:
    views = np.array([[0.25, 0.5], [0.75, 0.125], [0.5, 0.5]])
    for how, expected in (("max", [0.75, 0.5]), ("mean", [0.5, 0.375])):
        scores = ViewScores(how, Counter({7: 3, 8: 1}))  # type: ignore[arg-type]
        assert scores.add(7, views[0]) is None
        alone = scores.add(8, views[2])
        assert alone is not None
        assert alone.tolist() == [[0.5, 0.5]]
        assert scores.add(7, views[1]) is None
        whole = scores.add(7, views[2])
        assert whole is not None
        assert whole.tolist() == [expected]


def begin(run: Path, store: ZarrStore, labels: Labels, sets: list[str], *words: str, **more: Any) -> Path:
    options, training = split_settings(Asf, [*SMALL, "epochs=2", "checkpoint_seconds=0", *words])
    plan = plan_run("asf", [store], labels, options=options, training=training, sets=sets, **more)
    create_run(run, plan.config, plan.labels)
    return run


def weights(run: Path, name: str = "best") -> dict[str, Tensor]:
    return load_tensors(run / f"{name}.safetensors")[0]


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory: pytest.TempPathFactory, store: ZarrStore, labels: Labels) -> Path:
    """A run on clips of speed 4."""
    run = begin(tmp_path_factory.mktemp("first") / "run", store, labels, [name_of(4)])
    carry_out(run, device=CPU, observer=Silent())
    return run


def test_tuning_on_mixed_speeds_goes_on_after_a_kill_with_the_same_batches(
    first_stage: Path, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    straight = begin(tmp_path / "straight", store, labels, ALL, init=first_stage)
    watcher = Silent()
    carry_out(straight, device=CPU, observer=watcher)
    for at in (1, watcher.steps // 2 + 1, watcher.steps):
        run = begin(tmp_path / f"killed{at}", store, labels, ALL, init=first_stage)
        with pytest.raises(Killed):
            carry_out(run, device=CPU, observer=Killer(at))
        carry_out(run, device=CPU, observer=Silent())
        for name in ("best", "last"):
            left, right = weights(straight, name), weights(run, name)
            assert all(torch.equal(left[key], right[key]) for key in left)


def test_a_second_stage_begins_with_the_weights_of_the_first(
    first_stage: Path, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    run = begin(tmp_path / "run", store, labels, ALL, init=first_stage)
    config = read_config(run)
    assert config.init is not None
    assert config.init["run"] == str(first_stage)
    assert config.options == read_config(first_stage).options
    sources = find_sources(config.features, [store])
    videos = [video for split in config.split.values() for video in split]
    windows = run_windows(config, sources, videos, labels, CPU)
    members = {name: [videos.index(video) for video in split] for name, split in config.split.items()}
    training = prepare(config, windows, members, run, Silent())
    before = weights(first_stage)
    assert all(torch.equal(tensor, before[name]) for name, tensor in training.model.state_dict().items())
    # What the head learned of the labels is that of whole videos, each once, not of clips.
    table = torch.from_numpy(np.stack([labels.video(video[:-4]) for video in config.split["train"]]))
    expected = cooccurrence(table).float()
    torch.testing.assert_close(training.model.head.get_buffer("correlate.cooccurrence_CC"), expected)
    changed = (run / "init.safetensors").read_bytes()
    (run / "init.safetensors").write_bytes(changed[:-1] + b"\0")
    with pytest.raises(DamageError, match="is not what the run began with"):
        prepare(config, windows, members, run, Silent())


def test_an_initial_run_that_does_not_fit_is_refused(
    first_stage: Path, tmp_path: Path, store: ZarrStore, labels: Labels
) -> None:
    with pytest.raises(HeadError, match="trained with embed=8, not 4"):
        begin(tmp_path / "a", store, labels, ALL, "embed=4", init=first_stage)
    with pytest.raises(HeadError, match=r"has learned from \d+ of the val videos"):
        begin(tmp_path / "b", store, labels, ALL, init=first_stage, split_seed=5)
    with pytest.raises(HeadError, match="standardise=false"):
        begin(tmp_path / "c", store, labels, ALL, "standardise=true", init=first_stage)
    with pytest.raises(HeadError, match="is a run of asf, not of stld"):
        plan_run("stld", [store], labels, sets=ALL, init=first_stage)
    with pytest.raises(HeadError, match="is no training run"):
        begin(tmp_path / "d", store, labels, ALL, init=tmp_path)
    unfinished = begin(tmp_path / "unfinished", store, labels, ALL)
    with pytest.raises(HeadError, match="has no weights yet"):
        begin(tmp_path / "e", store, labels, ALL, init=unfinished)
    other = Labels(("x", "y", "z"), labels.videos)
    with pytest.raises(HeadError, match="trained on other classes"):
        begin(tmp_path / "f", store, other, ALL, init=first_stage)
    longer = write_one(tmp_path / "longer.zarr", sampled_spec(4, "1x1", window=32))
    with pytest.raises(SpecMismatchError, match="window 32 is not 16"):
        begin(tmp_path / "g", longer, labels, [name_of(4)], init=first_stage)
    run = begin(tmp_path / "h", store, labels, ALL, init=first_stage)
    plain = begin(tmp_path / "i", store, labels, ALL)
    with pytest.raises(HeadError, match="begun with init"):
        require_resumable(run, read_config(plain))


def write_one(path: Path, spec: Any, name: str = name_of(4)) -> ZarrStore:
    with ZarrWriter(path, {name: spec}) as writer:
        for number in range(16):
            entry = writer.video(f"v{number:02d}.mp4", {})
            times = clip_times(4, *(int(word) for word in (spec.view or "1x1").split("x")))
            entry.append(name, Rows(np.zeros((len(times), *spec.row_shape), np.float32), times))
            entry.commit()
    return ZarrStore(path)


def test_two_stages_learn_and_are_tested_on_all_30_views(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    first = begin(tmp_path / "first", store, labels, [name_of(4)], "epochs=15", "checkpoint_seconds=60")
    carry_out(first, device=CPU, observer=Silent())
    second = begin(tmp_path / "second", store, labels, ALL, "epochs=5", "checkpoint_seconds=60", init=first)
    result = carry_out(second, device=CPU, observer=Silent())
    assert result["val"]["protocol"] == "video-map"
    assert result["val"]["score"] > 0.8
    scores = open_store(Path(result["predictions"]["test"]))
    document = scores.attachment("prediction")
    assert document is not None
    assert document["views"] == "mean"
    assert sorted(document["features"]) == sorted(ALL)
    for video in scores["scores"]:
        assert scores["scores"].times(video).tolist() == [[0.0, 20.0]]
    # The run of speed 4 sees the other speeds too, where they are asked for by name.
    run = load_run(first)
    predict_store(run, [store], tmp_path / "own.zarr", device=CPU)
    predict_store(run, [store], tmp_path / "all.zarr", sets=ALL, device=CPU)
    predict_store(run, [store], tmp_path / "r8.zarr", sets=[name_of(8)], device=CPU)
    r2 = tmp_path / "r2.zarr"
    predict_store(run, [store], r2, sets=[name_of(2)], device=CPU)
    own, every, slow, fast = (
        open_store(tmp_path / f"{name}.zarr")["scores"].read("v01.mp4").features for name in ("own", "all", "r8", "r2")
    )
    np.testing.assert_allclose(every, (12 * own + 9 * slow + 9 * fast) / 30, rtol=1e-5)


def test_a_video_that_one_speed_lacks_is_scored_from_the_others(tmp_path: Path, labels: Labels) -> None:
    store = write_sampled(tmp_path / "s.zarr", labels, lacking={2: ["v00", "v05"]})
    options, training = split_settings(Asf, [*SMALL, "epochs=1"])
    plan = plan_run("asf", [store], labels, options=options, training=training, sets=ALL)
    assert f"{name_of(2)}: 2 videos lack it; they are seen at the other speeds alone" in plan.notes
    windows = windows_of(store, labels, ALL)
    counts = Counter(windows.video_I.tolist())
    assert (counts[0], counts[5], counts[1]) == (21, 21, 30)
    batches = windows.scoring_batches([0, 1], batch_size=64)
    assert Counter(video for crops in batches for video in windows.batch(crops).videos) == {
        "v00.mp4": 21, "v01.mp4": 30
    }  # fmt: skip


def test_a_run_says_how_many_views_there_are_and_that_they_are_fixed(store: ZarrStore, labels: Labels) -> None:
    options, training = split_settings(Asf, SMALL)
    plan = plan_run("asf", [store], labels, options=options, training=training, sets=ALL)
    notes = " | ".join(plan.notes)
    assert "views: 30 of every video (12 at speed 4 + 9 at speed 2 + 9 at speed 8); the mean probability" in notes
    assert "no jitter and no flip" in notes
    assert "drawn from 4, 2, 8" in notes
    untimed = Labels(labels.classes, {video: VideoLabels.of([], video_level=(0,)) for video in labels.videos})
    notes = " | ".join(plan_run("asf", [store], untimed, options=options, training=training, sets=ALL[:1]).notes)
    assert "a clip is trained with all labels of its video" in notes
    assert "each batch is of one speed" not in notes


def test_clip_sampled_sets_are_taken_by_name_alone_and_never_by_a_head_that_cannot_use_them(
    tmp_path: Path, store: ZarrStore
) -> None:
    with pytest.raises(HeadError, match=r"taken by name: --sets net\.rgb\.map\.r2,net\.rgb\.map\.r4"):
        choose_sources(Stld, [store])
    clips = write_one(tmp_path / "clips.zarr", sampled_spec(4, "4x3", "clip"), name_of(4, "clip"))
    with pytest.raises(HeadError, match=r"mlad takes no clip-sampled sets, and net\.rgb\.clip\.r4 has 4x3 clips x"):
        choose_sources(Mlad, [clips], [name_of(4, "clip")])
    with pytest.raises(HeadError, match="there is net"):
        choose_sources(Mlad, [clips])
    assert len(choose_sources(MeanPool, [clips], [name_of(4, "clip")])) == 1
    for name in HEADS:
        head = head_class(name)
        assert head.views is None or head.level == "video"
    dense = write_one(tmp_path / "dense.zarr", sampled_spec(1, ""), "net.rgb.map")
    assert [source.features.name for source in choose_sources(Stld, [store, dense])] == ["net.rgb.map"]
    with pytest.raises(HeadError, match=r"net\.rgb\.map is dense and net\.rgb\.map\.r4 clip-sampled"):
        choose_sources(Stld, [store, dense], ["net.rgb.map", name_of(4)])
    other = write_one(tmp_path / "other.zarr", sampled_spec(16, "1x1", window=32), name_of(16))
    with pytest.raises(HeadError, match=r"r16 cannot be seen in place of net\.rgb\.map\.r4: window 32 is not 16"):
        choose_sources(Stld, [store, other], [name_of(4), name_of(16)])


def test_a_run_on_dense_maps_sees_no_clips(tmp_path: Path, store: ZarrStore, labels: Labels) -> None:
    dense = write_one(tmp_path / "dense.zarr", sampled_spec(1, ""), "net.rgb.map")
    run = begin(tmp_path / "run", dense, labels, [], "epochs=1")
    carry_out(run, device=CPU, observer=Silent())
    with pytest.raises(HeadError, match=r"trained on net\.rgb\.map, which is dense"):
        predict_store(load_run(run), [store], tmp_path / "p.zarr", sets=ALL, device=CPU)
    longer = write_one(tmp_path / "longer.zarr", sampled_spec(4, "1x1", window=32))
    begin(tmp_path / "clips", store, labels, [name_of(4)], "epochs=1")
    carry_out(tmp_path / "clips", device=CPU, observer=Silent())
    with pytest.raises(SpecMismatchError, match=r"not what the head was trained on .*: window 32 is not 16"):
        predict_store(load_run(tmp_path / "clips"), [longer], tmp_path / "p.zarr", sets=[name_of(4)], device=CPU)
    with pytest.raises(HeadError, match=r"there is no set 'x'; there is net"):
        predict_store(load_run(tmp_path / "clips"), [store], tmp_path / "p.zarr", sets=["x"], device=CPU)
    assert not (tmp_path / "p.zarr").exists()


def test_two_streams_of_one_speed_stand_side_by_side(tmp_path: Path, labels: Labels) -> None:
    """Flow with twice the steps: each grid row gets the mean of the two that it covers, of its own clip and crop."""
    specs = {name_of(4): sampled_spec(4, "2x3"), "net.flow.map.r4": sampled_spec(4, "2x3", stream="flow")}
    random = np.random.default_rng(0)
    rows = {
        name: random.normal(size=(2 * 3 * steps, 2, 2, WIDTH)).astype(np.float32)
        for name, steps in zip(specs, (2, 4), strict=True)
    }
    with ZarrWriter(tmp_path / "s.zarr", specs) as writer:
        entry = writer.video("v00.mp4", {})
        for (name, features), steps in zip(rows.items(), (2, 4), strict=True):
            entry.append(name, Rows(features, clip_times(4, 2, 3, steps)))
        entry.commit()
    store = ZarrStore(tmp_path / "s.zarr")
    for resident in (True, False):
        windows = SampledWindows(choose_sources(Asf, [store], list(specs)), ["v00.mp4"], device=CPU, resident=resident)
        assert windows.shapes == {"map": (2, 2, 2 * WIDTH)}
        (crops,) = windows.scoring_batches([0], batch_size=9)
        values = windows.batch(crops).features["map"].numpy()
        rgb, flow = rows.values()
        paired = flow.reshape(6, 2, 2, 2, 2, WIDTH).mean(2)
        np.testing.assert_allclose(values, np.concatenate([rgb.reshape(6, 2, 2, 2, WIDTH), paired], -1), rtol=1e-5)
