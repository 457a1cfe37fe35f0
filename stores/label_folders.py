"""Folders of small text files: MultiTHUMOS, a file a class; GRID, a file a video.

annotations/BaseballPitch.txt     rows `video start end`, in seconds
align/bbaf2n.align                rows `start end word`, 25,000 units a second; sil and sp are silence
"""

from __future__ import annotations

from collections.abc import Sequence

from stores.label_table import LabelFile, LabelTable, Part, ReadOptions
from stores.label_text import lines
from stores.labels import LabelError
from stores.names import printable

GRID_UNITS = 25_000  # a second
SILENCE = frozenset({"sil", "sp"})


def read_multithumos(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """MultiTHUMOS's annotations: the class is the name of its file; an empty file is a class without a segment."""
    table = LabelTable(parts, options, lambda place: f"{parts[place >> 32].path.name}, row {place & 0xFFFFFFFF}")
    for number, part in enumerate(parts):
        label = table.label(part.path.stem, table.place(number, 0))
        for row, line in lines(part.path):
            place = table.place(number, row)
            words = line.rsplit(None, 2)
            if len(words) != 3:
                raise table.error(place, f"'{printable(line)[:60]}' is not of the form 'video start end'.")
            video = table.video(words[0].strip(), place)
            start, end = table.seconds(words[1], "start", place), table.seconds(words[2], "end", place)
            table.span(video, label, start, end, place)
    if not table.videos:
        raise LabelError(f"{table.path.parent} has no row with a segment in any of its {len(parts)} files.")
    return table.named("multithumos")


def read_align(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """GRID's word alignments: the class is the word.

    Source: Cooke et al., "An audio-visual corpus for speech perception and automatic speech recognition", 2006.
    """
    table = LabelTable(parts, options, lambda place: f"{parts[place >> 32].path.name}, row {place & 0xFFFFFFFF}")
    for number, part in enumerate(parts):
        video = table.video(part.path.stem, table.place(number, 0))
        for row, line in lines(part.path):
            place = table.place(number, row)
            words = line.split()
            if len(words) != 3:
                raise table.error(place, f"'{printable(line)[:60]}' is not of the form 'start end word'.")
            if words[2] in SILENCE:
                continue
            start, end = table.seconds(words[0], "start", place), table.seconds(words[1], "end", place)
            table.span(video, table.label(words[2], place), start / GRID_UNITS, end / GRID_UNITS, place)
    if not table.labels:
        raise LabelError(f"{table.path} has no word.")
    return table.named("align")
