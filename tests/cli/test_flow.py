"""Both streams of I3D through the command line: from videos to a head that reads them side by side."""

import dataclasses
import json
from pathlib import Path

import pytest

from extract.i3d import InceptionI3d
from heads.checkpoint import read_config
from tests.cli.commands import Said, runner
from tests.extract.test_flow import moving
from tests.extract.video_files import write_video

pytest.importorskip("cv2", reason="OpenCV, the extra 'flow'")


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Said:
    """Run `vl WORDS` beside four videos with labels, with an I3D on crops of 32 pixels."""
    (tmp_path / "videos").mkdir()
    lines = ["video,start,end,label,subset"]
    images = moving([(2, -1)] * 20, size=48).numpy()
    for number, subset in enumerate(("train", "train", "val", "test")):
        write_video(tmp_path / "videos" / f"{number}.mp4", frames=18 + number, draw=lambda index: images[index])
        lines += [f"{number},0,0.5,{'ab'[number % 2]},{subset}", f"{number},0.2,0.4,c,{subset}"]
    (tmp_path / "videos" / "labels.csv").write_text("\n".join(lines))
    monkeypatch.setattr(InceptionI3d, "clip", dataclasses.replace(InceptionI3d.clip, resize=34, crop=32))
    monkeypatch.chdir(tmp_path)
    return runner(capsys)


def test_mlad_is_trained_on_both_streams_of_one_command(said: Said) -> None:
    words = ("extract", "videos", "--backbone", "i3d", "--weights", "random", "--stream", "rgb,flow", "--show-pred")
    code, out, err = said(*words, "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["rows"] == {"i3d.flow.clip": 12, "i3d.rgb.clip": 12}  # 18 to 21 frames at 24 a second: 3 rows each
    assert summary["frames_decoded"] == 18 + 19 + 20 + 21
    assert summary["random_weights"] == ["i3d.flow.clip", "i3d.rgb.clip"]
    assert "i3d.flow.clip: rows (1024,) float16, 24 a second, stride 8, random, flow by dis" in err
    assert "looks to i3d (flow) (RANDOM WEIGHTS) like" in err
    small = [word for option in ("embed=4", "num_layers=1", "window=16") for word in ("--set", option)]
    code, _, err = said("train-head", "mlad", "--features", "store.zarr", *small, "--epochs", "1", "--out", "run")
    assert code == 0, err
    config = read_config(Path("run"))
    assert [source["set"] for source in config.features] == ["i3d.rgb.clip", "i3d.flow.clip"]
    assert config.options["num_features"] == 2048


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backbone", "resnet18", "--stream", "flow"], "no backbone of resnet18 has the stream flow"),
        (["--backbone", "i3d", "--stream", "flow", "--flow", "lucas"], "there is no flow 'lucas'"),
        (["--backbone", "i3d", "--flow", "dis"], "add --stream flow"),
        (["--backbone", "i3d", "--weights", "i3d.depth=x"], "the streams of i3d are rgb, flow"),
    ],
)
def test_wrong_input_gets_one_line(words: list[str], message: str, said: Said) -> None:
    code, out, err = said("extract", "videos", *words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
