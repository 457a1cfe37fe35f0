"""AutoAugment: every operation on pictures small enough to change by hand, and the policy as it is drawn."""

from __future__ import annotations

import importlib
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from extract import auto_augment
from extract.auto_augment import OPERATIONS, POLICY, auto_augmented, operated, rotated, sheared, shifted
from tests.extract.networks import noise
from tests.extract.optional import optional


def picture(rows: list[list[int]]) -> Tensor:
    """One frame whose three channels have these values."""
    return torch.tensor(rows, dtype=torch.uint8)[None, :, :, None].expand(-1, -1, -1, 3).contiguous()


def row(frames: Tensor, channel: int = 0) -> list[int]:
    """The first row of the first frame."""
    values: list[int] = frames[0, 0, :, channel].tolist()
    return values


NUMBERED = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]


def test_shearing_moves_each_row_by_its_distance_from_the_top() -> None:
    """Of height 3 the rows' middles lie 0.5, 1.5 and 2.5 below the top; at 0.45 they move by 0.2, 0.7 and 1.1."""
    frames = picture([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    left = picture([[1, 2, 3, 4], [6, 7, 8, 0], [10, 11, 12, 0]])
    assert torch.equal(sheared(frames, 0.45, 0), left)
    right = picture([[1, 2, 3, 4], [0, 5, 6, 7], [0, 9, 10, 11]])
    assert torch.equal(sheared(frames, -0.45, 0), right)
    assert torch.equal(sheared(frames.transpose(1, 2), 0, 0.45), left.transpose(1, 2))


def test_shifting_moves_by_whole_pixels_to_the_right_and_down() -> None:
    frames = picture([[1, 2, 3, 4], [5, 6, 7, 8]])
    assert torch.equal(shifted(frames, 1.9, 0), picture([[0, 1, 2, 3], [0, 5, 6, 7]]))
    assert torch.equal(shifted(frames, -2.5, 1), picture([[0, 0, 0, 0], [3, 4, 0, 0]]))


def test_rotating_turns_counter_clockwise_about_the_middle() -> None:
    frames = picture(NUMBERED)
    assert torch.equal(rotated(frames, 90), picture([[4, 8, 12, 16], [3, 7, 11, 15], [2, 6, 10, 14], [1, 5, 9, 13]]))
    assert torch.equal(rotated(frames, -90), frames.rot90(-1, (1, 2)))
    corner = rotated(torch.full((1, 9, 9, 3), 200, dtype=torch.uint8), 30)
    assert corner[0, 0, 0].tolist() == [0, 0, 0]  # from outside
    assert corner[0, 4, 4].tolist() == [200, 200, 200]


@pytest.mark.parametrize(
    ("operation", "strength", "before", "after"),
    [
        ("Posterize", 8, [0, 15, 16, 255], [0, 0, 16, 240]),  # 8 - round(32 / 9) = 4 bits
        ("Posterize", 5, [63, 64, 200, 255], [60, 64, 200, 252]),  # 8 - round(20 / 9) = 6 bits
        ("Solarize", 3, [0, 169, 170, 255], [0, 169, 85, 0]),  # from 255 * 6 / 9 = 170 on
        ("Solarize", 0, [0, 100, 254, 255], [0, 100, 254, 0]),
        ("Invert", 0, [0, 100, 254, 255], [255, 155, 1, 0]),
        ("Brightness", 9, [0, 50, 100, 200], [0, 95, 190, 255]),  # times 1.9
        ("AutoContrast", 0, [10, 20, 30, 60], [0, 51, 102, 255]),
        ("AutoContrast", 0, [7, 7, 7, 7], [7, 7, 7, 7]),
    ],
)
def test_values_become_what_the_operation_says(
    operation: str, strength: int, before: list[int], after: list[int]
) -> None:
    assert row(operated(picture([before]), operation, strength)) == after


def test_less_brightness_colour_and_contrast_are_the_other_way_round() -> None:
    """At strength 9 a tenth stays: of the value, beside the grey of each pixel, and beside the grey of all."""
    frames = torch.tensor([[200, 100, 50], [0, 0, 0]], dtype=torch.uint8)[None, None]
    grey = 124  # 0.2989 * 200 + 0.587 * 100 + 0.114 * 50 = 124.18
    assert operated(frames, "Brightness", 9, turned=True)[0, 0, 0].tolist() == [20, 10, 5]
    colourless = operated(frames, "Color", 9, turned=True)[0, 0, 0].tolist()
    assert colourless == [int(0.1 * level + 0.9 * grey) for level in (200, 100, 50)]
    flat = operated(frames, "Contrast", 9, turned=True)[0, 0].tolist()
    assert flat == [[int(0.1 * level + 0.9 * grey / 2) for level in (200, 100, 50)], [55, 55, 55]]


def test_sharpening_adds_what_smoothing_takes_away_and_leaves_the_border() -> None:
    """Smoothed, the middle is (5 * 100 + 8 * 35) / 13 = 60; at 1.9 it becomes 100 + 0.9 * 40."""
    frames = torch.full((1, 3, 3, 3), 35, dtype=torch.uint8)
    frames[:, 1, 1] = 100
    sharp, soft = operated(frames, "Sharpness", 9), operated(frames, "Sharpness", 9, turned=True)
    assert sharp[0, 1, 1].tolist() == [136] * 3
    assert soft[0, 1, 1].tolist() == [64] * 3
    for changed in (sharp, soft):
        changed[:, 1, 1] = 100
        assert torch.equal(changed, frames)


def test_equalizing_makes_values_equally_frequent() -> None:
    """Each of 256 values, a quarter as large, and four times: each becomes where it ranks."""
    frames = (torch.arange(1024) // 16).view(1, 32, 32, 1).expand(-1, -1, -1, 3).to(torch.uint8)
    found = operated(frames, "Equalize", 0)
    # 1008 pixels lie below the highest value: 3 of them a step; value v has 16 v below it, and half a step is 1
    expected = torch.tensor([min(255, (16 * value + 1) // 3) for value in range(64)])
    assert torch.equal(found[..., 0].flatten().long(), expected.repeat_interleave(16))
    few = picture([[3, 3, 9, 9]])
    assert torch.equal(operated(few, "Equalize", 0), few)  # fewer pixels than steps


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
def test_every_frame_is_changed_as_if_it_were_alone(operation: str) -> None:
    frames = noise(3, 12, 15) // torch.tensor([1, 2, 3], dtype=torch.uint8).view(3, 1, 1, 1)
    before = frames.clone()
    for strength in (0, 4, 9):
        together = operated(frames, operation, strength)
        assert together.dtype == torch.uint8
        assert torch.equal(together, torch.cat([operated(frame[None], operation, strength) for frame in frames]))
    assert torch.equal(frames, before)


def test_pairs_and_operations_are_drawn_as_often_as_the_policy_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 6,000 draws each pair has a twenty-fifth, and its operations their probabilities; half are turned round."""
    seen: Counter[tuple[str, int]] = Counter()
    ways: Counter[bool] = Counter()

    def counted(frames: Tensor, operation: str, strength: int, *, turned: bool = False) -> Tensor:
        seen[operation, strength] += 1
        ways[turned] += 1
        return frames

    monkeypatch.setattr(auto_augment, "operated", counted)
    random, draws = np.random.default_rng(0), 6000
    for _ in range(draws):
        auto_augmented(torch.zeros(1, 1, 1, 3, dtype=torch.uint8), random)
    assert len(POLICY) == 25
    expected: Counter[tuple[str, int]] = Counter()
    for pair in POLICY:
        for step in pair:
            expected[step.operation, step.strength] += round(1e6 * step.probability / 25)
    assert seen.keys() == {key for key, share in expected.items() if share}
    for key, share in expected.items():
        mean = draws * share / 1e6
        assert abs(seen[key] - mean) <= 5 * mean**0.5, key
    assert abs(ways[True] - ways[False]) <= 5 * ways.total() ** 0.5


def test_policy_and_strengths_are_torchvisions() -> None:
    optional("torchvision")
    transforms = importlib.import_module("torchvision.transforms.autoaugment")
    theirs = transforms.AutoAugment()
    assert [tuple((name, share, strength or 0) for name, share, strength in pair) for pair in theirs.policies] == [
        tuple(map(tuple, pair)) for pair in POLICY
    ]
    frames = noise(1, 57, 83)
    nearest = transforms.InterpolationMode.NEAREST
    for name, (strengths, signed) in theirs._augmentation_space(10, (57, 83)).items():
        for strength in range(10):
            value = float(strengths[strength]) if strengths.ndim else 0.0
            for way in (1, -1) if signed else (1,):
                expected = transforms._apply_op(frames.permute(0, 3, 1, 2), name, way * value, nearest, None)
                found = operated(frames, name, strength, turned=way < 0).permute(0, 3, 1, 2)
                apart = (found.int() - expected.int()).abs() > 1  # 1: strengths are rounded to float32 there
                assert float(apart.float().mean()) <= (0.05 if "Shear" in name else 0.002), name  # ties between pixels
