"""`vl heads`: the heads that there are, what each wants and how large it is."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from heads.catalogue import HeadCard


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(heads)


def heads(as_json: Annotated[bool, typer.Option("--json", help="All heads as JSON.")] = False) -> None:
    """List the heads: paper, what they read, options, parameters at the published sizes."""
    from heads.catalogue import cards

    found = cards()
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(card) for card in found], indent=2))
    else:
        typer.echo("\n\n".join(map(text, found)))


def text(card: HeadCard) -> str:
    """One head for people."""
    scores = "every row" if card.level == "row" else "whole videos"
    roles = "" if card.roles == ("x",) else f" as {' and '.join(card.roles)}"
    lines = [card.name, f"  {card.paper}", f"  scores {scores}; reads {', '.join(card.accepts)} sets{roles}"]
    for label, values in (("--set", card.options), ("trained with", card.training)):
        if values:
            lines.append(f"  {label} " + " ".join(f"{name}={value}" for name, value in values.items()))
    shape = " x ".join(map(str, card.published_rows))
    for setting, count in card.parameters.items():
        counted = card.multiply_adds.get(setting)
        cost = "" if counted is None else f"; {counted / 1e9:.3f} G multiply-adds of the head for {shape} rows"
        lines.append(f"  {count:,} parameters: {setting}{cost}")
    return "\n".join(lines)
