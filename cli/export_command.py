"""`vl export`: a feature set in the form that other tools take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stores.names import printable


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(export)


def export(
    store: Annotated[Path, typer.Argument(help="Feature store (.zarr or .h5).")],
    to: Annotated[str, typer.Option(help="npy, hdf5, tfrecord, opentad, actionformer, csv or parquet (an index).")],
    out: Annotated[Path, typer.Option(help="File or folder to write; it must not exist.")],
    set_name: Annotated[str | None, typer.Option("--set", help="Which set.", show_default="the only one")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Write the rows of a store for other tools; what is complete appears at once."""
    from stores import open_store
    from stores.exporting import export_store

    done = export_store(open_store(store), to, out, set_name)
    if as_json:
        typer.echo(json.dumps({"out": str(out), **done.to_dict()}, indent=2))
        return
    typer.echo(f"{printable(out)}: {done.videos} videos, {done.rows} rows")
    for note in done.notes:
        typer.echo(f"  {printable(note)}")
