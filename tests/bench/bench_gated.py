"""Gated attention of 4 videos' pictures at the paper's size: ours against whole maps for every head.

Both sides have the same weights; the reference keeps what its plain formulas keep, T x T numbers for each head.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from heads.gated import Attention, GateAtt, GatedConfig, GateOp, Seen, joined, see
from heads.gated_masks import Variant
from tests.bench.table import least_seconds, line, peak_bytes

FEATURES, STEPS, VIDEOS = 1024, 300, 4
TURNS = 5


def literal(attention: Attention, seen: Seen, x_BTD: Tensor) -> Tensor:
    """Equations 7, or 9 to 13, with whole maps from one product of queries and keys."""
    q, k, v = attention.split(x_BTD)
    scores_BMTT = q @ k.mT / math.sqrt(q.shape[-1])
    global_BMTT, local_BMTT = (
        scores_BMTT.masked_fill(~allowed, -torch.inf).softmax(-1) for allowed in seen if allowed is not None
    )
    mixed: Tensor
    if isinstance(attention, GateAtt):
        given = torch.stack([global_BMTT @ attention.gate_global, local_BMTT @ attention.gate_local])
        first, second = given.softmax(0)
        mixed = attention.out(joined((first * global_BMTT + second * local_BMTT) @ v))
        return mixed
    assert isinstance(attention, GateOp)
    global_BTD, local_BTD = joined(global_BMTT @ v), joined(local_BMTT @ v)
    first, second = torch.stack([attention.gate_global(global_BTD), attention.gate_local(local_BTD)]).softmax(0)
    mixed = first * attention.out(global_BTD) + second * attention.out_local(local_BTD)
    return mixed


def ours(attention: Attention, seen: Seen, x_BTD: Tensor) -> Tensor:
    out: Tensor = attention(x_BTD, seen)
    return out


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    kinds: dict[Variant, type[Attention]] = {"gate_att": GateAtt, "gate_op": GateOp}
    for variant, kind in kinds.items():
        config = GatedConfig(FEATURES, 128, 3862, variant, num_steps=STEPS, dropout=0.0)
        attention = kind(FEATURES, config)
        x_BTD = torch.randn(VIDEOS, STEPS, FEATURES, requires_grad=True)
        seen = see(config, torch.ones(VIDEOS, STEPS, dtype=torch.bool), STEPS)
        forms = [partial(form, attention, seen, x_BTD) for form in (ours, literal)]
        torch.testing.assert_close(forms[0](), forms[1](), atol=1e-5, rtol=1e-4)

        def learn(form: partial[Tensor], inputs: tuple[Tensor, ...]) -> None:
            torch.autograd.grad(form().square().sum(), inputs)

        def score(form: partial[Tensor]) -> None:
            with torch.inference_mode():
                form()

        inputs = (x_BTD, *attention.parameters())
        training: list[Callable[[], object]] = [partial(learn, form, inputs) for form in forms]
        scoring: list[Callable[[], object]] = [partial(score, form) for form in forms]
        for name, works in (("trained", training), ("scored", scoring)):
            fast, slow = least_seconds(works, TURNS)
            line(f"{variant}, {name}", f"{1e3 * fast:.0f} ms", f"{1e3 * slow:.0f} ms", slow / fast, "-")
            little, much = (peak_bytes(work) / 2**20 for work in works)
            line(f"{variant}, {name}, memory", f"{little:.0f} MiB", f"{much:.0f} MiB", much / little, "-")
