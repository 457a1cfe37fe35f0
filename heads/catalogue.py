"""What there is to know of every head without training it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch

from heads.head import HEADS, Head, head_class
from heads.options import size_fields


@dataclass(frozen=True)
class HeadCard:
    """One head, for people and for JSON."""

    name: str
    paper: str
    level: str  # row: a score for every row; video: one for the whole video
    accepts: tuple[str, ...]  # granularities of the sets that it reads
    roles: tuple[str, ...]
    options: dict[str, Any]  # --set name -> default
    training: dict[str, Any]  # training options that it wants other than the trainer's
    parameters: dict[str, int]  # published setting -> weights to be trained


def cards() -> list[HeadCard]:
    """All heads, in order of their names."""
    return [card(head_class(name)) for name in sorted(HEADS)]


def card(head: type[Head]) -> HeadCard:
    """The card of one head."""
    sizes = set(size_fields(head))
    return HeadCard(
        name=head.name,
        paper=head.paper,
        level=head.level,
        accepts=tuple(sorted(head.accepts)),
        roles=head.roles,
        options={
            field.name: field.default for field in dataclasses.fields(head.config_class) if field.name not in sizes
        },
        training=dict(head.recipe),
        parameters={setting: parameter_count(head, fields) for setting, fields in head.published.items()},
    )


def parameter_count(head: type[Head], fields: Any) -> int:
    """Weights that training changes, of a head with these fields of its config; nothing is allocated."""
    with torch.device("meta"):
        model = head(head.config_class(**fields))
    return sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
