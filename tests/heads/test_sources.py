"""Which sets a head reads when nobody says."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from heads.baselines import Linear
from heads.sources import choose_sources
from stores.spec import FeatureSpec, Granularity
from tests.heads.feature_stores import flat_spec, write_store


def test_pictures_come_first_and_scenes_last(tmp_path: Path) -> None:
    """The first set's rows are the grid, and a scene is too long for a row: frames have labels of their own."""
    rows = {"v.mp4": np.zeros((4, 2), np.float32)}
    specs = {
        "a.rgb.scene": FeatureSpec(Granularity.SCENE, (2,), dtype="float32", stream="rgb"),
        "b.audio.frame": flat_spec(2, stream="audio"),
        "c.rgb.frame": flat_spec(2, stream="rgb"),
        "d.rgb.clip": FeatureSpec(Granularity.CLIP, (2,), dtype="float32", stream="rgb"),
    }
    store = write_store(tmp_path / "s.zarr", dict.fromkeys(specs, rows), specs=specs)
    names = [source.features.name for source in choose_sources(Linear, [store])]
    assert names == ["c.rgb.frame", "d.rgb.clip", "b.audio.frame", "a.rgb.scene"]
