"""Flow as pictures, where `--save-flow` asks for them: a folder a video, in the layout that this field's loaders read.

    DIR/SLUG-HASH/flow_x_00001.png, flow_y_00001.png, ...   levels 0 to 255 of -20 to 20 pixels, before the crop
    DIR/SLUG-HASH/video.json                                the video's id and what defines the flow

A folder has its name only when all of its video is there: until then it is `.SLUG-HASH.part`, and a run that is killed
leaves no more than that, which the next one takes away. It survives a kill, not a power cut: pictures are not synced.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from stores import disk
from stores.names import slug


class FlowFolder:
    """The folder of `--save-flow`."""

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.settings = dict(settings)

    def start(self, video: str, fps: float | None) -> FlowImages:
        """For the flow of one video."""
        return FlowImages(self.path, {"video": video, "fps": fps, **self.settings})


class FlowImages:
    """Writes the flow of one video; nothing is seen of it under its name before `finish`."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.facts = facts
        self.final = folder / folder_name(str(facts["video"]))
        self.part = folder / f".{self.final.name}.part"
        self.count = 0
        disk.remove_tree(self.part)
        with disk.reporting(self.part):
            disk.ensure_directory(folder.absolute())
            disk.make_directory(self.part)

    def write(self, flow: Tensor) -> None:
        """(n, h, w, 2) uint8, the next flow frames."""
        import cv2

        for frame in flow.cpu().numpy():
            self.count += 1
            for axis, name in enumerate("xy"):
                _, picture = cv2.imencode(".png", frame[..., axis])
                disk.write_new(self.part / f"flow_{name}_{self.count:05d}.png", picture)

    def finish(self) -> None:
        """All of the video is there: give the folder its name, in place of an older one."""
        facts = {**self.facts, "frames": self.count}
        disk.write_new(self.part / "video.json", json.dumps(facts, indent=2).encode())
        disk.remove_tree(self.final)
        disk.rename_folder(self.part, self.final.name)


def folder_name(video: str) -> str:
    """A harmless name, different for every id.

    >>> folder_name("../a b.mp4")
    'a-b.mp4-486db3c01012'
    """
    return f"{slug(video)}-{hashlib.sha256(video.encode()).hexdigest()[:12]}"
