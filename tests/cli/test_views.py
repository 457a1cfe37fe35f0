"""From videos to the score of all views in three commands: --speeds --views, two stages of asf, and the test."""

import json
from pathlib import Path

import numpy as np
import pytest

from heads.checkpoint import file_sha256, read_config
from stores import open_store
from tests.cli.commands import Said, runner
from tests.extract.video_files import write_video

ALL = "i3d.rgb.map.r2,i3d.rgb.map.r1,i3d.rgb.map.r3"
EXTRACT = ("extract", "videos", "--backbone", "i3d", "--weights", "random", "--level", "map", "--window", "8")
SMALL = [word for option in ("num_observations=2", "embed=8", "groups=4", "batch_size=2") for word in ("--set", option)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of a second, with labels that say which train and which test."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "videos").mkdir()
    lines = ["video,start,end,label,subset"]
    for number, subset in enumerate(("train", "train", "val", "test")):
        write_video(folder / "videos" / f"{number}.mp4", frames=25 + number)
        lines += [f"{number},0,0.5,{'ab'[number % 2]},{subset}", f"{number},0.2,0.4,c,{subset}"]
    (folder / "videos" / "labels.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: Path) -> Said:
    """Run `vl WORDS` beside the videos: exit code, stdout, stderr."""
    monkeypatch.chdir(place)
    return runner(capsys)


def test_two_stages_of_asf_from_videos_to_the_test_on_all_views(said: Said, place: Path) -> None:
    code, out, err = said(*EXTRACT, "--speeds", "2,1,3", "--views", "2x1,1x1,1x1", "--json")
    assert code == 0, err
    assert "i3d.rgb.map.r2: rows (7, 7, 1024) float16, 24 a second, 2x1 clips x crops of 8 frames at speed 2" in err
    summary = json.loads(out)
    assert summary["rows"] == {"i3d.rgb.map.r1": 4, "i3d.rgb.map.r2": 8, "i3d.rgb.map.r3": 4}
    assert summary["frames_decoded"] == 25 + 26 + 27 + 28
    train = ("train-head", "asf", "--features", "store.zarr", "--epochs", "2", *SMALL)
    code, _, err = said(*train, "--sets", "i3d.rgb.map.r2", "--out", "first")
    assert code == 0, err
    assert "RANDOM WEIGHTS" in err
    assert "views: 2 of every video (2 at speed 2); the mean probability" in err
    tune = ("train-head", "asf", "--features", "store.zarr", "--epochs", "2", "--sets", ALL, "--set", "batch_size=2")
    code, out, err = said(*tune, "--init", "first", "--out", "second")
    assert code == 0, err
    assert f"begins with the weights of {place / 'first'}" in err
    assert "each batch is of one speed, drawn from 2, 1, 3" in err
    config = read_config(Path("second"))
    assert config.init == {
        "run": str(place / "first"), "weights_sha256": file_sha256(Path("first/best.safetensors"))
    }  # fmt: skip
    assert config.options["num_observations"] == 2
    code, out, err = said("score", "second")
    assert code == 0, err
    assert "1 of 1 videos scored" in out
    for name, sets in (("all", ALL), ("r3", "i3d.rgb.map.r3"), ("own", None)):
        chosen = ("--sets", sets) if sets else ()
        code, _, err = said("predict", "store.zarr", "--head", "first", "--out", f"{name}.zarr", *chosen)
        assert code == 0, err
    r2, r3, every = (open_store(Path(f"{name}.zarr"))["scores"].read("3.mp4").features for name in ("own", "r3", "all"))
    r1 = 4 * every.astype(np.float64) - 2 * r2 - r3  # two views of r2, one of each other
    assert ((r1 > 0) & (r1 < 1)).all()
    code, _, err = said("predict", "store.zarr", "--head", "first", "--out", "x.zarr", "--sets", "i3d.rgb.map")
    assert (code, "no set 'i3d.rgb.map'; there is i3d.rgb.map.r1" in err) == (2, True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*EXTRACT, "--speeds", "4,2", "--views", "3x3,3x3,3x3"], "--views has 3 entries and --speeds 2"),
        ([*EXTRACT, "--views", "3x2"], "1 or 3 crops, not '3x2'"),
        ([*EXTRACT, "--views", "3x3", "--show-pred"], "leave it out with --speeds"),
        ([*EXTRACT, "--views", "3x3", "--stride", "8"], "leave out --stride and --dense"),
        (["extract", "videos", "--backbone", "logmel", "--views", "3x3"], "logmel sees no clips"),
        (["train-head", "--resume", "r", "--init", "s"], "takes everything from the run"),
        (["train-head", "asf", "--features", "none.zarr", "--init", "s"], "no store none.zarr"),
    ],
)
def test_wrong_input_gets_one_line(words: list[str], message: str, said: Said) -> None:
    code, out, err = said(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
