"""Choices of weights: the table, random ones, and what `--weights` says."""

import hashlib
import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch
from torch import nn

from extract.backbone import BACKBONES, AudioBackbone, Backbone, backbone_class
from extract.published import WEIGHTS
from extract.resnet import ResNet18
from extract.state_dict import WeightsError
from extract.weights import (
    LoadedWeights,
    build_backbone,
    fill_randomly,
    load_weights,
    parse_weight_choices,
    state_sha256,
    weight_names,
)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setenv("VL_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_default_weights_are_in_the_table(name: str) -> None:
    kind = backbone_class(name)
    assert kind.default_weights in weight_names(name, kind.stream)


@pytest.mark.parametrize("key", sorted(WEIGHTS))
def test_table_gives_https_addresses_and_whole_digests(key: tuple[str, str, str]) -> None:
    entry = WEIGHTS[key]
    assert urlsplit(entry.url).scheme == urlsplit(entry.source).scheme == "https"
    assert entry.sha256 is None or re.fullmatch("[0-9a-f]{64}", entry.sha256)
    assert (entry.sha256 is None) == (entry.size is None)
    assert entry.licence
    assert backbone_class(key[0])


def test_digest_in_the_published_name_begins_the_tables_digest() -> None:
    """PyTorch's convention: the file name ends in the first eight digits."""
    for entry in WEIGHTS.values():
        if entry.sha256 and (digits := re.search(r"-([0-9a-f]{8})\.pth$", entry.filename)):
            assert entry.sha256.startswith(digits[1])


def test_packaged_weights_load_and_are_named_by_their_file() -> None:
    network, loaded = build_backbone("efficientnet_lite0")
    entry = WEIGHTS["efficientnet_lite0", "rgb", "imagenet"]
    assert loaded == LoadedWeights("imagenet", str(entry.sha256))
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


def test_build_puts_the_network_into_the_dtype() -> None:
    network, _ = build_backbone("resnet18", "random", dtype=torch.bfloat16)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}


def test_random_weights_are_the_same_every_time_and_said_to_be_random() -> None:
    one, first = build_backbone("resnet18", "random")
    torch.manual_seed(5)
    two, second = build_backbone("resnet18", "random:0")
    assert first.random
    assert first.sha256 == second.sha256 == state_sha256(two)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_another_seed_gives_other_weights() -> None:
    _, first = build_backbone("resnet18", "random")
    _, second = build_backbone("resnet18", "random:1")
    assert (first.sha256 != second.sha256, second.name) == (True, "random:1")


def test_random_weights_do_not_depend_on_what_was_loaded_before_or_on_the_order_of_layers() -> None:
    first = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.BatchNorm1d(4)})
    second = nn.ModuleDict({"b": nn.BatchNorm1d(4), "a": nn.Linear(3, 4)})
    second["b"].load_state_dict({"running_mean": torch.full((4,), 9.0)}, strict=False)
    for network in (first, second):
        fill_randomly(network, 2)
    assert state_sha256(first) == state_sha256(second)


def test_layers_of_one_shape_get_different_random_weights() -> None:
    pair = nn.ModuleList([nn.Linear(3, 4), nn.Linear(3, 4)])
    fill_randomly(pair, 0)
    assert not torch.equal(*[weight for weight in pair.parameters() if weight.ndim == 2])


def test_random_weights_are_uniform_with_he_s_variance() -> None:
    layer = nn.Conv2d(64, 128, 3)
    fill_randomly(layer, 0)
    bound = (6 / (64 * 9)) ** 0.5
    assert layer.weight.abs().max() <= bound
    assert layer.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.01)
    assert layer.weight.mean().item() == pytest.approx(0, abs=bound / 100)
    assert layer.bias is not None
    assert not layer.bias.any()


def test_digest_of_a_state_is_by_hand_that_of_its_bytes() -> None:
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": torch.tensor([[1.0, -2.0]]), "bias": torch.tensor([0.5])})
    text = b"bias float32 [1]\n" + bytes.fromhex("0000003f") + b"weight float32 [1, 2]\n"
    assert state_sha256(layer) == hashlib.sha256(text + bytes.fromhex("0000803f000000c0")).hexdigest()


def test_a_path_is_loaded_and_its_digest_recorded(tmp_path: Path) -> None:
    source = ResNet18()
    fill_randomly(source, 4)
    path = tmp_path / "mine.pt"
    torch.save(source.state_dict(), path)
    network = ResNet18()
    loaded = load_weights(network, str(path))
    assert loaded == LoadedWeights(str(path), hashlib.sha256(path.read_bytes()).hexdigest())
    assert state_sha256(network) == state_sha256(source)


def test_a_choice_that_is_nothing_lists_the_names() -> None:
    with pytest.raises(WeightsError) as caught:
        build_backbone("i3d", "no\x1b[2Jwhere.pt")
    assert str(caught.value) == (
        "there are no weights 'no\\x1b[2Jwhere.pt' for i3d (rgb): "
        "it is neither a name (kinetics400, random) nor a file."
    )


