"""The rate at which weights change, and what changes them."""

from __future__ import annotations

import math

import torch

from heads.options import TrainOptions
from heads.standardise import Model


def learning_rate(step: int, steps: int, options: TrainOptions) -> float:
    """The rate of update number `step` (from 0) of `steps`.

    none, plateau: lr throughout (plateau lowers it by what validation says). cosine: up from 0 in the warm-up, then
    half a cosine down to 0. onecycle: half a cosine up from lr / 25 in the first 30 %, half a cosine down to 0 in the
    rest (Smith and Topin, 2018, as PyTorch has it).
    """
    if options.schedule in ("none", "plateau"):
        return options.lr
    start, share = (1 / 25, 0.3) if options.schedule == "onecycle" else (0.0, options.warmup)
    rising = share * steps
    if step < rising:
        done = (step + 1) / (rising + 1)
        bend = (1 - math.cos(math.pi * done)) / 2 if options.schedule == "onecycle" else done
        return options.lr * (start + (1 - start) * bend)
    return options.lr * (1 + math.cos(math.pi * (step - rising) / (steps - rising))) / 2


def make_optimizer(model: Model, options: TrainOptions, device: torch.device) -> torch.optim.Optimizer:
    """The optimiser over all weights of the model, fused into one kernel on a GPU."""
    fused, groups = device.type == "cuda", model.parameter_groups()
    for group in groups:
        group["lr_share"] = group.get("lr", options.lr) / options.lr  # of what the schedule says
    if options.optimizer == "sgd":
        return torch.optim.SGD(groups, options.lr, options.momentum, weight_decay=options.weight_decay, fused=fused)
    kind = torch.optim.AdamW if options.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, options.lr, weight_decay=options.weight_decay, fused=fused)
