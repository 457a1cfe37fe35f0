"""What a store gives to other tools, and what comes back."""

from __future__ import annotations

import csv
import importlib.util
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from stores import FeatureSpec, Granularity, Rows, StoreError, open_store
from stores.exporting import KINDS, export_store, file_names
from stores.import_arrays import ArrayNames, array_source
from stores.import_hdf5 import hdf5_source
from stores.importing import import_videos
from stores.importing_options import make_options
from stores.labels import Labels, VideoLabels
from stores.time_grid import TimeGrid
from stores.zarr_store import ZarrWriter
from tests.stores.samples import CLIP, MAP, SOUND, assert_rows, put, rows_of

GRID = TimeGrid(4, 30.0, 16)
WINDOWED = FeatureSpec(
    Granularity.CLIP, (6,), backbone="i3d", stream="rgb", fps=30.0, stride=4, window=16, dense="windowed"
)


def store(path: Path, spec: FeatureSpec, videos: dict[str, Rows], labels: Labels | None = None) -> Any:
    with ZarrWriter(path, {"net.rgb.clip": spec}) as writer:
        for video, rows in videos.items():
            put(writer, video, {"net.rgb.clip": rows})
        if labels is not None:
            writer.attach("labels", labels.to_dict())
    return open_store(path)


def on_grid(rows: int, seed: int = 0) -> Rows:
    return Rows(rows_of(WINDOWED, rows, seed).features, GRID.times(rows))


@pytest.mark.parametrize("spec", [CLIP, MAP, SOUND])
def test_arrays_come_back_equal(tmp_path: Path, spec: FeatureSpec) -> None:
    videos = {video: rows_of(spec, rows, rows) for video, rows in (("b.mp4", 70), ("a/x.mkv", 1), ("../é", 5))}
    opened = store(tmp_path / "s.zarr", spec, videos)
    export_store(opened, "npy", tmp_path / "npy")
    export_store(opened, "hdf5", tmp_path / "all.h5")
    level, dtype = str(spec.granularity), "float32" if spec.dtype != "float16" else "float16"
    options = make_options("npy", backbone="net", level=level, dtype=dtype)
    import_videos(array_source([tmp_path / "npy"], options, ArrayNames()), tmp_path / "npy.zarr")
    import_videos(hdf5_source([tmp_path / "all.h5"], options, None), tmp_path / "h5.zarr")
    names = file_names(videos)
    for path in ("npy.zarr", "h5.zarr"):
        part = open_store(tmp_path / path)[f"net.rgb.{level}"]
        assert len(part) == 3
        for video, rows in videos.items():
            expected = rows.features
            if spec.dtype == "uint8":
                expected = (expected * 0.5 - 1.0).astype(np.float32)
            assert_rows(part.read(names[video]), Rows(expected, rows.times))
    assert not list(tmp_path.glob("**/*.tmp"))


def test_plain_libraries_read_what_was_exported(tmp_path: Path) -> None:
    rows = rows_of(CLIP, 9)
    opened = store(tmp_path / "s.zarr", CLIP, {"a.mp4": rows})
    export_store(opened, "npy", tmp_path / "npy")
    np.testing.assert_array_equal(np.load(tmp_path / "npy" / "a.mp4.npy", allow_pickle=False), rows.features)
    export_store(opened, "hdf5", tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["a.mp4"][:], rows.features)
    with h5py.File(tmp_path / "a_times.h5") as file:
        np.testing.assert_array_equal(file["a.mp4"][:], rows.times)
    (line,) = csv.DictReader((tmp_path / "npy" / "index.csv").read_text().splitlines())
    assert (line["video"], line["file"], line["rows"], float(line["end"])) == ("a.mp4", "a.mp4.npy", "9", 3.0)
    assert line["sha256"] == opened["net.rgb.clip"].entry("a.mp4").sha256


HOSTILE = ["/etc/passwd", "../../x", "a\0b", "a/../b", ".hidden", "x" * 300, "a\x1b[2J", "C:\\x", "", "a//b", "\udcff"]


def test_names_stay_in_the_folder_and_are_different() -> None:
    videos = [*HOSTILE, "A", "a", "a/b", "ok/b.mp4"]
    names = file_names(videos)
    assert len({name.casefold() for name in names.values()}) == len(videos)
    assert names["ok/b.mp4"] == "ok/b.mp4"
    for video in HOSTILE:
        path = Path("/somewhere/folder", names[video])
        assert path.resolve().parent == Path("/somewhere/folder")
        assert names[video].isprintable()
        assert len(names[video]) < 100
    assert names["a/b"] != "a/b", "a file A.npy and a folder a are one name on some systems"


def test_cells_that_a_spreadsheet_would_run_are_text(tmp_path: Path) -> None:
    opened = store(tmp_path / "s.zarr", CLIP, {"=cmd|'/c calc'!A1": rows_of(CLIP, 2), "@x": rows_of(CLIP, 2)})
    export_store(opened, "csv", tmp_path / "i.csv")
    lines = (tmp_path / "i.csv").read_text().splitlines()
    assert [line["video"] for line in csv.DictReader(lines)] == [
        "'=cmd|'/c calc'!A1",
        "'@x",
    ]


