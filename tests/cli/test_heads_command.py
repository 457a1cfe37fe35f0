"""`vl heads` says what every head is."""

import json

import pytest

from cli.main import run as vl
from heads.head import HEADS


def test_every_head_is_listed_with_what_it_reads_and_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert vl(["heads", "--json"]) == 0
    cards = {card["name"]: card for card in json.loads(capsys.readouterr().out)}
    assert sorted(cards) == sorted(HEADS)
    assert cards["linear"]["options"] == {"dropout": 0.0}
    assert (cards["linear"]["level"], cards["meanpool"]["level"]) == ("row", "video")
    mlad = cards["mlad"]
    assert mlad["accepts"] == ["clip", "frame"]
    assert mlad["paper"].startswith("Tirupattur et al.")
    assert (mlad["options"]["embed"], mlad["options"]["num_layers"]) == (128, 5)
    assert mlad["training"]["lr"] == 1e-4


# From the parameter tables of the heads' specifications; those of MLAD were counted on the authors' own module.
COUNTS = {
    "asf": {"Charades, CSN-152": 1_594_242},
    "mlad": {"one layer": 199_169, "MultiTHUMOS, rgb and flow": 18_060_295, "Charades, rgb and flow": 42_213_055},
    "stan": {
        "one encoder": 16_549_376,
        "MMX, small, projection frozen, with the ResNet-18": 45_494_612,
        "MMX, small, with the ResNet-18": 45_954_260,
        "MMX, large, with both trunks": 77_254_385,
    },
    "stld": {"one layer": 12_600_320, "Charades, SlowFast": 53_244_218},
    "gated": {
        "YouTube-8M, global": 12_848_278,
        "YouTube-8M, share": 12_848_278,
        "YouTube-8M, gate_att": 13_208_278,
        "YouTube-8M, gate_op": 16_044_310,
    },
}


@pytest.mark.parametrize("head", sorted(COUNTS))
def test_parameters_are_those_of_the_papers(head: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert vl(["heads", "--json"]) == 0
    cards = {card["name"]: card for card in json.loads(capsys.readouterr().out)}
    assert cards[head]["parameters"] == COUNTS[head]


def test_multiply_adds_are_those_of_a_published_window(capsys: pytest.CaptureFixture[str]) -> None:
    """Counted by hand; `test_cost.py` has the same sums for small heads of every kind."""
    assert vl(["heads", "--json"]) == 0
    cards = {card["name"]: card for card in json.loads(capsys.readouterr().out)}
    rows, classes, embed = 128, 65, 128
    layer = rows * classes * 12 * embed**2 + 2 * rows * classes * (classes + rows) * embed
    mlad = rows * 2048 * classes * embed + 5 * layer + 2 * rows * classes * embed
    assert cards["mlad"]["multiply_adds"]["MultiTHUMOS, rgb and flow"] == mlad
    assert cards["mlad"]["published_rows"] == [128]
    gated = sum(300 * (4 * width**2 + 2 * width * 2048) + 2 * 300**2 * width for width in (1024, 128))
    gated += 1152 * 768 + 768 * 3862
    assert cards["gated"]["multiply_adds"]["YouTube-8M, global"] == gated
    # Gates take one product of the global map, and of the local one for four parts of 75 queries, which see 10 rows
    # to each side.
    seen = 75 * (85 + 95 + 95 + 85)
    gates = 2 * 8 * 300 * (300**2 + seen)
    assert cards["gated"]["multiply_adds"]["YouTube-8M, gate_att"] == gated + gates
    assert all(card["multiply_adds"].keys() <= card["parameters"].keys() for card in cards.values())
    assert cards["linear"]["multiply_adds"] == {}


def test_people_read_one_block_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    assert vl(["heads"]) == 0
    out = capsys.readouterr().out
    assert len(out.split("\n\n")) == len(HEADS)
    assert "18,060,295 parameters: MultiTHUMOS, rgb and flow; 12.417 G multiply-adds of the head for 128 rows" in out
    assert "scores every row; reads clip, frame sets" in out
