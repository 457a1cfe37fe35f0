"""What there is to know of every head without training it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from heads.cost import multiply_adds, parameter_count
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
    parameters: dict[str, int]  # published setting, or a part of it -> weights to be trained
    multiply_adds: dict[str, int]  # published setting -> of the head's forward pass over `published_rows`
    published_rows: tuple[int, ...]  # of one window or video; of maps also height and width


def cards() -> list[HeadCard]:
    """All heads, in order of their names."""
    return [card(head_class(name)) for name in sorted(HEADS)]


def card(head: type[Head]) -> HeadCard:
    """The card of one head."""
    sizes = set(size_fields(head))
    counts = {
        setting: parameter_count(head, fields) + head.trained_beside.get(setting, 0)
        for setting, fields in head.published.items()
    }
    name, part = head.published_part
    if part:
        counts = {name: parameter_count(head, next(iter(head.published.values())), part), **counts}
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
        parameters=counts,
        multiply_adds={
            setting: multiply_adds(head, fields, *_published_input(head, fields))
            for setting, fields in head.published.items()
        },
        published_rows=head.published_rows,
    )


def _published_input(head: type[Head], fields: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], int]:
    """Role to the shape of its rows in a published setting, and the number of rows."""
    rows, *places = head.published_rows
    widths = zip(head.roles, size_fields(head), strict=False)  # the last field is the number of classes
    return {role: (*places, fields[name]) for role, name in widths}, rows
