"""Class lists: order as published, best classes of a clip."""

import json
from pathlib import Path

import pytest
import torch

from extract.backbone import BackboneError
from extract.class_names import class_names, top_classes


def test_imagenet_names_stand_at_their_published_places() -> None:
    names = class_names("imagenet1000")
    assert len(names) == 1000
    assert {i: names[i] for i in (0, 1, 89, 365, 470, 999)} == {
        0: "tench",
        1: "goldfish",
        89: "sulphur-crested cockatoo",
        365: "orangutan",
        470: "candle",
        999: "toilet tissue",
    }


def test_kinetics_names_are_in_alphabetical_order() -> None:
    names = class_names("kinetics400")
    assert len(set(names)) == 400
    assert list(names) == sorted(names)
    assert (names[0], names[399]) == ("abseiling", "zumba")


def test_kinetics_order_is_that_of_the_checkpoints_label_map(shared_data: Path) -> None:
    published = (shared_data / "labels" / "kinetics400_label_map.txt").read_text().splitlines()
    assert list(class_names("kinetics400")) == published


def test_imagenet_order_is_that_of_the_class_index(shared_data: Path) -> None:
    index = json.loads((shared_data / "labels" / "imagenet_class_index.json").read_text())
    published = [index[str(i)][1].lower() for i in range(1000)]
    ours = [name.lower().replace(" ", "_") for name in class_names("imagenet1000")]
    # That list calls two pairs of classes by one name each.
    assert [i for i in range(1000) if ours[i] != published[i] and published[i] not in ("crane", "maillot")] == []


def test_top_classes_are_the_likeliest_with_their_probabilities() -> None:
    logits = torch.full((400,), -torch.inf)
    logits[5], logits[7] = torch.log(torch.tensor([1.0, 3.0]))
    (first, p), (second, q) = top_classes(logits, "kinetics400", k=2)
    names = class_names("kinetics400")
    assert (first, second) == (names[7], names[5])
    assert (p, q) == pytest.approx((0.75, 0.25))


def test_unknown_list_names_the_known_ones() -> None:
    with pytest.raises(BackboneError, match=r"no class list 'coco'. There are: imagenet1000, kinetics400"):
        class_names("coco")


def test_kinetics_classes_have_the_numbers_that_pytorchvideo_publishes() -> None:
    """Out of kinetics_classnames.json, which the hub's own examples use."""
    numbers = {
        "abseiling": 0,
        "high jump": 151,
        "massaging person's head": 196,
        "passing American football (in game)": 208,
        "petting animal (not cat)": 212,
        "sharpening knives": 290,
        "skiing (not slalom or crosscountry)": 308,
        "zumba": 399,
    }
    names = class_names("kinetics400")
    assert {name: names.index(name) for name in numbers} == numbers
