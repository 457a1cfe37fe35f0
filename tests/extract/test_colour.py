"""Planes handed over and converted on the device, against FFmpeg's conversion in the decoder and the formula."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from extract.accounts import Observer
from extract.colour import BOUND, to_rgb
from extract.decode import DecodePlan
from extract.extract_options import ExtractOptions
from extract.inputs import VideoInput, enumerate_videos
from extract.pipeline import extract_videos
from extract.pixels import Matrix, PixelFormat
from extract.plan import make_plan
from extract.views import Views
from extract.worker_events import Failed, Frames
from extract.workers import DecodePool
from stores import open_store
from tests.extract.video_files import write_video

CPU = torch.device("cpu")
BT601, BT709 = (0.299, 0.114), (0.2126, 0.0722)


def rgb_of(y: int, u: int, v: int, kr: float, kb: float, full: bool) -> list[float]:
    """ITU-R BT.601 / BT.709, one pixel: the levels 0 to 255 of red, green and blue."""
    luma = y / 255 if full else (y - 16) / 219
    blue, red = ((u - 128) / 255, (v - 128) / 255) if full else ((u - 128) / 224, (v - 128) / 224)
    r, b = luma + 2 * (1 - kr) * red, luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return [255 * min(max(level, 0.0), 1.0) for level in (r, g, b)]


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(("kr", "kb"), [BT601, BT709], ids=["601", "709"])
@pytest.mark.parametrize(("height", "width"), [(6, 8), (5, 7), (1, 1)])
def test_conversion_is_the_formula_pixel_by_pixel(height: int, width: int, kr: float, kb: float, full: bool) -> None:
    layout = PixelFormat(height, width, Matrix(kr, kb, full))
    frames = np.random.default_rng(1).integers(0, 256, (2, *layout.frame_shape), np.uint8)
    found = to_rgb(frames, layout, CPU)
    assert found.shape == (2, height, width, 3)
    half_h, half_w = (height + 1) // 2, (width + 1) // 2
    for t, frame in enumerate(frames.tolist()):
        for row in range(height):
            for column in range(width):
                square = row // 2 * half_w + column // 2
                u = frame[height * width + square]
                v = frame[height * width + half_h * half_w + square]
                expected = rgb_of(frame[row * width + column], u, v, kr, kb, full)
                assert np.abs(found[t, row, column].numpy() - np.array(expected)).max() < 0.5 + 1e-3


def noise_video(
    path: Path, width: int, height: int, pixels: str, space: int = 2, full: bool = False, **how: Any
) -> Path:
    """Lossless: smooth colours with a little noise, so that all levels come up and differ from pixel to pixel."""
    rotation = how.get("rotation", 0)
    random = np.random.default_rng(5)
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("ffv1" if path.suffix == ".mkv" else "libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = space, 2 if full else 1
        if path.suffix == ".mp4":
            stream.options = {"qp": "0"}
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(12):
            frame = VideoFrame(width, height, pixels)
            for plane in frame.planes:
                wave = 128 + 100 * np.sin(np.arange(plane.line_size * plane.height) / 37 + index)
                values = (wave + random.normal(0, 8, len(wave))).clip(1, 254).astype(np.uint8)
                plane.update(values.tobytes()[: plane.buffer_size])
            frame.colorspace, frame.color_range = space, 2 if full else 1
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def shown(
    path: Path, planes: bool, roi: tuple[int, int, int, int] | None = None
) -> tuple[NDArray[np.uint8], set[bool]]:
    """Every frame as RGB, and whether it came as planes."""
    plan = DecodePlan(rates=(None,), roi=roi, planes=planes)
    images, kinds = [], set()
    with DecodePool([VideoInput(path.name, path)], plan, workers=1) as pool:
        for event in pool:
            assert not isinstance(event, Failed), event
            if isinstance(event, Frames):
                kinds.add(event.layout.matrix is not None)
                images.append(to_rgb(event.images, event.layout, CPU).numpy().copy())
                event.release()
    return np.concatenate(images), kinds


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("space", [1, 2, 6], ids=["709", "unnamed", "601"])
def test_both_conversions_agree_within_the_bound(tmp_path: Path, space: int, full: bool) -> None:
    path = noise_video(tmp_path / "a.mkv", 64, 48, "yuv420p", space, full)
    (planes, as_planes), (rgb, as_rgb) = shown(path, planes=True), shown(path, planes=False)
    assert (as_planes, as_rgb) == ({True}, {False})
    difference = np.abs(planes.astype(int) - rgb)
    print(f"largest difference {difference.max()} levels, mean {difference.mean():.3f}")
    assert difference.max() <= BOUND
    assert difference.mean() < 1


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("roi", [None, (8, 4, 21, 17), (3, 4, 20, 16)], ids=["whole", "even", "odd"])
def test_planes_are_turned_and_cut_as_rgb_is(
    tmp_path: Path, rotation: int, roi: tuple[int, int, int, int] | None
) -> None:
    path = noise_video(tmp_path / "a.mp4", 64, 48, "yuv420p", rotation=rotation)
    (planes, as_planes), (rgb, _) = shown(path, True, roi), shown(path, False, roi)
    assert as_planes == {roi is None or roi[0] % 2 == 0}  # a region may not begin inside a square of four
    assert planes.shape == rgb.shape
    assert np.abs(planes.astype(int) - rgb).max() <= BOUND


@pytest.mark.parametrize("pixels", ["yuv444p", "yuv420p10le", "gray", "yuv422p"])
def test_other_layouts_come_as_rgb(tmp_path: Path, pixels: str) -> None:
    path = noise_video(tmp_path / "a.mkv", 64, 48, pixels)
    (planes, as_planes), (rgb, _) = shown(path, True), shown(path, False)
    assert as_planes == {False}
    np.testing.assert_array_equal(planes, rgb)


def test_an_odd_size_agrees_but_for_the_smoothing_of_ffmpegs_scaler(tmp_path: Path) -> None:
    """FFmpeg takes its general scaler there, which blends neighbouring colour differences."""
    path = write_video(tmp_path / "a.mkv", codec="ffv1", frames=4, b_frames=0, draw=lambda i: flat(i, 35, 51))
    (planes, as_planes), (rgb, _) = shown(path, True), shown(path, False)
    assert as_planes == {True}
    assert np.abs(planes.astype(int) - rgb).max() <= BOUND


def flat(index: int, height: int, width: int) -> NDArray[np.uint8]:
    return np.broadcast_to(np.array([40 * index, 200 - 30 * index, 90], np.uint8), (height, width, 3)).copy()


def test_features_of_both_hand_overs_agree(shared_data: Path, tmp_path: Path) -> None:
    """EfficientNet-Lite0 with its real weights on a real clip, dense and in clips beside it: cosine of every row."""
    clips = shared_data / "grid" / "video"
    (tmp_path / "v").mkdir()
    name = sorted(path.name for path in clips.glob("*.mp4"))[0]
    (tmp_path / "v" / name).symlink_to(clips / name)
    found = enumerate_videos([tmp_path / "v"])
    stores = {}
    for planes in (False, True):
        options = ExtractOptions(
            backbones=("efficientnet_lite0", "r2plus1d_18"),
            weights={"r2plus1d_18": "random"},
            views=(Views(1, 2, 3),),
            planes=planes,
        )
        plan = make_plan(options)
        out = tmp_path / f"{planes}.zarr"
        assert extract_videos(found.videos, found.failures, plan, out, observer=Observer()).failures == []
        stores[planes] = open_store(out)
    for set_name in stores[True]:
        a, b = (stores[planes][set_name].read(name).features.astype(np.float64) for planes in (False, True))
        cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
        print(f"{set_name}: cosine of RGB and planes {cosine.min():.6f} at least")
        assert cosine.min() > 0.995
        colour = {planes: stores[planes][set_name].provenance["colour"] for planes in (False, True)}
        assert colour == {True: "converted by the network's device", False: "converted by the decoder"}
