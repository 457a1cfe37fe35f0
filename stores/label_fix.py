"""A corrected copy of labels: only what has one right answer is corrected, everything else stays and is said.

A segment that ends after its video is cut at the video's end; what is reversed, empty, or begins at or after the end
of its video is dropped, and so is the exact copy of another. Overlaps, unknown classes, class ids, names and videos
without labels are left: what they should be, only their owner knows.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from stores.label_check import copies, wrong_segments
from stores.label_table import LabelFile
from stores.labels import Labels


def fixed(file: LabelFile) -> tuple[Labels, dict[str, int]]:
    """The corrected labels, and how often each correction was made: `cut`, `dropped: reversed`, ..."""
    done = dict.fromkeys(("cut at the end of the video", *(f"dropped: {kind}" for kind in _DROPPED)), 0)
    done["dropped: class without a name"] = len(file.unknown)
    done["dropped: duplicate"] += len(file.repeated)
    videos = {}
    for video, entry in file.labels.videos.items():
        wrong = wrong_segments(entry)
        keep = np.ones(len(entry.classes), bool)
        for kind in _DROPPED:
            done[f"dropped: {kind}"] += int((wrong[kind] & keep).sum())
            keep &= ~wrong[kind]
        spans = entry.spans.copy()
        cut = wrong["late"] & keep
        done["cut at the end of the video"] += int(cut.sum())
        if entry.duration is not None:
            spans[cut, 1] = entry.duration
        cut_ones = dataclasses.replace(entry, classes=entry.classes[keep], spans=spans[keep])
        again = copies(cut_ones)  # two that differed past the end only are copies of each other now
        done["dropped: duplicate"] += int(again.sum())
        videos[video] = dataclasses.replace(cut_ones, classes=cut_ones.classes[~again], spans=cut_ones.spans[~again])
    labels = file.labels
    return Labels(labels.classes, videos, labels.label_at), {kind: count for kind, count in done.items() if count}


_DROPPED = ("reversed", "empty", "beyond", "duplicate")
