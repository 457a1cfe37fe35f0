"""Clip-sampled sets: which frames are a clip's, which part of a frame is a crop, and that rows are made of those."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.accounts import Observer, Summary
from extract.backbone import Backbone, BackboneError, ClipFormat
from extract.decode import DecodePlan, Limits
from extract.estimate import set_bytes
from extract.extract_options import ExtractOptions
from extract.extractors import Network
from extract.inputs import VideoInput, enumerate_videos
from extract.pipeline import extract_videos
from extract.plan import Plan, make_plan
from extract.transform import resize_and_crop, resize_and_crops
from extract.view_options import parse_views
from extract.views import Clips, Views, wanted_frames
from extract.worker_events import Counted, Failed, Finished, Frames
from extract.workers import DecodePool
from stores import open_store
from stores.samples import columns
from stores.spec import FeatureSpec, Granularity
from tests.extract.video_files import (
    bars,
    clicks,
    cut_head,
    damage,
    edit_list,
    hidden_frames,
    number,
    wave,
    write_video,
)


def slow_clip(num_frames: int, speed: int, clips: int, window: int, clip: int) -> list[int]:
    """The definition, one frame after the other, in whole numbers: halves go to the even start."""
    free = num_frames - ((window - 1) * speed + 1)
    top, bottom = (free, 2) if clips == 1 else (clip * free, clips - 1)
    start, rest = divmod(top, bottom)
    if 2 * rest > bottom or (2 * rest == bottom and start % 2 == 1):
        start += 1
    return [min(max(start + i * speed, 0), num_frames - 1) for i in range(window)]


@pytest.mark.parametrize("num_frames", [1, 5, 31, 32, 33, 125, 126, 200, 719, 172_801])
@pytest.mark.parametrize(("speed", "clips"), [(1, 10), (4, 4), (2, 3), (8, 3), (4, 1), (1, 2)])
def test_frames_of_clips_are_those_of_a_slow_loop(num_frames: int, speed: int, clips: int) -> None:
    found = Views(speed, clips).frames(num_frames, window=32)
    assert found.tolist() == [slow_clip(num_frames, speed, clips, 32, clip) for clip in range(clips)]
    if clips > 1:
        assert found[0, 0] == 0
        assert found[-1, -1] == num_frames - 1


def test_clip_starts_by_hand() -> None:
    # 32 frames at speed 4 are 125 frames in a row: of 425 frames 300 are free, so that clips start every 100.
    assert Views(4, clips=4).starts(425, window=32).tolist() == [0, 100, 200, 300]
    assert Views(4, clips=1).starts(425, window=32).tolist() == [150]
    assert Views(2, clips=3).starts(8, window=4).tolist() == [0, 0, 1]  # a half goes to the even 0
    assert Views(2, clips=3).starts(10, window=4).tolist() == [0, 2, 3]  # 1.5 to 2
    # 7 frames in a row of a video of 5: clips start up to 2 before it, and frames before it are the first one.
    assert Views(2, clips=3).frames(5, window=4).tolist() == [[0, 2, 4, 4], [0, 1, 3, 4], [0, 0, 2, 4]]


def test_the_30_views_are_12_and_9_and_9() -> None:
    found = parse_views("4,2,8", "4x3,3x3,3x3")
    assert [(views.speed, views.clips, views.crops) for views in found] == [(4, 4, 3), (2, 3, 3), (8, 3, 3)]
    assert sum(views.clips * views.crops for views in found) == 30
    assert parse_views(None, "10x3") == (Views(1, 10, 3),)
    assert parse_views("4,2", None) == (Views(4, 1, 1), Views(2, 1, 1))
    assert parse_views("4,2", "3x1") == (Views(4, 3, 1), Views(2, 3, 1))
    assert parse_views(None, None) == ()


@pytest.mark.parametrize(
    ("speeds", "views", "words"),
    [
        ("4,2,8", "4x3,3x3", "one view for each speed"),
        (None, "4x3,3x3", "one view for each speed"),
        ("4,4", None, "names a speed twice"),
        ("0", None, "not '0'"),
        ("4,,2", None, "empty entry"),
        ("2.5", None, "not '2.5'"),
        (None, "4x2", "1 or 3 crops"),
        (None, "0x3", "not '0x3'"),
        (None, "10", "clips x crops"),
        (None, "2000x1", "1 to 1000 clips"),
    ],
)
def test_views_without_sense_are_refused(speeds: str | None, views: str | None, words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        parse_views(speeds, views)


def test_crops_lie_left_centre_and_right_of_a_gradient() -> None:
    wide = torch.arange(20, dtype=torch.uint8).expand(1, 8, 20)[..., None].repeat(1, 1, 1, 3)
    left, centre, right = (crop[0, 0, :, 0].tolist() for crop in resize_and_crops(wide, 8, 8, crops=3))
    assert (left, centre, right) == (list(range(8)), list(range(6, 14)), list(range(12, 20)))
    upright = wide.transpose(1, 2)
    top, middle, bottom = (crop[0, :, 0, 0].tolist() for crop in resize_and_crops(upright, 8, 8, crops=3))
    assert (top, middle, bottom) == (list(range(8)), list(range(6, 14)), list(range(12, 20)))
    # The other side is centred: of 10 lines the first and the last are cut off.
    lines = torch.arange(10, dtype=torch.uint8)[None, :, None, None].expand(1, 10, 30, 3)
    for crop in resize_and_crops(lines, 10, 8, crops=3):
        assert crop[0, :, 0, 0].tolist() == list(range(1, 9))
    noise = torch.randint(0, 256, (2, 33, 47, 3), dtype=torch.uint8)
    assert torch.equal(resize_and_crops(noise, 24, 16, crops=3)[1], resize_and_crop(noise, 24, 16))


class Corners(Backbone):
    """The level of each colour of the upper left pixel, and of the frame's mean: rows that one can compute by hand."""

    name = "corners"
    clip = ClipFormat(fps=10.0, window=4, stride=2, resize=32, crop=32, mean=(0,) * 3, std=(1,) * 3, output_stride=2)
    row_shapes: ClassVar[Mapping[Granularity, tuple[int, ...]]] = {Granularity.CLIP: (6,), Granularity.MAP: (1, 1, 6)}
    default_weights = "none"

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(
        self, frames: Tensor, levels: frozenset[Granularity], convolutional: bool = False
    ) -> dict[Granularity, Tensor]:
        x_BCTHW = self.normalise(frames)
        x_BTD = torch.cat([x_BCTHW[..., 0, 0], x_BCTHW.mean((3, 4))], dim=1).transpose(1, 2)
        x_BRD = (x_BTD[:, ::2] + x_BTD[:, 1::2]) / 2
        rows = {Granularity.CLIP: x_BRD.mean(1, keepdim=True), Granularity.MAP: x_BRD[:, :, None, None]}
        return {level: rows[level] for level in levels}


