"""Rows of scenes: the frames that the definition names, through the networks, at the seconds of the cuts."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extract.accounts import Observer, Summary
from extract.backbone import BACKBONES, BackboneError
from extract.extract_options import ExtractOptions
from extract.extractors import Network
from extract.inputs import enumerate_videos
from extract.pipeline import extract_videos
from extract.plan import make_plan
from extract.scene_rows import KEPT, Scenes, Shot
from extract.scenes import SceneCutting
from extract.transform import resize_and_crop
from extract.weights import build_backbone
from stores import open_store
from stores.errors import SpecMismatchError
from stores.spec import FeatureSpec, Granularity
from tests.extract.test_pipeline import Brightness, grey
from tests.extract.video_files import write_video

SCENE = Granularity.SCENE
PAIR = ("efficientnet_lite0", "brightness")  # one of images, one of clips, both quick
STAN = ("resnet18", "r2plus1d_18")
CUTS = (24, 51)  # first frames of the second and third scene of the clip `cuts.mp4`
FRAMES = 70


def picture(seed: int, shift: int) -> NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return np.roll(np.kron(coarse, np.ones((8, 8, 1), np.uint8)), shift // 2, axis=1)


def with_cuts(index: int) -> NDArray[np.uint8]:
    return picture(sum(index >= cut for cut in CUTS), index)


def with_a_fade(index: int) -> NDArray[np.uint8]:
    """Shot 0, a hard cut at 15, shot 1 that fades to black by 35, shot 2 from black from 38 on."""
    shot, share = (0, 1.0) if index < 15 else (1, min(1, (35 - index) / 12)) if index < 38 else (2, (index - 37) / 9)
    dimmed: NDArray[np.uint8] = np.round(picture(shot, index) * np.clip(share, 0, 1)).astype(np.uint8)
    return dimmed


@pytest.fixture(scope="module", autouse=True)
def brightness() -> Iterator[None]:
    """A backbone of clips whose rows are mean levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BACKBONES, "brightness", "tests.extract.test_pipeline:Brightness")
        yield


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_video(folder / "cuts.mp4", frames=FRAMES, draw=with_cuts)
    write_video(folder / "fade.mp4", frames=60, draw=with_a_fade)
    write_video(folder / "one.mp4", frames=1, draw=with_cuts)
    write_video(folder / "short.mp4", frames=8, draw=with_cuts)
    return folder


def extract(clips: Path, out: Path, backbones: tuple[str, ...] = PAIR, **more: Any) -> Summary:
    observer = more.pop("observer", Observer())
    found = enumerate_videos([clips])
    options = ExtractOptions(backbones, (SCENE,), **more)
    return extract_videos(found.videos, found.failures, make_plan(options), out, observer=observer)


