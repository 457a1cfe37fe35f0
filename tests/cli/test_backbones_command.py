"""`vl backbones`: everything that is registered, as it is."""

import json

import pytest

from extract.backbone import BACKBONES
from extract.published import WEIGHTS
from tests.cli.commands import runner


def test_every_backbone_is_listed_with_what_it_gives(capsys: pytest.CaptureFixture[str]) -> None:
    said = runner(capsys, "backbones")
    code, out, _ = said()
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines[1:-1]] == sorted(BACKBONES)
    assert max(map(len, lines)) < 170
    shown = next(line for line in lines if line.startswith("r2plus1d_18"))
    assert "clip 512, map 7x7x512" in shown
    assert "16 frames at 15/s, 112 x 112" in shown
    assert "BSD-3-Clause" in shown
    cards = {card["name"]: card for card in json.loads(said("--json")[1])}
    assert set(cards) == set(BACKBONES)
    for name, card in cards.items():
        assert {weights["name"] for weights in card["weights"]} == {key[2] for key in WEIGHTS if key[0] == name}
        assert "Source" in card["about"], name
    assert cards["i3d"]["rows"] == {"clip": [1024], "map": [7, 7, 1024], "scene": [1024]}
    assert (cards["i3d"]["fps"], cards["i3d"]["window"], cards["i3d"]["classes"]) == (24, 64, "kinetics400")
    assert cards["logmel"]["weights"] == []


def test_one_is_told_in_full_and_an_unknown_one_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = runner(capsys, "backbones")
    code, out, _ = said("efficientnet_lite0")
    assert code == 0
    assert "imagenet: efficientnet-lite0-57934424.pth, Apache-2.0, sha256 5793442" in out
    assert "Source: Tan and Le" in out
    code, _, err = said("efficientnet")
    assert code == 2
    assert "there is no backbone 'efficientnet'. There are: " in err
