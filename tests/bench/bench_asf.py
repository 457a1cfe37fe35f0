"""ASF's reassociated head against its equations as the paper writes them, batched, at the paper's size on one core.

The equations map the features of all positions for every observation, by whichever is quicker of a grouped
convolution and a product of matrices a group; the classes' features and their correlation are the same on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from heads.asf import Asf, AsfConfig
from heads.head import Batch, Scores
from heads.layers import mean_log_odds
from tests.bench.table import least_seconds, line

FEATURES, CLASSES, STEPS, SIZE = 2048, 157, 4, 7
TURNS = 7
Form = Callable[[Batch], Scores]


def make_batch(videos: int) -> Batch:
    x_BTHWD = torch.randn(videos, STEPS, SIZE, SIZE, FEATURES)
    mask_BT = torch.ones(videos, STEPS, dtype=torch.bool)
    labels_BC = (torch.rand(videos, CLASSES) < 0.05).to(torch.int8)
    return Batch({"map": x_BTHWD}, {"map": mask_BT}, torch.zeros(videos, STEPS, 2), labels_BC)


def by_products(x_BPD: Tensor, weight_GKOI: Tensor) -> Tensor:
    """(B, K, E, P): equation 13 for all observations, a product of matrices for each group."""
    groups, num, out, _ = weight_GKOI.shape
    x_BGIP = x_BPD.reshape(*x_BPD.shape[:2], groups, -1).permute(0, 2, 3, 1)
    y_BGKOP: Tensor = (weight_GKOI.flatten(1, 2) @ x_BGIP).reshape(len(x_BPD), groups, num, out, -1)
    return y_BGKOP.transpose(1, 2).flatten(2, 3)


def by_convolution(x_BPD: Tensor, weight_GKOI: Tensor) -> Tensor:
    """The same by PyTorch's convolution in groups."""
    groups, num, out, _ = weight_GKOI.shape
    y_BXP = functional.conv1d(x_BPD.mT.contiguous(), weight_GKOI.flatten(0, 2)[..., None], groups=groups)
    return y_BXP.reshape(len(x_BPD), groups, num, out, -1).transpose(1, 2).flatten(2, 3)


def literal(head: Asf, maps: Callable[[Tensor, Tensor], Tensor], batch: Batch) -> Scores:
    """Equations 1 to 13 for videos without padding."""
    observe, correlate, second = head.observe, head.correlate, head.second
    assert observe is not None
    assert correlate is not None
    assert second is not None
    x_BPD = batch.features["map"].flatten(1, 3)
    alpha, beta, gamma = (
        maps(x_BPD, weight_GKOI)
        for weight_GKOI in (observe.value_KGOI.transpose(0, 1), observe.query_GKOI, observe.key_KGOI.transpose(0, 1))
    )
    attention_BK1P = (beta[..., -1:].mT @ gamma).softmax(-1)
    obs_BKE = (attention_BK1P @ alpha.mT).squeeze(2)
    own_BCE = (head.activity_CE @ obs_BKE.mT).softmax(-1) @ obs_BKE
    z_BC, other_BC = head.first(own_BCE).squeeze(-1), second(correlate(own_BCE) @ own_BCE).squeeze(-1)
    return Scores(mean_log_odds(z_BC, other_BC), earlier=(z_BC, other_BC))


def forward(form: Form, batch: Batch) -> None:
    with torch.inference_mode():
        form(batch)


def both_ways(head: Asf, form: Form, batch: Batch) -> None:
    head.zero_grad()
    torch.autograd.backward(head.loss(form(batch), batch))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    head = Asf(AsfConfig(FEATURES, CLASSES, dropout=0.0))
    head.learn_labels((torch.rand(500, CLASSES) < 0.05).to(torch.int8))
    forms: list[Form] = [head, partial(literal, head, by_products), partial(literal, head, by_convolution)]
    for videos, targets in ((12, (">= 9", ">= 6")), (1, ("-", "-"))):
        batch = make_batch(videos)
        with torch.no_grad():
            ours, *theirs = (form(batch).logits for form in forms)
        for logits in theirs:
            torch.testing.assert_close(ours, logits, atol=1e-4, rtol=1e-4)
        works: dict[str, Callable[[Form, Batch], None]] = {"forward": forward, "and backward": partial(both_ways, head)}
        for (name, work), target in zip(works.items(), targets, strict=True):
            fast, *slow = least_seconds([partial(work, form, batch) for form in forms], TURNS)
            line(
                f"ASF head, batch of {videos}, {name}",
                f"{1e3 * fast:.1f} ms",
                f"{1e3 * min(slow):.0f} ms",
                min(slow) / fast,
                target,
                "5.9",
            )
