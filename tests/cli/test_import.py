"""`vl import` and `vl export`: from other people's files to a trained head, and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import Said, runner
from tests.stores.yt8m_files import frame_record, random_frames, write_shard


@pytest.fixture
def vl(capsys: pytest.CaptureFixture[str]) -> Said:
    return runner(capsys)


@pytest.fixture
def arrays(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in "ab":
        np.save(tmp_path / "in" / f"{name}.npy", np.random.default_rng(0).standard_normal((6, 1, 1, 8)).astype("f4"))
    return tmp_path / "in"


def test_every_file_is_accounted_for(vl: Said, arrays: Path, tmp_path: Path) -> None:
    (arrays / "c.npy").write_bytes(b"no array")
    (arrays / "readme.md").write_text("")
    words = ("import", "npy", arrays, "--out", tmp_path / "o.zarr", "--backbone", "net", "--fps", 24, "--stride", 8)
    code, out, err = vl(*words)
    assert code == 3
    assert out.splitlines() == [
        f"3 inputs: 2 done, 0 there already, 1 failed -> {tmp_path / 'o.zarr'}",
        "  net.rgb.clip: 12 rows",
        "  left out: 1 files that are no features by their names",
        "  failed: c: [decode_error] it is no .npy file of version 1 or 2",
    ]
    assert err == ""
    (arrays / "c.npy").unlink()
    code, out, _ = vl(*words, "--json")
    assert (code, json.loads(out)["there_already"], json.loads(out)["failed"]) == (0, 2, 0)
    _, out, _ = vl("info", tmp_path / "o.zarr")
    assert "net.rgb.clip: 2 videos, 12 rows, 384 B, 2 of unknown duration\n" in out  # and not 0.00 h


def test_warnings_are_counted_and_in_json(vl: Said, arrays: Path, tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("video,start,end,label,duration\na,0,1,run,9\nb,0,1,run,2\n")
    words = ("--backbone", "net", "--fps", 24, "--stride", 8, "--duration-from", tmp_path / "l.csv")
    code, _, err = vl("import", "npy", arrays, "--out", tmp_path / "o.zarr", *words)
    assert code == 0
    assert "warning: rows that do not fit the duration by more than two rows: 1" in err
    assert "  a: 6 rows end at 2.00 s, the video at 9.00 s" in err
    _, out, _ = vl("import", "npy", arrays, "--out", tmp_path / "p.zarr", *words, "--json")
    assert json.loads(out)["warnings"]["duration"]["count"] == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["npy"], "say what made the features: --backbone"),
        (["npy", "--backbone", "net"], "Give --fps and --stride"),
        (["npy", "--recipe", "ucf"], "there is no recipe 'ucf'. There are: charades-i3d"),
        (["npy", "--backbone", "net", "--fps", "0", "--stride", "1"], "--fps is a positive number"),
        (["npy", "--backbone", "../x", "--fps", "1", "--stride", "1"], "--backbone is a name"),
        (["matlab"], "KIND is npy, hdf5, yt8m, csv or zarr, not 'matlab'"),
        (["hdf5", "--recipe", "yt8m", "--suffix", "x"], "--prefix and --suffix"),
        (["csv", "--recipe", "yt8m", "--key", "x"], "--key names an array"),
        (["npy", "--recipe", "yt8m", "--crops", "mean"], "--crops is for --layout CTD or TCD"),
        (["npy", "--recipe", "yt8m", "--layout", "XY"], "--layout is TD, DT, CTD or TCD"),
        (["npy", "--recipe", "yt8m", "--out", "x.npy"], "must end in .zarr or .h5"),
        (["yt8m", "--stream", "rgb"], "leave out --stream"),
        (["csv", "--recipe", "yt8m"], "no .csv features in"),
    ],
)
def test_wrong_usage_is_one_line(vl: Said, arrays: Path, tmp_path: Path, words: list[str], said: str) -> None:
    out = [] if "--out" in words else ["--out", str(tmp_path / "o.zarr")]
    code, _, err = vl("import", words[0], arrays, *words[1:], *out)
    assert code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_records_of_youtube_8m_train_a_gated_head(vl: Said, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3862, (24, 3)).tolist()
    records = [frame_record(f"v{i:02d}", of_video, *random_frames(rng, 20)) for i, of_video in enumerate(labels)]
    shard = write_shard(tmp_path / "in" / "train00.tfrecord", records)
    code, out, _ = vl("import", "yt8m", tmp_path / "in", "--out", tmp_path / "o.zarr")
    assert code == 0
    assert "  labels of 24 videos are attached" in out
    small = [word for name in ("ffn=16", "hidden=16") for word in ("--set", name)]
    words = ("--features", tmp_path / "o.zarr", "--epochs", 1, "--out", tmp_path / "run", "--batch-size", 8)
    code, out, err = vl("train-head", "gated", *words, *small)
    assert code == 0, err
    code, _, _ = vl("export", tmp_path / "o.zarr", "--to", "tfrecord", "--out", tmp_path / "back")
    assert code == 0
    assert (tmp_path / "back" / shard.name).read_bytes() == shard.read_bytes()


def test_an_export_says_what_it_wrote(vl: Said, arrays: Path, tmp_path: Path) -> None:
    vl("import", "npy", arrays, "--out", tmp_path / "o.zarr", "--recipe", "thumos-i3d")
    code, out, _ = vl("export", tmp_path / "o.zarr", "--to", "actionformer", "--out", tmp_path / "e")
    assert code == 0
    assert out.splitlines() == [f"{tmp_path / 'e'}: 2 videos, 12 rows", "  no labels are attached: no annotations.json"]
    assert "feat_stride: 4" in (tmp_path / "e" / "dataset.yaml").read_text()
    code, out, _ = vl("export", tmp_path / "o.zarr", "--to", "npy", "--out", tmp_path / "n", "--json")
    assert json.loads(out) == {"out": str(tmp_path / "n"), "videos": 2, "rows": 12, "notes": []}
    code, _, err = vl("export", tmp_path / "o.zarr", "--to", "npy", "--out", tmp_path / "n")
    assert (code, "never overwrites" in err) == (2, True)
