"""Videos as a store of clips: the rows and times of extraction, kept plans, and frames in order from any workers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extract.accounts import Observer
from extract.augment import Augment, erased, flow_view, generator
from extract.backbone import Backbone, BackboneError
from extract.clip_fillings import Clips
from extract.clip_reader import ClipReader, Part, _Reading, passes
from extract.clips import ClipStore, PictureSet, SoundSet, clip_store
from extract.extract_options import ExtractOptions
from extract.flow import whole_flow
from extract.i3d import InceptionI3d
from extract.inputs import VideoInput, enumerate_videos
from extract.messages import Wanted
from extract.pipeline import extract_videos
from extract.plan import Plan, make_plan
from extract.plan_networks import clip_settings
from extract.transform import resize_and_crop
from extract.views import Views
from extract.worker_events import Event, Finished
from extract.workers import DecodePool, _Worker
from stores import open_store
from stores.errors import DamageError, StoreError
from stores.spec import Granularity
from tests.extract import narrow
from tests.extract.video_files import wave, write_video

LENGTHS = {"a.mp4": 31, "b.mp4": 20, "c.mp4": 45}
PAIR = ("resnet18", "r2plus1d_18")


@pytest.fixture(scope="module", autouse=True)
def narrow_networks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        narrow.stand_in(patch)
        yield


def picture(index: int) -> NDArray[np.uint8]:
    """A shot of 12 frames, then another one; within a shot every frame is another one."""
    coarse = np.random.default_rng(index // 12).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.roll(np.kron(coarse, np.ones((12, 12, 1), np.uint8)), 2 * index, axis=1)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, frames in LENGTHS.items():
        write_video(folder / name, fps=12, frames=frames, draw=picture)
    return folder


def plan_for(backbones: Sequence[str], level: str, **options: object) -> Plan:
    named = {"levels": (Granularity(level),), "dtype": "float32", "planes": False, **options}
    return make_plan(ExtractOptions(backbones=tuple(backbones), **named))  # type: ignore[arg-type]


def opened(folder: Path, plan: Plan, path: Path) -> ClipStore:
    return clip_store(path, enumerate_videos([folder]).videos, plan)


@pytest.fixture(scope="module")
def scenes(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipStore]:
    store = opened(videos, plan_for(PAIR, "scene"), tmp_path_factory.mktemp("plans") / "clips.json")
    yield store
    store.close()


WINDOWED = {"dense": "windowed", "fps": {"": 10.0}, "window": {"": 8}, "stride": {"": 6}}


@pytest.mark.parametrize(
    ("backbones", "level", "options"),
    [
        (PAIR, "scene", {}),
        (("r2plus1d_18",), "clip", WINDOWED),
        (("resnet18",), "frame", {"fps": {"": 6.0}}),
        (("resnet18",), "map", {"fps": {"": 6.0}}),
        (("i3d",), "clip", {"dense": "convolutional"}),
        (("r2plus1d_18",), "map", {"dense": "windowed", "fps": {"": 10.0}, "window": {"": 16}}),  # 2 rows a clip
        (("r2plus1d_18",), "map", {"dense": "windowed", "fps": {"": 10.0}, "window": {"": 16}, "stride": {"": 24}}),
    ],
)
def test_rows_times_and_specs_are_those_of_extraction(
    videos: Path, tmp_path: Path, backbones: tuple[str, ...], level: str, options: dict[str, object]
) -> None:
    plan = plan_for(backbones, level, **options)
    extract_videos(enumerate_videos([videos]).videos, [], plan, tmp_path / "f.zarr", observer=Observer())
    stored, clips = open_store(tmp_path / "f.zarr"), opened(videos, plan, tmp_path / "clips.json")
    assert list(clips) == list(stored)
    for name in stored:
        assert clips[name].spec == stored[name].spec
        assert list(clips[name]) == list(stored[name]) == sorted(LENGTHS)
        for video in stored[name]:
            features, times = stored[name].read(video)
            assert clips[name].entry(video).num_rows == len(features) > 1
            np.testing.assert_array_equal(clips[name].times(video), times)
            np.testing.assert_array_equal(clips[name].read(video).features, features)
            made = clips[name].layout(video).clips(0, len(features))
            assert sum(clip.stop - clip.first for clip in made) == len(features)


def whole(clips: ClipStore, names: Sequence[str]) -> list[Part]:
    first = next(iter(clips.sets.values()))
    return [part(clips, name, 0, first.entry(name).num_rows) for name in names]


def part(clips: ClipStore, video: str, start: int, stop: int) -> Part:
    """The same rows of every set."""
    return video, dict.fromkeys(clips, (start, stop))


def backbone_of(clips: ClipStore, name: str) -> Backbone:
    of = clips[name]
    assert isinstance(of, PictureSet)
    return of.network.backbone


def test_frames_are_those_that_the_definition_names(videos: Path, scenes: ClipStore) -> None:
    """Cuts lie at frames 12 and 24; of n frames from f on the middles of P parts are f + floor((2k + 1) n / 2P)."""
    with av.open(str(videos / "a.mp4")) as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    expected: dict[str, list[list[int]]] = {"resnet18.rgb.scene": [], "r2plus1d_18.rgb.scene": []}
    for first, count in ((0, 12), (12, 12), (24, 7)):
        expected["resnet18.rgb.scene"].append([first + count // 2])
        expected["r2plus1d_18.rgb.scene"].append([first + (2 * k + 1) * count // 24 for k in range(12)])
    (given,) = ClipReader(scenes).read([part(scenes, "a.mp4", 0, 3)])
    for name, rows in expected.items():
        clip = backbone_of(scenes, name).clip
        frames, index, _ = given[name]
        wanted = torch.from_numpy(decoded[np.array(rows)])
        for row, of_row in zip(frames[torch.stack(index)], wanted, strict=True):
            assert torch.equal(row, resize_and_crop(of_row, clip.resize, clip.crop))


def test_of_maps_a_part_names_the_rows_of_its_clips(videos: Path, tmp_path: Path) -> None:
    """At 10 frames a second c.mp4 has 38: two clips of 16 with 2 maps each, and one of 6 frames with 1."""
    plan = plan_for(("r2plus1d_18",), "map", dense="windowed", fps={"": 10.0}, window={"": 16})
    clips = opened(videos, plan, tmp_path / "clips.json")
    name = "r2plus1d_18.rgb.map"
    assert clips[name].entry("c.mp4").num_rows == 5
    every, middle, end = ClipReader(clips).read(
        [part(clips, "c.mp4", 0, 5), part(clips, "c.mp4", 1, 4), part(clips, "c.mp4", 3, 5)]
    )
    frames, index, wanted = every[name]
    assert wanted.tolist() == [[0, 2], [0, 2], [0, 1]]
    assert [of.tolist() for of in index] == [[*range(16)], [*range(16, 32)], [*range(32, 38), *[37] * 10]]
    some, index, wanted = middle[name]
    assert wanted.tolist() == [[1, 2], [0, 2]]
    assert [of.tolist() for of in index] == [[*range(16)], [*range(16, 32)]]
    assert torch.equal(some, frames[:32])
    some, index, wanted = end[name]
    assert wanted.tolist() == [[1, 2], [0, 1]]
    assert [of.tolist() for of in index] == [[*range(16)], [*range(16, 22), *[21] * 10]]
    assert torch.equal(some, frames[16:])
    clips.close()


@pytest.mark.parametrize("level", ["clip", "map"])
def test_tiles_give_the_rows_of_one_convolution_over_the_whole_video(tmp_path: Path, level: str) -> None:
    """130 frames are 17 rows; with 48 frames of context a tile of 2 rows in the middle has 112."""
    write_video(tmp_path / "long.mp4", fps=12, frames=130, draw=picture)
    plan = plan_for(("i3d",), level, dense="convolutional")
    store = clip_store(tmp_path / "clips.json", enumerate_videos([tmp_path]).videos, plan, tile_rows=2)
    (name,) = store
    network, stored = backbone_of(store, name), store[name].read("long.mp4").features
    assert len(stored) == 17
    parts = [part(store, "long.mp4", 0, 17), part(store, "long.mp4", 7, 10)]
    for (start, stop), given in zip([(0, 17), (7, 10)], ClipReader(store).read(parts), strict=True):
        frames, index, wanted = given[name]
        made = []
        for of, (first, last) in zip(index, wanted.tolist(), strict=True):
            with torch.inference_mode():
                rows = network(frames[of][None], frozenset({Granularity(level)}), True)[Granularity(level)]
            made.append(rows[0, first:last].numpy())
        np.testing.assert_allclose(np.concatenate(made), stored[start:stop], rtol=1e-4, atol=1e-5)
    assert [len(of) for of in index] == [112, 104]
    assert [tuple(of) for of in wanted.tolist()] == [(6, 8), (6, 7)]
    assert stored.std() > 0.01
    store.close()


FLOW: dict[str, Any] = {"streams": ("flow",), "dense": "windowed", "stride": {"": 24}}  # of windows of 16 frames


@pytest.fixture(scope="module")
def flowing(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClipStore]:
    pytest.importorskip("cv2", reason="OpenCV, the extra 'flow'")
    folder = tmp_path_factory.mktemp("flowing")
    (folder / "c.mp4").write_bytes((videos / "c.mp4").read_bytes())
    write_video(folder / "one.mp4", fps=12, frames=1, draw=picture)
    store = opened(folder, plan_for(("i3d",), "clip", **FLOW), folder / "clips.json")
    yield store
    store.close()


def test_flow_has_the_rows_and_times_of_extraction_too(flowing: ClipStore, tmp_path: Path) -> None:
    inputs = list(flowing.inputs.values())
    extract_videos(inputs, [], flowing.plan, tmp_path / "f.zarr", observer=Observer())
    stored = open_store(tmp_path / "f.zarr")
    assert list(stored) == list(flowing) == ["i3d.flow.clip"]
    mine, theirs = flowing["i3d.flow.clip"], stored["i3d.flow.clip"]
    assert mine.spec == theirs.spec
    assert [mine.entry(video).num_rows for video in mine] == [2, 1]
    for video in mine:
        np.testing.assert_array_equal(mine.times(video), theirs.times(video))
        np.testing.assert_array_equal(mine.read(video).features, theirs.read(video).features)


@pytest.mark.parametrize("augment", ["none", "jitter", "stan"])
def test_flow_is_that_of_the_whole_video(flowing: ClipStore, augment: Augment) -> None:
    """Of windows at 0 and 24 of 45 frames at 12 a second, the second up to frame 39; both read by themselves, too."""
    name = "i3d.flow.clip"
    of = flowing[name]
    assert isinstance(of, PictureSet)
    assert of.network.flow is not None
    with av.open(str(flowing.inputs["c.mp4"].path)) as container:
        decoded = torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]))
    clip = of.network.backbone.clip
    seed = next(seed for seed in range(9) if generator(seed, 2, "c.mp4", 0, "i3d").random() > 0.5)  # stan erases then
    draw = None if augment == "none" else (seed, 2)
    random = generator(*(draw or (0, 0)), "c.mp4", 0, "i3d")
    view = flow_view(decoded.shape[1], decoded.shape[2], clip, augment, random)
    flow = view.of_flow(whole_flow(of.network.flow.method, view.before_flow(decoded), view.short))
    if augment == "stan":
        whole, flow = flow, erased(flow.clone(), clip, random)
        assert not torch.equal(whole, flow)
    reader = ClipReader(flowing, augment=augment)
    parts = [part(flowing, "c.mp4", 0, 2), part(flowing, "c.mp4", 1, 2)]
    both, second = reader.read(parts, draw=draw)
    (alone,) = reader.read(parts[1:], draw=draw)
    frames, (first_T, second_T), _ = both[name]
    assert torch.equal(frames[first_T], flow[:16])
    assert torch.equal(frames[second_T], flow[24:40])
    for given in (second, alone):
        assert torch.equal(given[name][0][given[name][1][0]], flow[24:40])
    assert bool((flow != 128).any())


def test_the_last_frame_has_the_flow_of_the_one_before_and_a_single_one_none(flowing: ClipStore) -> None:
    plan = plan_for(("i3d",), "clip", **{**FLOW, "stride": {"": 16}})  # the third window has frames 32 to 44
    longer = ClipStore(flowing.path, list(flowing.inputs.values()), plan, flowing.plans)
    end, one = ClipReader(longer).read([part(longer, "c.mp4", 2, 3), part(longer, "one.mp4", 0, 1)])
    frames, (index,), _ = end["i3d.flow.clip"]
    assert index.tolist() == [*range(13), 12, 12, 12]
    assert torch.equal(frames[12], frames[11])
    assert not torch.equal(frames[11], frames[10])
    assert bool((one["i3d.flow.clip"][0] == 128).all())
    longer.close()


def test_maps_alone_lie_side_by_side() -> None:
    """Clips of 64 frames every 8 would give each of I3D's maps of 8 frames eight times over."""
    options = ExtractOptions(backbones=("i3d",), dense="windowed")
    assert clip_settings("i3d", InceptionI3d.clip, (Granularity.MAP,), options) == (64, 64, False)
    assert clip_settings("i3d", InceptionI3d.clip, (Granularity.CLIP,), options) == (8, 64, False)
    with pytest.raises(BackboneError, match="map rows of i3d would overlap"):
        clip_settings("i3d", InceptionI3d.clip, (Granularity.CLIP, Granularity.MAP), options)


