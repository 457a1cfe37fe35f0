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
    "mlad": {"MultiTHUMOS, rgb and flow": 18_060_295, "Charades, rgb and flow": 42_213_055},
    "stld": {"Charades, SlowFast": 53_244_218},
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


def test_people_read_one_block_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    assert vl(["heads"]) == 0
    out = capsys.readouterr().out
    assert len(out.split("\n\n")) == len(HEADS)
    assert "18,060,295 parameters: MultiTHUMOS, rgb and flow" in out
    assert "scores every row; reads clip, frame sets" in out
