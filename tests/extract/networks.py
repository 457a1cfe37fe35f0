"""Networks whose every layer shows in what they give, and small inputs for each of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from extract.backbone import Backbone, backbone_class
from extract.hub import HubBackbone
from extract.video_resnet import VideoResNet
from extract.weights import RESIDUAL, fill_randomly
from stores.spec import Granularity

Network = TypeVar("Network", bound=Backbone)


def randomised(network: Network, seed: int = 3) -> Network:
    """Random weights and random statistics, in double precision."""
    fill_randomly(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for parameter in network.parameters():
        if parameter.ndim == 1:
            parameter.data.normal_(0, 0.1, generator=generator)
    for module in network.modules():
        if isinstance(module, nn.LayerNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
        if isinstance(module, _BatchNorm):
            for tensor in (module.weight.data, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.normal_(0, 0.1, generator=generator)
        if getattr(module, "block_final_bn", False):
            module.weight.data.mul_(RESIDUAL)  # type: ignore[operator]  # or the sums of a hundred layers drown each other
    return network.double().requires_grad_(False)


def noise(*shape: int) -> Tensor:
    """(*shape, 3) uint8, always the same."""
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def batch_norm(state: Mapping[str, Tensor], x: Tensor, name: str, eps: float = 1e-5) -> Tensor:
    """`x` (B, C, ...) through the batch norm of that name, spelled out in double precision."""
    mean, var, weight, bias = (
        state[f"{name}.{part}"].double().view(-1, *[1] * (x.ndim - 2))
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + eps).sqrt() * weight + bias


def assert_gives_rows_of(
    network: VideoResNet, reference: Callable[[dict[str, Tensor], Tensor], Tensor], frames: Tensor, tolerance: float
) -> None:
    """Maps, their means and logits of `frames` are those of `reference`, which takes a state and (B, 3, T, H, W)."""
    mean, std = torch.tensor([[0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]], dtype=torch.double)
    x = ((frames.double() / 255 - mean) / std).permute(0, 4, 1, 2, 3)
    expected = reference(network.state_dict(), x)
    pooled = expected.mean((2, 3, 4))
    rows = network(frames, frozenset({Granularity.CLIP, Granularity.MAP}))
    assert_close = partial(torch.testing.assert_close, rtol=tolerance, atol=tolerance)
    assert_close(rows[Granularity.MAP].permute(0, 4, 1, 2, 3), expected)
    assert_close(rows[Granularity.CLIP][:, 0], pooled)
    assert_close(network.classify(frames), pooled @ network.fc.weight.T + network.fc.bias)


def on_meta(name: str) -> Backbone:
    """The network with shapes alone: nothing of it is allocated."""
    with torch.device("meta"):
        network = backbone_class(name)()
    assert isinstance(network, Backbone)
    return network.to("meta")


NARROW: dict[str, dict[str, object]] = {  # of the same depth as the published ones, a quarter as wide
    **{key: {"stem_dim_out": 16} for key in ("c2d_r50", "csn_r101", "i3d_r50", "r2plus1d_r50", "slow_r50")},
    **{key: {"stem_dim_outs": (16, 2)} for key in ("slowfast_r50", "slowfast_r101")},
    **{key: {"spatial_size": 64, "temporal_size": 4, "patch_embed_dim": 24} for key in ("mvit_b_16x4", "mvit_b_32x3")},
}


def small(name: str) -> tuple[Backbone, int, int]:
    """A randomised network, and frames and pixels of about the smallest clip that it takes."""
    if name in NARROW:
        frames, side = (4, 64) if name.startswith("mvit") else (8, 32)
        return randomised(narrow(name, **NARROW[name])), frames, side
    network = on_meta(name).to_empty(device="cpu")  # spares what the constructors draw
    clip = network.clip
    if clip.window == 1:
        return randomised(network), 2, 96
    return randomised(network), max(4, clip.output_stride), 32


def narrow(name: str, **options: object) -> HubBackbone:
    """A network of pytorchvideo's hub with other options than the published one."""
    kind = backbone_class(name)
    assert issubclass(kind, HubBackbone)
    network: HubBackbone = type("Narrow", (kind,), {"options": options})()
    return network