@pytest.mark.parametrize("augment", ["none", "jitter"])
def test_neighbouring_parts_of_a_video_share_a_pass_and_are_what_each_is_alone(
    scenes: ClipStore, monkeypatch: pytest.MonkeyPatch, augment: str
) -> None:
    parts = [
        part(scenes, "c.mp4", 0, 2),
        part(scenes, "c.mp4", 1, 4),
        part(scenes, "c.mp4", 1, 2),
        part(scenes, "a.mp4", 0, 3),
        part(scenes, "c.mp4", 3, 4),
    ]
    reader = ClipReader(scenes, augment=augment, workers=2)  # type: ignore[arg-type]
    begun: list[str] = []
    real = _Worker.assign

    def assign(worker: _Worker, video: VideoInput, wanted: Wanted | None) -> None:
        begun.append(video.path.name)
        real(worker, video, wanted)

    monkeypatch.setattr(_Worker, "assign", assign)
    together = flat(reader.read(parts, draw=(3, 1)))
    assert begun == ["c.mp4", "a.mp4", "c.mp4"]
    alone = [tensor for part in parts for tensor in flat(reader.read([part], draw=(3, 1)))]
    assert len(together) == len(alone)
    assert all(torch.equal(left, right) for left, right in zip(together, alone, strict=True))
    monkeypatch.setattr("extract.clip_reader.TOGETHER", 2 * 13 + 3 * 13)  # a scene has 12 frames and one
    assert passes(parts, scenes) == [range(2), range(2, 3), range(3, 4), range(4, 5)]


