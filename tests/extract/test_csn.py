"""ip-CSN-152: the same numbers from a functional re-implementation of the paper's bottleneck."""

from functools import partial

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from extract.csn import Csn152
from tests.extract.networks import assert_gives_rows_of, batch_norm, noise, on_meta, randomised


@pytest.fixture(scope="module")
def network() -> Csn152:
    made = randomised(on_meta("csn_152").to_empty(device="cpu"))
    assert isinstance(made, Csn152)
    return made


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """(B, 3, T, H, W) normalised to (B, 2048, T / 8, H / 32, W / 32): table 2 and figure 2 (c) of the paper.

    152 layers; epsilon 1e-3, that of Caffe2, which VMZ sets for every batch norm.
    """

    norm = partial(batch_norm, state, eps=1e-3)

    def pointwise(x: Tensor, name: str) -> Tensor:
        return torch.einsum("bcthw,oc->bothw", x, state[name].flatten(1))

    def channelwise(x: Tensor, name: str, stride: int) -> Tensor:
        """Every channel with its own 3 x 3 x 3 filter: a sum of 27 shifted copies."""
        weight = state[name]
        padded = F.pad(x, (1,) * 6)
        sizes = [-(-size // stride) for size in x.shape[2:]]
        total = torch.zeros(*x.shape[:2], *sizes, dtype=x.dtype)
        for i in range(3):
            for j in range(3):
                for k in range(3):
                    t, h, w = (
                        slice(o, o + stride * (n - 1) + 1, stride) for o, n in zip((i, j, k), sizes, strict=True)
                    )
                    total += padded[:, :, t, h, w] * weight[:, 0, i, j, k].view(-1, 1, 1, 1)
        return total

    x = F.conv3d(F.pad(x, (3, 3, 3, 3, 1, 1)), state["stem.0.weight"], stride=(1, 2, 2))
    x = F.pad(norm(x, "stem.1").relu(), (1,) * 4)  # zeros around what is not negative: they change no maximum
    x = F.max_pool3d(x, (1, 3, 3), stride=(1, 2, 2))
    for layer, blocks in enumerate((3, 8, 36, 3), start=1):
        for block in range(blocks):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            y = norm(pointwise(x, f"{name}.conv1.0.weight"), f"{name}.conv1.1").relu()
            y = norm(pointwise(y, f"{name}.conv2.0.0.weight"), f"{name}.conv2.0.1")
            y = norm(channelwise(y, f"{name}.conv2.0.2.weight", stride), f"{name}.conv2.1").relu()
            y = norm(pointwise(y, f"{name}.conv3.0.weight"), f"{name}.conv3.1")
            if block == 0:
                x = x[:, :, ::stride, ::stride, ::stride]
                x = norm(pointwise(x, f"{name}.downsample.0.weight"), f"{name}.downsample.1")
            x = (x + y).relu()
    return x


@torch.inference_mode()
@pytest.mark.parametrize("size", [(8, 32, 32), (12, 24, 40)])
def test_numbers_are_those_of_the_reference(network: Csn152, size: tuple[int, int, int]) -> None:
    assert_gives_rows_of(network, reference, noise(1, *size), tolerance=1e-9)
