"""Optical flow against motions that are known, levels computed by hand, and rows of frames at the same seconds."""

import dataclasses
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from extract import flow
from extract.accounts import Observer, Summary
from extract.augment import jitter
from extract.backbone import BackboneError
from extract.extract_options import ExtractOptions
from extract.extractors import Network
from extract.flow import OpenCvFlow, PairMotion, flow_method, quantised, whole_flow
from extract.flow_images import folder_name
from extract.flow_rows import FlowRows
from extract.i3d import InceptionI3d
from extract.inputs import enumerate_videos
from extract.pipeline import extract_videos
from extract.plan import make_plan
from extract.preview import Preview
from extract.transform import resize_short
from extract.views import Views
from heads.mlad import Mlad
from heads.sources import choose_sources
from stores import open_store
from stores.spec import Granularity
from tests.extract.video_files import write_video

cv2 = pytest.importorskip("cv2", reason="OpenCV, the extra 'flow'")


def texture(size: int = 96, seed: int = 0) -> NDArray[np.uint8]:
    """(size, size, 3) smooth noise that repeats at its borders, so that rolling it is a motion."""
    noise = np.random.default_rng(seed).normal(size=(size, size, 3))
    frequency = np.fft.fftfreq(size)
    low = np.exp(-(frequency[:, None] ** 2 + frequency[None] ** 2) / (2 * 0.06**2))
    smooth = np.fft.ifft2(np.fft.fft2(noise, axes=(0, 1)) * low[..., None], axes=(0, 1)).real
    smooth = (smooth - smooth.min()) / np.ptp(smooth)
    levels: NDArray[np.uint8] = (255 * smooth).astype(np.uint8)
    return levels


def moving(steps: list[tuple[int, int]], size: int = 96) -> Tensor:
    """Frames (len(steps) + 1, size, size, 3) whose content moves by (right, down) from one to the next."""
    places = np.cumsum([(0, 0), *steps], axis=0)
    still = texture(size)
    return torch.from_numpy(np.stack([np.roll(still, (down, right), axis=(0, 1)) for right, down in places]))


def pixels(levels: Tensor) -> NDArray[np.float64]:
    """What levels stand for."""
    return levels.numpy() * (40 / 255) - 20


DIS = torch.device("cpu")


@pytest.mark.parametrize("step", [(3, 0), (0, 2), (-4, 1), (2, -5), (0, 0)])
def test_flow_is_the_motion_to_the_right_and_downwards(step: tuple[int, int]) -> None:
    found = pixels(whole_flow(flow_method("dis", DIS), moving([step]), 96))
    assert found.shape == (2, 96, 96, 2)
    middle = found[:, 24:-24, 24:-24]
    assert np.abs(middle - np.array(step)).max() <= 0.25


def test_levels_are_those_computed_by_hand() -> None:
    values = np.array([-30, -20, -19.93, -10, -0.079, -0.078, 0, 0.078, 0.079, 10, 20, 1000], np.float32)
    # (f + 20) 255 / 40: -19.93 is 0.446, -10 is 63.75, -0.079 is 126.996, 0 is 127.5, 10 is 191.25
    assert quantised(values).tolist() == [0, 0, 0, 64, 127, 127, 128, 128, 128, 191, 255, 255]
    many = np.linspace(-20, 20, 100_001, dtype=np.float32)
    assert np.abs(quantised(many) * (40 / 255) - 20 - many).max() <= 20 / 255 + 1e-5


def test_i3d_sees_no_motion_as_almost_zero_and_the_bound_as_one() -> None:
    net = InceptionI3d("flow")
    frames = torch.from_numpy(quantised(np.array([-20, 0, 20], np.float32))).view(1, 3, 1, 1, 1).expand(1, 3, 1, 1, 2)
    np.testing.assert_allclose(net.normalise(frames)[0, :, :, 0, 0], [[-1, 1 / 255, 1]] * 2, atol=1e-6)


def test_every_frame_has_the_motion_that_follows_it_and_the_last_that_before_it() -> None:
    steps = [(2, 0), (0, 3), (-2, -1)]
    found = pixels(whole_flow(flow_method("dis", DIS), moving(steps), 96))[:, 24:-24, 24:-24]
    for index, step in enumerate([*steps, steps[-1]]):
        assert np.abs(found[index] - np.array(step)).max() <= 0.25, index