def sampled_plan(views: tuple[Views, ...], fps: float | None = 10.0, batch: int = 2) -> Plan:
    backbone = Corners()
    networks = []
    for part in views:
        sets = {level: f"corners.rgb.{level}.r{part.speed}" for level in backbone.row_shapes}
        specs = {
            sets[level]: FeatureSpec(
                level, shape, dtype="float32", fps=fps, window=4, speed=part.speed, view=part.name, backbone="corners"
            )
            for level, shape in backbone.row_shapes.items()
        }
        networks.append(Network(backbone, sets, specs, fps, 1, 4, False, batch, tile=8, precision="fp32", views=part))
    return Plan(tuple(networks), (), {}, None, "pyav")


THIRTY = (Views(4, 4, 3), Views(2, 3, 3), Views(8, 3, 3))


def extracted(folder: Path, out: Path, plan: Plan) -> Summary:
    found = enumerate_videos([folder])
    return extract_videos(found.videos, found.failures, plan, out, observer=Observer())


def all_frames(
    path: Path, fps: float | None, allow_partial: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Every frame of a full decode at that rate, with its seconds."""
    images, times = [], []
    limits = Limits(allow_partial=allow_partial)
    with DecodePool([VideoInput(path.name, path)], DecodePlan(rates=(fps,)), workers=1, limits=limits) as pool:
        for event in pool:
            if isinstance(event, Frames):
                images.append(event.images.copy())
                times.append(event.times)
                event.release()
            assert not isinstance(event, Failed), event
    return np.concatenate(images), np.concatenate(times)


@pytest.mark.parametrize(("frames", "fps"), [(150, 10.0), (9, 10.0), (30, 60.0), (40, None)])
def test_rows_are_the_network_on_just_those_frames_of_a_full_decode(
    frames: int, fps: float | None, tmp_path: Path
) -> None:
    """A long video, one shorter than its clips (9 frames at 25 a second give 4 at 10), one whose frames are wanted
    several times each, and one of uneven rate."""
    (tmp_path / "v").mkdir()
    times = [0.04 * i + 0.013 * (i % 3) for i in range(frames)] if fps is None else None
    path = write_video(tmp_path / "v" / "a.mp4", frames=frames, times=times)  # 96 x 32: crops at 0, 32 and 64
    summary = extracted(tmp_path / "v", tmp_path / "s.zarr", sampled_plan(THIRTY, fps))
    assert summary.failures == []
    assert summary.frames_decoded == frames
    images, seconds = all_frames(path, fps)
    store = open_store(tmp_path / "s.zarr")
    for views in THIRTY:
        maps, clips = (store[f"corners.rgb.{level}.r{views.speed}"] for level in ("map", "clip"))
        rows, pooled = maps.read("a.mp4"), clips.read("a.mp4")
        assert len(rows.features) == 2 * views.clips * 3
        assert len(pooled.features) == views.clips * 3
        clip_N, crop_N = columns(maps.spec, len(rows.features), "a.mp4")
        place = 0
        for clip in range(views.clips):
            picked = slow_clip(len(images), views.speed, views.clips, 4, clip)
            for crop in range(3):
                seen = images[picked][:, :, 32 * crop : 32 * crop + 32].astype(np.float64) / 255
                of_frame = np.concatenate([seen[:, 0, 0], seen.mean((1, 2))], axis=1)
                expected = (of_frame[0::2] + of_frame[1::2]) / 2
                np.testing.assert_allclose(rows.features[place : place + 2, 0, 0], expected, atol=1e-5)
                np.testing.assert_allclose(pooled.features[place // 2], expected.mean(0), atol=1e-5)
                assert set(clip_N[place : place + 2]) == {clip}
                assert set(crop_N[place : place + 2]) == {crop}
                begins = [seconds[picked[0], 0], seconds[picked[2], 0]]
                ends = [max(seconds[picked[2], 0], seconds[picked[1], 1]), seconds[picked[3], 1]]
                np.testing.assert_allclose(rows.times[place : place + 2], np.stack([begins, ends], 1))
                np.testing.assert_allclose(pooled.times[place // 2], [begins[0], ends[1]])
                place += 2


def test_a_worker_hands_over_only_the_frames_of_the_clips(tmp_path: Path) -> None:
    """600 frames whose container promises other times than it keeps: 25 a second, from the 400th on 10."""
    times = [i / 25 if i < 400 else 16 + (i - 400) / 10 for i in range(600)]
    path = write_video(tmp_path / "a.mp4", frames=600, times=times)
    clips = (Clips(Views(2, 3), 4), Clips(Views(1, 2), 5))
    plan = DecodePlan(rates=(25.0, 10.0), clips=(clips, clips))
    shown: dict[int, list[int]] = {0: [], 1: []}
    counted, images = None, 0
    with DecodePool([VideoInput("a", path)], plan, workers=1) as pool:
        for event in pool:
            if isinstance(event, Counted):
                counted = event.num_frames
            elif isinstance(event, Frames):
                images += len(event.images)
                shown[event.rate_index] += [number(image) for image in event.images]
                event.release()
            elif isinstance(event, Finished):
                assert event.frames_decoded == 600
    assert counted == (900, 360)  # 36 s
    for index, fps in enumerate((25.0, 10.0)):
        full = [number(image) for image in all_frames(path, fps)[0]]
        of_clips = [
            slow_clip(len(full), part.views.speed, part.views.clips, part.window, clip)
            for part in clips
            for clip in range(part.views.clips)
        ]
        wanted = sorted({frame for clip in of_clips for frame in clip})
        assert shown[index] == [full[n] for n in wanted]
        assert wanted_frames(clips, len(full)).tolist() == wanted
    assert images < 45


@pytest.mark.parametrize("kind", ["edit list", "hidden", "avi", "no start", "no end", "no time"])
def test_clips_are_laid_out_right_whatever_the_container_announces(kind: str, tmp_path: Path) -> None:
    """The rows that one decode of forecast length gives are those of a full decode; only where frames are missing
    that the packets announce does it take two."""
    made = tmp_path / "made.avi" if kind == "avi" else tmp_path / ("made.webm" if kind == "hidden" else "made.mp4")
    options = {"g": "20"} if kind != "hidden" else {"auto-alt-ref": "0", "lag-in-frames": "0"}
    b_frames = 2 if kind == "avi" else 0
    if kind in ("no start", "no end"):
        made = made.with_suffix(".mkv")
    codec = {"hidden": "libvpx", "avi": "mpeg4", "no end": "mjpeg"}.get(kind, "libx264")
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    options = options if codec in ("libvpx", "libx264") else {}
    write_video(made, frames=120, codec=codec, b_frames=b_frames, options=options, pixels=pixels)
    edit = {
        "edit list": lambda: edit_list(made, frames=5),
        "hidden": lambda: hidden_frames(made, every=10),
        "no start": lambda: cut_head(made, packets=1),  # 19 frames until the next key frame cannot be decoded
        "no end": lambda: damage(made, range(100, 120)),
        "no time": lambda: made.rename(made.with_suffix(".ts")),
    }
    path = edit.get(kind, lambda: made)()
    (tmp_path / "v").mkdir()
    path = path.rename(tmp_path / "v" / path.name)
    plan = sampled_plan((Views(2, 3, 1),))
    found = enumerate_videos([tmp_path / "v"])
    out = tmp_path / "s.zarr"
    limits = Limits(allow_partial=True)
    summary = extract_videos(found.videos, found.failures, plan, out, observer=Observer(), limits=limits)
    assert summary.failures == []
    images, _ = all_frames(path, 10.0, allow_partial=True)
    rows = open_store(out)["corners.rgb.clip.r2"].read(path.name)
    for clip, row in enumerate(rows.features):
        seen = images[slow_clip(len(images), 2, 3, 4, clip)][:, :, 32:64].astype(np.float64) / 255
        np.testing.assert_allclose(row, np.concatenate([seen[:, 0, 0], seen.mean((1, 2))], axis=1).mean(0), atol=1e-5)
    decoded = {"edit list": 115, "hidden": 120, "avi": 120, "no start": 100, "no end": 2 * 100, "no time": 120}[kind]
    assert summary.frames_decoded == decoded


def test_sound_and_single_images_are_dense_beside_clips(tmp_path: Path) -> None:
    """One decode: clips of one network, every frame of another at the same rate, and the sound."""
    (tmp_path / "v").mkdir()
    write_video(tmp_path / "v" / "a.mkv", frames=100, sound=wave(clicks([1.0], 4.0)))
    sets = {"backbones": ("i3d", "efficientnet_lite0", "logmel"), "weights": {"i3d": "random"}}
    fps = {"efficientnet_lite0": 5.0, "i3d": 5.0}
    options = ExtractOptions(**sets, window={"i3d": 8}, fps=fps, views=(Views(1, 2, 1),))  # type: ignore[arg-type]
    out = tmp_path / "s.zarr"
    summary = extracted(tmp_path / "v", out, make_plan(options))
    assert summary.frames_decoded == 100
    names = ["efficientnet_lite0.rgb.frame", "i3d.rgb.clip.r1", "logmel.audio.frame"]
    assert dict(summary.rows) == {names[0]: 20, names[1]: 2, names[2]: 50}
    alone = tmp_path / "alone.zarr"
    for backbone, view in (("efficientnet_lite0", ()), ("i3d", (Views(1, 2, 1),)), ("logmel", ())):
        one = ExtractOptions(
            backbones=(backbone,),
            weights=sets["weights"] if backbone == "i3d" else {},  # type: ignore[arg-type]
            window={"i3d": 8} if backbone == "i3d" else {},
            fps={backbone: 5.0} if backbone in fps else {},
            views=view,
        )
        extracted(tmp_path / "v", alone, make_plan(one))
    for name in names:
        ours, theirs = (open_store(store)[name].read("a.mkv") for store in (out, alone))
        np.testing.assert_array_equal(ours.features, theirs.features)
        np.testing.assert_array_equal(ours.times, theirs.times)


def test_a_video_that_cannot_be_counted_to_its_end_fails(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    path = write_video(tmp_path / "v" / "a.mkv", frames=100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    summary = extracted(tmp_path / "v", tmp_path / "s.zarr", sampled_plan(THIRTY))
    assert [str(failure.reason) for failure in summary.failures] == ["partial"]
    assert list(open_store(tmp_path / "s.zarr")) == []


def test_speeds_are_added_to_a_store_and_rows_do_not_depend_on_batch_or_company(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    for index in range(2):
        write_video(tmp_path / "v" / f"{index}.mp4", frames=60 + index, draw=lambda i, k=index: bars(i + 50 * k))  # type: ignore[misc]
    one, other = tmp_path / "one.zarr", tmp_path / "other.zarr"
    extracted(tmp_path / "v", one, sampled_plan(THIRTY[:1]))
    again = extracted(tmp_path / "v", one, sampled_plan(THIRTY))
    assert set(again.rows) == {f"corners.rgb.{level}.r{speed}" for level in ("clip", "map") for speed in (2, 8)}
    extracted(tmp_path / "v", other, sampled_plan(THIRTY, batch=5))
    left, right = open_store(one), open_store(other)
    assert len(right) == 6
    for name in right:
        for video in ("0.mp4", "1.mp4"):
            assert left[name].entry(video).sha256 == right[name].entry(video).sha256


def test_a_long_video_holds_no_more_frames_than_a_clip_has() -> None:
    from extract.sampled_rows import SampledRows

    (network,) = sampled_plan((Views(8, 4, 3),)).networks
    taker = SampledRows(network)
    wanted = wanted_frames([Clips(Views(8, 4, 3), 4)], 200_000)
    taker.begin(200_000, wanted)
    most, rows = 0, 0
    for numbers in np.array_split(wanted, len(wanted)):
        images = torch.zeros(1, 32, 96, 3, dtype=torch.uint8)
        rows += sum(len(part.times) for _, part in taker.push(images, np.array([[numbers[0], numbers[0] + 1]]) / 10))
        most = max(most, len(taker._frames))
    rows += sum(len(part.times) for _, part in taker.finish())
    assert (most, rows) == (3, 4 * 3 * 3)  # one short of a clip; 2 map rows and 1 clip row a sample


def test_i3d_gets_one_set_for_each_speed_and_level() -> None:
    options = ExtractOptions(
        ("i3d",), (Granularity.MAP, Granularity.CLIP), {"i3d": "random"}, window={"": 32}, device="cpu", views=THIRTY
    )
    plan = make_plan(options)
    assert sorted(plan.specs) == [f"i3d.rgb.{level}.r{speed}" for level in ("clip", "map") for speed in (2, 4, 8)]
    spec = plan.specs["i3d.rgb.map.r4"]
    assert (spec.speed, spec.view, spec.window, spec.stride, spec.dense) == (4, "4x3", 32, 32, None)
    assert spec.crop == "left, centre and right 224"
    assert spec.random_weights
    assert plan.decode.clips == (tuple(Clips(views, 32) for views in THIRTY),)
    assert len(plan.only(frozenset({"i3d.rgb.map.r8"})).networks) == 1
    # Three videos: 12 samples of 4 rows of 7 x 7 x 1024 halves and two seconds.
    assert set_bytes(spec, 1e6, videos=3) == 3 * 12 * 4 * (7 * 7 * 1024 * 2 + 16)
    assert set_bytes(plan.specs["i3d.rgb.clip.r2"], 1e6, videos=3) == 3 * 9 * (1024 * 2 + 16)


def test_i3d_rows_of_a_sample_are_i3d_on_its_frames(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    path = write_video(tmp_path / "v" / "a.mp4", frames=40)
    torch.manual_seed(0)
    plan = make_plan(
        ExtractOptions(
            ("i3d",), (Granularity.MAP,), {"i3d": "random"}, window={"": 8}, dtype="float32", device="cpu",
            views=(Views(2, 1, 1),),
        )
    )  # fmt: skip
    extracted(tmp_path / "v", tmp_path / "s.zarr", plan)
    images, _ = all_frames(path, 24.0)
    rows = open_store(tmp_path / "s.zarr")["i3d.rgb.map.r2"].read("a.mp4")
    picked = slow_clip(len(images), 2, 1, 8, 0)
    frames = resize_and_crop(torch.from_numpy(images[picked]), 226, 224)
    with torch.inference_mode():
        expected = plan.networks[0].backbone(frames[None], frozenset({Granularity.MAP}))[Granularity.MAP][0]
    assert rows.features.shape == (1, 7, 7, 1024)
    np.testing.assert_allclose(rows.features, expected.numpy(), atol=1e-5)
    np.testing.assert_allclose(rows.times, [(picked[0] / 24, (picked[-1] + 1) / 24)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbones": ("resnet18",)}, "resnet18 sees no clips"),
        ({"backbones": ("resnet18", "logmel")}, "resnet18, logmel sees no clips"),
        ({"backbones": ("i3d",), "stride": {"": 8}}, "leave out --stride"),
        ({"backbones": ("i3d",), "dense": "windowed"}, "leave out --stride and --dense"),
        ({"backbones": ("i3d",), "levels": (Granularity.FRAME,)}, "levels clip and map, not frame"),
        ({"backbones": ("i3d",), "levels": (Granularity.MAP, Granularity.FRAME)}, "no backbone of i3d has level frame"),
        ({"backbones": ("i3d",), "window": {"": 20}}, "multiple of 8"),
    ],
)
def test_what_cannot_be_sampled_in_clips_is_refused_before_weights_are_fetched(
    options: dict[str, Any], words: str
) -> None:
    weights = {"i3d": "random"} if "window" in options else {}
    with pytest.raises(BackboneError, match=words):
        make_plan(ExtractOptions(**{"device": "cpu", "views": THIRTY, "weights": weights, **options}))
