"""Any image model of timm, as `timm:NAME`: resnet50.a1_in1k, vit_base_patch16_224.augreg_in21k_ft_in1k, ...

Source: Wightman, "PyTorch Image Models", https://github.com/huggingface/pytorch-image-models; each model's paper and
licence are on its page on the Hugging Face Hub. An optional extra: pip install 'vl[timm]'.

A FRAME row is what timm itself gives its classifier: `forward_head(forward_features(x), pre_logits=True)`. A MAP row is
the grid of `forward_features`, without class tokens. Size, mean and standard deviation are those of the model's
configuration. Differs from it: frames are resized by an antialiased bilinear filter, whatever filter it names.

Shape letters: N images, C channels, H height, W width, P tokens before those of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from extract.backbone import BackboneError, ClipFormat
from extract.image_backbone import ImageBackbone
from extract.model_hub import HUB, PRETRAINED, HubModel, cached_folder, extra_missing, weight_files
from extract.state_dict import WeightsError, load_into
from stores.names import printable
from stores.spec import Granularity

DEFAULT_FPS = 12.5  # as the other networks of single images


class TimmModel(HubModel, ImageBackbone):
    """(B, T, H, W, 3) uint8 frames to the rows of one model of timm; `timm_class` makes a subclass for each."""

    default_weights = PRETRAINED
    model_name: ClassVar[str]
    config: ClassVar[Mapping[str, Any]]  # timm's

    def __init__(self, stream: str = "rgb") -> None:
        super().__init__(stream)
        self.model = create(self.model_name)
        self.freeze()

    def trunk(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised to what the model calls its features: a grid or tokens."""
        features: Tensor = self.model.forward_features(x)
        return features

    def pooled(self, x: Tensor) -> Tensor:
        vectors: Tensor = self.model.forward_head(x, pre_logits=True)
        return vectors

    def grid(self, x: Tensor) -> Tensor:
        found = grid_of(self.model, x)
        assert found is not None, f"{self.name} has no grid"
        return found

    def classify(self, frames: Tensor) -> Tensor:
        """(B, T, H, W, 3) uint8 to class logits (B, classes), the mean over the T frames."""
        if self.class_list is None:
            raise BackboneError(f"{self.name} has no classifier whose classes are known.")
        logits_NK: Tensor = self.model.forward_head(self.maps(frames))
        return logits_NK.view(*frames.shape[:2], -1).mean(1)

    def classifier(self, features: Tensor) -> Tensor:
        logits: Tensor = self.model.get_classifier()(features)
        return logits

    def pretrained_files(self) -> Sequence[Path]:
        repository = self.config.get("hf_hub_id")
        if not repository:
            raise WeightsError(f"timm publishes no weights of {self.model_name}: give --weights {self.name}=PATH.")
        folder = cached_folder(repository, "model.safetensors")
        if folder is None:
            raise WeightsError(
                f"the weights of {self.name} are not in the Hub's cache. Fetch {HUB}/{repository}/resolve/main/"
                f"model.safetensors and give --weights {self.name}=PATH, or run 'hf download {repository}'."
            )
        return weight_files(folder)

    def load_files(self, files: Sequence[Path]) -> None:
        if len(files) != 1:
            raise WeightsError(f"{self.name} takes one file of weights, not {len(files)}.")
        load_into(self.model, files[0], self.name)


def timm_class(model: str) -> type[TimmModel]:
    """The class of one model of timm, its shapes found by a pass without data.

    Raises:
        BackboneError: timm is not installed, has no such model, or its model is none of RGB images.
    """
    name = f"timm:{model}"
    with torch.device("meta"):
        network = create(model)
    config = network.default_cfg
    channels, height, width = config["input_size"]
    if channels != 3 or height != width:
        raise BackboneError(f"{printable(name)} takes images {config['input_size']}, not square ones of RGB.")
    with torch.no_grad():
        features = network.forward_features(torch.empty(1, channels, height, width, device="meta"))
        if not isinstance(features, Tensor):
            raise BackboneError(f"{printable(name)} gives several feature maps of an image, not one.")
        vectors = network.forward_head(features, pre_logits=True)
    if vectors.ndim != 2:
        raise BackboneError(f"{printable(name)} gives no vector of an image, but {tuple(vectors.shape[1:])}.")
    shapes: dict[Granularity, tuple[int, ...]] = {Granularity.FRAME: tuple(vectors.shape[1:])}
    cells = grid_of(network, features)
    if cells is not None:
        shapes[Granularity.MAP] = tuple(cells.shape[1:])
    members: dict[str, Any] = {
        "__doc__": TimmModel.__doc__,
        "__module__": __name__,
        "name": name,
        "model_name": model,
        "config": config,
        "row_shapes": shapes,
        "class_list": "imagenet1000" if config["num_classes"] == 1000 else None,
        "clip": ClipFormat(
            fps=DEFAULT_FPS,
            window=1,
            stride=1,
            resize=math.floor(height / config["crop_pct"]),
            crop=height,
            mean=tuple(config["mean"]),
            std=tuple(config["std"]),
        ),
    }
    return type("TimmModelOf", (TimmModel,), members)


def create(model: str) -> Any:
    """Timm's module, without weights; it never asks the network."""
    try:
        import timm
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision that does not fit raises the others
        raise extra_missing(f"timm:{model}", "timm", "timm", error) from error
    if ":" in model or "/" in model:  # timm would look on the Hub
        raise BackboneError(f"timm:{printable(model)}: give a name of timm's own list, as timm:resnet50.a1_in1k.")
    try:
        made: nn.Module = timm.create_model(model, pretrained=False)
    except RuntimeError as error:
        near = ", ".join(timm.list_models(f"*{model.partition('.')[0]}*")[:5])
        raise BackboneError(
            f"timm has no model '{printable(model)}': {printable(str(error).partition(chr(10))[0])}. "
            + (f"Near it: {near}." if near else "'timm.list_models()' lists them.")
        ) from error
    return made.eval()


def grid_of(model: Any, features: Tensor) -> Tensor | None:
    """(N, H, W, C) of what `forward_features` gives; None where it has no grid that can be told."""
    width = model.num_features
    if features.ndim == 4:
        if features.shape[1] == width:
            return features.permute(0, 2, 3, 1)
        return features if features.shape[-1] == width else None
    size = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if features.ndim != 3 or size is None:
        return None
    height, across = size
    tokens = features[:, getattr(model, "num_prefix_tokens", 0) :]
    return tokens.reshape(len(tokens), height, across, width) if tokens.shape[1] == height * across else None
