"""Where the weights of each backbone come from, and how a choice on the command line becomes a loaded network.

A choice is a name of the table below, the path of a checkpoint, or "random" ("random:7" for another seed).
"""

from __future__ import annotations

import hashlib
import importlib.resources
import stat
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from extract.backbone import AudioBackbone, Backbone, backbone_class, is_name, listed_names
from extract.download import fetch, file_sha256, verify
from extract.model_hub import PRETRAINED, HubModel
from extract.published import WEIGHTS, Weights
from extract.state_dict import WeightsError, load_into
from stores.names import printable

RANDOM = "random"
RESIDUAL = 0.25  # gain of a random residual branch: fifty of them at 1 leave the range of half precision
SCALES = ("weight", "gamma")  # last part of the names of the one-dimensional parameters that multiply
NONE = "none"  # the choice of a backbone that has nothing to learn


@dataclass(frozen=True)
class LoadedWeights:
    """What a network was filled with."""

    name: str  # as the user chose it
    sha256: str  # of the file; of the tensors where they are random; "" where nothing is learned
    random: bool = False


def build_backbone(
    name: str,
    weights: str | None = None,
    *,
    stream: str | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    report: Callable[[str], None] | None = None,
) -> tuple[Backbone | AudioBackbone, LoadedWeights]:
    """The backbone `name`, frozen, with the weights of that choice (None: its default), and what they are."""
    kind = backbone_class(name)
    backbone = kind() if stream in (None, kind.stream) else kind(stream)
    loaded = load_weights(backbone, weights or kind.default_weights, report=report)
    backbone.requires_grad_(False).eval()
    return backbone.to(device=device, dtype=dtype), loaded


def load_weights(
    backbone: Backbone | AudioBackbone, choice: str, *, report: Callable[[str], None] | None = None
) -> LoadedWeights:
    """Fills `backbone` with the weights that `choice` stands for.

    Raises:
        WeightsError: there is no such choice, or the file cannot be had, read, or used for this network.
    """
    names = [PRETRAINED] if isinstance(backbone, HubModel) else weight_names(backbone.name, backbone.stream)
    if NONE in names:
        if choice not in (NONE, RANDOM):
            raise WeightsError(f"{backbone.name} learns nothing: it takes no weights, and not '{printable(choice)}'.")
        return LoadedWeights(NONE, "")
    kind, _, seed = choice.partition(":")
    if kind == RANDOM and (seed.isdecimal() or choice == RANDOM):
        fill_randomly(backbone, int(seed or 0))
        return LoadedWeights(choice, state_sha256(backbone), random=True)
    if isinstance(backbone, HubModel):
        return LoadedWeights(choice, backbone.load_weights(choice))
    if choice in names:
        path, digest = locate(WEIGHTS[backbone.name, backbone.stream, choice], backbone.name, report)
    else:
        path = chosen_path(choice, backbone, names)
        digest = file_sha256(path)
    load_into(backbone, path, f"{backbone.name} ({backbone.stream})")
    return LoadedWeights(choice, digest)


def weight_names(backbone: str, stream: str) -> list[str]:
    """Names that `--weights` knows for a backbone; ["none"] where nothing is learned."""
    names = [name for owner, of, name in WEIGHTS if (owner, of) == (backbone, stream)]
    return names or [NONE]


def locate(weights: Weights, backbone: str, report: Callable[[str], None] | None = None) -> tuple[Path, str]:
    """Where the file lies, in its package or in the cache, downloaded if need be; and its sha256, verified."""
    instead = f"give --weights {backbone}=PATH"
    if weights.unusable:
        raise WeightsError(f"{weights.unusable}, and {instead}.")
    if weights.package is None:
        return fetch(weights, instead=instead, report=report)
    try:
        path = Path(str(importlib.resources.files(weights.package))) / weights.filename
    except ModuleNotFoundError as error:
        package = weights.package.replace("_", "-")
        raise WeightsError(
            f"the package {package}, which holds these weights, is not installed. Install it, or {instead}."
        ) from error
    verify(path, weights, instead=f"install its package again, or {instead}")
    assert weights.sha256 is not None
    return path, weights.sha256


def chosen_path(choice: str, backbone: Backbone | AudioBackbone, names: Sequence[str]) -> Path:
    path = Path(choice).expanduser()
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        known = ", ".join((*names, RANDOM))
        raise WeightsError(
            f"there are no weights '{printable(choice)}' for {backbone.name} ({backbone.stream}): "
            f"it is neither a name ({known}) nor a file."
        ) from error
    if not stat.S_ISREG(mode):
        raise WeightsError(f"weights are read from a regular file, and '{printable(choice)}' is none.")
    return path


