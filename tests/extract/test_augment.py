"""Frames changed for training: within the papers' bounds, all of a scene alike, and as often as they say."""

import numpy as np
import pytest
import torch
from torch import Tensor

from extract import augment
from extract.augment import AUGMENTS, augmented, rectangle
from extract.backbone import ClipFormat
from extract.r2plus1d import R2Plus1d18
from extract.resnet import ResNet18
from extract.transform import resize_and_crop
from tests.extract.networks import noise

PICTURE, CLIP = ResNet18.clip, R2Plus1d18.clip


def still(frames: int, height: int, width: int) -> Tensor:
    return noise(1, height, width).expand(frames, -1, -1, -1).contiguous()


@pytest.mark.parametrize("kind", AUGMENTS)
@pytest.mark.parametrize("clip", [PICTURE, CLIP])
def test_all_frames_of_a_scene_are_changed_alike(kind: str, clip: ClipFormat) -> None:
    for seed in range(4):
        random = np.random.default_rng(seed)
        changed = augmented(still(3, 130, 170), clip, kind, random)  # type: ignore[arg-type]
        assert changed.shape == (3, clip.crop, clip.crop, 3)
        assert changed.dtype == torch.uint8
        assert torch.equal(changed[0], changed[1])
        assert torch.equal(changed[0], changed[2])


def test_none_is_what_extraction_sees() -> None:
    frames = noise(2, 130, 170)
    changed = augmented(frames, PICTURE, "none", np.random.default_rng(0))
    assert torch.equal(changed, resize_and_crop(frames, 256, 224))


def gradient(height: int, width: int) -> Tensor:
    """A frame whose red rises to the right and whose green rises downwards, both by 1 a pixel; blue is 0."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y, torch.zeros_like(x)], dim=-1).to(torch.uint8)[None]


def test_jitter_scales_crops_and_turns_half_of_the_time() -> None:
    """A crop of 56 of a short side s of 64 to 80: levels rise by 80 / s a pixel, over 56 pixels."""
    sides, turned, lefts = [], 0, []
    clip = ClipFormat(fps=1, window=1, stride=1, resize=64, crop=56, mean=(0.5,), std=(0.2,))
    for seed in range(200):
        (changed,) = augmented(gradient(80, 120), clip, "jitter", np.random.default_rng(seed)).int()
        span = float(changed[50, 28, 1] - changed[5, 28, 1])
        sides.append(80 * 45 / span)
        turned += int(changed[28, 5, 0] > changed[28, 50, 0])
        lefts.append(int(changed[28].min(dim=0).values[0]))
        assert changed[5, 28, 1] < changed[50, 28, 1]  # never upside down
    assert 63 <= min(sides) < 66
    assert 78 < max(sides) <= 82
    assert 80 <= turned <= 120
    assert min(lefts) < 8
    assert max(lefts) > 40


def test_stans_pictures_are_parts_turned_about_both_axes_three_times_in_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    """And then changed by AutoAugment, which would move what is measured here, with what is drawn next."""
    last: list[tuple[int, ...]] = []

    def changed_by(frames: Tensor, random: np.random.Generator) -> Tensor:
        assert 0 < random.random() < 1
        last.append(tuple(frames.shape))
        return frames

    monkeypatch.setattr(augment, "auto_augmented", changed_by)
    across = down = 0
    shares = []
    for seed in range(200):
        (changed,) = augmented(gradient(200, 200), PICTURE, "stan", np.random.default_rng(seed)).int()
        wide, high = changed[112, 220, 0] - changed[112, 3, 0], changed[220, 112, 1] - changed[3, 112, 1]
        across += int(wide < 0)
        down += int(high < 0)
        area = float(wide.abs() * high.abs()) / (217 / 224 * 200) ** 2
        assert 0.06 <= area <= 1.02
        assert 0.70 <= float(wide.abs() / high.abs()) <= 1.42
        shares.append(area)
    assert last == [(1, 224, 224, 3)] * 200
    assert 40 <= across <= 80
    assert 40 <= down <= 80
    assert min(shares) < 0.15
    assert max(shares) > 0.9


def test_half_of_stans_clips_lose_a_rectangle_to_the_mean_colour() -> None:
    mean = torch.tensor([round(255 * level) for level in CLIP.mean], dtype=torch.uint8)
    plain = resize_and_crop(still(2, 120, 160), 120, 112)
    erased = 0
    for seed in range(200):
        changed = augmented(still(2, 120, 160), CLIP, "stan", np.random.default_rng(seed))
        gone = (changed != plain).any(-1)
        if not gone.any():
            continue
        erased += 1
        assert torch.equal(changed[gone], mean.expand(int(gone.sum()), 3))
        assert torch.equal(gone[0], gone[1])
        rows, columns = gone[0].any(1).nonzero().ravel(), gone[0].any(0).nonzero().ravel()
        high, wide = int(rows[-1] - rows[0]) + 1, int(columns[-1] - columns[0]) + 1
        assert 0.018 <= high * wide / 112**2 <= 0.34
        assert 0.27 <= wide / high <= 3.7
    assert 80 <= erased <= 120


def test_a_rectangle_that_fits_nowhere_is_none() -> None:
    assert rectangle(4, 400, (0.9, 0.9), (1.0, 1.0), np.random.default_rng(0)) is None