def test_decoding_ends_with_the_last_wanted_frame(scenes: ClipStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The frames of the first scene of c.mp4 end at 12 of 45; one more shows that they do."""
    counted: list[int] = []
    real = _Reading._run

    def run(reading: _Reading) -> None:
        events = DecodePool.__iter__

        def noted(pool: DecodePool) -> Iterator[Event]:
            for event in events(pool):
                if isinstance(event, Finished):
                    counted.append(event.frames_decoded)
                yield event

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(DecodePool, "__iter__", noted)
            real(reading)

    monkeypatch.setattr(_Reading, "_run", run)
    list(ClipReader(scenes).read([part(scenes, "c.mp4", 0, 1)]))
    list(ClipReader(scenes).read([part(scenes, "c.mp4", 0, 4)]))
    assert 12 <= counted[0] <= 13
    assert counted[1] == 45


def flat(given: Iterator[dict[str, Clips]]) -> list[torch.Tensor]:
    return [
        tensor
        for part in given
        for name in sorted(part)
        for frames, index, wanted in [part[name]]
        for tensor in (frames, torch.stack(index), wanted)
    ]


@pytest.mark.parametrize("augment", ["stan", "jitter"])
def test_any_number_of_workers_gives_the_same_frames_in_the_same_order(scenes: ClipStore, augment: str) -> None:
    parts = [
        *whole(scenes, ["c.mp4", "a.mp4", "b.mp4"]),
        part(scenes, "a.mp4", 1, 2),
        part(scenes, "c.mp4", 0, 2),
        part(scenes, "a.mp4", 1, 2),
    ]
    one, three = (
        flat(ClipReader(scenes, augment=augment, workers=workers).read(parts, draw=(5, 2)))  # type: ignore[arg-type]
        for workers in (1, 3)
    )
    assert len(one) == len(three) == 2 * 3 * len(parts)
    assert all(torch.equal(left, right) for left, right in zip(one, three, strict=True))


def test_draws_differ_between_epochs_and_seeds_and_not_between_batches(scenes: ClipStore) -> None:
    reader = ClipReader(scenes, augment="jitter")
    every = whole(scenes, ["c.mp4"])
    first, again, epoch, seed = (flat(reader.read(every, draw=draw)) for draw in ((0, 0), (0, 0), (0, 1), (1, 0)))
    assert all(torch.equal(left, right) for left, right in zip(first, again, strict=True))
    assert not torch.equal(first[0], epoch[0])
    assert not torch.equal(first[0], seed[0])
    (second,) = reader.read([part(scenes, "c.mp4", 1, 2)], draw=(0, 0))
    frames, index, _ = second["r2plus1d_18.rgb.scene"]
    of_all, of_rows = first[0], first[1]  # sorted by name, r2plus1d_18 comes first
    assert torch.equal(frames[index[0]], of_all[of_rows][1])  # a scene is changed alike whatever is read beside it


@pytest.fixture(scope="module")
def heard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos with 4 seconds of sound, with half a second, which is less than an example has, and without sound."""
    folder = tmp_path_factory.mktemp("heard")
    for name, frames, seconds in (("a.mp4", 48, 4.0), ("b.mp4", 24, 0.5), ("c.mp4", 24, 0.0)):
        samples = np.random.default_rng(frames).uniform(-0.5, 0.5, int(16_000 * seconds))
        write_video(folder / name, fps=12, frames=frames, draw=picture, sound=wave(samples), sound_codec="aac")
    return folder


@pytest.mark.parametrize("rate", [None, 2.0])
@pytest.mark.parametrize("backbones", [("vggish",), ("resnet18", "vggish")])
def test_sound_has_the_rows_and_times_of_extraction_too(
    heard: Path, tmp_path: Path, backbones: tuple[str, ...], rate: float | None
) -> None:
    plan = plan_for(
        backbones, "frame", fps={**({"vggish": rate} if rate else {}), **dict.fromkeys(backbones[:-1], 4.0)}
    )
    extract_videos(enumerate_videos([heard]).videos, [], plan, tmp_path / "f.zarr", observer=Observer())
    stored, clips = open_store(tmp_path / "f.zarr"), opened(heard, plan, tmp_path / "clips.json")
    assert list(clips) == list(stored)
    for name in stored:
        assert clips[name].spec == stored[name].spec
        assert list(clips[name]) == list(stored[name])
        assert len(clips[name]) == len(list(stored[name]))
        for video in stored[name]:
            features, times = stored[name].read(video)
            assert clips[name].entry(video).num_rows == len(features) > 0
            np.testing.assert_array_equal(clips[name].times(video), times)
            np.testing.assert_array_equal(clips[name].read(video).features, features)
    assert list(clips["vggish.audio.frame"]) == ["a.mp4", "b.mp4"]
    assert [failure for failure in clips.failures() if failure.video == "c.mp4"] == stored.failures()
    assert clips.failures() == opened(heard, plan, tmp_path / "clips.json").failures()
    clips.close()


def test_examples_of_sound_give_its_rows_whatever_they_are_read_beside(heard: Path, tmp_path: Path) -> None:
    """At 2 rows a second 4 seconds of sound have rows at 0, 0.5, .. 3: seven whole examples of 15,600
    samples; the first two end at sample 8,000 + 15,600."""
    plan = plan_for(("resnet18", "vggish"), "frame", fps={"resnet18": 4.0, "vggish": 2.0})
    clips = opened(heard, plan, tmp_path / "clips.json")
    sound, pictures = "vggish.audio.frame", "resnet18.rgb.frame"
    of = clips[sound]
    assert isinstance(of, SoundSet)
    expected = of.read("a.mp4").features
    assert len(expected) == 7
    asked = [(0, 7), (2, 4), (6, 7), (0, 0)]
    reader = ClipReader(clips, augment="jitter")
    together = list(reader.read([("a.mp4", {sound: rows, pictures: (1, 3)}) for rows in asked], draw=(1, 1)))
    for rows, given in zip(asked, together, strict=True):
        examples, index, wanted = given[sound]
        assert examples.shape == (rows[1] - rows[0], 96, 64)
        assert wanted.tolist() == [[0, 1]] * len(examples)
        assert len(given[pictures][1]) == 2
        (alone,) = reader.read([("a.mp4", {sound: rows, pictures: (1, 3)})], draw=(1, 1))
        assert torch.equal(alone[sound][0], examples)
        if index:
            with torch.inference_mode():
                made = of.backbone(examples[torch.stack(index)], frozenset({Granularity.FRAME}))[Granularity.FRAME]
            np.testing.assert_allclose(made[:, 0].numpy(), expected[slice(*rows)], rtol=1e-4, atol=1e-6)
    (silent,) = reader.read([("c.mp4", {sound: (0, 0), pictures: (0, 2)})])
    assert silent[sound][0].shape == (0, 96, 64)
    assert len(silent[pictures][1]) == 2
    other = ClipStore(clips.path, [VideoInput("a.mp4", heard / "b.mp4")], plan, clips.plans)
    with pytest.raises(BackboneError, match=r"'a\.mp4' gave \d+ of 23600 samples of sound: it is not the file"):
        list(ClipReader(other).read([("a.mp4", {sound: (0, 2), pictures: (0, 0)})]))
    other.close()
    clips.close()


def test_plans_are_kept_and_made_anew_where_the_file_changed(videos: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes((videos / name).read_bytes())
    plan, said = plan_for(("resnet18",), "scene"), list[str]()
    found = enumerate_videos([tmp_path]).videos

    def look() -> ClipStore:
        return clip_store(tmp_path / "clips.json", found, plan, report=said.append)

    first = look()
    second = look()
    assert said == ["2 of 2 videos are looked through for their scenes"]
    assert second.plans == first.plans
    (tmp_path / "a.mp4").write_bytes((videos / "c.mp4").read_bytes())
    third = look()
    assert said[1:] == ["1 of 2 videos are looked through for their scenes"]
    assert third.snapshot_id != first.snapshot_id
    assert third["resnet18.rgb.scene"].entry("b.mp4") == first["resnet18.rgb.scene"].entry("b.mp4")
    other = replaced(third, videos / "b.mp4")
    with pytest.raises(BackboneError, match=r"'a\.mp4' gave 2 of 4 frames: it is not the file"):
        list(ClipReader(other).read([part(other, "a.mp4", 0, 4)]))
    other.close()
    (tmp_path / "clips.json").write_text(json.dumps({"videos": 3}))
    with pytest.raises(DamageError, match="holds no plans of clips"):
        look()


def test_who_may_not_look_takes_what_another_process_found(videos: Path, tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes((videos / name).read_bytes())
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(4000))
    plan, path, said = plan_for(("resnet18",), "scene"), tmp_path / "clips.json", list[str]()
    found = enumerate_videos([tmp_path]).videos
    first = opened(tmp_path, plan, path)
    kept = path.stat()
    second = clip_store(path, found, plan, report=said.append, look=False)
    assert second.plans == first.plans
    assert list(second["resnet18.rgb.scene"]) == ["a.mp4", "b.mp4"]
    assert said == []  # nobody looks at bad.mp4 again
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)
    (tmp_path / "a.mp4").write_bytes((videos / "c.mp4").read_bytes())
    with pytest.raises(StoreError, match=r"a\.mp4' has another size or time than the file that was looked through"):
        clip_store(path, found, plan, look=False)


def replaced(clips: ClipStore, path: Path) -> ClipStore:
    """The same plans, though a.mp4 is another file by now."""
    inputs = [VideoInput("a.mp4", path)]
    return ClipStore(clips.path, inputs, clips.plan, clips.plans)


def test_a_video_that_cannot_be_decoded_is_a_failure_and_no_row(videos: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"\0\0\0\x18ftypisom" + bytes(4000))
    (tmp_path / "b.mp4").write_bytes((videos / "b.mp4").read_bytes())
    clips = opened(tmp_path, plan_for(("resnet18",), "scene"), tmp_path / "clips.json")
    assert [failure.video for failure in clips.failures()] == ["bad.mp4"]
    assert list(clips["resnet18.rgb.scene"]) == ["b.mp4"]


def test_whoever_stops_reading_leaves_nothing_running(scenes: ClipStore) -> None:
    before = threading.active_count()
    reading = ClipReader(scenes, workers=2).read(whole(scenes, sorted(LENGTHS)) * 20)
    assert len(list(islice(reading, 2))) == 2
    reading.close()
    assert threading.active_count() == before


def test_decode_processes_stay_from_one_reading_to_the_next(videos: Path, tmp_path: Path) -> None:
    """One that died while it had nothing to do, and those of a reading that was left, are replaced."""
    clips = opened(videos, plan_for(("resnet18",), "scene"), tmp_path / "clips.json")
    reader, parts = ClipReader(clips, workers=2), whole(clips, sorted(LENGTHS))
    first = flat(reader.read(parts))
    (one, two) = clips.idle._workers
    assert all(torch.equal(left, right) for left, right in zip(first, flat(reader.read(parts)), strict=True))
    assert {*clips.idle._workers} == {one, two}
    two.process.kill()
    two.process.wait()
    assert all(torch.equal(left, right) for left, right in zip(first, flat(reader.read(parts)), strict=True))
    assert one in clips.idle._workers
    assert two not in clips.idle._workers
    left = reader.read(parts * 20)
    next(left)
    left.close()
    assert all(worker.video is None for worker in clips.idle._workers)
    kept = [worker.process for worker in clips.idle._workers]
    clips.close()
    assert one.process.poll() is not None
    assert all(process.poll() is not None for process in kept)
    assert all(torch.equal(left, right) for left, right in zip(first, flat(reader.read(parts)), strict=True))
    clips.close()


def test_a_pass_whose_decoder_died_is_begun_anew_and_gives_the_same(tmp_path: Path) -> None:
    """It is the first of many, so that others wait for their turn to be taken; and frames of it had come."""
    bad, marker = tmp_path / "v" / "crash70_once.mp4", tmp_path / "v" / "crash70_once.marker"
    bad.parent.mkdir()
    for path in (bad, bad.with_name("good.mp4")):
        write_video(path, fps=12, frames=90, draw=picture)
    marker.touch()  # as if it had crashed before
    options = {"fps": {"": 12.0}, "decoder": "tests.extract.bad_decoders:Misbehaving"}
    clips = opened(tmp_path / "v", plan_for(("resnet18",), "frame", **options), tmp_path / "clips.json")
    parts = [part(clips, bad.name, 0, 90), *[part(clips, "good.mp4", 0, 9)] * 3] * 4
    reader = ClipReader(clips, workers=2)
    expected = flat(reader.read(parts))
    marker.unlink()
    found = flat(reader.read(parts))
    assert marker.exists()
    assert all(torch.equal(left, right) for left, right in zip(expected, found, strict=True))
    clips.close()


def test_no_more_is_decoded_ahead_than_there_is_room_for(scenes: ClipStore, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    real = _Worker.assign

    def assign(worker: _Worker, video: VideoInput, wanted: Wanted | None) -> None:
        begun.append(video.id)
        real(worker, video, wanted)

    monkeypatch.setattr(_Worker, "assign", assign)
    reading = ClipReader(scenes, workers=1).read(whole(scenes, ["b.mp4", "b.mp4", "a.mp4", "a.mp4"]) * 5)
    next(reading)
    threading.Event().wait(1.0)
    assert 2 <= len(begun) <= 1 + 2  # one worker's, and two ahead: of the first pass the second part is not taken yet
    next(reading)
    deadline = time.monotonic() + 30
    while len(begun) < 1 + 1 + 2:
        assert time.monotonic() < deadline
        threading.Event().wait(0.1)
    reading.close()


@pytest.mark.parametrize(
    ("backbones", "level", "options", "message"),
    [
        (("logmel",), "frame", {}, "logmel has nothing to learn: extract it, and give --features STORE"),
        (("i3d",), "clip", {"views": (Views(1, clips=2),)}, "is not trained on views or whitened rows"),
    ],
)
def test_what_has_no_frames_of_its_own_is_refused(
    tmp_path: Path, backbones: tuple[str, ...], level: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(BackboneError, match=message):
        clip_store(tmp_path / "clips.json", [], plan_for(backbones, level, **options))


def test_random_numbers_of_a_scene_are_its_own() -> None:
    keys = [(0, 0, "a", 0, "x"), (1, 0, "a", 0, "x"), (0, 1, "a", 0, "x"), (0, 0, "b", 0, "x"), (0, 0, "a", 1, "x")]
    drawn = {generator(*key).random() for key in [*keys, (0, 0, "a", 0, "y"), keys[0]]}
    assert len(drawn) == 6
