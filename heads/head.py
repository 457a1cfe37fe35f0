"""What a head sees and what it gives.

Shape letters: B windows, N rows, C classes.
"""

from __future__ import annotations

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from heads.loss import scores_loss
from stores.errors import VlError
from stores.spec import FeatureSpec, Granularity

HEADS: Mapping[str, str] = {
    "asf": "heads.asf:Asf",
    "gated": "heads.gated:Gated",
    "linear": "heads.baselines:Linear",
    "meanpool": "heads.baselines:MeanPool",
    "mlad": "heads.mlad:Mlad",
    "stan": "heads.stan:Stan",
    "stld": "heads.stld:Stld",
    "tconv": "heads.baselines:TemporalConvolution",
}


class HeadError(VlError):
    """A head, its options or its features do not fit."""


@dataclass
class Batch:
    """Windows of rows, by role; all tensors on one device."""

    features: dict[str, Tensor]  # role -> (B, N, *row_shape) float
    mask: dict[str, Tensor]  # role -> (B, N) bool, True where a real row is
    times: Tensor  # (B, N, 2) seconds of the first role's rows
    labels: Tensor | None = None  # (B, N, C) for row heads, (B, C) for video heads; 0, 1, or -1 for "not known"
    videos: tuple[str, ...] = ()
    class_weights: Tensor | None = None  # (C,) how much a positive label of each class counts; None: 1


def wide(mask_BN: Tensor, values: Tensor) -> Tensor:
    """The mask with an axis of length 1 for each axis of a row of (B, N, ...) values."""
    return mask_BN.reshape(*mask_BN.shape, *(1,) * (values.dim() - 2))


@dataclass
class Scores:
    """What every head gives, in training and in evaluation alike."""

    logits: Tensor  # (B, N, C) or (B, C)
    earlier: tuple[Tensor, ...] = ()  # logits of the same shape that are trained too, and not decoded
    maps: dict[str, Tensor] = dataclasses.field(default_factory=dict)  # attention on request

    def probabilities(self) -> Tensor:
        """Float32 probabilities, of the shape of `logits`."""
        return torch.sigmoid(self.logits.float())


class Head(nn.Module, ABC):
    """Multi-label scores from stored rows.

    A subclass is built from its frozen config, whose first fields are `num_features` (or a size a role) and
    `num_classes`; the rest are the options that `--set` changes.
    """

    name: ClassVar[str]
    level: ClassVar[Literal["row", "video"]]
    roles: ClassVar[tuple[str, ...]] = ("x",)  # the first one's rows are the time grid
    without: ClassVar[Mapping[str, str]] = {}  # role -> the setting with which the head does not need it
    equal_times: ClassVar[bool] = False  # whether the rows of all roles must stand for the same times
    accepts: ClassVar[frozenset[Granularity]]
    views: ClassVar[Literal["max", "mean"] | None] = None  # of a video's probabilities; None: no clip-sampled sets
    config_class: ClassVar[type[Any]]
    paper: ClassVar[str] = "a baseline"  # authors, title, venue and year
    published: ClassVar[Mapping[str, Mapping[str, Any]]] = {}  # name of a published setting -> fields of the config
    published_rows: ClassVar[tuple[int, ...]] = ()  # rows of its window or video; of maps also height and width
    published_part: ClassVar[tuple[str, str]] = ("", "")  # name of a part that the paper sizes, and its module
    trained_beside: ClassVar[Mapping[str, int]] = {}  # published setting -> weights of networks trained with the head
    recipe: ClassVar[Mapping[str, Any]] = {}  # training options that this head wants other than the trainer's
    config: Any

    @classmethod
    def role_of(cls, spec: FeatureSpec) -> str | None:
        """The role that features of this kind play, or None where the head has no use for them."""
        return cls.roles[0] if spec.granularity in cls.accepts else None

    @classmethod
    def roles_for(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """The roles that a head with these options (those that are not the defaults) reads: all, unless it says so."""
        return cls.roles

    @abstractmethod
    def forward(self, batch: Batch) -> Scores:
        """Logits for every row (level row) or window (level video); padded rows change nothing."""

    def attention(self, batch: Batch) -> Scores:
        """The scores of `forward`, with `maps` of what was looked at; a head that has none to show gives none."""
        scores: Scores = self(batch)
        return scores

    def learn_labels(self, labels_VC: Tensor) -> None:
        """Take what the head wants of the training videos' labels (0, 1, -1), once, before training: here nothing."""

    def loss(self, scores: Scores, batch: Batch) -> Tensor:
        """What training minimises: one number, of scores that `forward` gave for the batch."""
        return scores_loss(scores, batch)


def head_class(name: str) -> type[Head]:
    """The class that `name` stands for; the error lists all names."""
    if name not in HEADS:
        raise HeadError(f"there is no head '{name}'. There are: {', '.join(sorted(HEADS))}.")
    module, _, attribute = HEADS[name].partition(":")
    found: type[Head] = getattr(importlib.import_module(module), attribute)
    return found