def test_flow_is_measured_in_pixels_of_the_resized_frame() -> None:
    found = pixels(whole_flow(flow_method("dis", DIS), moving([(4, -2)]), 48))
    assert found.shape == (2, 48, 48, 2)
    assert np.abs(found[:, 12:-12, 12:-12] - (2, -1)).max() <= 0.25


def test_a_single_frame_does_not_move_and_no_frame_has_no_flow() -> None:
    one = whole_flow(flow_method("dis", DIS), moving([]), 96)
    assert one.shape == (1, 96, 96, 2)
    assert (one == 128).all()
    assert list(flow_method("dis", DIS).start(96).finish()) == []


@pytest.mark.parametrize("piece", [1, 4, 9])
def test_pieces_and_threads_change_no_bit(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = moving([(1, k % 3) for k in range(10)], size=64)
    method = OpenCvFlow("dis")
    expected = [method.pair(*pair) for pair in itertools.pairwise(greys(frames))]
    monkeypatch.setattr(flow, "flow_threads", lambda: 3)
    flow.flow_pool.cache_clear()
    motion = method.start(64)
    found = [f for start in range(0, 11, piece) for f in motion.push(frames[start : start + piece].clone())]
    whole = torch.cat([*found, *motion.finish()]).numpy()
    flow.flow_pool.cache_clear()
    np.testing.assert_array_equal(whole, quantised(np.stack([*expected, expected[-1]])))


def test_opencv_starts_no_threads_of_its_own() -> None:
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(4)
        flow_method("dis", DIS)
        assert cv2.getNumThreads() == 1
    finally:
        cv2.setNumThreads(before)


def greys(frames: Tensor) -> list[NDArray[np.uint8]]:
    return [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in frames.numpy()]


def test_flow_comes_in_order_and_a_bounded_number_of_pairs_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "PENDING_PAIRS", 3)
    monkeypatch.setattr(flow, "flow_threads", lambda: 4)
    flow.flow_pool.cache_clear()
    open_now, most, lock = 0, 0, threading.Lock()

    def pair(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
        time.sleep(0.01 * (first[0, 0] % 3))  # later pairs are ready before earlier ones
        return np.full((*first.shape, 2), first[0, 0] / 10, np.float32)

    motion = PairMotion(pair, 8, cv2)
    submit = flow.flow_pool().submit

    def counted(*words: object) -> object:
        nonlocal open_now, most
        with lock:
            open_now = len(motion.pending) + 1
            most = max(most, open_now)
        return submit(*words)  # type: ignore[arg-type]

    monkeypatch.setattr(flow.flow_pool(), "submit", counted)
    frames = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 8, 8, 3).contiguous()
    found = torch.cat([*motion.push(frames), *motion.finish()])
    flow.flow_pool.cache_clear()
    order = [*range(19), 18]
    assert found[:, 0, 0, 0].tolist() == [int(np.floor((k / 10 + 20) * 6.375 + 0.5)) for k in order]
    assert most <= 6  # three of this piece while three of the one before are not taken


def test_frames_may_be_overwritten_as_soon_as_they_were_pushed() -> None:
    frames = moving([(2, 1)] * 5, size=64)
    expected = whole_flow(flow_method("dis", DIS), frames.clone(), 64)
    motion, shared, found = flow_method("dis", DIS).start(64), torch.empty_like(frames[:2]), []
    for start in range(0, 6, 2):
        shared.copy_(frames[start : start + 2])
        found += list(motion.push(shared))
        shared.zero_()
    assert torch.equal(torch.cat([*found, *motion.finish()]), expected)


def test_without_opencv_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(BackboneError, match=r"Install opencv-python-headless.*vl\[flow\]"):
        flow_method("dis", DIS)


def test_tvl1_needs_the_contributed_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "optflow", raising=False)
    with pytest.raises(BackboneError, match=r"opencv-contrib-python-headless.*--flow dis"):
        flow_method("tvl1", DIS)


