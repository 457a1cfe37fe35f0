"""Image models of Hugging Face transformers, and VideoMAE, as `hf:NAME`: a repository of the Hub or a folder.

Source: Wolf et al., "Transformers: State-of-the-Art Natural Language Processing", EMNLP 2020; each model's paper and
licence are on its page. An optional extra: pip install 'vl[hf]'. The configuration is read from the folder, or from the
Hub's cache on this machine; nothing is fetched, and no code of a repository is run.

Of a model of images a FRAME row is the class token of the last layer, or where there is none the mean over the grid; a
MAP row is the grid. A pooler behind it is not used: many published checkpoints have none, and it would be random.

VideoMAE: Tong et al., "VideoMAE: Masked Autoencoders are Data-Efficient Learners for Self-Supervised Video
Pre-Training", NeurIPS 2022. It sees 16 frames, every 4th of a video at 30 a second. A CLIP row is the mean of the
tokens, as its fine-tuned classifiers take it (before their norm), and a MAP row the 14 x 14 tokens of two frames.

Shape letters: N images, B clips, T frames, R output time steps, C channels, H height, W width.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from extract.backbone import Backbone, BackboneError, ClipFormat
from extract.clip_backbone import ClipBackbone
from extract.image_backbone import ImageBackbone
from extract.model_hub import HUB, PRETRAINED, HubModel, cached_folder, extra_missing, read_json, weight_files
from extract.state_dict import WeightsError, compare, read_state
from stores.names import printable
from stores.spec import Granularity

DEFAULT_FPS = 12.5  # as the other networks of single images
VIDEOMAE_FPS = 7.5  # every 4th frame at 30 a second
PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")


class HuggingFaceModel(HubModel, Backbone):
    """What models of images and of clips share."""

    default_weights = PRETRAINED
    folder: ClassVar[Path]
    config: ClassVar[Any]  # of transformers

    def build(self) -> None:
        """Last step of a subclass's `__init__`."""
        self.model = create(self.config)
        self.freeze()

    def pretrained_files(self) -> Sequence[Path]:
        return weight_files(self.folder)

    def load_files(self, files: Sequence[Path]) -> None:
        tensors: dict[str, Tensor] = {}
        for file in files:
            tensors |= read_state(file)
        with quiet():
            try:
                made, report = type(self.model).from_pretrained(
                    None, config=self.config, state_dict=tensors, output_loading_info=True
                )
            except (RuntimeError, ValueError) as error:
                reason = printable(str(error).partition("\n")[0][:160])
                raise WeightsError(f"{printable(files[0])} does not fit {printable(self.name)}: {reason}") from error
        if lacking := sorted(key for key in report["missing_keys"] if not key.startswith("pooler.")):
            raise WeightsError(
                f"{printable(files[0])} does not fit {printable(self.name)}: {len(lacking)} of its tensors are missing "
                f"({printable(', '.join(lacking[:3]))}{', ...' if len(lacking) > 3 else ''})."
            )
        state = made.state_dict()
        own = self.model.state_dict()
        compare(state, own, files[0], self.name)
        self.model.load_state_dict(state)


