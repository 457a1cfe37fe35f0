"""Features in HDF5, Zarr and csv of strangers: what is read, and what leads elsewhere."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr

from stores import open_store
from stores.array_layouts import Unusable
from stores.hdf5_worker import Hdf5Reader
from stores.import_csv import csv_source
from stores.import_hdf5 import hdf5_source
from stores.import_zarr import zarr_source
from stores.importing import ImportSummary, import_videos
from stores.importing_options import make_options
from stores.time_grid import TimeGridError

GRID: dict[str, Any] = {"backbone": "net", "fps": 1.0, "stride": 1, "level": "clip"}
ROWS = np.arange(12, dtype=np.float32).reshape(4, 3)


def hdf5(path: Path, out: Path, key: str | None = None) -> ImportSummary:
    return import_videos(hdf5_source([path], make_options("hdf5", **GRID), key), out)


def comma(path: Path, out: Path, **options: Any) -> ImportSummary:
    return import_videos(csv_source([path], make_options("csv", backbone="net", level="clip", **options)), out)


def read(out: Path, video: str) -> tuple[list[list[float]], list[list[float]]]:
    rows = open_store(out)["net.rgb.clip"].read(video)
    return rows.features.tolist(), rows.times.tolist()


def test_groups_are_part_of_the_id(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["train/a"] = ROWS
        file["b/feats"] = ROWS + 1
        file["b/fps"] = 25.0
    assert hdf5(tmp_path / "a.h5", tmp_path / "o.zarr").done == 2
    assert list(open_store(tmp_path / "o.zarr")["net.rgb.clip"]) == ["b/feats", "train/a"]
    summary = hdf5(tmp_path / "a.h5", tmp_path / "k.zarr", "feats")
    assert (summary.done, len(summary.warnings["other arrays"])) == (1, 2)
    assert read(tmp_path / "k.zarr", "b")[0] == (ROWS + 1).tolist()


def test_hdf5_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    """The victim holds rows that would be imported; a fifth file declares 64 GiB in a few bytes."""
    victim = tmp_path / "victim.h5"
    with h5py.File(victim, "w") as file:
        file["x"] = ROWS
    (tmp_path / "raw").write_bytes(ROWS.tobytes())
    folder = tmp_path / "in"
    folder.mkdir()
    with h5py.File(folder / "a.h5", "w") as file:
        file["good"] = ROWS
        file["external"] = h5py.ExternalLink(str(victim), "/x")
        file["soft"] = h5py.SoftLink("/good")
        file.create_dataset("storage", (4, 3), "f4", external=[(str(tmp_path / "raw"), 0, 48)])
        layout = h5py.VirtualLayout((4, 3), "f4")
        layout[:] = h5py.VirtualSource(str(victim), "x", (4, 3))
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("bomb", (2**34,), "f4", chunks=(2**20,), compression="gzip")
        file.create_dataset("empty", (4, 3), "f4")
        file["group/loop"] = file["/"]
        file["text"] = "words"
    before = time.monotonic()
    summary = hdf5(folder, tmp_path / "o.zarr")
    assert time.monotonic() - before < 20
    assert list(open_store(tmp_path / "o.zarr")["net.rgb.clip"]) == ["good"]
    told = {failure.video: failure.detail for failure in summary.failures}
    assert "which may point to another file" in told["external"]
    assert "which may point to another file" in told["soft"]
    assert "put together from other files" in told["storage"]
    assert "put together from other files" in told["virtual"]
    assert told["bomb"].startswith("an array of 68719476736 bytes")
    assert told["empty"] == "shape (4, 3) was declared, and nothing was written"
    assert "not numbers" in told["text"]
    assert any("second time" in words for words in told.values())


def test_hdf5_that_is_none_fails_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (failure,) = hdf5(tmp_path / "a.h5", tmp_path / "o.zarr").failures
    assert (failure.video, failure.reason) == ("a.h5", "decode_error")


def test_zarr_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    group = zarr.open_group(str(tmp_path / "in.zarr"), mode="w")
    for name in ("good", "link", "lost"):
        group.create_array(name, data=ROWS, chunks=(4, 3))
    chunks = {name: next(p for p in (tmp_path / "in.zarr" / name / "c").rglob("*") if p.is_file()) for name in group}
    chunks["link"].rename(tmp_path / "victim")
    chunks["link"].symlink_to(tmp_path / "victim")
    chunks["lost"].unlink()
    source = zarr_source([tmp_path / "in.zarr"], make_options("zarr", **GRID), None)
    told = {failure.video: failure.detail for failure in import_videos(source, tmp_path / "o.zarr").failures}
    assert "is a link" in told["link"]
    assert "lacks the chunk" in told["lost"]
    assert read(tmp_path / "o.zarr", "good")[0] == ROWS.tolist()


def test_csv_rows_carry_their_seconds(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("video,start,end,f0,f1\na,0,2,1,2\na,2,3.5,3,4\nb,1,1.5,5,-6\n")
    assert comma(tmp_path / "a.csv", tmp_path / "o.zarr").done == 2
    assert read(tmp_path / "o.zarr", "a") == ([[1, 2], [3, 4]], [[0, 2], [2, 3.5]])
    assert read(tmp_path / "o.zarr", "b") == ([[5, -6]], [[1, 1.5]])


def test_csv_times_go_to_the_next_row(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("Time, f0\n0,1\n0.5,2\n2,3\n")
    assert comma(tmp_path / "v.csv", tmp_path / "o.zarr").done == 1
    assert read(tmp_path / "o.zarr", "v") == ([[1], [2], [3]], [[0, 0.5], [0.5, 2], [2, 3.5]])


def test_csv_without_times_needs_a_grid(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("f0,f1\n1,2\n")
    with pytest.raises(TimeGridError, match="nobody says"):
        comma(tmp_path / "v.csv", tmp_path / "o.zarr")
    comma(tmp_path / "v.csv", tmp_path / "o.zarr", fps=2.0, stride=1)
    assert read(tmp_path / "o.zarr", "v") == ([[1, 2]], [[0, 0.5]])


def test_wrong_cells_of_a_csv_cost_their_video(tmp_path: Path) -> None:
    lines = [
        "video,time,f0",
        "a,0,1",
        "a,1,2",
        "b,0,x",
        "b,1,2",
        "c,0,nan",
        "c,1,1",
        "d,0,1,9",
        "d,1,1",
        "e,1,1",
        "e,0,1",
    ]
    (tmp_path / "a.csv").write_text("\n".join([*lines, "f,0,1", "a,2,1"]))
    summary = comma(tmp_path / "a.csv", tmp_path / "o.zarr")
    assert summary.done == 1
    assert {f.video: f.detail for f in summary.failures} == {
        "b": "row 4: could not convert string to float: 'x'",
        "c": "row 0 of the video has a value that is no finite number",
        "d": "row 8 has 4 cells, the header 3",
        "e": "the times of its rows are not in order, or no seconds of a video",
        "f": "one row with one time: how long it is nobody says",
        "a": "a video of this id came before",
    }


def test_a_file_that_hangs_or_kills_the_library_costs_itself(tmp_path: Path) -> None:
    """A pipe that nobody writes to stands for it: opening one blocks inside the library."""
    os.mkfifo(tmp_path / "hangs.h5")
    with h5py.File(tmp_path / "good.h5", "w") as file:
        file["v"] = ROWS
    reader = Hdf5Reader(timeout_s=1.0)
    try:
        assert reader.datasets(tmp_path / "good.h5") == [("v",)]
        with pytest.raises(Unusable, match="has not read it within 1 s") as hung:
            reader.datasets(tmp_path / "hangs.h5")
        assert hung.value.reason == "timeout"
        np.testing.assert_array_equal(reader.array(tmp_path / "good.h5", ("v",)), ROWS)
        (process,) = multiprocessing.active_children()
        process.kill()
        process.join()
        with pytest.raises(Unusable, match="broke down") as died:
            reader.datasets(tmp_path / "good.h5")
        assert died.value.reason == "crashed"
        assert reader.datasets(tmp_path / "good.h5") == [("v",)]
    finally:
        reader.close()
    assert not multiprocessing.active_children()