def with_tvl1(monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenCV whose TV-L1 says that all moves by (1, -2)."""

    def calc(first: NDArray[np.uint8], second: NDArray[np.uint8], start: None) -> NDArray[np.float32]:
        return np.broadcast_to(np.array([1, -2], np.float32), (*first.shape, 2))

    made = SimpleNamespace(DualTVL1OpticalFlow_create=lambda: SimpleNamespace(calc=calc))
    monkeypatch.setattr(cv2, "optflow", made, raising=False)


def test_tvl1_and_dis_are_other_features(monkeypatch: pytest.MonkeyPatch, small_i3d: None) -> None:
    with_tvl1(monkeypatch)
    found = pixels(whole_flow(flow_method("tvl1", DIS), moving([(3, 0)], size=64), 64))
    assert np.abs(found - (1, -2)).max() <= 0.08
    specs = [make_plan(two_streams(flow=name)).specs["i3d.flow.clip"] for name in ("dis", "tvl1")]
    assert specs[0].fingerprint != specs[1].fingerprint
    assert "flow" in specs[0].difference(specs[1])
    assert {key: specs[0].settings[key] for key in ("flow", "flow_preset", "flow_bound")} == {
        "flow": "dis", "flow_preset": "medium", "flow_bound": 20.0
    }  # fmt: skip
    assert make_plan(two_streams()).provenance["i3d.flow.clip"]["flow"] == f"OpenCV {cv2.__version__}"


@pytest.fixture
def small_i3d(monkeypatch: pytest.MonkeyPatch) -> None:
    """I3D on crops of 32 pixels: all its code at a fiftieth of its work."""
    monkeypatch.setattr(InceptionI3d, "clip", dataclasses.replace(InceptionI3d.clip, resize=34, crop=32))
    monkeypatch.setattr(InceptionI3d, "row_shapes", {Granularity.CLIP: (1024,), Granularity.MAP: (1, 1, 1024)})


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of noise that moves, of 41, 12 and one frame at 25 fps."""
    folder = tmp_path_factory.mktemp("clips")
    for name, frames in (("a", 41), ("b", 12), ("one", 1)):
        images = moving([(2, -1)] * (frames - 1), size=48).numpy()
        write_video(folder / f"{name}.mp4", frames=frames, draw=images.__getitem__)
    return folder


def two_streams(**more: object) -> ExtractOptions:
    options = {"streams": ("rgb", "flow"), "weights": {"i3d": "random"}, "device": "cpu", **more}
    return ExtractOptions(("i3d",), **options)  # type: ignore[arg-type]


def extract(folder: Path, out: Path, observer: Observer | None = None, **more: object) -> Summary:
    found = enumerate_videos([folder])
    plan = make_plan(two_streams(**more))
    return extract_videos(found.videos, found.failures, plan, out, observer=observer or Observer())


def digests(path: Path) -> dict[tuple[str, str], str]:
    store = open_store(path)
    return {(name, video): store[name].entry(video).sha256 for name in store for video in store[name]}


LEVELS = (Granularity.CLIP, Granularity.MAP)


@pytest.mark.parametrize("dense", ["convolutional", "windowed"])
def test_one_decode_gives_both_streams_at_the_same_seconds(
    dense: str, clips: Path, tmp_path: Path, small_i3d: None
) -> None:
    window: dict[str, Any] = {"window": {"": 16}, "stride": {"": 16}} if dense == "windowed" else {}
    summary = extract(clips, tmp_path / "s.zarr", levels=LEVELS, dense=dense, **window)
    assert summary.frames_decoded == 41 + 12 + 1
    store = open_store(tmp_path / "s.zarr")
    assert list(store) == ["i3d.flow.clip", "i3d.flow.map", "i3d.rgb.clip", "i3d.rgb.map"]
    for level in ("clip", "map"):
        rgb, moved = store[f"i3d.rgb.{level}"], store[f"i3d.flow.{level}"]
        assert list(moved) == ["a.mp4", "b.mp4", "one.mp4"]
        for video in rgb:
            np.testing.assert_array_equal(moved.times(video), rgb.times(video))
            assert not np.array_equal(moved.read(video).features, rgb.read(video).features)
    assert {source.features.name for source in choose_sources(Mlad, [store])} == {"i3d.rgb.clip", "i3d.flow.clip"}


def test_stored_rows_are_those_of_a_plain_loop_over_the_frames(clips: Path, tmp_path: Path, small_i3d: None) -> None:
    import av

    extract(clips, tmp_path / "s.zarr", dtype="float32")
    with av.open(str(clips / "b.mp4")) as container:
        shown = [(f.time or 0.0, f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]
    wanted = [[image for at, image in shown if at <= k / 24 + 0.001][-1] for k in range(12)]  # 0.48 s at 24 a second
    grey = greys(resize_short(torch.from_numpy(np.stack(wanted)), 34))
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    moved = [dis.calc(first, second, None) for first, second in itertools.pairwise(grey)]
    levels = torch.from_numpy(quantised(np.stack([*moved, moved[-1]])))[:, 1:33, 1:33]
    net = make_plan(two_streams()).networks[1].backbone
    with torch.inference_mode():
        rows = net(levels[None], frozenset({Granularity.CLIP}), convolutional=True)[Granularity.CLIP][0]
    found = open_store(tmp_path / "s.zarr")["i3d.flow.clip"].read("b.mp4")
    np.testing.assert_allclose(found.features, rows, rtol=1e-4, atol=1e-5)


def test_clips_of_flow_are_clips_of_the_flow_of_every_frame(clips: Path, tmp_path: Path, small_i3d: None) -> None:
    """Two clips of 8 flow frames, every second one, each in three crops; the frames' own clips lie beside them."""
    import av

    views: dict[str, Any] = {"views": (Views(2, 2, 3),), "window": {"": 8}, "fps": {"": 25.0}, "dtype": "float32"}
    summary = extract(clips, tmp_path / "s.zarr", **views)
    assert summary.frames_decoded == 41 + 12 + 1
    with av.open(str(clips / "a.mp4")) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    grey = greys(resize_short(torch.from_numpy(frames), 34))
    dis = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    moved = [dis.calc(first, second, None) for first, second in itertools.pairwise(grey)]
    levels = torch.from_numpy(quantised(np.stack([*moved, moved[-1]])))  # (41, 34, 34, 2)
    net = make_plan(two_streams()).networks[1].backbone
    expected = []
    for start in (0, 41 - 15):
        for left in (0, 1, 2):
            clip = levels[start : start + 15 : 2, 1:33, left : left + 32]
            with torch.inference_mode():
                expected.append(net(clip[None], frozenset({Granularity.CLIP}))[Granularity.CLIP][0, 0])
    store = open_store(tmp_path / "s.zarr")
    found = store["i3d.flow.clip.r2"].read("a.mp4")
    np.testing.assert_allclose(found.features, torch.stack(expected), rtol=1e-4, atol=1e-5)
    for video in ("a.mp4", "b.mp4", "one.mp4"):
        np.testing.assert_array_equal(store["i3d.rgb.clip.r2"].times(video), store["i3d.flow.clip.r2"].times(video))


def test_a_store_of_frames_gets_flow_alone(clips: Path, tmp_path: Path, small_i3d: None) -> None:
    extract(clips, tmp_path / "s.zarr", streams=("rgb",))
    added = extract(clips, tmp_path / "s.zarr")
    assert set(added.rows) == {"i3d.flow.clip"}
    extract(clips, tmp_path / "at_once.zarr")
    assert digests(tmp_path / "s.zarr") == digests(tmp_path / "at_once.zarr")
    again = extract(clips, tmp_path / "s.zarr")
    assert (again.done, again.there, again.frames_decoded) == (0, 3, 0)


class Stops(Observer):
    """Ends the run as Ctrl-C does when the second video begins."""

    def advanced(self, video: str, seconds: float) -> None:
        if video == "b.mp4":
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_where_it_was(clips: Path, tmp_path: Path, small_i3d: None) -> None:
    out, pictures = tmp_path / "s.zarr", tmp_path / "pictures"
    with pytest.raises(KeyboardInterrupt):
        extract(clips, out, Stops(), save_flow=pictures)
    assert set(digests(out)) == {("i3d.flow.clip", "a.mp4"), ("i3d.rgb.clip", "a.mp4")}
    assert {path.name for path in pictures.iterdir()} == {folder_name("a.mp4"), f".{folder_name('b.mp4')}.part"}
    extract(clips, out, save_flow=pictures)
    extract(clips, tmp_path / "at_once.zarr")
    assert digests(out) == digests(tmp_path / "at_once.zarr")
    assert sorted(path.name for path in pictures.iterdir()) == sorted(
        folder_name(video) for video in ("a.mp4", "b.mp4", "one.mp4")
    )


def test_flow_is_saved_as_pictures_in_the_fields_layout(tmp_path: Path, small_i3d: None) -> None:
    images = moving([(2, 1)] * 9, size=48).numpy()
    videos = tmp_path / "videos" / "sub"
    videos.mkdir(parents=True)
    write_video(videos / "a b.mp4", frames=10, draw=lambda index: images[index], codec="ffv1", container="matroska")
    extract(tmp_path / "videos", tmp_path / "s.zarr", save_flow=tmp_path / "out")
    (folder,) = (tmp_path / "out").iterdir()
    assert folder.name == folder_name("sub/a b.mp4")
    assert "/" not in folder.name
    names = sorted(path.name for path in folder.iterdir())
    assert names == [*(f"flow_{axis}_{k:05d}.png" for axis in "xy" for k in range(1, 11)), "video.json"]
    facts = json.loads((folder / "video.json").read_text())
    assert (facts["video"], facts["flow"], facts["frames"]) == ("sub/a b.mp4", "dis", 10)
    for axis, moved in (("x", 2), ("y", 1)):
        picture = cv2.imread(str(folder / f"flow_{axis}_00005.png"), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (34, 34)
        assert abs(np.median(picture) * (40 / 255) - 20 - moved * 34 / 48) <= 0.25


def test_at_the_videos_own_rate_rows_have_the_seconds_of_the_frames(small_i3d: None) -> None:
    network = make_plan(two_streams(dense="windowed", window={"": 8}, stride={"": 8})).networks[1]
    rows = FlowRows(dataclasses.replace(network, fps=None), "v.mp4")
    ends = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.2, 20))
    times = np.stack([np.append(0, ends[:-1]), ends], axis=1)
    frames = moving([(1, 0)] * 19, size=40)
    given = [part for k in range(0, 20, 5) for part in rows.push(frames[k : k + 5], times[k : k + 5])]
    found = np.concatenate([part.times for _, part in [*given, *rows.finish()]])
    np.testing.assert_allclose(found, [(0, ends[7]), (ends[7], ends[15]), (ends[15], ends[19])])


def test_show_pred_looks_at_the_flow_that_is_extracted(small_i3d: None, monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_plan(two_streams(window={"": 8}, dense="windowed")).networks[1]
    seen: list[Tensor] = []

    def classify(_: Network, frames: Tensor) -> Tensor:
        seen.append(frames)
        return torch.zeros(1, 400)

    monkeypatch.setattr(Network, "classify", classify)
    frames = moving([(2, 1)] * 9, size=48)
    preview = Preview(1)
    preview.start("v.mp4", 10 / 24, [network])
    edges = np.arange(11) / 24
    assert not list(preview.take("v.mp4", 24.0, frames, np.stack([edges[:-1], edges[1:]], axis=1)))
    ((shown, _),) = preview.finish("v.mp4")
    assert shown.shown_name == "i3d (flow) (RANDOM WEIGHTS)"
    expected = whole_flow(OpenCvFlow("dis"), torch.cat([frames, frames[-1:].expand(54, -1, -1, -1)]), 34)[:, 1:33, 1:33]
    assert torch.equal(seen[0][0], expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"streams": ("rgb", "depth")}, "--stream has depth; the streams are rgb, flow"),
        ({"streams": ()}, "--stream names no stream"),
        ({"streams": ("rgb",), "flow": "dis"}, "add --stream flow"),
        ({"streams": ("rgb",), "save_flow": Path("pictures")}, "add --stream flow"),
        ({"flow": "farneback"}, "there is no flow 'farneback'"),
        ({"flow": "dis=x"}, "there is no flow 'dis=x'"),
        ({"flow": "raft"}, "raft needs its weights"),
        ({"streams": ("flow",), "levels": (Granularity.SCENE,)}, "not of flow"),
        ({"backbones": ("resnet18",), "weights": {}}, "no backbone of resnet18 has the stream flow"),
        ({"backbones": ("i3d", "resnet18"), "streams": ("flow",)}, "resnet18 has no stream flow"),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    options: dict[str, object], words: str, small_i3d: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BackboneError, match=words):
        make_plan(dataclasses.replace(two_streams(), **options))  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_sound_and_scenes_stand_beside_flow(small_i3d: None) -> None:
    options = dataclasses.replace(two_streams(), backbones=("i3d", "logmel"), streams=("flow",))
    assert set(make_plan(options).specs) == {"i3d.flow.clip", "logmel.audio.frame"}
    options = two_streams(levels=(Granularity.CLIP, Granularity.SCENE))
    assert set(make_plan(options).specs) == {"i3d.rgb.clip", "i3d.flow.clip", "i3d.rgb.scene"}


