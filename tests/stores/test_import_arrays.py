"""Folders of arrays into a store: every shape, times that are said and never guessed, and what is wrong by name."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from stores import Granularity, SpecMismatchError, StoreError, open_store
from stores.difference import compare_stores
from stores.durations import read_durations
from stores.import_arrays import ArrayNames, array_source
from stores.import_csv import csv_source
from stores.import_hdf5 import hdf5_source
from stores.import_zarr import zarr_source
from stores.importing import ImportOptions, ImportSource, ImportSummary, Item, import_videos
from stores.importing_options import make_options
from stores.labels import Labels, VideoLabels
from stores.time_grid import TimeGrid, TimeGridError, times_from_stamps
from stores.zarr_store import ZarrWriter
from tests.memory import PEAK_MIB

ROOT = Path(__file__).parents[2]
T, D = 7, 12
GRID: dict[str, Any] = {"backbone": "net", "fps": 8.0, "stride": 4}  # a row every half second


def values(rows: int = T, width: int = D, seed: int = 0) -> NDArray[np.float32]:
    """Numbers that float16 holds exactly."""
    steps: NDArray[np.float32] = np.random.default_rng(seed).integers(-512, 512, (rows, width)).astype(np.float32)
    return steps / np.float32(8)


def put(folder: Path, name: str, array: NDArray[Any]) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array)
    return path


def run(folder: Path, out: Path, names: ArrayNames | None = None, **options: Any) -> ImportSummary:
    return import_videos(array_source([folder], make_options("npy", **{**GRID, **options}), names or ArrayNames()), out)


def only(out: Path, name: str = "net.rgb.clip", video: str = "v") -> tuple[NDArray[Any], NDArray[np.float64]]:
    rows = open_store(out)[name].read(video)
    return rows.features, rows.times


HALVES = np.stack([np.arange(T) / 2, np.arange(1, T + 1) / 2], 1)  # the grid's seconds


@pytest.mark.parametrize(
    ("shaped", "options"),
    [
        (lambda x: x, {}),
        (lambda x: x[:, None, None], {}),
        (lambda x: x[None], {}),
        (lambda x: np.asfortranarray(x), {}),
        (lambda x: x.astype(">f8"), {}),
        (lambda x: x.astype("f2"), {}),
        (lambda x: x.T, {"layout": "DT"}),
        (lambda x: x.T[None], {"layout": "DT"}),
        (lambda x: np.stack([x + i for i in (-4, 4)]), {"layout": "CTD", "crops": "mean"}),
        (lambda x: np.stack([x + i for i in (-4, 4)], 1), {"layout": "TCD", "crops": "mean"}),
    ],
)
def test_all_shapes_are_the_same_rows(tmp_path: Path, shaped: Any, options: dict[str, Any]) -> None:
    put(tmp_path / "in", "v.npy", shaped(values()))
    summary = run(tmp_path / "in", tmp_path / "o.zarr", **options)
    assert (summary.done, summary.failures) == (1, [])
    features, times = only(tmp_path / "o.zarr")
    np.testing.assert_array_equal(features, values().astype("f2"))
    np.testing.assert_array_equal(times, HALVES)


def test_single_rows_and_single_features_keep_their_axes(tmp_path: Path) -> None:
    put(tmp_path / "a", "v.npy", values(1)[None])
    put(tmp_path / "b", "v.npy", values(width=1))
    run(tmp_path / "a", tmp_path / "a.zarr")
    run(tmp_path / "b", tmp_path / "b.zarr")
    assert only(tmp_path / "a.zarr")[0].shape == (1, D)
    assert only(tmp_path / "b.zarr")[0].shape == (T, 1)


@pytest.mark.parametrize("layout", ["CTD", "TCD"])
def test_crops_are_kept_as_samples_of_one_clip(tmp_path: Path, layout: str) -> None:
    crops = [values(seed=i) for i in range(10)]
    put(tmp_path / "in", "v.npy", np.stack(crops, 0 if layout == "CTD" else 1))
    run(tmp_path / "in", tmp_path / "o.zarr", layout=layout)
    features, times = only(tmp_path / "o.zarr")
    assert open_store(tmp_path / "o.zarr")["net.rgb.clip"].spec.view == "1x10"
    np.testing.assert_array_equal(features, np.concatenate(crops))
    np.testing.assert_array_equal(times, np.concatenate([HALVES] * 10))


def test_three_axes_are_never_guessed(tmp_path: Path) -> None:
    put(tmp_path / "in", "v.npy", np.zeros((10, 5, D), np.float32))
    (failure,) = run(tmp_path / "in", tmp_path / "o.zarr").failures
    assert failure.reason == "wrong_shape"
    assert failure.detail == (
        "shape (10, 5, 12) may be crops: say --layout CTD or --layout TCD (C crops, T time, D features)"
    )


def test_turned_features_of_a_recipe_are_told_from_time(tmp_path: Path) -> None:
    put(tmp_path / "in", "v.npy", np.ones((1024, 40), np.float32))
    (failure,) = run(tmp_path / "in", tmp_path / "o.zarr", recipe="charades-i3d", fps=None, stride=None).failures
    assert failure.detail == "1024 rows of 40, and a row has 1024 values: say --layout DT"


def test_maps_keep_their_cells(tmp_path: Path) -> None:
    maps = values(T * 6, 4).reshape(T, 2, 3, 4)
    put(tmp_path / "in", "v.npy", maps)
    run(tmp_path / "in", tmp_path / "o.zarr", level="map")
    np.testing.assert_array_equal(only(tmp_path / "o.zarr", "net.rgb.map")[0], maps)


def test_arrays_of_all_files_are_found(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    folder = tmp_path / "in"
    put(folder, "sub/a.npy", values(seed=1))
    np.savez(folder / "b.npz", feats=values(seed=2), other=np.zeros(3))
    np.savez_compressed(folder / "c.npz", features=values(seed=3))
    np.savez(folder / "d.npz", anything=values(seed=4))
    torch.save(torch.from_numpy(values(seed=5)), folder / "e.pt")
    torch.save({"features": torch.from_numpy(values(seed=6)).half(), "id": 3}, folder / "f.pt")
    torch.save(torch.from_numpy(values(seed=7)).bfloat16(), folder / "g.pth")
    (folder / "readme.txt").write_text("no features")
    summary = run(folder, tmp_path / "o.zarr")
    assert (summary.done, summary.failures, len(summary.ignored)) == (7, [], 1)
    for seed, video in enumerate(["sub/a", "b", "c", "d", "e", "f"], 1):
        np.testing.assert_array_equal(only(tmp_path / "o.zarr", video=video)[0], values(seed=seed))
    rounded = torch.from_numpy(values(seed=7)).bfloat16().float().numpy()
    np.testing.assert_array_equal(only(tmp_path / "o.zarr", video="g")[0], rounded)


def test_one_array_of_several_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in" / "v.npz", x=values(), y=values(seed=1))
    (failure,) = run(tmp_path / "in", tmp_path / "o.zarr").failures
    assert failure.detail == "say which array with --key; it has x, y"
    assert run(tmp_path / "in", tmp_path / "o.zarr", ArrayNames(key="y")).done == 1
    np.testing.assert_array_equal(only(tmp_path / "o.zarr")[0], values(seed=1))


def test_prefix_and_suffix_stand_around_the_video(tmp_path: Path) -> None:
    put(tmp_path / "in", "i3d_v-x.npy", values())
    put(tmp_path / "in", "i3d_v-y.npy", values())
    put(tmp_path / "in", "v.npy", values())
    summary = run(tmp_path / "in", tmp_path / "o.zarr", ArrayNames("i3d_", "-x"))
    assert list(open_store(tmp_path / "o.zarr")["net.rgb.clip"]) == ["v"]
    assert len(summary.ignored) == 2


def test_pairs_become_two_sets(tmp_path: Path) -> None:
    put(tmp_path / "in", "v_rgb.npy", values())
    put(tmp_path / "in", "v_flow.npy", values(width=5, seed=1))
    put(tmp_path / "in", "w_flow.npy", values(width=5, seed=2))
    put(tmp_path / "in", "w_rgb.npy", values()[:0])
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert summary.done == 3
    assert [(f.video, f.reason, f.set_name) for f in summary.failures] == [("w", "empty", "net.rgb.clip")]
    store = open_store(tmp_path / "o.zarr")
    assert {name: list(store[name]) for name in store} == {"net.rgb.clip": ["v"], "net.flow.clip": ["v", "w"]}
    assert store["net.flow.clip"].spec.stream == "flow"
    np.testing.assert_array_equal(store["net.flow.clip"].read("v").features, values(width=5, seed=1))


def test_the_same_rows_come_from_every_format(tmp_path: Path) -> None:
    """[T, 1, 1, 1024] as .npy, HDF5, Zarr and csv: equal by value and by time, and one fingerprint."""
    rows = {f"v{i}": values(20 + i, 1024, i).reshape(-1, 1, 1, 1024) for i in range(3)}
    group = zarr.open_group(str(tmp_path / "foreign.zarr"), mode="w")
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        for video, array in rows.items():
            put(tmp_path / "npy", f"{video}.npy", array)
            hdf5.create_dataset(video, data=array, compression="gzip", chunks=(4, 1, 1, 1024))
            group.create_array(video, data=array, chunks=(8, 1, 1, 1024))
    header = ",".join(["video", *(f"f{i}" for i in range(1024))])
    lines = [",".join([video, *map(str, row.ravel())]) for video, array in rows.items() for row in array]
    (tmp_path / "a.csv").write_text("\n".join([header, *lines]))
    made: dict[str, Callable[[ImportOptions], ImportSource]] = {
        "npy": lambda options: array_source([tmp_path / "npy"], options, ArrayNames()),
        "hdf5": lambda options: hdf5_source([tmp_path / "a.h5"], options, None),
        "zarr": lambda options: zarr_source([tmp_path / "foreign.zarr"], options, None),
        "csv": lambda options: csv_source([tmp_path / "a.csv"], options),
    }
    for kind, source in made.items():
        assert import_videos(source(make_options(kind, recipe="charades-i3d")), tmp_path / f"{kind}.zarr").done == 3
    first = open_store(tmp_path / "npy.zarr")["i3d.rgb.clip"]
    for video, array in rows.items():
        found = first.read(video)
        np.testing.assert_array_equal(found.features, array[:, 0, 0])
        expected = [[i * 8 / 24, (i + 1) * 8 / 24] for i in range(len(array))]
        np.testing.assert_allclose(found.times, expected, rtol=0, atol=1e-12)
    for kind in ("hdf5", "zarr", "csv"):
        other = open_store(tmp_path / f"{kind}.zarr")
        assert other["i3d.rgb.clip"].spec.fingerprint == first.spec.fingerprint
        assert compare_stores(open_store(tmp_path / "npy.zarr"), other, []).equal


def test_a_windowed_grid_has_the_windows_of_the_definition() -> None:
    """Centre of row i: (i stride + window / 2) / fps, 16 frames every 4 at 30 a second."""
    times = TimeGrid(4, 30.0, 16).times(50)
    np.testing.assert_allclose(times.mean(1), [(i * 4 + 16 / 2) / 30 for i in range(50)])
    np.testing.assert_allclose(np.diff(times, axis=1), 16 / 30)


def test_the_grid_is_in_the_spec(tmp_path: Path) -> None:
    put(tmp_path / "in", "v.npy", values())
    run(tmp_path / "in", tmp_path / "o.zarr", window=16, offset=2.0)
    spec = open_store(tmp_path / "o.zarr")["net.rgb.clip"].spec
    assert (spec.granularity, spec.fps, spec.stride, spec.window) == (Granularity.CLIP, 8.0, 4, 16)
    assert (spec.dense, spec.settings, spec.weights, spec.weights_sha256) == (
        "windowed",
        {"offset": 2.0},
        "imported",
        "",
    )
    assert only(tmp_path / "o.zarr")[1][1].tolist() == [(2 + 4) / 8, (2 + 4 + 16) / 8]


def test_no_grid_is_an_error_that_says_what_to_give(tmp_path: Path) -> None:
    put(tmp_path / "in", "v.npy", values())
    with pytest.raises(TimeGridError, match="Give --fps and --stride"):
        run(tmp_path / "in", tmp_path / "o.zarr", fps=None, stride=None)
    with pytest.raises(TimeGridError, match="--fps without --stride"):
        run(tmp_path / "in", tmp_path / "o.zarr", stride=None)
    with pytest.raises(TimeGridError, match="--stride without --fps"):
        run(tmp_path / "in", tmp_path / "o.zarr", fps=None)
    assert not (tmp_path / "o.zarr").exists()


def test_files_beside_the_rows_say_their_times(tmp_path: Path) -> None:
    put(tmp_path / "fps", "v.npy", values())
    put(tmp_path / "fps", "v_fps.npy", np.array(2.0))
    put(tmp_path / "fps", "w.npy", values())
    summary = run(tmp_path / "fps", tmp_path / "fps.zarr", fps=None, stride=1, level="clip")
    np.testing.assert_array_equal(only(tmp_path / "fps.zarr")[1], HALVES)
    assert [(f.video, f.reason) for f in summary.failures] == [("w", "no_times")]
    put(tmp_path / "ms", "v_rgb.npy", values())
    put(tmp_path / "ms", "v_timestamps_ms.npy", np.arange(T) * 500.0)
    run(tmp_path / "ms", tmp_path / "ms.zarr", fps=None, stride=None)
    np.testing.assert_array_equal(only(tmp_path / "ms.zarr")[1], HALVES)


def test_what_is_said_goes_before_files(tmp_path: Path) -> None:
    put(tmp_path / "in", "v.npy", values())
    put(tmp_path / "in", "v_timestamps_ms.npy", np.arange(T) * 77.0)
    put(tmp_path / "in", "w_fps.npy", np.array(25.0))
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert summary.warnings == {"times not used": ["v: _timestamps_ms"]}
    assert summary.ignored == [str(tmp_path / "in" / "w_fps.npy")]
    np.testing.assert_array_equal(only(tmp_path / "o.zarr")[1], HALVES)


def test_one_row_with_one_time_has_no_length() -> None:
    with pytest.raises(TimeGridError, match="how long it is nobody says"):
        times_from_stamps(np.array([1.0]))
    assert times_from_stamps(np.array([1.0]), 0.5).tolist() == [[1.0, 1.5]]


def test_values_that_cannot_be_stored_are_named(tmp_path: Path) -> None:
    bad = values()
    bad[3, 1] = np.nan
    put(tmp_path / "in", "nan.npy", bad)
    bad[3, 1] = 70000.0
    put(tmp_path / "in", "big.npy", bad)
    put(tmp_path / "in", "int.npy", np.zeros((T, D), np.uint8))
    put(tmp_path / "in", "none.npy", np.zeros((0, D), np.float32))
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert {failure.video: (failure.reason, failure.detail) for failure in summary.failures} == {
        "nan": ("not_finite", "row 3 has a value that is no finite number"),
        "big": ("overflow", "row 3 has 70000, too large for float16: say --dtype float32"),
        "int": ("wrong_dtype", "its values are uint8: floats are imported, others have no known scale"),
        "none": ("empty", "it holds an array of shape (0, 12), without a value"),
    }
    assert {f.video for f in open_store(tmp_path / "o.zarr").failures()} == {"nan", "big", "int", "none"}
    assert run(tmp_path / "in", tmp_path / "p.zarr", dtype="float32").done == 1


def test_rows_of_another_width_fail_and_another_store_refuses(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.npy", values())
    put(tmp_path / "in", "b.npy", values(width=5))
    (failure,) = run(tmp_path / "in", tmp_path / "o.zarr").failures
    assert (failure.video, failure.reason) == ("b", "wrong_shape")
    put(tmp_path / "more", "c.npy", values(width=5))
    with pytest.raises(SpecMismatchError, match="row_shape"):
        run(tmp_path / "more", tmp_path / "o.zarr")
    with pytest.raises(SpecMismatchError, match="stride 4 is not 5"):
        run(tmp_path / "in", tmp_path / "o.zarr", stride=5)


def test_importing_again_goes_on(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.npy", values())
    path = put(tmp_path / "in", "b.npy", values())
    path.write_bytes(path.read_bytes()[:-1])
    assert run(tmp_path / "in", tmp_path / "o.zarr").done == 1
    put(tmp_path / "in", "b.npy", values())
    put(tmp_path / "in", "c.npy", values())
    (tmp_path / "in" / "a.npy").write_bytes(b"what is there already is not read again")
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert (summary.done, summary.there, summary.failures) == (2, 1, [])
    assert open_store(tmp_path / "o.zarr").failures() == []
    assert len(open_store(tmp_path / "o.zarr")["net.rgb.clip"]) == 3


def test_an_import_into_hdf5_goes_on_as_well(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.npy", values())
    run(tmp_path / "in", tmp_path / "o.h5")
    put(tmp_path / "in", "b.npy", values(seed=1))
    summary = run(tmp_path / "in", tmp_path / "o.h5")
    assert (summary.done, summary.there) == (1, 1)
    np.testing.assert_array_equal(only(tmp_path / "o.h5", video="b")[0], values(seed=1))


def test_two_files_of_one_video_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.npy", values())
    np.savez(tmp_path / "in" / "a.npz", feats=values())
    with pytest.raises(StoreError, match=r"'a.npy' and 'a.npz' are both the video 'a'"):
        run(tmp_path / "in", tmp_path / "o.zarr")


# ---- known defects


def durations(**seconds: float) -> Labels:
    return Labels(("run",), {f"{video}.mp4": VideoLabels.of([], duration=length) for video, length in seconds.items()})


def test_rows_that_do_not_fit_the_duration_are_named(tmp_path: Path) -> None:
    """7 rows of half a second end at 3.5 s: within two rows of 2.5 and 4.5, and not of 2.4 and 4.6."""
    lengths = {"a": 2.4, "b": 2.5, "c": 4.5, "d": 4.6}
    for video in lengths:
        put(tmp_path / "in", f"{video}.npy", values())
    summary = run(tmp_path / "in", tmp_path / "o.zarr", durations=durations(**lengths))
    assert summary.done == 4
    assert summary.warnings["duration"] == [
        "a: 7 rows end at 3.50 s, the video at 2.40 s",
        "d: 7 rows end at 3.50 s, the video at 4.60 s",
    ]
    assert open_store(tmp_path / "o.zarr")["net.rgb.clip"].entry("d").info["duration"] == 4.6


def test_rows_that_only_the_untrimmed_script_gives_are_named(tmp_path: Path) -> None:
    """3400 frames: chunks (1, 1656), (1553, 3256), (3153, 3399) give 206 + 212 + 30 rows; trimmed it would be 424."""
    for video, rows in (("bad", 206 + 212 + 30), ("good", 424), ("short", 199)):
        put(tmp_path / "in", f"{video}.npy", values(rows, 2))
    lengths = durations(bad=3400 / 24, good=3400 / 24, short=1600 / 24)
    options: dict[str, Any] = {"recipe": "charades-i3d", "fps": None, "stride": None, "durations": lengths}
    summary = run(tmp_path / "in", tmp_path / "o.zarr", **options)
    assert summary.done == 3
    assert [words.split(":")[0] for words in summary.warnings["untrimmed"]] == ["bad"]
    assert "448 rows where 3400 frames give 425" in summary.warnings["untrimmed"][0]
    assert "duration" not in summary.warnings


def test_rows_that_never_change_are_named(tmp_path: Path) -> None:
    put(tmp_path / "in", "still.npy", np.full((T, D), 0.5, np.float32))
    put(tmp_path / "in", "moving.npy", np.concatenate([np.full((T, D), 0.5), values(1)]).astype("f4"))
    assert run(tmp_path / "in", tmp_path / "o.zarr").warnings["constant"] == [
        "still: all 7 rows of net.rgb.clip are equal"
    ]


# ---- hostile files


def npy(header: str, body: bytes = b"") -> bytes:
    text = header.encode().ljust(118)
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mknod, (str(self.path),)


HUGE = "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1024)}"


def test_hostile_arrays_are_refused_before_they_cost_anything(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    marker = tmp_path / "marker"
    with (folder / "pickle.npy").open("wb") as file:
        np.save(file, np.array([Touch(marker)], dtype=object), allow_pickle=True)
    (folder / "huge.npy").write_bytes(npy(HUGE, bytes(64)))
    (folder / "header.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + bytes(100))
    (folder / "code.npy").write_bytes(npy(f"__import__('os').mknod({str(marker)!r})"))
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(
            "feats.npy", npy("{'descr': '<f4', 'fortran_order': False, 'shape': (76000000, 1)}", bytes(304 * 10**6))
        )
    (folder / "legacy.pt").write_bytes(pickle.dumps(Touch(marker)))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(Touch(marker), 2))
        archive.writestr("archive/version", "3\n")
    (folder / "zip.pt").write_bytes(out.getvalue())
    code = (
        "import sys\nfrom pathlib import Path\n"
        f"{PEAK_MIB}\n"
        "import numpy, stores.zarr_store, torch\n"
        "from stores.import_arrays import ArrayNames, array_source\n"
        "from stores.importing import import_videos\n"
        "from stores.importing_options import make_options\n"
        "before = peak_mib()\n"
        "options = make_options('npy', backbone='net', fps=1.0, stride=1)\n"
        f"source = array_source([Path({str(folder)!r})], options, ArrayNames())\n"
        f"found = import_videos(source, Path({str(tmp_path / 'o.zarr')!r}))\n"
        "assert peak_mib() - before < 100, peak_mib() - before\n"
        "for failure in found.failures: print(failure.video, failure.detail, sep=': ')\n"
        "assert not found.done\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert not marker.exists()
    assert len(done.stdout.splitlines()) == 7, done.stdout
    for said in (
        "pickle: it holds Python objects",
        "huge: shape (1000000000, 1024) of float32 needs 4096000000000 bytes, and it has 64",
        "header: its header declares 2147483648 bytes",
        "bomb: feats.npy declares 304000128 bytes in",
        "zip: it holds more than tensors",
    ):
        assert said in done.stdout


def test_a_tensor_that_declares_more_than_its_file_has_is_refused(tmp_path: Path) -> None:
    """One element with a stride of zero is 10^12 elements in a file of a kilobyte."""
    torch = pytest.importorskip("torch")
    (tmp_path / "in").mkdir()
    torch.save(torch.ones(1).expand(10**9, 1000), tmp_path / "in" / "v.pt")
    assert (tmp_path / "in" / "v.pt").stat().st_size < 4096
    (failure,) = run(tmp_path / "in", tmp_path / "o.zarr").failures
    assert failure.detail == "a tensor (1000000000, 1000) needs more bytes than the file has"


def test_files_that_are_no_files_fail_by_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    os.mkfifo(tmp_path / "in" / "pipe.npy")
    (tmp_path / "in" / "lost.npy").symlink_to("nowhere")
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert {f.video: f.reason for f in summary.failures} == {"pipe.npy": "not_regular", "lost.npy": "unreadable"}


def test_an_interrupted_import_keeps_what_was_complete(tmp_path: Path) -> None:
    for video in "abc":
        put(tmp_path / "in", f"{video}.npy", values())
    options = make_options("npy", **GRID)
    source = array_source([tmp_path / "in"], options, ArrayNames())

    def stopped() -> Iterator[Item]:
        for number, item in enumerate(source.items):
            if number == 2:
                raise KeyboardInterrupt
            yield item

    with pytest.raises(KeyboardInterrupt):
        import_videos(ImportSource(stopped(), options), tmp_path / "o.zarr")
    assert list(open_store(tmp_path / "o.zarr")["net.rgb.clip"]) == ["a", "b"]
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert (summary.done, summary.there) == (1, 2)


def test_durations_of_attached_labels_count(tmp_path: Path) -> None:
    put(tmp_path / "in", "a.npy", values())
    with ZarrWriter(tmp_path / "o.zarr", {}) as writer:
        writer.attach("labels", durations(a=60.0).to_dict())
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert summary.warnings["duration"] == ["a: 7 rows end at 3.50 s, the video at 60.00 s"]
    assert read_durations(tmp_path / "o.zarr").videos["a.mp4"].duration == 60.0
    (tmp_path / "l.csv").write_text("video,start,end,label\na,0,1,run\n")
    with pytest.raises(StoreError, match="has no duration of any video"):
        read_durations(tmp_path / "l.csv")
