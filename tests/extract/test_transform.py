"""The frame transform: against a loop that spells the definition out, and between its two ways."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from extract import transform
from extract.transform import resize_and_crop, resize_fixed, resize_float, resized_size

SIZES = [((40, 60), 24), ((61, 47), 24), ((16, 16), 40), ((9, 50), 24), ((25, 24), 24)]


def noise(height: int, width: int, count: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 1000 + width)
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8, generator=generator)


def weights(size: int, new: int) -> NDArray[np.float64]:
    """(new, size): each new pixel's share of every old one, a triangle around its centre, at least 1 pixel wide."""
    step = size / new
    reach = max(step, 1.0)
    table = np.zeros((new, size))
    for i in range(new):
        centre = (i + 0.5) * step
        for j in range(size):
            table[i, j] = max(0.0, 1 - abs(j + 0.5 - centre) / reach)
        table[i] /= table[i].sum()
    return table


def by_definition(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float64]:
    """(H, W, 3) to (height, width, 3), not rounded."""
    rows, columns = weights(frame.shape[0], height), weights(frame.shape[1], width)
    resized: NDArray[np.float64] = np.einsum("ah,hwc,bw->abc", rows, frame.astype(np.float64), columns)
    return resized


@pytest.mark.parametrize(("size", "resize"), SIZES)
def test_resizing_follows_the_definition_within_a_level(size: tuple[int, int], resize: int) -> None:
    frames = noise(*size)
    height, width = resized_size(*size, resize)
    expected = by_definition(frames[0].numpy(), height, width)
    # Fixed point rounds twice, to whole levels, after the columns and after the rows; float once.
    for resized, bound in ((resize_fixed, 1.01), (resize_float, 0.501)):
        x = resized(frames.permute(0, 3, 1, 2), height, width)[0].permute(1, 2, 0).numpy()
        assert np.abs(x - expected).max() <= bound, resized.__name__


@pytest.mark.parametrize(("size", "resize"), SIZES)
def test_fixed_point_and_float_agree_within_a_level(size: tuple[int, int], resize: int) -> None:
    x = noise(*size, count=2).permute(0, 3, 1, 2)
    fixed, rounded = (f(x, *resized_size(*size, resize)).int() for f in (resize_fixed, resize_float))
    assert (fixed - rounded).abs().max() <= 1


def test_resizing_is_that_of_pillow_within_a_level() -> None:
    image = pytest.importorskip("PIL.Image")
    frames = noise(90, 160)
    height, width = resized_size(90, 160, 64)
    theirs = np.asarray(image.fromarray(frames[0].numpy()).resize((width, height), image.Resampling.BILINEAR))
    ours = resize_fixed(frames.permute(0, 3, 1, 2), height, width)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((360, 640), 256, (256, 455)),  # 455.1
        ((640, 360), 256, (455, 256)),
        ((480, 854), 256, (256, 455)),  # 455.5 less 1/30
        ((2, 3), 3, (3, 5)),  # 4.5 goes up
        ((16, 16), 256, (256, 256)),
        ((1, 7), 4, (4, 28)),
    ],
)
def test_short_side_is_exact_and_long_side_rounded(
    size: tuple[int, int], resize: int, expected: tuple[int, int]
) -> None:
    assert resized_size(*size, resize) == expected


def test_crop_is_the_centre_and_an_odd_pixel_falls_off_after() -> None:
    frames = noise(11, 15, count=3)
    assert torch.equal(resize_and_crop(frames, 11, 8), frames[:, 1:9, 3:11])  # 3 too high, 7 too wide


def test_result_is_uint8_contiguous_and_the_frames_are_untouched() -> None:
    frames = noise(40, 60, count=2)
    before = frames.clone()
    out = resize_and_crop(frames, 24, 20)
    assert (out.shape, out.dtype, out.is_contiguous()) == ((2, 20, 20, 3), torch.uint8, True)
    assert torch.equal(frames, before)


def test_small_videos_are_enlarged() -> None:
    flat = torch.full((1, 16, 16, 3), 77, dtype=torch.uint8)
    assert torch.equal(resize_and_crop(flat, 256, 224), torch.full((1, 224, 224, 3), 77, dtype=torch.uint8))


def test_frames_do_not_depend_on_how_many_are_resized_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = noise(50, 80, count=5)
    whole = resize_and_crop(frames, 32, 28)
    monkeypatch.setattr(transform, "CHUNK_BYTES", 2 * 32 * 51 * 3)
    assert torch.equal(resize_and_crop(frames, 32, 28), whole)


def test_no_frames_give_no_frames() -> None:
    assert resize_and_crop(noise(40, 60)[:0], 24, 20).shape == (0, 20, 20, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees_with_cpu_within_a_level() -> None:
    frames = noise(180, 320, count=4)
    on_gpu = resize_and_crop(frames.cuda(), 128, 112).cpu()
    assert (on_gpu.int() - resize_and_crop(frames, 128, 112).int()).abs().max() <= 1
