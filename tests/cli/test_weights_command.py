"""`vl weights`: what is here, what is not, what is damaged, and what fits."""

import hashlib
import json
import socket
from pathlib import Path

import pytest
import torch

from extract import published
from extract.published import WEIGHTS, Weights
from extract.resnet import ResNet18
from tests.cli.commands import Said, runner

CONTENT = b"tensors" * 99


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return runner(capsys, "weights")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; no network; a ResNet-18 whose published file is CONTENT."""

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("VL_CACHE", str(tmp_path / "cache"))
    digest = hashlib.sha256(CONTENT).hexdigest()
    url = "https://weights.invalid/net.pth"
    entry = Weights("net.pth", url, digest, len(CONTENT), licence="MIT", source="https://weights.invalid")
    monkeypatch.setitem(published.WEIGHTS, ("resnet18", "rgb", "imagenet"), entry)
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def test_every_checkpoint_is_listed_with_its_state(said: Said, cache: Path) -> None:
    (cache / "net.pth").write_bytes(CONTENT)
    code, out, _ = said("list", "--json")
    cards = {(card["backbone"], card["stream"], card["name"]): card for card in json.loads(out)}
    assert code == 0
    assert set(cards) == set(WEIGHTS)
    assert cards["resnet18", "rgb", "imagenet"]["state"] == "cached"
    assert cards["resnet18", "rgb", "imagenet"]["path"] == str(cache / "net.pth")
    assert cards["efficientnet_lite0", "rgb", "imagenet"]["state"] == "installed"
    assert cards["i3d", "rgb", "kinetics400"]["state"] == "absent"
    assert cards["i3d", "flow", "kinetics400"]["state"] == "unknown"
    code, out, _ = said("list", "i3d.flow")
    assert out.splitlines()[0] == "i3d.flow kinetics400 (default): fetch it yourself, then --weights i3d=PATH"
    assert said("list", "i3d.audio")[0] == 2


def test_fetching_verifies_what_is_here_and_names_what_cannot_be_had(said: Said, cache: Path) -> None:
    code, _, err = said("fetch", "resnet18")
    assert code == 2
    assert "weights.invalid cannot be reached" in err
    (cache / "net.pth").write_bytes(CONTENT)
    code, out, _ = said("fetch", "resnet18")
    assert (code, out) == (0, f"resnet18.rgb imagenet: {cache / 'net.pth'}, verified\n")
    code, out, err = said("fetch", "resnet18", "i3d.flow")  # no digest of the flow network is known
    assert (code, out) == (3, f"resnet18.rgb imagenet: {cache / 'net.pth'}, verified\n")
    assert err.startswith("left out: i3d.flow kinetics400: fetch it yourself, then --weights i3d=PATH, from https://")
    (cache / "net.pth").write_bytes(CONTENT[:-1] + b"!")
    code, _, err = said("fetch", "resnet18")
    assert code == 2
    assert "is not the published net.pth" in err
    assert said("fetch")[0] == said("fetch", "resnet18", "--all")[0] == 2


def test_a_damaged_file_is_found(said: Said, cache: Path) -> None:
    code, out, _ = said("verify")
    assert code == 0
    assert "resnet18.rgb imagenet: not here" in out
    (cache / "net.pth").write_bytes(CONTENT)
    code, out, _ = said("verify", "resnet18")
    assert code == 0
    assert out.startswith("resnet18.rgb imagenet: ok")
    (cache / "net.pth").write_bytes(CONTENT[:-1] + b"!")
    code, out, _ = said("verify", "resnet18", "efficientnet_lite0")
    assert code == 5
    lines = out.splitlines()
    assert lines[0].startswith("efficientnet_lite0.rgb imagenet: ok")
    assert lines[1].startswith("resnet18.rgb imagenet: DAMAGED: remove it and fetch it again")


def test_a_file_of_ones_own_fits_or_does_not(said: Said, cache: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.pt"
    torch.save({"state_dict": ResNet18().state_dict()}, mine)
    code, out, _ = said("verify", f"resnet18={mine}", "--json")
    assert code == 0
    assert json.loads(out) == [
        {
            "backbone": "resnet18",
            "path": str(mine),
            "state": "fits: 122 tensors",  # 62 of torchvision's parameters, 3 buffers of each of 20 batch norms
            "sha256": hashlib.sha256(mine.read_bytes()).hexdigest(),
        }
    ]
    code, _, err = said("verify", f"efficientnet_lite0={mine}")
    assert code == 2
    assert "does not fit efficientnet_lite0 (rgb)" in err
    assert said("verify", f"resnet18={tmp_path / 'gone'}")[0] == 2
    assert said("verify", f"nothing={mine}")[0] == 2


def test_without_a_command_help_is_shown_and_the_exit_code_is_that_of_wrong_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, line in (((), "Usage: vl [OPTIONS]"), (("weights",), "Usage: vl weights [OPTIONS]")):
        code, out, err = runner(capsys, *words)()
        assert (code, out) == (2, "")
        assert err.splitlines()[0].startswith(line)
        assert "\n  fetch " in err or "\n  extract " in err