class HuggingFaceImages(HuggingFaceModel, ImageBackbone):
    """(B, T, H, W, 3) uint8 frames to the rows of one image model; `hf_class` makes a subclass for each."""

    prefix: ClassVar[int | None]  # tokens before those of the grid; None: there is no grid

    def __init__(self, stream: str = "rgb") -> None:
        ImageBackbone.__init__(self, stream)
        self.build()

    def trunk(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) normalised to the last hidden state: a grid or tokens."""
        hidden: Tensor = self.model(pixel_values=x).last_hidden_state
        return hidden

    def pooled(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return x.mean((2, 3))
        return x[:, 0] if self.prefix else x.mean(1)

    def grid(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return x.permute(0, 2, 3, 1)
        tokens = x[:, self.prefix :]
        side = math.isqrt(tokens.shape[1])
        return tokens.reshape(len(x), side, side, -1)

    def classifier(self, features: Tensor) -> Tensor:
        raise BackboneError(f"{self.name} has no classifier to show classes of {len(features)} frames with.")


class VideoMae(HuggingFaceModel, ClipBackbone):
    """(B, 16, 224, 224, 3) uint8 frames to 768 features a clip, or a cell of 14 x 14 for every two frames (base)."""

    def __init__(self, stream: str = "rgb") -> None:
        ClipBackbone.__init__(self, stream)
        self.build()

    def trunk(self, x: Tensor) -> Tensor:
        """(B, 3, T, H, W) normalised to (B, C, T / 2, H / 16, W / 16)."""
        self.clip.check_window(self.name, x.shape[2])
        hidden_BPC = self.model(pixel_values=x.transpose(1, 2)).last_hidden_state
        rows, height, width = (side // cell for side, cell in zip(x.shape[2:], cell_of(self.config), strict=True))
        grid_BRHWC: Tensor = hidden_BPC.unflatten(1, (rows, height, width))
        return grid_BRHWC.permute(0, 4, 1, 2, 3)

    def classifier(self, x: Tensor) -> Tensor:
        raise BackboneError(f"{self.name} has no classifier to show classes of {len(x)} clips with.")


def hf_class(model: str) -> type[HuggingFaceModel]:
    """The class of one model: its shapes, size, mean and standard deviation from its own configuration.

    Raises:
        BackboneError: transformers is not installed, the model is not on this machine, or is none of RGB images.
    """
    name = f"hf:{model}"
    folder = find_folder(model)
    try:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ImportError, RuntimeError) as error:
        raise extra_missing(name, "hf", "transformers", error) from error
    except (OSError, ValueError, KeyError) as error:
        reason = printable(str(error).partition("\n")[0][:160])
        raise BackboneError(f"{printable(name)}: its config.json cannot be used ({reason}).") from error
    resize, crop, mean, std = preprocessing(folder, name)
    members: dict[str, Any] = {"__module__": __name__, "name": name, "folder": folder, "config": config}
    with torch.device("meta"):
        network = create(config)
    if network.main_input_name != "pixel_values" or getattr(config, "num_channels", 3) != 3:
        raise BackboneError(f"{printable(name)} is no model of RGB images: {config.model_type}.")
    if config.model_type == "videomae":
        grid = tuple(crop // cell for cell in cell_of(config)[1:])
        members["row_shapes"] = {Granularity.CLIP: (config.hidden_size,), Granularity.MAP: (*grid, config.hidden_size)}
        members["clip"] = ClipFormat(
            fps=VIDEOMAE_FPS,
            window=config.num_frames,
            stride=config.num_frames,
            resize=resize,
            crop=crop,
            mean=mean,
            std=std,
            output_stride=config.tubelet_size,
            receptive_field=config.num_frames,
            fixed=True,
        )
        return type("VideoMaeOf", (VideoMae,), {"__doc__": VideoMae.__doc__, **members})
    if hasattr(config, "num_frames"):
        raise BackboneError(f"{printable(name)} is a model of video other than VideoMAE: {config.model_type}.")
    with torch.no_grad():
        try:
            hidden = network(pixel_values=torch.empty(1, 3, crop, crop, device="meta")).last_hidden_state
        except (AttributeError, RuntimeError, TypeError, ValueError) as error:
            reason = printable(str(error).partition("\n")[0][:160])
            raise BackboneError(f"{printable(name)} does not run on images alone ({reason}).") from error
    if hidden.ndim == 4:
        members["prefix"] = 0
        shapes = {Granularity.FRAME: (hidden.shape[1],), Granularity.MAP: (*hidden.shape[2:], hidden.shape[1])}
    else:
        members["prefix"] = prefix = prefix_of(hidden.shape[1], crop, config)
        shapes = {Granularity.FRAME: (hidden.shape[2],)}
        if prefix is not None:
            side = math.isqrt(hidden.shape[1] - prefix)
            shapes[Granularity.MAP] = (side, side, hidden.shape[2])
    members["row_shapes"] = shapes
    members["clip"] = ClipFormat(fps=DEFAULT_FPS, window=1, stride=1, resize=resize, crop=crop, mean=mean, std=std)
    return type("HuggingFaceImagesOf", (HuggingFaceImages,), {"__doc__": HuggingFaceImages.__doc__, **members})


def find_folder(model: str) -> Path:
    """Where the model's config.json lies: a folder, or a repository's in the Hub's cache."""
    path = Path(model).expanduser()
    if (path / "config.json").is_file():
        return path
    if path.is_dir() or model.startswith((".", "/", "~")):
        raise BackboneError(f"hf:{printable(model)}: there is no config.json in that folder.")
    try:
        found = cached_folder(model, "config.json")
    except ImportError as error:
        raise extra_missing(f"hf:{model}", "hf", "transformers", error) from error
    if found is None:
        raise BackboneError(
            f"hf:{printable(model)} is neither a folder nor in the Hub's cache. Run 'hf download {printable(model)}', "
            f"or fetch config.json, preprocessor_config.json and model.safetensors from {HUB}/{printable(model)} into "
            "a folder and name that."
        )
    return found


