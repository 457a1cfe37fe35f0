"""Short videos of shots that change, with a label file beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.extract.test_clips import picture
from tests.extract.video_files import wave, write_video

SUBSETS = ("train", "train", "train", "val", "test")


def labelled_videos(folder: Path, lengths: Sequence[int], *, sound: bool = False) -> Path:
    """Draw v0.mp4 and so on, of so many frames at 12 a second, one for each of SUBSETS, into a new folder; gives it.

    `sound`: all but v0.mp4 have some, which is noise.
    """
    folder.mkdir()
    lines = ["video,start,end,label,subset"]
    for number, (frames, subset) in enumerate(zip(lengths, SUBSETS, strict=True)):
        noise = np.random.default_rng(number).uniform(-0.5, 0.5, int(16_000 * frames / 12))
        heard = wave(noise) if sound and number else []
        write_video(folder / f"v{number}.mp4", fps=12, frames=frames, draw=picture, sound=heard, sound_codec="aac")
        lines += [f"v{number},0,0.5,{label},{subset}" for label in ("odd" if number % 2 else "even", "all")]
    (folder / "labels.csv").write_text("\n".join(lines))
    return folder
