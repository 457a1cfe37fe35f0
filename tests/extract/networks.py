"""Networks whose every layer shows in what they give."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from extract.backbone import Backbone
from extract.weights import fill_randomly

Network = TypeVar("Network", bound=Backbone)


def randomised(network: Network, seed: int = 3) -> Network:
    """Random weights and random statistics, in double precision."""
    fill_randomly(network, seed)
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            for tensor in (module.weight.data, module.running_var):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5, generator=generator)
            for tensor in (module.bias.data, module.running_mean):
                assert tensor is not None
                tensor.normal_(0, 0.1, generator=generator)
    return network.double().requires_grad_(False)
