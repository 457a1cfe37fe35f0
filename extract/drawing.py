"""What the acts of a synthetic video look and sound like: shapes in two colours, tones and beats.

Pictures are (height, width, 3) float32 in [0, 255] while they are drawn; sound is (S,) samples in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Plane = NDArray[np.floating[Any]]
Inside = tuple[Plane, NDArray[np.bool_]]  # how far inside the shape, and where its second colour is

SOUND_RATE = 16000  # samples a second
RADIUS = 0.19  # of the shapes, as a share of the picture's shorter side
SLOTS = ((0.32, 0.32), (0.68, 0.32), (0.32, 0.68), (0.68, 0.68))  # their centres: x, y as shares of the sides


class Segment(NamedTuple):
    """Something that goes on from `start` to `end`, in seconds."""

    label: str
    start: float
    end: float


class Act(NamedTuple):
    """One appearance on the picture; what has a look that is not drawn is only heard."""

    look: str
    label: str  # the class; "" for what is no action
    start: float
    end: float
    slot: int  # index into SLOTS


def pictures(
    acts: Sequence[Act],
    cuts: Sequence[float],
    num_frames: int,
    size: tuple[int, int],
    fps: int,
    rng: Generator,
) -> Iterator[NDArray[np.uint8]]:
    """The frames (height, width, 3) one after the other: the scene's background, the acts, grain."""
    width, height = size
    grain = rng.normal(0, 4, (8, height, width, 1)).astype(np.float32)
    edges = [*cuts, np.inf]
    scene, background = -1, np.zeros(0, np.float32)
    for index in range(num_frames):
        now = index / fps
        if scene < 0 or now >= edges[scene]:
            scene += 1
            background = _background(rng, width + 32, height + 32)
        pan = round(16 + 15 * np.sin(0.5 * now + scene))
        canvas = background[pan : pan + height, 32 - pan : 32 - pan + width].copy()
        for act in acts:
            if act.start <= now < act.end:
                if act.look == "flash":
                    canvas += (250 - canvas) * np.float32(1 - (now - act.start) / (act.end - act.start))
                elif act.look in LOOKS:
                    _paint(canvas, LOOKS[act.look], act, now - act.start)
        canvas += grain[rng.integers(len(grain))]
        yield np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


def _background(rng: Generator, width: int, height: int) -> Plane:
    """A muted gradient between two colours under soft blotches, in [40, 150]."""
    ends = rng.uniform(60, 130, (2, 3)).astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = 0.5 + 0.5 * ((x / width - 0.5) * np.cos(angle) + (y / height - 0.5) * np.sin(angle))
    coarse = rng.uniform(-20, 20, (7, 7)).astype(np.float32)
    rows = _stretch(_stretch(coarse, height).T, width).T
    blended: Plane = ends[0] + along[..., None] * (ends[1] - ends[0]) + rows[..., None]
    return blended


def _stretch(grid: Plane, length: int) -> Plane:
    """Linear interpolation along the first axis to `length` rows."""
    at = np.linspace(0, len(grid) - 1, length, dtype=np.float32)
    low = np.minimum(at.astype(int), len(grid) - 2)
    weight = (at - low)[:, None]
    stretched: Plane = grid[low] * (1 - weight) + grid[low + 1] * weight
    return stretched


class Look(NamedTuple):
    """A shape in two colours."""

    first: tuple[int, int, int]
    second: tuple[int, int, int]
    shape: Callable[[Plane, Plane, Act, float], Inside]


def _paint(canvas: Plane, look: Look, act: Act, now: float) -> None:
    """Blend the shape in at the act's slot.

    `shape` is given coordinates in units of RADIUS (x to the right, y down) and says how far inside a pixel lies
    (same unit, positive inside) and where the second colour is.
    """
    height, width = canvas.shape[:2]
    pixels = np.float32(RADIUS * min(height, width))
    x0, y0 = SLOTS[act.slot][0] * width, SLOTS[act.slot][1] * height
    left, right = max(0, int(x0 - 1.5 * pixels)), min(width, int(x0 + 1.5 * pixels) + 1)
    top, bottom = max(0, int(y0 - 1.5 * pixels)), min(height, int(y0 + 1.5 * pixels) + 1)
    x = (np.arange(left, right, dtype=np.float32)[None, :] - np.float32(x0)) / pixels
    y = (np.arange(top, bottom, dtype=np.float32)[:, None] - np.float32(y0)) / pixels
    depth, second = look.shape(x, y, act, now)
    alpha = np.clip(depth * pixels, 0, 1)[..., None]
    colour = np.where(second[..., None], np.array(look.second, np.float32), np.array(look.first, np.float32))
    box = canvas[top:bottom, left:right]
    box += alpha * (colour - box)