@pytest.fixture(scope="module")
def whole(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "s.zarr"
    assert extract(clips, out).done == 4
    return out


def thinned(count: int, parts: int) -> list[int]:
    """The definition of the frames of a scene, in its own order: all indices first, then the rounding."""
    step = 1
    while -(-count // step) > 128:
        step *= 2
    return [((2 * k + 1) * count // (2 * parts)) // step * step for k in range(parts)]


@pytest.mark.parametrize("parts", [1, 12, 16])
def test_frames_of_a_scene_are_those_of_the_definition(parts: int) -> None:
    shot = Shot()
    for index in range(1100):
        shot.add({(0, 0): torch.tensor(index)})
        chosen = [int(crops[0, 0]) for crops in shot.middles(parts)]
        assert chosen == thinned(index + 1, parts), index + 1
        assert len(shot._kept) <= KEPT


def test_by_hand_centre_and_twelve_of_a_scene_of_24() -> None:
    shot = Shot()
    for index in range(24):
        shot.add({(0, 0): torch.tensor(index)})
    assert [int(crops[0, 0]) for crops in shot.middles(1)] == [12]
    assert [int(crops[0, 0]) for crops in shot.middles(12)] == [1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23]


def test_rows_are_those_of_the_decoded_frames(clips: Path, whole: Path) -> None:
    with av.open(str(clips / "cuts.mp4")) as container:
        images = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    store = open_store(whole)
    for name, level, size, parts in (
        ("efficientnet_lite0", Granularity.FRAME, (256, 224), 1),
        ("brightness", Granularity.CLIP, (8, 8), 12),
    ):
        network, _ = build_backbone(name)
        expected = []
        for first, stop in zip((0, *CUTS), (*CUTS, FRAMES), strict=True):
            chosen = [images[first + (2 * k + 1) * (stop - first) // (2 * parts)] for k in range(parts)]
            frames = resize_and_crop(torch.from_numpy(np.stack(chosen)), *size)
            with torch.inference_mode():
                expected.append(network(frames[None], frozenset({level}))[level][0, 0].half().numpy())
        rows = store[f"{name}.rgb.scene"].read("cuts.mp4")
        np.testing.assert_allclose(rows.features, np.stack(expected), rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(rows.times, [(0, 0.96), (0.96, 2.04), (2.04, 2.8)])


def test_two_scene_sets_have_equal_times(whole: Path) -> None:
    store = open_store(whole)
    assert list(store) == ["brightness.rgb.scene", "efficientnet_lite0.rgb.scene"]
    one, other = (store[name] for name in store)
    assert list(one) == list(other) == ["cuts.mp4", "fade.mp4", "one.mp4", "short.mp4"]
    for video in one:
        np.testing.assert_array_equal(one.times(video), other.times(video))


def test_a_video_without_cuts_is_one_scene(whole: Path) -> None:
    scenes = open_store(whole)["brightness.rgb.scene"]
    np.testing.assert_allclose(scenes.times("one.mp4"), [(0, 0.04)])
    np.testing.assert_allclose(scenes.times("short.mp4"), [(0, 0.32)])
    assert scenes.entry("short.mp4").info["duration"] == pytest.approx(0.32)


def test_a_fade_through_black_ends_one_scene_and_begins_another(whole: Path) -> None:
    times = open_store(whole)["brightness.rgb.scene"].times("fade.mp4")
    assert len(times) == 3
    assert times[1, 0] == pytest.approx(15 / 25)
    assert 38 / 25 - 1e-6 <= times[2, 0] <= 42 / 25  # where the picture is lit again


class Stop(Observer):
    """Breaks off in the middle of a video, after others are done."""

    def __init__(self, after: int) -> None:
        self.left = after

    def advanced(self, video: str, seconds: float) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("after", [1, 2, 3])
def test_an_interrupted_extraction_resumes_to_the_same_rows(
    clips: Path, whole: Path, tmp_path: Path, after: int
) -> None:
    out = tmp_path / "s.zarr"
    with pytest.raises(KeyboardInterrupt):
        extract(clips, out, observer=Stop(after))
    again = extract(clips, out)
    assert again.done + again.there == 4
    same_rows(whole, out)


def test_a_set_that_is_added_later_has_the_same_rows(clips: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    extract(clips, out, ("brightness",))
    assert set(extract(clips, out).rows) == {"efficientnet_lite0.rgb.scene"}
    same_rows(whole, out)


def same_rows(one: Path, other: Path) -> None:
    left, right = open_store(one), open_store(other)
    assert list(left) == list(right)
    for name in left:
        assert {v: left[name].entry(v).sha256 for v in left[name]} == {
            v: right[name].entry(v).sha256 for v in right[name]
        }


def test_scenes_and_frames_come_from_one_decode(clips: Path, tmp_path: Path) -> None:
    found = enumerate_videos([clips / "cuts.mp4"])
    options = ExtractOptions(("efficientnet_lite0",), (Granularity.FRAME, SCENE), scenes=SceneCutting(min_scene=1.0))
    plan = make_plan(options)
    assert plan.decode.rates == (12.5, None)
    summary = extract_videos(found.videos, (), plan, tmp_path / "s.zarr", observer=Observer(), show_pred=1)
    assert summary.frames_decoded == FRAMES
    assert dict(summary.rows) == {"efficientnet_lite0.rgb.frame": 35, "efficientnet_lite0.rgb.scene": 2}
    times = open_store(tmp_path / "s.zarr")["efficientnet_lite0.rgb.scene"].times("cuts.mp4")
    np.testing.assert_allclose(times, [(0, 2.04), (2.04, 2.8)])  # 0.96 is less than a second


def test_what_defines_the_scenes_is_in_the_spec(clips: Path, whole: Path) -> None:
    specs = make_plan(ExtractOptions(STAN, (SCENE,), weights=dict.fromkeys(STAN, "random"))).specs
    image, clip = specs["resnet18.rgb.scene"], specs["r2plus1d_18.rgb.scene"]
    assert (image.granularity, image.row_shape, image.window, image.fps) == (SCENE, (512,), None, None)
    assert (clip.row_shape, clip.window, clip.settings["frames"]) == ((512,), 12, 12)
    assert image.settings["detector"] == "intensity"
    assert (image.settings["min_scene"], image.settings["max_scene"]) == (0.5, 60.0)
    with pytest.raises(SpecMismatchError, match="max_scene"):
        extract(clips, whole, scenes=SceneCutting(max_scene=5))


def brightness_scenes(cutting: SceneCutting) -> Scenes:
    """Mean levels of 12 frames a scene: rows that one can work out by hand."""
    spec = FeatureSpec(SCENE, (3,), dtype="float32", backbone="brightness", window=12)
    sets: Mapping[Granularity, str] = {Granularity.CLIP: "b.scene"}
    network = Network(Brightness(), sets, {"b.scene": spec}, None, 1, 12, False, batch=1, tile=0, precision="fp32")
    return Scenes((network,), cutting)


@pytest.mark.parametrize("pieces", [1, 11])
def test_long_scenes_are_cut_and_hold_a_bounded_number_of_frames(pieces: int) -> None:
    rows = brightness_scenes(SceneCutting(max_scene=50.0)).start()
    levels = (np.arange(3000) // 40).astype(np.uint8)  # slow: no cut by itself
    times = np.stack([np.arange(3000), np.arange(1, 3001)], axis=1) / 25
    given, most = [], 0
    for part in np.array_split(np.arange(3000), pieces * 10):
        given += list(rows.push(grey(levels[part]), times[part]))
        most = max(most, len(rows.open) + len(rows.shot._kept))
    given += list(rows.finish())
    assert most <= KEPT + rows.cutter.detector.delay
    features, seconds = (np.concatenate([getattr(part, what) for _, part in given]) for what in ("features", "times"))
    np.testing.assert_allclose(seconds, [(0, 50), (50, 100), (100, 120)])
    expected = [
        np.mean([levels[first + index] for index in thinned(stop - first, 12)])
        for first, stop in ((0, 1250), (1250, 2500), (2500, 3000))
    ]
    np.testing.assert_allclose(features[:, 0] * 255, expected, rtol=1e-5)


def test_no_frames_are_no_scenes() -> None:
    assert list(brightness_scenes(SceneCutting()).start().finish()) == []


def test_the_first_scene_begins_at_0_and_others_at_the_times_of_their_frames() -> None:
    rows = brightness_scenes(SceneCutting(min_scene=0)).start()
    shown = np.array([(0.2, 0.3), (0.3, 0.7), (0.7, 0.8), (0.8, 1.0)])
    given = [*rows.push(grey(np.array([10, 10, 200, 200], np.uint8)), shown), *rows.finish()]
    np.testing.assert_allclose(np.concatenate([part.times for _, part in given]), [(0, 0.7), (0.7, 1.0)])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbones": ("logmel",), "levels": (SCENE,)}, "level scene; they have: logmel frame"),
        ({"levels": (Granularity.FRAME,), "scenes": SceneCutting()}, "without --level scene"),
        ({"fps": {"": 5.0}}, "--fps changes nothing for efficientnet_lite0"),
        ({"dense": "windowed"}, "--dense changes nothing for efficientnet_lite0"),
        ({"window": {"": 2}}, "efficientnet_lite0 sees single frames"),
        ({"backbones": ("brightness",), "window": {"": 65}}, "at most 64 frames"),
    ],
)
def test_settings_that_have_no_say_are_named(options: dict[str, Any], words: str) -> None:
    plain: dict[str, Any] = {"backbones": ("efficientnet_lite0",), "levels": (SCENE,), **options}
    with pytest.raises(BackboneError, match=words):
        make_plan(ExtractOptions(**plain))


def test_window_sets_the_frames_of_a_scenes_clip() -> None:
    plan = make_plan(ExtractOptions(("brightness",), (SCENE,), window={"": 16}))
    assert plan.specs["brightness.rgb.scene"].window == 16
