"""The two-stage transformer that ASF is compared with: positions look at positions, twice, for all classes alike.

Source: Zhang et al., "Multi-Label Activity Recognition using Activity-specific Features and Activity Correlations",
CVPR 2021, Table 3e and its paragraph in section 4.3.
Differs from it: nothing that it says; what it leaves open is read so. A layer multiplies the features F of all
positions by the attention of equation 12, softmax(b(F) c(F)'), in which every position asks, and not the last one
alone, for the second layer needs features of all positions. Maps b and c are group-linear, without bias and scale,
of the same sizes as the network's own and each layer's own; features are neither mapped nor added to what a layer
gives, and stay D wide. Dropout stands before the classifier, which has D weights a class.

Maps act on channels and attention on positions, so they change places: with A the attention of the first layer, the
second one's queries and keys are A b(F) and A c(F), as wide as a query, and the mean of what it gives is (w A) F with
w the mean row of its own attention. That leaves every value as it is, forms no D-wide features but the mean, and
saves four fifths of the multiplications. Attention over many positions is made for some queries at a time, and made
anew for the backward pass, so that memory does not grow with the square of their number.

Shape letters: B videos, P positions, R of them that ask, D features, E width of queries and keys, F of whatever is
mixed.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from heads.asf_layers import GroupLinear, softmax
from heads.layers import at_least_float32

MAP_ELEMENTS = 2**22  # an attention map holds no more numbers at once: 16 MiB in float32


class TwoStages(nn.Module):
    """What is left of a map after two layers of self-attention and the mean over positions."""

    def __init__(self, num_features: int, embed: int, groups: int) -> None:
        super().__init__()
        self.query1, self.key1, self.query2, self.key2 = (GroupLinear(num_features, embed, groups) for _ in range(4))

    def forward(self, x_BPD: Tensor, mask_BP: Tensor) -> tuple[Tensor, Tensor]:
        """The mean feature (B, D), and what share of it each position has, (B, P); zeros where no position is real."""
        q1_BPE, k1_BPE = self.query1(x_BPD), self.key1(x_BPD)
        unmixed_BPF = torch.cat([self.query2(x_BPD), self.key2(x_BPD)], dim=-1)
        mixed_BPF = torch.cat(in_parts(mixed, (q1_BPE,), (k1_BPE, mask_BP, unmixed_BPF)), dim=1)
        q2_BPE, k2_BPE = mixed_BPF.chunk(2, dim=-1)
        share_BP = at_least_float32(mask_BP.to(x_BPD.dtype)) / mask_BP.sum(1, keepdim=True).clamp(min=1)
        for q_BPE, k_BPE in ((q2_BPE, k2_BPE), (q1_BPE, k1_BPE)):
            share_BP = torch.stack(in_parts(drawn, (q_BPE, share_BP), (k_BPE, mask_BP))).sum(0)
        return (share_BP[:, None].to(x_BPD.dtype) @ x_BPD).squeeze(1), at_least_float32(share_BP)


def mixed(q_BRE: Tensor, k_BPE: Tensor, mask_BP: Tensor, v_BPF: Tensor) -> Tensor:
    """(B, R, F): what some of the queries see."""
    return softmax(q_BRE @ k_BPE.mT, mask_BP[:, None]).to(v_BPF.dtype) @ v_BPF


def drawn(q_BRE: Tensor, weight_BR: Tensor, k_BPE: Tensor, mask_BP: Tensor) -> Tensor:
    """(B, P): how much some of the queries, each with its weight, take from every position."""
    seen_BRP = softmax(q_BRE @ k_BPE.mT, mask_BP[:, None])
    return (weight_BR[:, None].to(seen_BRP.dtype) @ seen_BRP).squeeze(1)


def in_parts(function: Callable[..., Tensor], asking: tuple[Tensor, ...], others: tuple[Tensor, ...]) -> list[Tensor]:
    """What `function` gives for some queries after the other, as many as `MAP_ELEMENTS` allows.

    Args:
        asking: (B, P, ...), cut along P; they are the function's first arguments.
        others: the rest of them, whole.
    """
    batch, positions = asking[0].shape[:2]
    step = max(1, MAP_ELEMENTS // max(1, batch * positions))
    parts: list[Tensor] = []
    for start in range(0, positions, step):
        given = (*(tensor[:, start : start + step] for tensor in asking), *others)
        if step >= positions or not torch.is_grad_enabled():
            parts.append(function(*given))
        else:
            parts.append(checkpoint(function, *given, use_reentrant=False, preserve_rng_state=False))
    return parts
