"""`vl fuse`: the mean of several predictions, as a store that `vl score` takes like any other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cli.options import OptionError, split
from stores.names import printable


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(fuse)


def fuse(
    targets: Annotated[list[Path], typer.Argument(help="Runs or stores of scores, two or more.")],
    out: Annotated[Path, typer.Option(help="Store of scores to write.")] = Path("fused.zarr"),
    of_split: Annotated[
        str | None, typer.Option("--split", help="Which scores of a run: test or val.", show_default="test")
    ] = None,
    weight: Annotated[
        str | None, typer.Option(help="How much each counts, as 0.7,0.3; divided by their sum.", show_default="equal")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Fuse predictions late: write the mean of their probabilities."""
    from heads.find_scores import find_scores
    from heads.fusion import fuse_stores

    paths = [find_scores(target, of_split) for target in targets]
    videos = fuse_stores(paths, out, numbers(weight))
    if as_json:
        typer.echo(json.dumps({"predictions": str(out), "fused": list(map(str, paths)), "videos": len(videos)}))
    else:
        typer.echo(f"{printable(out)}: mean of {len(paths)} predictions of {len(videos)} videos")


def numbers(text: str | None) -> list[float]:
    """Of a comma-separated --weight; none if it is not given."""
    try:
        return [float(word) for word in split(text or "")]
    except ValueError:
        raise OptionError(f"--weight takes numbers, as 0.7,0.3, not '{printable(text)}'.") from None
