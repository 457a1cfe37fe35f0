"""Models of timm by their names: rows as timm gives them, shapes, weights, and what is refused."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from extract.backbone import BACKBONES, Backbone, BackboneError, backbone_class
from extract.extract_options import ExtractOptions
from extract.plan import make_plan
from extract.state_dict import WeightsError
from extract.weights import build_backbone
from stores.spec import Granularity
from tests.extract.optional import optional

pytestmark = pytest.mark.usefixtures("no_network")

FRAME, MAP = Granularity.FRAME, Granularity.MAP
VIT, RESNET = "test_vit.r160_in1k", "test_resnet.r160_in1k"


@pytest.fixture(scope="module")
def timm() -> Any:
    return optional("timm")


def noise(size: int) -> Tensor:
    return torch.randint(0, 256, (1, 3, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_without_timm_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(BackboneError, match=r"^timm:resnet999 needs the package timm .*: pip install 'vl\[timm\]'\.$"):
        backbone_class("timm:resnet999")


@pytest.mark.parametrize(
    ("model", "tokens_before", "cells"), [(VIT, 1, 10), (RESNET, None, 5)]
)  # 160 pixels: patches of 16, or five halvings
def test_rows_are_timms(timm: Any, tmp_path: Path, model: str, tokens_before: int | None, cells: int) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(model, pretrained=False).eval()
    path = tmp_path / "w.pth"
    torch.save(theirs.state_dict(), path)
    network, loaded = build_backbone(f"timm:{model}", str(path))
    assert isinstance(network, Backbone)
    assert (loaded.sha256, loaded.random) == (hashlib.sha256(path.read_bytes()).hexdigest(), False)
    assert backbone_class(f"timm:{model}") is type(network)

    frames = noise(160)
    config = theirs.default_cfg
    mean, std = torch.tensor(config["mean"]), torch.tensor(config["std"])
    with torch.no_grad():
        features = theirs.forward_features(((frames[0] / 255 - mean) / std).permute(0, 3, 1, 2))
        vectors = theirs.forward_head(features, pre_logits=True)
        logits = theirs.forward_head(features)
    rows = network(frames, frozenset({FRAME, MAP}))
    torch.testing.assert_close(rows[FRAME][0], vectors, rtol=1e-4, atol=1e-5)
    grid = features.permute(0, 2, 3, 1).flatten(1, 2) if tokens_before is None else features[:, tokens_before:]
    torch.testing.assert_close(rows[MAP][0].flatten(1, 2), grid, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(network.classify(frames)[0], logits.mean(0), rtol=1e-4, atol=1e-5)
    assert network.row_shapes == {FRAME: tuple(vectors.shape[1:]), MAP: (cells, cells, grid.shape[-1])}
    assert not network.training


def test_size_and_scale_are_the_models_own(timm: Any) -> None:
    clip = backbone_class("timm:vit_base_patch16_224.augreg_in21k_ft_in1k").clip  # type: ignore[union-attr]
    assert (clip.crop, clip.resize) == (224, 248)  # 224 / 0.9
    assert (clip.mean, clip.std) == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", {FRAME: (768,), MAP: (14, 14, 768)}),
        ("swin_tiny_patch4_window7_224.ms_in1k", {FRAME: (768,), MAP: (7, 7, 768)}),  # channels last
        ("deit3_small_patch16_224.fb_in1k", {FRAME: (384,), MAP: (14, 14, 384)}),
        ("vit_small_patch14_reg4_dinov2.lvd142m", {FRAME: (384,), MAP: (37, 37, 384)}),  # four register tokens
        ("mobilenetv3_small_050.lamb_in1k", {FRAME: (1024,), MAP: (7, 7, 288)}),  # wider behind its pool
        ("levit_128s", {FRAME: (384,)}),  # tokens whose grid it does not tell
    ],
)
def test_full_size_shapes(timm: Any, model: str, shapes: dict[Granularity, tuple[int, ...]]) -> None:
    assert backbone_class(f"timm:{model}").row_shapes == shapes


def test_sets_are_named_without_a_colon_and_the_spec_has_the_name(timm: Any) -> None:
    name = f"timm:{VIT}"
    plan = make_plan(ExtractOptions((name,), weights={name: "random"}, fps={name: 5.0}))
    spec = plan.specs["timm-test_vit.r160_in1k.rgb.frame"]
    assert (spec.backbone, spec.fps, spec.random_weights) == (name, 5.0, True)
    (network,) = plan.networks
    rows = network.backbone(noise(160), frozenset({FRAME}))[FRAME]
    assert 0.01 < rows.std() < 1000  # alive: norms of random networks do not end the signal


def test_two_names_that_would_fill_one_set_are_refused(timm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    names = (f"timm:{VIT}", f"timm-{VIT}")
    monkeypatch.setitem(BACKBONES, names[1], "extract.resnet:ResNet18")
    with pytest.raises(BackboneError, match=f"{names[0]} and {names[1]} would fill sets of one name"):
        make_plan(ExtractOptions(names, weights=dict.fromkeys(names, "random")))


def test_weights_that_were_never_fetched_are_an_error_that_says_what_to_fetch(
    timm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(WeightsError) as caught:
        build_backbone("timm:resnet18.a1_in1k")
    said = str(caught.value)
    assert "https://huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors" in said
    assert "--weights timm:resnet18.a1_in1k=PATH" in said
    assert "\n" not in said


def test_weights_in_the_hubs_cache_are_used(timm: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    optional("safetensors.torch").save_file(timm.create_model(VIT).state_dict(), file)
    asked: list[tuple[str, str]] = []

    def cached(repository: str, name: str) -> str:
        asked.append((repository, name))
        return str(file)

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", cached)
    _, loaded = build_backbone(f"timm:{VIT}")
    assert loaded.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert loaded.name == "pretrained"
    assert asked == [(f"timm/{VIT}", "model.safetensors")]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("resnet5000", "timm has no model 'resnet5000'"),
        ("hf-hub:timm/resnet18.a1_in1k", "give a name of timm's own list"),
        ("coat_tiny", "several feature maps"),
        ("tf_efficientnet_b0.no_such_tag", "timm has no model 'tf_efficientnet_b0.no_such_tag'"),
    ],
)
def test_models_that_cannot_be_had_are_one_line(timm: Any, model: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message) as caught:
        backbone_class(f"timm:{model}")
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(timm: Any, tmp_path: Path) -> None:
    torch.save(timm.create_model(RESNET).state_dict(), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=f"does not fit timm:{VIT}"):
        build_backbone(f"timm:{VIT}", str(tmp_path / "w.pth"))