def test_each_stream_may_have_its_own_weights(small_i3d: None) -> None:
    specs = make_plan(two_streams(weights={"i3d": "random", "i3d.flow": "random:5"})).specs
    assert (specs["i3d.rgb.clip"].weights, specs["i3d.flow.clip"].weights) == ("random", "random:5")


@pytest.fixture
def raft() -> Iterator[str]:
    """torchvision's RAFT; its import needs operators that a build of torch for another device lacks."""
    stub = "torchvision._meta_registrations"
    before = sys.modules.get(stub)
    sys.modules.setdefault(stub, SimpleNamespace())  # type: ignore[arg-type]
    try:
        pytest.importorskip("torchvision", reason="torchvision, for --flow raft", exc_type=ImportError)
        yield "raft_small"
    finally:
        if before is None:
            sys.modules.pop(stub, None)


def test_raft_runs_in_batches_that_do_not_hang_on_the_pieces(raft: str, tmp_path: Path) -> None:
    from torchvision.models.optical_flow import raft_small

    torch.manual_seed(0)
    network = raft_small(weights=None, progress=False).eval()
    torch.save(network.state_dict(), tmp_path / "raft.pth")
    method = flow_method(f"raft_small={tmp_path / 'raft.pth'}", DIS)
    assert not method.random
    frames = moving([(2, 1)] * 4, size=100)
    padded = np.pad(frames.numpy(), ((0, 0), (0, 28), (0, 28), (0, 0)), mode="edge")  # 128 at least
    x = torch.from_numpy(padded).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.inference_mode():
        expected = torch.cat([network(x[k : k + 1], x[k + 1 : k + 2])[-1] for k in range(4)])[..., :100, :100]
    found = whole_flow(method, frames, 100)
    assert found.shape == (5, 100, 100, 2)
    np.testing.assert_allclose(pixels(found[:4]), expected.clamp(-20, 20).permute(0, 2, 3, 1), atol=20 / 255 + 0.02)
    assert torch.equal(found[4], found[3])
    motion = method.start(100)
    pieces = [moved for frame in frames for moved in motion.push(frame[None])]
    assert torch.equal(torch.cat([*pieces, *motion.finish()]), found)
    assert (whole_flow(method, frames[:1], 100) == 128).all()
    with pytest.raises(BackboneError, match="does not fit torchvision's raft_large"):
        flow_method(f"raft={tmp_path / 'raft.pth'}", DIS)
    assert flow_method("raft_small=random", DIS).random


