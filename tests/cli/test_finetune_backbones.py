"""`vl finetune` of networks on pictures, flow and sound, each from a head that was trained on its stored rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from stores import open_store
from tests.cli.commands import Said, runner
from tests.cli.finetuning import assert_cut_off_ends_alike, extracted_then_tuned, work_in
from tests.extract.labelled import labelled_videos

ONE_BY_ONE = ("--batch-size", "1", "--backbone-lr", "0.001")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five short videos with labels, all but the first with sound."""
    return labelled_videos(tmp_path_factory.mktemp("backbones") / "videos", [14, 23, 32, 41, 50], sound=True).parent


@pytest.fixture(autouse=True)
def _narrow_networks(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    work_in(folder, monkeypatch)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return runner(capsys)


def test_a_run_goes_on_with_the_network_as_its_rows_were_made(said: Said, tmp_path: Path) -> None:
    """I3D's rows are those of one convolution unless one asks for windows; --init says so, and at what rate."""
    learning = ("--backbone", "i3d")
    told = extracted_then_tuned(
        said,
        tmp_path,
        ("meanpool",),
        (*learning, "--fps", "10"),
        (*learning, *ONE_BY_ONE, "--chunk-scenes", "2"),
        ("i3d",),
        chosen=("--weights", "random:3"),
    )
    assert open_store(tmp_path / "rows.zarr")["i3d.rgb.clip"].spec.dense == "convolutional"
    assert "activations of 1 clips" in told
    for given, message in (
        (("--dense", "windowed"), "dense windowed is not convolutional"),
        (("--fps", "12"), "was trained on other features: fps 12.0 is not 10.0"),
        (("--dense", "conv"), "--dense is convolutional or windowed, not 'conv'"),
        (("--batch-norm", "tuned"), "tiles of the convolutional mode have several"),
    ):
        code, _, err = said("finetune", "meanpool", "videos", *learning, "--init", tmp_path / "head", *given)
        assert code in {2, 4}
        assert message in err.splitlines()[-1]
    assert_cut_off_ends_alike(said, tmp_path / "tuned", tmp_path / "cut")


def test_a_network_on_flow_learns(said: Said, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV, the extra 'flow'")
    told = extracted_then_tuned(
        said, tmp_path, ("meanpool",), ("--backbone", "i3d", "--stream", "flow"), ONE_BY_ONE, ("i3d.flow",)
    )
    assert "features: i3d.flow.clip" in told
    assert_cut_off_ends_alike(said, tmp_path / "tuned", tmp_path / "cut")


def test_both_streams_of_a_network_learn_in_the_order_that_the_head_knows(said: Said, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV, the extra 'flow'")
    told = extracted_then_tuned(
        said,
        tmp_path,
        ("mlad", "--sets", "i3d.flow.clip,i3d.rgb.clip", "--set", "embed=32", "--set", "standardise=false"),
        ("--backbone", "i3d", "--stream", "rgb,flow", "--dense", "windowed", "--window", "16", "--stride", "16"),
        ONE_BY_ONE,
        ("i3d", "i3d.flow"),
        chosen=("--weights", "random:3", "--weights", "i3d.flow=random:4"),
    )
    assert "features: i3d.flow.clip + i3d.rgb.clip; rows and times of the first" in told
    learning = {line.split(":")[0]: line for line in told.splitlines() if line.endswith(" weights learn")}
    assert sorted(learning) == ["i3d", "i3d.flow"]


def test_networks_of_one_role_learn_side_by_side_each_at_its_own_times(said: Said, tmp_path: Path) -> None:
    """A video without sound has the mean of the others' in its place."""
    told = extracted_then_tuned(
        said,
        tmp_path,
        ("meanpool",),
        ("--backbone", "resnet18,vggish", "--fps", "resnet18=4", "--fps", "vggish=3", "--missing-audio", "skip"),
        (*ONE_BY_ONE, "--chunk-scenes", "2"),
        ("resnet18", "vggish"),
    )
    assert "features: resnet18.rgb.frame + vggish.audio.frame; rows and times of the first" in told
    assert "vggish.audio.frame: 1 videos lack it; they get its mean" in told


def test_a_run_says_of_each_network_how_its_rows_were_made(said: Said, tmp_path: Path) -> None:
    """And which: one of clips in the convolutional mode, and one of sound, which knows neither clips nor modes."""
    told = extracted_then_tuned(
        said,
        tmp_path,
        ("gated", "--set", "ffn=16", "--set", "hidden=8"),
        ("--backbone", "i3d,vggish", "--fps", "vggish=3", "--missing-audio", "skip"),
        ONE_BY_ONE,
        ("i3d", "vggish"),
    )
    assert "features: i3d.rgb.clip + vggish.audio.frame; rows and times of the first" in told


def test_a_network_on_sound_learns(said: Said, tmp_path: Path) -> None:
    """v0.mp4 has no sound; two rows a second."""
    learning = ("--backbone", "vggish")
    told = extracted_then_tuned(
        said,
        tmp_path,
        ("meanpool",),
        (*learning, "--fps", "2", "--missing-audio", "skip"),
        (*learning, *ONE_BY_ONE[:2], "--backbone-lr", "0.01", "--chunk-scenes", "1"),
        ("vggish",),
    )
    for line in (
        "5 of 5 videos are looked through for their sound",
        "cannot be read: v0.mp4 [no_audio] has no sound track (vggish.audio.frame)",
        "vggish: 8,208 weights learn",
    ):
        assert line in told
    assert_cut_off_ends_alike(said, tmp_path / "tuned", tmp_path / "cut", batches=1)


def test_networks_on_pictures_and_sound_learn_together_each_at_its_own_times(said: Said, tmp_path: Path) -> None:
    learning = ("--backbone", "resnet18,vggish")
    told = extracted_then_tuned(
        said,
        tmp_path,
        ("gated", "--set", "ffn=16", "--set", "hidden=8"),
        (*learning, "--fps", "resnet18=4", "--fps", "vggish=3", "--missing-audio", "skip"),
        (*learning, "--batch-size", "2", "--backbone-lr", "0.001", "--chunk-scenes", "2"),
        ("resnet18", "vggish"),
    )
    for line in (
        "features: resnet18.rgb.frame + vggish.audio.frame; rows and times of the first",
        "vggish.audio.frame: 1 videos lack it; nothing is seen in its place",
        "resnet18: 702,096 weights learn",
        "vggish: 8,208 weights learn",
    ):
        assert line in told
    assert_cut_off_ends_alike(said, tmp_path / "tuned", tmp_path / "cut", batches=1)