def parse_weight_choices(options: Sequence[str], backbones: Sequence[str]) -> dict[str, str]:
    """What `--weights` says for each of `backbones`; one that is absent from the result has its default.

    "i3d=PATH" speaks for one backbone and goes before "CHOICE", which speaks for all that learn anything; a stream has
    "i3d.flow=PATH", which goes before both.

    >>> parse_weight_choices(["random", "i3d=w.pt"], ["i3d", "resnet18", "logmel"])
    {'i3d': 'w.pt', 'resnet18': 'random'}
    """
    named: dict[str, str] = {}
    bare: list[str] = []
    for option in options:
        name, equals, choice = split_choice(option, backbones)
        if not equals or ("/" in name and not is_name(name)):  # a path may have an equals sign
            bare.append(option)
        elif not is_name(owner_of(name)):
            raise WeightsError(
                f"--weights {printable(option)}: there is no backbone '{printable(name)}'. There are: {listed_names()}."
            )
        elif (owner := owner_of(name)) != name and name.removeprefix(f"{owner}.") not in (
            streams := backbone_class(owner).streams
        ):
            raise WeightsError(f"--weights {printable(option)}: the streams of {owner} are {', '.join(streams)}.")
        elif owner not in backbones:
            raise WeightsError(f"--weights {printable(option)}: {owner} is not among --backbone {','.join(backbones)}.")
        elif named.setdefault(name, choice) != choice:
            raise WeightsError(f"--weights names two files for {name}: {printable(named[name])}, {printable(choice)}.")
        elif not choice:
            raise WeightsError(f"--weights {name}= says nothing: give a name, a path or 'random'.")
    if len(bare) > 1:
        raise WeightsError(f"--weights {printable(', '.join(bare))}: for which backbone? Say NAME=CHOICE.")
    learning = [name for name in backbones if ":" in name or any(owner == name for owner, _, _ in WEIGHTS)]
    whole = {name: named.get(name, *bare) for name in backbones if name in named or (bare and name in learning)}
    return named | whole


def owner_of(name: str) -> str:
    """The backbone in the name of one or of one of its streams.

    >>> owner_of("i3d.flow"), owner_of("i3d"), owner_of("timm:resnet50.a1_in1k")
    ('i3d', 'i3d', 'timm:resnet50.a1_in1k')
    """
    return name if ":" in name else name.partition(".")[0]


def split_choice(option: str, backbones: Sequence[str]) -> tuple[str, str, str]:
    """A choice in its parts: name, equals sign, rest; a name may have equals signs itself, as "hf:a=b/model"."""
    for name in sorted(backbones, key=len, reverse=True):
        if option.startswith(f"{name}="):
            return name, "=", option.removeprefix(f"{name}=")
    return option.partition("=")


def fill_randomly(network: nn.Module, seed: int) -> None:
    """He's uniform initialisation, the same to the bit on every machine and whatever the order of the layers.

    The scale keeps activations alive through any depth: PyTorch's default fades to nothing in half precision.
    """
    with torch.no_grad():
        for prefix, module in network.named_modules():
            for key, tensor in module.named_parameters(prefix, recurse=False):
                if tensor.ndim < 2 and key.rpartition(".")[2] in SCALES:
                    tensor.fill_(1)  # of a layer norm: zero would end the signal there
                else:
                    tensor.copy_(random_tensor(tensor, [seed, zlib.crc32(key.encode())]))
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.reset_parameters()  # and the running statistics
            if getattr(module, "block_final_bn", False):  # pytorchvideo's mark of a residual branch's last layer
                module.weight.fill_(RESIDUAL)


def random_tensor(like: Tensor, seed: list[int]) -> Tensor:
    """Uniform in +-sqrt(6 / inputs) for weights of two dimensions and more, zero for the others."""
    if like.ndim < 2:
        return torch.zeros(like.shape)
    # Integers scaled by a power of two: unlike normal numbers these do not depend on the machine's logarithm.
    values = np.random.default_rng(seed).random(like.numel(), dtype=np.float32)
    bound = np.float32((6 / like[0].numel()) ** 0.5)
    return torch.from_numpy((values * np.float32(2) - np.float32(1)) * bound).view(like.shape)


def state_sha256(network: nn.Module) -> str:
    """Digest of all parameters and buffers: name, dtype, shape and little-endian values of each, by name."""
    digest = hashlib.sha256()
    for key, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"{key} {values.dtype.name} {list(values.shape)}\n".encode())
        digest.update(values.astype(values.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()
