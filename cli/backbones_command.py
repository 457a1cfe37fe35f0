"""`vl backbones`: the networks that there are, what each sees and gives, and where its weights come from."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from extract.catalogue import BackboneCard

STATES = {"installed": "installed", "cached": "here", "absent": "to fetch", "unknown": "your file"}
HEADINGS = ("name", "stream", "rows", "sees", "weights", "licence")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(backbones)


def backbones(
    names: Annotated[list[str] | None, typer.Argument(help="Tell all of these: paper, origin, licence.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON.")] = False,
) -> None:
    """List the backbones: levels and row shapes, what they see, their weights."""
    from extract.catalogue import cards

    found = cards(names or ())
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(card) for card in found], indent=2))
    elif names:
        typer.echo("\n\n".join(map(text, found)))
    else:
        typer.echo("\n".join(table([HEADINGS, *(row(card) for card in found)])))
        typer.echo("'vl backbones NAME' tells paper and origin; 'vl weights list' the files and their digests.")


def row(card: BackboneCard) -> tuple[str, ...]:
    """One line of the table."""
    rows = ", ".join(f"{level} {'x'.join(map(str, shape))}" for level, shape in card.rows.items() if level != "scene")
    states = ", ".join(dict.fromkeys(f"{weights.name}: {STATES[weights.state]}" for weights in card.weights))
    licences = ", ".join(dict.fromkeys(weights.licence for weights in card.weights))
    return card.name, ",".join(card.streams), rows, card.sees, states or "none needed", licences or "-"


def table(lines: list[tuple[str, ...]]) -> list[str]:
    """Columns side by side, the last one as it is."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def text(card: BackboneCard) -> str:
    """One backbone in full."""
    levels = "; ".join(f"{level} {' x '.join(map(str, shape))}" for level, shape in card.rows.items())
    lines = [card.name, f"  streams {', '.join(card.streams)}; rows {levels}", f"  sees {card.sees}"]
    for weights in card.weights:
        digest = f"sha256 {weights.sha256}" if weights.sha256 else "no digest known: give --weights a file"
        lines.append(f"  {weights.stream} weights {weights.name}: {weights.file}, {weights.licence}, {digest}")
    return "\n".join([*lines, "", *(f"  {line}".rstrip() for line in card.about.splitlines())])
