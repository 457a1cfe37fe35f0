"""`vl weights`: the published checkpoints, fetched before they are needed, and verified."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import OptionError
from cli.output import help_alone, print_line
from stores.errors import DamageError
from stores.names import printable

if TYPE_CHECKING:
    from extract.stock import WeightsCard

Names = Annotated[list[str] | None, typer.Argument(help="Backbones, as i3d, or one stream, as i3d.flow.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON.")]

commands = typer.Typer()


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(commands, name="weights")


@commands.callback(invoke_without_command=True)
def weights(context: typer.Context) -> None:
    """Published checkpoints: list, fetch ahead, verify."""
    help_alone(context)


@commands.command("list")
def list_weights(names: Names = None, as_json: Json = False) -> None:
    """Every published checkpoint: where it is, its licence and digest."""
    from extract.stock import stock

    cards = stock(names or ())
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(card) for card in cards], indent=2))
        return
    for card in cards:
        size = f"{card.size / 1e6:.0f} MB" if card.size else "size unknown"
        typer.echo(f"{card.backbone}.{card.stream} {card.name}{' (default)' * card.default}: {state(card)}")
        typer.echo(f"  {card.file}, {size}, {card.licence}; {card.source}")
        typer.echo(f"  {f'sha256 {card.sha256}' if card.sha256 else f'no digest is published; from {card.url}'}")


def state(card: WeightsCard) -> str:
    """Where a checkpoint is, in words."""
    if card.state == "unknown":
        return f"fetch it yourself, then --weights {card.backbone}=PATH"
    if card.state == "absent":
        return f"not here; 'vl weights fetch {card.backbone}' brings it"
    return f"{card.state} ({printable(card.path)})"


@commands.command()
def fetch(
    names: Names = None,
    every: Annotated[bool, typer.Option("--all", help="All whose digest is known.")] = False,
    as_json: Json = False,
) -> None:
    """Download checkpoints now, over https, each against its digest; what is here already is verified."""
    if bool(names) == every:
        raise OptionError("name backbones to fetch the weights of, or give --all.")
    from extract.stock import fetch_weights, stock

    done = []
    cards = stock(names or ())
    for card in cards:
        if card.state == "unknown":
            print_line(f"left out: {card.backbone}.{card.stream} {card.name}: {state(card)}, from {card.url}")
            continue
        path = fetch_weights(card, print_line)
        done.append({"backbone": card.backbone, "stream": card.stream, "name": card.name, "path": str(path)})
        if not as_json:
            typer.echo(f"{card.backbone}.{card.stream} {card.name}: {printable(path)}, verified")
    if as_json:
        typer.echo(json.dumps(done, indent=2))
    if names and len(done) < len(cards):
        raise typer.Exit(3)


@commands.command()
def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Backbones, or i3d=PATH: do the tensors of this file fit?")
    ] = None,
    as_json: Json = False,
) -> None:
    """Read what is here against its digest, or a file of yours against a network; exit 5 if one is damaged."""
    from extract.stock import check_fit, digest_is_right, stock

    results: list[dict[str, Any]] = []
    for backbone, _, path in (name.partition("=") for name in names or () if "=" in name):
        owner, _, stream = backbone.partition(".")
        tensors, sha256 = check_fit(owner, Path(path).expanduser(), stream or None)
        results.append({"backbone": backbone, "path": path, "state": f"fits: {tensors} tensors", "sha256": sha256})
    published = [name for name in names or () if "=" not in name]
    for card in stock(published) if published or not names else ():
        right = None if card.path is None else digest_is_right(card)
        words = "not here" if right is None else "ok" if right else "DAMAGED: remove it and fetch it again"
        key = f"{card.backbone}.{card.stream} {card.name}"
        results.append({"backbone": key, "path": card.path, "state": words, "sha256": card.sha256})
    if as_json:
        typer.echo(json.dumps(results, indent=2))
    else:
        for result in results:
            where = f" ({printable(result['path'])})" if result["path"] else ""
            digest = f" sha256 {result['sha256']}" if result["sha256"] else ""
            typer.echo(f"{printable(result['backbone'])}: {result['state']}{where}{digest}")
    if any(str(result["state"]).startswith("DAMAGED") for result in results):
        raise typer.Exit(DamageError.exit_code)