def _square(x: Plane, y: Plane, turn: float = 0.0) -> tuple[Plane, Plane]:
    """How far inside the square of half side 0.85 a pixel lies, and its turned x."""
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    return 0.85 - np.maximum(abs(u), abs(v)), u


def _balloon(x: Plane, y: Plane, act: Act, now: float) -> Inside:
    share = now / (act.end - act.start)
    r = np.hypot(x, y)
    return 0.35 + 0.9 * (share if act.label == "grow" else 1 - share) - r, np.sin(7 * x) * np.sin(7 * y) > 0


def _disc(x: Plane, y: Plane, _act: Act, _now: float) -> Inside:
    r = np.hypot(x, y)
    return 1 - r, abs(r - 0.65) < 0.1


def _prism(x: Plane, y: Plane, act: Act, now: float) -> Inside:
    y = y - 0.4 + 0.8 * now / (act.end - act.start)  # it rises
    return np.minimum(0.8 - y, 0.45 + 0.45 * y - abs(x)), np.sin(12 * y) > 0.3


def _dashes(x: Plane, y: Plane, _act: Act, now: float) -> Inside:
    inside, column = _square(x, y)[0], np.floor(x * 4)
    falling = np.sin(7 * (y - 2 * now) + 2.4 * column) - 0.1
    return np.minimum(inside, np.minimum(falling, np.sin(8 * np.pi * x) ** 2 - 0.25)), falling > 0.7


def _turned(x: Plane, y: Plane, act: Act, now: float) -> Inside:
    depth, u = _square(x, y, 4 * now if act.label == "spin" else 0.0)
    return depth, np.sin(9 * u) > 0


def _zebra(x: Plane, y: Plane, _act: Act, now: float) -> Inside:
    depth = _square(x, y)[0]
    on = (now + 1e-6) % 0.8 < 0.4  # 1.2 s is the exact end of a pause, up to rounding
    return depth if on else np.full_like(depth, -1.0), np.sin(10 * y) > 0


def _star(x: Plane, y: Plane, _act: Act, now: float) -> Inside:
    r, angle = np.hypot(x, y), np.arctan2(y, x)
    return (0.75 + 0.2 * math.cos(12 * now)) * (0.75 + 0.25 * np.cos(5 * angle)) - r, r < 0.25


LOOKS: Mapping[str, Look] = {
    "balloon": Look((250, 130, 20), (255, 245, 220), _balloon),
    "disc": Look((20, 60, 240), (240, 250, 255), _disc),
    "prism": Look((40, 210, 60), (10, 90, 30), _prism),
    "dashes": Look((40, 220, 240), (235, 255, 255), _dashes),
    "square": Look((225, 25, 30), (255, 250, 250), _turned),
    "zebra": Look((250, 235, 40), (15, 15, 15), _zebra),
    "star": Look((190, 60, 220), (255, 220, 255), _star),
}


def soundtrack(sounds: Sequence[Segment], duration: float, rng: Generator) -> NDArray[np.float32]:
    """(S,) mono samples at SOUND_RATE: a soft hiss and `sounds`."""
    track = rng.normal(0, 0.003, round(duration * SOUND_RATE))
    for label, start, end in sounds:
        first = round(start * SOUND_RATE)
        t = np.arange(min(round(end * SOUND_RATE), len(track)) - first) / SOUND_RATE
        fade = np.minimum(1, np.minimum(t, t[::-1]) / 0.01)  # no clicks at the ends
        track[first : first + len(t)] += 0.2 * fade * _sound(label, t, rng)
    return np.clip(track, -1, 1).astype(np.float32)


def _sound(label: str, t: NDArray[np.float64], rng: Generator) -> NDArray[np.float64]:
    """What a class sounds like; `t` in seconds from its start."""
    if label == "beep":
        return np.sin(2 * np.pi * 880 * t)
    if label == "hum":
        return np.sin(2 * np.pi * 120 * t) + 0.6 * np.sin(2 * np.pi * 240 * t)
    if label == "lift":  # 300 Hz, rising by 600 Hz a second
        return np.sin(2 * np.pi * (300 * t + 300 * t**2))
    if label == "drum":  # a beat every 160 ms
        return 2 * rng.normal(size=len(t)) * np.exp(-(t % 0.16) / 0.03)
    assert label == "flash", label
    return 2 * rng.normal(size=len(t)) * np.exp(-t / 0.15)