def test_weights_that_are_no_regular_file_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(WeightsError, match="regular file"):
            build_backbone("resnet18", str(tmp_path / name))


@pytest.mark.parametrize("choice", ["random:", "random:-1", "random:x"])
def test_a_seed_is_a_whole_number(choice: str) -> None:
    with pytest.raises(WeightsError, match="neither a name"):
        build_backbone("resnet18", choice)


@pytest.mark.parametrize("choice", ["none", "random"])
def test_what_learns_nothing_has_no_weights(choice: str) -> None:
    backbone, loaded = build_backbone("logmel", choice)
    assert isinstance(backbone, AudioBackbone)
    assert loaded == LoadedWeights("none", "")


def test_what_learns_nothing_takes_no_file() -> None:
    with pytest.raises(WeightsError, match="logmel learns nothing"):
        build_backbone("logmel", "w.pt")


def test_without_a_network_the_message_says_what_to_fetch_and_where_to_put_it(tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        build_backbone("i3d")
    said = str(caught.value)
    for part in (
        "rgb_imagenet.pt",
        "50,883,138 bytes",
        "2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",
        "https://raw.githubusercontent.com/",
        str(tmp_path / "cache" / "rgb_imagenet.pt"),
        "--weights i3d=PATH",
    ):
        assert part in said
    assert "\n" not in said
    assert caught.value.exit_code == 2


def test_without_a_known_digest_nothing_is_downloaded() -> None:
    with pytest.raises(WeightsError, match=r"no digest of flow_imagenet\.pt is known") as caught:
        build_backbone("i3d", stream="flow")
    assert "https://" in str(caught.value)
    assert "--weights i3d=PATH" in str(caught.value)


def test_choices_speak_for_one_backbone_or_for_all_that_learn() -> None:
    names = ["i3d", "resnet18", "logmel"]
    assert parse_weight_choices([], names) == {}
    assert parse_weight_choices(["random"], names) == {"i3d": "random", "resnet18": "random"}
    assert parse_weight_choices(["i3d=a=b.pt"], names) == {"i3d": "a=b.pt"}
    assert parse_weight_choices(["i3d=x.pt", "random"], names) == {"i3d": "x.pt", "resnet18": "random"}
    assert parse_weight_choices(["/data/lr=0.1/w.pt"], ["i3d"]) == {"i3d": "/data/lr=0.1/w.pt"}


def test_choices_of_weights_know_names_with_colons_slashes_and_equals_signs() -> None:
    names = ["timm:resnet18.a1_in1k", "hf:MCG-NJU/videomae-base", "hf:/data/lr=0.1/model", "i3d"]
    assert parse_weight_choices(["timm:resnet18.a1_in1k=a=b.pth", "hf:MCG-NJU/videomae-base=/x/y"], names) == {
        "timm:resnet18.a1_in1k": "a=b.pth",
        "hf:MCG-NJU/videomae-base": "/x/y",
    }
    assert parse_weight_choices(["hf:/data/lr=0.1/model=w.pth"], names) == {"hf:/data/lr=0.1/model": "w.pth"}
    assert parse_weight_choices(["/data/lr=0.1/w.pth"], ["i3d"]) == {"i3d": "/data/lr=0.1/w.pth"}
    assert parse_weight_choices(["random"], names) == dict.fromkeys(names, "random")
    with pytest.raises(WeightsError, match="hf:other/model is not among --backbone i3d"):
        parse_weight_choices(["hf:other/model=w.pth"], ["i3d"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["i3dd=w.pt"], r"there is no backbone 'i3dd'. There are: .*efficientnet_lite0, i3d"),
        (["resnet18=w.pt"], "resnet18 is not among --backbone i3d"),
        (["i3d=a.pt", "i3d=b.pt"], "names two files for i3d: a.pt, b.pt"),
        (["a.pt", "b.pt"], "for which backbone"),
        (["i3d="], "says nothing"),
    ],
)
def test_choices_that_cannot_be_meant_are_refused(options: list[str], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        parse_weight_choices(options, ["i3d"])


def test_random_features_stay_alive_in_half_precision() -> None:
    network, _ = build_backbone("resnet18", "random")
    assert isinstance(network, Backbone)
    frames = torch.randint(0, 256, (1, 2, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    (features,) = network(frames, frozenset({"frame"})).values()
    assert 0.01 < features.std() < 1000


def test_scales_of_layer_norms_are_one_in_random_networks() -> None:
    """Zero, as for other vectors, would end the signal there."""
    layer = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    fill_randomly(layer, 0)
    assert layer.state_dict()["1.weight"].tolist() == [1.0] * 4
    assert layer.state_dict()["1.bias"].tolist() == [0.0] * 4
