"""The whole way from a video file to stored rows, against loops that spell out what it should be."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract.accounts import MissingAudio, Observer, Summary
from extract.backbone import Backbone, BackboneError, ClipFormat
from extract.extract_options import ExtractOptions
from extract.extractors import Agreement, Network, cell_times
from extract.image_backbone import ImageBackbone
from extract.inputs import enumerate_videos
from extract.logmel import LogMel
from extract.pipeline import extract_videos
from extract.plan import make_plan
from extract.sound_rows import Sound
from extract.synthetic import encode_video
from extract.transform import resize_and_crop
from stores import open_store
from stores.errors import SpecMismatchError
from stores.spec import FeatureSpec, Granularity

Arrays = tuple[NDArray[np.float32], NDArray[np.float64]]  # features and times
Levels = tuple[Granularity, ...]


class Brightness(Backbone):
    """Mean level of each colour: a network whose rows one can compute by hand."""

    name = "brightness"
    clip = ClipFormat(
        fps=10.0, window=4, stride=2, resize=8, crop=8, mean=(0.0,) * 3, std=(1.0,) * 3, output_stride=2, halo=2
    )
    row_shapes: ClassVar[Mapping[Granularity, tuple[int, ...]]] = {Granularity.CLIP: (3,), Granularity.MAP: (1, 1, 3)}
    default_weights = "none"

    def __init__(self) -> None:
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(()))

    def forward(
        self, frames: Tensor, levels: frozenset[Granularity], convolutional: bool = False
    ) -> dict[Granularity, Tensor]:
        x_BTC = self.normalise(frames).mean((3, 4)).transpose(1, 2)
        x_BRC = (x_BTC[:, ::2] + x_BTC[:, 1::2]) / 2
        rows = {
            Granularity.CLIP: x_BRC if convolutional else x_BRC.mean(1, keepdim=True),
            Granularity.MAP: x_BRC[:, :, None, None],
        }
        return {level: rows[level] for level in levels}


def network(
    levels: tuple[Granularity, ...], *, convolutional: bool, stride: int = 2, fps: float | None = 10.0
) -> Network:
    backbone = Brightness()
    sets = {level: f"brightness.rgb.{level}" for level in levels}
    specs = {
        sets[level]: FeatureSpec(level, backbone.row_shapes[level], dtype="float32", fps=fps, stride=stride)
        for level in levels
    }
    return Network(backbone, sets, specs, fps, stride, 4, convolutional, batch=2, tile=8, precision="fp32")


def grey(levels: NDArray[np.uint8]) -> Tensor:
    """(T,) levels to (T, 8, 8, 3) frames."""
    return torch.from_numpy(np.broadcast_to(levels[:, None, None, None], (len(levels), 8, 8, 3)).copy())


def run(
    net: Network, levels: NDArray[np.uint8], pieces: int
) -> dict[str, tuple[NDArray[np.float32], NDArray[np.float64]]]:
    rows = net.start()
    found: dict[str, list[Arrays]] = {}
    numbers = np.arange(len(levels))
    for part in np.array_split(numbers, pieces):
        for name, given in rows.push(grey(levels[part]), cell_times(part, 1, 10.0)):
            found.setdefault(name, []).append(given)
    for name, given in rows.finish():
        found.setdefault(name, []).append(given)
    return {name: (np.concatenate([f for f, _ in g]), np.concatenate([t for _, t in g])) for name, g in found.items()}


@pytest.mark.parametrize("pieces", [1, 3, 21])
def test_convolutional_rows_are_cells_of_the_stride(pieces: int) -> None:
    levels = np.random.default_rng(0).integers(0, 256, 21).astype(np.uint8)
    net = network((Granularity.CLIP, Granularity.MAP), convolutional=True)
    found = run(net, levels, pieces)
    padded = np.append(levels, levels[-1]) / 255  # an odd end is filled up with the last frame
    expected = np.array([(padded[2 * i] + padded[2 * i + 1]) / 2 for i in range(11)])
    features, times = found["brightness.rgb.clip"]
    np.testing.assert_allclose(features, np.repeat(expected[:, None], 3, 1), rtol=1e-6)
    np.testing.assert_allclose(times, [(0.2 * i, 0.2 * i + 0.2) for i in range(11)])
    maps, map_times = found["brightness.rgb.map"]
    np.testing.assert_allclose(maps[:, 0, 0], features, rtol=1e-6)
    np.testing.assert_array_equal(map_times, times)


@pytest.mark.parametrize("pieces", [1, 4])
def test_windowed_rows_are_windows_and_the_last_ends_with_the_video(pieces: int) -> None:
    levels = np.array([10, 20, 30, 40, 50, 60, 70], np.uint8)
    features, times = run(network((Granularity.CLIP,), convolutional=False), levels, pieces)["brightness.rgb.clip"]
    means = [25, 45, (50 + 60 + 70 + 70) / 4]  # windows start at frames 0, 2, 4; frame 70 is repeated
    np.testing.assert_allclose(features[:, 0] * 255, means, rtol=1e-5)
    np.testing.assert_allclose(times, [(0, 0.4), (0.2, 0.6), (0.4, 0.7)])


def test_windowed_maps_give_every_time_step_its_own_cell() -> None:
    levels = np.arange(9, dtype=np.uint8) * 10
    features, times = run(network((Granularity.MAP,), convolutional=False, stride=4), levels, 2)["brightness.rgb.map"]
    # The third window is frame 8 four times over: its second time step lies behind the end and is no row.
    np.testing.assert_allclose(features[:, 0, 0, 0] * 255, [5, 25, 45, 65, 80], rtol=1e-5)
    np.testing.assert_allclose(times, [(0, 0.2), (0.2, 0.4), (0.4, 0.6), (0.6, 0.8), (0.8, 0.9)])


def test_rows_at_the_videos_own_rate_have_the_seconds_of_its_frames() -> None:
    net = network((Granularity.CLIP,), convolutional=False, fps=None)
    rows = net.start()
    shown = np.array([(0.0, 0.1), (0.1, 0.4), (0.4, 0.5), (0.5, 0.9), (0.9, 1.0)])  # variable frame rate
    given = [*rows.push(grey(np.arange(5, dtype=np.uint8)), shown), *rows.finish()]
    times = np.concatenate([part.times for _, part in given])
    np.testing.assert_allclose(times, [(0.0, 0.9), (0.4, 1.0)])


def test_values_that_float16_cannot_hold_are_an_error() -> None:
    net = network((Granularity.CLIP,), convolutional=True)
    spec = FeatureSpec(Granularity.CLIP, (3,), dtype="float16", fps=10.0, stride=2)
    net.backbone.clip = dataclasses.replace(net.backbone.clip, std=(1e-6,) * 3)
    rows = dataclasses.replace(net, specs={"brightness.rgb.clip": spec}).start()
    with pytest.raises(BackboneError, match="float16 cannot hold"):
        list(rows.push(grey(np.full(40, 255, np.uint8)), cell_times(np.arange(40), 1, 10.0)))


@pytest.mark.parametrize("rate", [12.5, 7.0, 25.0])
def test_sound_rows_do_not_depend_on_how_the_samples_arrive(rate: float) -> None:
    wave = np.random.default_rng(1).normal(0, 0.1, 16_000 * 60 + 123).astype(np.float32)
    spec = FeatureSpec(Granularity.FRAME, (512,), dtype="float32", fps=rate)

    def rows(size: int) -> NDArray[np.float32]:
        sound = Sound(LogMel(), "logmel.audio.frame", spec, rate, torch.device("cpu")).start()
        parts = [part for start in range(0, len(wave), size) for part in sound.push(wave[start : start + size])]
        return np.concatenate([part.features for _, part in [*parts, *sound.finish()]])

    whole = rows(len(wave))
    assert len(whole) == int(np.ceil(len(wave) / 16_000 * rate))
    np.testing.assert_allclose(rows(4_001), whole, atol=1e-5)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of 1.2 s at 25 fps, noise that moves, two of them with sound."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(5)
    for index in range(3):
        still = random.integers(0, 256, (48, 64, 3)).astype(np.uint8)
        frames = (np.roll(still, shift, axis=1) for shift in range(30))
        sound = random.normal(0, 0.1, 19_200).astype(np.float32) if index else None
        encode_video(folder / f"{index}.mp4", frames, fps=25, audio=sound, rate=16_000)
    return folder


def extract(
    folder: Path,
    out: Path,
    backbones: tuple[str, ...] = ("efficientnet_lite0", "logmel"),
    missing_audio: MissingAudio = MissingAudio.ERROR,
    **more: object,
) -> Summary:
    found = enumerate_videos([folder])
    plan = make_plan(ExtractOptions(backbones, device="cpu", **more))  # type: ignore[arg-type]
    return extract_videos(found.videos, found.failures, plan, out, observer=Observer(), missing_audio=missing_audio)


def test_stored_rows_are_those_of_a_plain_loop_over_the_frames(clips: Path, tmp_path: Path) -> None:
    extract(clips, tmp_path / "s.zarr")
    plan = make_plan(ExtractOptions(("efficientnet_lite0",), device="cpu"))
    net = plan.networks[0].backbone
    with av.open(str(clips / "1.mp4")) as container:
        shown = [(f.time or 0.0, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    # 1.2 s at 12.5 rows a second: the frame that is on the screen at k / 12.5
    wanted = [[image for time, image in shown if time <= k / 12.5 + 0.001][-1] for k in range(15)]
    frames = resize_and_crop(torch.from_numpy(np.stack(wanted)), 256, 224)
    with torch.inference_mode():
        expected = net(frames[:, None], frozenset({Granularity.FRAME}))[Granularity.FRAME][:, 0].half().numpy()
    with_rows = open_store(tmp_path / "s.zarr")["efficientnet_lite0.rgb.frame"].read("1.mp4")
    np.testing.assert_allclose(with_rows.features, expected, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(with_rows.times, [(k / 12.5, (k + 1) / 12.5) for k in range(15)])


def test_a_video_without_sound_fails_only_its_audio_set(clips: Path, tmp_path: Path) -> None:
    summary = extract(clips, tmp_path / "s.zarr")
    assert [(f.video, f.set_name, str(f.reason)) for f in summary.failures] == [
        ("0.mp4", "logmel.audio.frame", "no_audio")
    ]
    store = open_store(tmp_path / "s.zarr")
    assert list(store["efficientnet_lite0.rgb.frame"]) == ["0.mp4", "1.mp4", "2.mp4"]
    assert list(store["logmel.audio.frame"]) == ["1.mp4", "2.mp4"]


def test_missing_sound_becomes_zeros_that_are_marked(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    extract(clips, out)  # first without the option: a failure is on record
    summary = extract(clips, out, missing_audio=MissingAudio.ZEROS)
    assert (summary.done, summary.there, summary.failures, summary.silent) == (1, 2, [], 1)
    rows, times = open_store(out)["logmel.audio.frame"].read("0.mp4")
    assert rows.shape == (15, 512)  # 1.2 s at 12.5 rows a second
    assert not rows.any()
    np.testing.assert_allclose(times, [(k / 12.5, (k + 1) / 12.5) for k in range(15)])
    sound = open_store(out)["logmel.audio.frame"]
    assert [sound.entry(video).info.get("missing_audio") for video in sound] == ["zeros", None, None]
    assert open_store(out).failures() == []
    again = extract(clips, out, missing_audio=MissingAudio.ZEROS)
    assert (again.done, again.there) == (0, 3)


@pytest.mark.parametrize("names", [("efficientnet_lite0", "logmel"), ("logmel",)])
def test_missing_sound_may_be_left_out_on_record(clips: Path, tmp_path: Path, names: tuple[str, ...]) -> None:
    out = tmp_path / "s.zarr"
    for done, there in ((3, 0), (0, 3)):
        summary = extract(clips, out, names, missing_audio=MissingAudio.SKIP)
        assert (summary.done, summary.there, summary.partly, summary.failed) == (done, there, 0, 0)
        assert summary.failures == []
        assert [(f.video, str(f.reason)) for f in summary.skipped] == [("0.mp4", "no_audio")]
    assert list(open_store(out)["logmel.audio.frame"]) == ["1.mp4", "2.mp4"]
    assert [(f.video, f.reason) for f in open_store(out).failures()] == [("0.mp4", "no_audio")]
    assert len(extract(clips, out, names).failures) == 1  # asked again without the option, it is an error


def test_a_second_run_does_only_what_is_missing(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    first = extract(clips, out, ("efficientnet_lite0",))
    assert (first.done, first.there) == (3, 0)
    second = extract(clips, out, ("efficientnet_lite0", "logmel"))
    assert set(second.rows) == {"logmel.audio.frame"}
    third = extract(clips, out, ("efficientnet_lite0", "logmel"))
    assert (third.done, third.there, third.partly, len(third.failures)) == (0, 2, 1, 1)
    extract(clips, tmp_path / "at_once.zarr")
    one, two = open_store(out), open_store(tmp_path / "at_once.zarr")
    for name in two:
        for video in two[name]:
            assert one[name].entry(video).sha256 == two[name].entry(video).sha256, (name, video)


def test_frames_are_decoded_once_for_all_sets(clips: Path, tmp_path: Path) -> None:
    summary = extract(
        clips,
        tmp_path / "s.zarr",
        ("efficientnet_lite0", "resnet18", "logmel"),
        weights={"resnet18": "random"},
        fps={"efficientnet_lite0": 5.0, "resnet18": 2.0},
        levels=(Granularity.FRAME, Granularity.MAP),
    )
    assert summary.frames_decoded == 3 * 30
    store = open_store(tmp_path / "s.zarr")
    assert {name: store[name].entry("1.mp4").num_rows for name in store} == {
        "efficientnet_lite0.rgb.frame": 6,
        "efficientnet_lite0.rgb.map": 6,
        "logmel.audio.frame": 16,  # AAC fills its last packet: 19 * 1024 samples are 1.216 s
        "resnet18.rgb.frame": 3,
        "resnet18.rgb.map": 3,
    }


def test_other_settings_in_the_same_store_are_refused_by_name(clips: Path, tmp_path: Path) -> None:
    extract(clips, tmp_path / "s.zarr", ("logmel",))
    with pytest.raises(SpecMismatchError, match="fps"):
        extract(clips, tmp_path / "s.zarr", ("logmel",), fps={"": 25.0})


def test_random_weights_are_marked_in_the_spec(clips: Path, tmp_path: Path) -> None:
    extract(clips, tmp_path / "s.zarr", ("resnet18",), weights={"resnet18": "random"}, fps={"": 1.0})
    assert open_store(tmp_path / "s.zarr")["resnet18.rgb.frame"].spec.random_weights


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbones": ("nosuch",)}, "no backbone 'nosuch'"),
        ({"backbones": ("logmel",), "levels": (Granularity.MAP,)}, "level map"),
        ({"backbones": ("logmel",), "fps": {"i3d": 2.0}}, "names i3d"),
        ({"backbones": ("resnet18",), "weights": {"resnet18": "random"}, "stride": {"": 2}}, "single frames"),
        ({"backbones": ("i3d",), "weights": {"i3d": "random"}, "stride": {"": 4}}, "every 8 frames"),
        ({"backbones": ("i3d",), "weights": {"i3d": "random"}, "window": {"": 20}}, "multiple of 8"),
        (
            {
                "backbones": ("i3d",),
                "weights": {"i3d": "random"},
                "dense": "windowed",
                "levels": (Granularity.CLIP, Granularity.MAP),
            },
            "overlap",
        ),
        ({"backbones": ("logmel",), "device": "cuda:99"}, "--device cuda:99"),
    ],
)
def test_settings_that_contradict_each_other_are_named(options: dict[str, object], words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        make_plan(ExtractOptions(**{"device": "cpu", **options}))  # type: ignore[arg-type]


def test_maps_alone_stand_side_by_side_where_no_stride_is_given() -> None:
    options = ExtractOptions(
        ("i3d",), (Granularity.MAP,), weights={"i3d": "random"}, dense="windowed", window={"": 16}, device="cpu"
    )
    (spec,) = make_plan(options).specs.values()
    assert (spec.window, spec.stride) == (16, 16)  # of the windows, each of which has two maps


class Halved(ImageBackbone):
    """A network that loses its way in half precision, or does not."""

    name = "halved"
    clip = ClipFormat(fps=5.0, window=1, stride=1, resize=32, crop=32, mean=(0,) * 3, std=(1,) * 3)
    row_shapes: ClassVar = {Granularity.FRAME: (4,)}
    default_weights = "none"

    def __init__(self, lost: bool) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(3, 4, 1)
        self.lost = lost
        with torch.no_grad():
            self.layer.weight.copy_(torch.arange(12).reshape(4, 3, 1, 1) / 7 - 0.5)

    def trunk(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return -y if self.lost and y.dtype == torch.bfloat16 else y

    def classifier(self, features: Tensor) -> Tensor:
        return features


@pytest.mark.parametrize("lost", [False, True])
def test_bf16_is_compared_with_fp32_on_the_first_batch(lost: bool) -> None:
    spec = FeatureSpec(Granularity.FRAME, (4,), backbone="halved")
    network = Network(
        Halved(lost), {Granularity.FRAME: "s"}, {"s": spec}, 5.0, 1, 1, False, 2, tile=0, precision="bf16"
    )
    frames = torch.randint(0, 256, (2, 1, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    if lost:
        with pytest.raises(BackboneError, match=r"rows of halved: .* falls to -(1\.0|0\.99)\d*, under"):
            network.run(frames)
        return
    given = network.run(frames)[Granularity.FRAME].double()
    with torch.inference_mode():
        exact = network.backbone(frames, frozenset({Granularity.FRAME}))[Granularity.FRAME].double()
    cosine = (given * exact).sum(-1) / given.norm(dim=-1) / exact.norm(dim=-1)
    assert network.agreement.cosine == pytest.approx(float(cosine.min()), abs=1e-5)
    assert dataclasses.replace(network, sets={}).agreement is network.agreement  # a part of the sets: no second check
    alone = dataclasses.replace(network, precision="fp32", agreement=Agreement())
    alone.run(frames)
    assert alone.agreement.cosine is None
