"""Whether a fragmented MP4 file was cut: it declares no length as a whole, but each of its boxes does."""

from __future__ import annotations

import os
import struct
from pathlib import Path

MOST_BOXES = 1_000_000  # a day of video in fragments of a tenth of a second


def cut_fragments(path: str) -> str:
    """What a fragmented MP4 or QuickTime file lacks at its end, in words; empty if nothing, or if it has no fragments.

    Source: ISO/IEC 14496-12, 4.2 (boxes) and 8.8.4 (`moof`, the header of a fragment).
    """
    fragmented, at = False, 0
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for _ in range(MOST_BOXES):
            file.seek(at)
            header = file.read(16)
            if len(header) < 8:
                break
            (length,), kind = struct.unpack(">I", header[:4]), header[4:8]
            if length == 1 and len(header) == 16:
                (length,) = struct.unpack(">Q", header[8:])
            fragmented |= kind == b"moof"
            if length < 8:  # 0: the box goes to the end of the file; else this is no box
                break
            at += length
    return f"the file ends {at - size} bytes before its last part does" if fragmented and at > size else ""