def preprocessing(folder: Path, name: str) -> tuple[int, int, tuple[float, ...], tuple[float, ...]]:
    """(resize, crop, mean, std) that a model was trained with, as its preprocessor says."""
    file = next((folder / known for known in PREPROCESSORS if (folder / known).is_file()), None)
    if file is None:
        raise BackboneError(
            f"{printable(name)}: {printable(folder)} has no {PREPROCESSORS[0]}, which says how it sees images."
        )
    given = read_json(file)
    try:
        size, crop_size = sides(given.get("size", {})), sides(given.get("crop_size", {}))
        resize = size["shortest_edge"] if "shortest_edge" in size else min(size["height"], size["width"])
        crop = min(crop_size.values()) if crop_size and given.get("do_center_crop", True) else resize
        percent = given.get("crop_pct")
        if isinstance(percent, float) and resize < 384 and not crop_size:  # as ConvNeXt's processor has it
            resize = int(resize / percent)
        mean = values(given["image_mean"]) if given.get("do_normalize", True) else (0.0,) * 3
        std = values(given["image_std"]) if given.get("do_normalize", True) else (1.0,) * 3
    except (KeyError, TypeError, ValueError) as error:
        raise BackboneError(
            f"{printable(file)} says no size, mean and standard deviation that vl understands ({error!r})."
        ) from error
    return max(resize, crop), crop, mean, std


def sides(size: object) -> dict[str, int]:
    """A size as old and new files write it: one number, or named sides.

    >>> sides(224), sides({"height": 224, "width": 224})
    ({'shortest_edge': 224}, {'height': 224, 'width': 224})
    """
    if isinstance(size, int):
        return {"shortest_edge": size}
    if not isinstance(size, dict):
        raise TypeError(size)
    return {str(key): int(value) for key, value in size.items() if value is not None}


def values(numbers: object) -> tuple[float, ...]:
    if not isinstance(numbers, list) or len(numbers) != 3:
        raise ValueError(numbers)
    return tuple(map(float, numbers))


def create(config: Any) -> Any:
    """Transformers' module without weights."""
    from transformers import AutoModel

    with quiet():
        try:
            return AutoModel.from_config(config, trust_remote_code=False).eval()
        except (ImportError, ValueError) as error:
            reason = printable(str(error).partition("\n")[0][:160])
            raise BackboneError(f"transformers makes no model of type {config.model_type}: {reason}") from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' bars and reports: what matters of them is raised here."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def prefix_of(tokens: int, crop: int, config: Any) -> int | None:
    """How many of a model's tokens stand before its square grid (class, registers); None where there is no grid."""
    patch = getattr(config, "patch_size", None)
    before = tokens - (crop // patch) ** 2 if isinstance(patch, int) else -1
    if before < 0:  # patches were merged on the way, as Swin does
        before = 0
    return before if math.isqrt(tokens - before) ** 2 == tokens - before else None


def cell_of(config: Any) -> tuple[int, int, int]:
    """Frames, height and width that one token of VideoMAE stands for."""
    patch = config.patch_size
    height, width = (patch, patch) if isinstance(patch, int) else patch
    return config.tubelet_size, height, width
