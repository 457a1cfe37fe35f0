"""Models of transformers from a folder: rows as the model gives them, shapes, weights, and what is refused."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from extract.backbone import Backbone, BackboneError, backbone_class
from extract.extract_options import ExtractOptions
from extract.hf_models import preprocessing
from extract.plan import make_plan
from extract.state_dict import WeightsError
from extract.weights import build_backbone
from stores.spec import Granularity
from tests.extract.optional import optional

pytestmark = pytest.mark.usefixtures("no_network")

FRAME, CLIP, MAP, SCENE = Granularity.FRAME, Granularity.CLIP, Granularity.MAP, Granularity.SCENE
TINY = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}


@pytest.fixture(scope="module")
def transformers() -> Any:
    return optional("transformers")


def saved(model: Any, folder: Path, **preprocessor: Any) -> Path:
    """A folder as a repository of the Hub has it."""
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({**HALVES, **preprocessor}))
    return folder


def noise(frames: int, size: int) -> Tensor:
    return torch.randint(
        0, 256, (2, frames, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


def pixels(frames: Tensor) -> Tensor:
    """(B, T, 3, H, W) scaled to [-1, 1]."""
    return ((frames / 255 - 0.5) / 0.5).permute(0, 1, 4, 2, 3)


def built(folder: Path) -> Backbone:
    network, loaded = build_backbone(f"hf:{folder}")
    assert isinstance(network, Backbone)
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert (loaded.name, loaded.sha256, loaded.random) == ("pretrained", digest, False)
    return network


def test_without_transformers_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackboneError, match=r"needs the package transformers .*: pip install 'vl\[hf\]'\.$"):
        backbone_class(f"hf:{tmp_path}")


def test_weights_are_taken_as_a_training_of_the_whole_network_leaves_them(transformers: Any, tmp_path: Path) -> None:
    theirs = transformers.ViTModel(transformers.ViTConfig(image_size=48, **TINY)).eval()
    network = built(saved(theirs, tmp_path, size={"height": 48, "width": 48}))
    tuned = {name: (tensor + 1).contiguous() for name, tensor in network.state_dict().items()}
    assert all(name.startswith("model.") for name in tuned)
    safetensors.torch.save_file(tuned, tmp_path / "tuned.safetensors")
    again, _ = build_backbone(f"hf:{tmp_path}", str(tmp_path / "tuned.safetensors"))
    assert all(torch.equal(tensor, tuned[name]) for name, tensor in again.state_dict().items())


def test_a_vision_transformer_gives_its_class_token_and_its_grid(transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    theirs = transformers.ViTForImageClassification(transformers.ViTConfig(image_size=48, **TINY)).eval()
    network = built(saved(theirs, tmp_path, size={"height": 48, "width": 48}))
    assert network.row_shapes == {FRAME: (24,), MAP: (3, 3, 24)}
    assert (network.clip.crop, network.clip.resize, network.clip.mean) == (48, 48, (0.5, 0.5, 0.5))
    frames = noise(2, 48)
    with torch.no_grad():
        tokens = theirs.vit(pixel_values=pixels(frames).flatten(0, 1)).last_hidden_state
    rows = network(frames, frozenset({FRAME, MAP}))
    torch.testing.assert_close(rows[FRAME].flatten(0, 1), tokens[:, 0])
    torch.testing.assert_close(rows[MAP].flatten(0, 1).flatten(1, 2), tokens[:, 1:])


def test_a_convolutional_network_gives_the_mean_of_its_maps(transformers: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 12, 16, 24], depths=[1, 1, 1, 1])
    theirs = transformers.ResNetForImageClassification(config).eval()
    network = built(saved(theirs, tmp_path, size={"shortest_edge": 64}, crop_pct=0.875))
    assert network.row_shapes == {FRAME: (24,), MAP: (2, 2, 24)}
    assert (network.clip.resize, network.clip.crop) == (73, 64)
    frames = noise(2, 64)
    with torch.no_grad():
        given = theirs.resnet(pixel_values=pixels(frames).flatten(0, 1))
    rows = network(frames, frozenset({FRAME, MAP}))
    torch.testing.assert_close(rows[FRAME].flatten(0, 1), given.pooler_output.flatten(1), rtol=1e-4, atol=1e-5)
    maps = rows[MAP].flatten(0, 1).permute(0, 3, 1, 2)
    torch.testing.assert_close(maps, given.last_hidden_state, rtol=1e-4, atol=1e-5)


def test_patches_that_are_merged_on_the_way_have_no_class_token(transformers: Any, tmp_path: Path) -> None:
    config = transformers.SwinConfig(image_size=64, embed_dim=12, depths=[1, 1], num_heads=[2, 2], window_size=4)
    theirs = transformers.SwinModel(config).eval()
    network = built(saved(theirs, tmp_path, size={"height": 64, "width": 64}))
    assert network.row_shapes == {FRAME: (24,), MAP: (8, 8, 24)}
    frames = noise(1, 64)
    with torch.no_grad():
        tokens = theirs(pixel_values=pixels(frames).flatten(0, 1)).last_hidden_state
    torch.testing.assert_close(network(frames, frozenset({FRAME}))[FRAME][:, 0], tokens.mean(1))


@pytest.mark.parametrize("kind", ["VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
def test_videomae_gives_the_mean_of_its_tokens_and_a_grid_for_every_two_frames(
    transformers: Any, tmp_path: Path, kind: str
) -> None:
    torch.manual_seed(0)
    small = {f"decoder_{key}": value for key, value in TINY.items()}
    config = transformers.VideoMAEConfig(image_size=32, num_frames=4, **TINY, **small)
    theirs = getattr(transformers, kind)(config).eval()
    network = built(saved(theirs, tmp_path, size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}))
    assert network.row_shapes == {CLIP: (24,), MAP: (2, 2, 24)}
    assert (network.clip.fps, network.clip.window, network.clip.output_stride) == (7.5, 4, 2)
    frames = noise(4, 32)
    with torch.no_grad():
        tokens = theirs.videomae(pixel_values=pixels(frames)).last_hidden_state
    rows = network(frames, frozenset({CLIP, MAP}))
    assert rows[MAP].shape == (2, 2, 2, 2, 24)
    torch.testing.assert_close(rows[CLIP][:, 0], tokens.mean(1))
    torch.testing.assert_close(rows[MAP].flatten(1, 3), tokens)  # time, then height, then width


def test_videomae_base_has_the_published_shapes(transformers: Any, tmp_path: Path) -> None:
    transformers.VideoMAEConfig().save_pretrained(tmp_path)
    given = {**HALVES, "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(given))
    kind = backbone_class(f"hf:{tmp_path}")
    assert kind.row_shapes == {CLIP: (768,), MAP: (14, 14, 768)}
    assert issubclass(kind, Backbone)
    with torch.device("meta"):
        network = kind()
        rows = network(torch.empty(1, 16, 224, 224, 3, dtype=torch.uint8), frozenset({CLIP, MAP}))
    assert {level: tuple(x.shape) for level, x in rows.items()} == {CLIP: (1, 1, 768), MAP: (1, 8, 14, 14, 768)}
    # ViT-Base without a class token and with fixed positions: 16 x 16 x 2 x 3 inputs of a patch, 12 blocks.
    block = 4 * 768**2 + 3 * 768 + 2 * 768 * 3072 + 3072 + 768 + 4 * 768  # keys have no bias
    patch = 16 * 16 * 2 * 3 * 768 + 768
    assert sum(p.numel() for p in network.parameters()) == 12 * block + patch


def test_videomae_takes_its_own_number_of_frames_and_no_other(transformers: Any, tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(image_size=32, num_frames=4, **TINY)
    name = f"hf:{saved(transformers.VideoMAEModel(config), tmp_path, size={'shortest_edge': 32})}"
    for options in (ExtractOptions((name,), window={"": 8}), ExtractOptions((name,), levels=(SCENE,))):
        with pytest.raises(BackboneError, match=r"takes clips of 4 frames, .* not of (8|12): give --window .*=4"):
            make_plan(options)
    plan = make_plan(ExtractOptions((name,), levels=(CLIP, SCENE), window={name: 4}))
    assert {spec.window for spec in plan.specs.values()} == {4}
    assert {spec.backbone for spec in plan.specs.values()} == {name}


def test_weights_in_parts_and_in_pytorchs_format_are_the_same(transformers: Any, tmp_path: Path) -> None:
    theirs = transformers.ViTModel(transformers.ViTConfig(image_size=32, **TINY), add_pooling_layer=False)
    one = saved(theirs, tmp_path / "one", size={"height": 32, "width": 32})
    theirs.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    parts = sorted((tmp_path / "parts").glob("model-*.safetensors"))
    assert len(parts) > 1
    torch.save(theirs.state_dict(), tmp_path / "w.pth")
    frames = noise(1, 32)
    expected = built(one)(frames, frozenset({FRAME}))[FRAME]
    for choice in (tmp_path / "parts", tmp_path / "w.pth"):
        network, loaded = build_backbone(f"hf:{one}", str(choice))
        assert isinstance(network, Backbone)
        assert torch.equal(network(frames, frozenset({FRAME}))[FRAME], expected)
        lines = "".join(f"{hashlib.sha256(part.read_bytes()).hexdigest()}  {part.name}\n" for part in parts)
        digest = hashlib.sha256(choice.read_bytes() if choice.is_file() else lines.encode()).hexdigest()
        assert loaded.sha256 == digest


def test_weights_that_lack_a_tensor_or_are_of_another_network_are_refused(transformers: Any, tmp_path: Path) -> None:
    theirs = transformers.ViTModel(transformers.ViTConfig(image_size=32, **TINY))
    folder = saved(theirs, tmp_path, size={"height": 32, "width": 32})
    state = theirs.state_dict()
    lacking = {key: value for key, value in state.items() if key != "layernorm.weight"}
    torch.save(lacking, tmp_path / "lacking.pth")
    with pytest.raises(WeightsError, match=r"1 of its tensors are missing \(layernorm.weight\)"):
        build_backbone(f"hf:{folder}", str(tmp_path / "lacking.pth"))
    torch.save({**state, "layernorm.weight": torch.zeros(7)}, tmp_path / "shape.pth")
    with pytest.raises(WeightsError, match="does not fit") as caught:
        build_backbone(f"hf:{folder}", str(tmp_path / "shape.pth"))
    assert "\n" not in str(caught.value)
    # The pooler is not used, and many checkpoints have none.
    without = {key: value for key, value in state.items() if not key.startswith("pooler.")}
    torch.save(without, tmp_path / "without.pth")
    build_backbone(f"hf:{folder}", str(tmp_path / "without.pth"))


def test_weights_that_would_run_code_are_refused(transformers: Any, tmp_path: Path) -> None:
    theirs = transformers.ViTModel(transformers.ViTConfig(image_size=32, **TINY))
    folder = saved(theirs, tmp_path, size={"height": 32, "width": 32})
    torch.save({"state_dict": theirs.state_dict(), "who": Path("x")}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="holds more than tensors"):
        build_backbone(f"hf:{folder}", str(tmp_path / "w.pth"))


def test_code_of_a_repository_is_not_run(transformers: Any, tmp_path: Path) -> None:
    config = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(BackboneError, match=r"its config.json cannot be used") as caught:
        backbone_class(f"hf:{tmp_path}")
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(caught.value)


def test_models_that_are_not_on_this_machine_say_what_to_fetch(
    transformers: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(BackboneError, match=r"no config\.json in that folder"):
        backbone_class(f"hf:{tmp_path}")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repository, file: None)
    with pytest.raises(BackboneError) as caught:
        backbone_class("hf:MCG-NJU/never-fetched")
    assert "hf download MCG-NJU/never-fetched" in str(caught.value)
    assert "https://huggingface.co/MCG-NJU/never-fetched" in str(caught.value)


def test_a_model_of_text_is_refused(transformers: Any, tmp_path: Path) -> None:
    config = transformers.BertConfig(vocab_size=40, **TINY)
    config.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**HALVES, "size": 32}))
    with pytest.raises(BackboneError, match="is no model of RGB images: bert"):
        backbone_class(f"hf:{tmp_path}")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"size": 224}, (224, 224)),
        ({"size": {"height": 384, "width": 384}}, (384, 384)),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}}, (256, 224)),
        ({"size": {"shortest_edge": 256}, "crop_size": 224, "do_center_crop": True}, (256, 224)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, (256, 224)),  # ConvNeXt: 224 / 0.875
        ({"size": {"shortest_edge": 384}, "crop_pct": 0.875}, (384, 384)),
    ],
)
def test_size_is_what_the_preprocessor_says(tmp_path: Path, given: dict[str, Any], expected: tuple[int, int]) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({**HALVES, **given}))
    assert preprocessing(tmp_path, "hf:x") == (*expected, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("text", ["[]", "{", '{"size": 224}', '{"image_mean": [1], "image_std": [1], "size": {}}'])
def test_a_preprocessor_that_says_too_little_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(BackboneError):
        preprocessing(tmp_path, "hf:x")