@pytest.mark.parametrize("across", [True, False])
def test_flow_of_a_part_is_that_of_pictures_that_were_cut_and_turned(across: bool) -> None:
    """Inside the part; what moves to the right moves to the left in a mirror."""
    frames = moving([(4, 2)])
    draws = (np.random.default_rng(seed) for seed in itertools.count())
    view = next(drawn for draw in draws if (drawn := jitter(96, 96, 56, draw)).across is across)
    some = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 96, 128, 3)).astype(np.uint8))
    assert torch.equal(view.of_flow(view.before_flow(some)), view.of(some))
    scale = view.short / 96
    found = pixels(view.of_flow(whole_flow(flow_method("dis", DIS), view.before_flow(frames), view.short)))
    assert found.shape == (2, 56, 56, 2)
    cut = pixels(whole_flow(flow_method("dis", DIS), view.of(frames), 56))
    inside = np.abs(found - cut)[:, 12:-12, 12:-12]
    assert np.median(inside) <= 0.1
    expected = np.array([-4 if across else 4, 2]) * scale
    assert np.abs(np.median(found[:, 12:-12, 12:-12], axis=(0, 1, 2)) - expected).max() <= 0.25


@pytest.mark.parametrize("size", [(34, 45), (64, 85)])
def test_the_flow_of_a_pair_does_not_depend_on_those_before(size: tuple[int, int]) -> None:
    """A thread's object of DIS keeps buffers, which at 34 x 45 show."""
    method = flow_method("dis", DIS)
    assert isinstance(method, OpenCvFlow)
    tall = torch.nn.functional.interpolate(moving([(3, 1), (2, 2)]).movedim(3, 1).float(), size)[:, 0].byte().numpy()
    alone = method.pair(tall[1], tall[2])
    method.pair(tall[0], tall[1])
    np.testing.assert_array_equal(method.pair(tall[1], tall[2]), alone)