LABELS = Labels(
    ("run", "jump"),
    {
        "a": VideoLabels.of([(0, 1.0, 2.0), (1, 3.0, 2.0), (1, 0.5, 2.5)], duration=4.0, subset="train"),
        "other": VideoLabels.of([]),
    },
)


@pytest.mark.parametrize("kind", ["opentad", "actionformer"])
def test_detection_folders_put_a_second_where_the_rows_are(tmp_path: Path, kind: str) -> None:
    """Row i is centred at (i stride + window / 2) / fps; the two programs' formulas must give i for that second."""
    videos = {"a.mp4": on_grid(20), "b.mp4": on_grid(5)}
    done = export_store(store(tmp_path / "s.zarr", WINDOWED, videos, LABELS), kind, tmp_path / "o")
    assert done.notes == ["1 videos have no labels and are not in annotations.json"]
    np.testing.assert_array_equal(np.load(tmp_path / "o" / "features" / "a.npy"), videos["a.mp4"].features)
    assert (tmp_path / "o" / "category_idx.txt").read_text() == "run\njump\n"
    fields = json.loads((tmp_path / "o" / "annotations.json").read_text())["database"]
    assert list(fields) == ["a"]
    assert (fields["a"]["duration"], fields["a"]["frame"], fields["a"]["subset"]) == (4.0, 120, "train")
    assert fields["a"]["annotations"] == [
        {"segment": [1.0, 2.0], "label": "run", "label_id": 0},
        {"segment": [0.5, 2.5], "label": "jump", "label_id": 1},
    ]
    centres = np.array([(i * 4 + 8) / 30 for i in range(20)])
    if kind == "actionformer":
        text = (tmp_path / "o" / "dataset.yaml").read_text()
        assert text.startswith("dataset: {\n")
        found = dict(line.strip().rstrip(",").split(": ") for line in text.splitlines()[1:-1])
        assert (found["input_dim"], found["file_ext"], found["file_prefix"]) == ("6", '".npy"', "null")
        fps, frames, stride = (float(found[key]) for key in ("default_fps", "num_frames", "feat_stride"))
        rows = (centres * fps - 0.5 * frames) / stride
    else:
        scope: dict[str, Any] = {}
        exec((tmp_path / "o" / "dataset.py").read_text(), scope)
        found = scope["dataset"]
        rows = (centres * 30 - found["offset_frames"]) / found["feature_stride"]
        assert (found["feature_stride"], found["sample_stride"], found["offset_frames"]) == (4, 1, 8)
    np.testing.assert_allclose(rows, np.arange(20), atol=1e-9)


def test_rows_beside_the_grid_are_not_exported_for_detection(tmp_path: Path) -> None:
    rows = on_grid(20)
    opened = store(tmp_path / "s.zarr", WINDOWED, {"a": Rows(rows.features, rows.times + 0.1)})
    with pytest.raises(StoreError, match="no other times"):
        export_store(opened, "actionformer", tmp_path / "o")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.zarr"]


def test_nothing_is_overwritten_and_wrong_words_are_named(tmp_path: Path) -> None:
    opened = store(tmp_path / "s.zarr", CLIP, {"a": rows_of(CLIP, 2)})
    (tmp_path / "there").mkdir()
    for kind in KINDS:
        with pytest.raises(StoreError, match="exporting never overwrites"):
            export_store(opened, kind, tmp_path / "there")
    with pytest.raises(StoreError, match="--to is npy, hdf5"):
        export_store(opened, "matlab", tmp_path / "o")
    with pytest.raises(StoreError, match="frame-level TFRecords take uint8"):
        export_store(opened, "tfrecord", tmp_path / "o")
    with pytest.raises(StoreError, match="has no set 'x'"):
        export_store(opened, "npy", tmp_path / "o", "x")


def test_one_of_several_sets_is_asked_for(tmp_path: Path) -> None:
    with ZarrWriter(tmp_path / "s.zarr", {"a": CLIP, "b": MAP}) as writer:
        put(writer, "v", {"a": rows_of(CLIP, 2), "b": rows_of(MAP, 2)})
    with pytest.raises(StoreError, match="has 2 sets: say --set NAME, one of a, b"):
        export_store(open_store(tmp_path / "s.zarr"), "npy", tmp_path / "o")
    export_store(open_store(tmp_path / "s.zarr"), "csv", tmp_path / "i.csv")
    assert [line["set"] for line in csv.DictReader((tmp_path / "i.csv").read_text().splitlines())] == ["a", "b"]


def test_a_parquet_index_has_a_row_for_each_video(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="the extra parquet is not installed")
    opened = store(tmp_path / "s.zarr", CLIP, {"a": rows_of(CLIP, 2), "=b": rows_of(CLIP, 6)})
    export_store(opened, "parquet", tmp_path / "i.parquet")
    frame = pandas.read_parquet(tmp_path / "i.parquet")
    assert frame[["set", "video", "rows", "end"]].values.tolist() == [
        ["net.rgb.clip", "=b", 6, 2.0],
        ["net.rgb.clip", "a", 2, 2 / 3],
    ]


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    opened = store(tmp_path / "s.zarr", CLIP, {"a": rows_of(CLIP, 2)})
    with pytest.raises(StoreError, match=r"pip install 'vl\[parquet\]'"):
        export_store(opened, "parquet", tmp_path / "i.parquet")
    assert not (tmp_path / "i.parquet").exists()
