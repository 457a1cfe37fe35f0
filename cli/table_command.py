"""`vl table`: all heads on the same features, in one table."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import split
from cli.output import print_line
from cli.signals import resumable_signals
from cli.train_command import open_all, shout_if_random

if TYPE_CHECKING:
    from heads.table import Planned, TablePlan
    from heads.train import Observer

SOME_FAILED = 3  # exit code


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(table)


def table(
    features: Annotated[list[Path], typer.Option(help="Feature store; several are joined by video.")],
    labels: Annotated[Path | None, typer.Option(help="Label file; without, those attached to the store.")] = None,
    heads: Annotated[str | None, typer.Option(help="Heads as a,b.", show_default="all that fit")] = None,
    sets: Annotated[
        str | None, typer.Option(help="Feature sets to use, as a,b; each head takes those that it can.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train every head so many times.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="The first; without subsets it also splits the videos.")] = 0,
    out: Annotated[Path, typer.Option(help="Folder for the table and its runs.")] = Path("table"),
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for all heads, HEAD:key=value for one.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training videos, for all heads.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    train_list: Annotated[Path | None, typer.Option(help="File of ids to train on.")] = None,
    val_list: Annotated[Path | None, typer.Option(help="File of ids to choose the epoch on.")] = None,
    test_list: Annotated[Path | None, typer.Option(help="File of ids to score.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
) -> None:
    """Train every head that fits on the same features, split and seeds; one table of scores and costs. Rerun to resume.

    Heads that do not fit are named with the reason. Exit code 3: a head that was asked for is not in the table.
    """
    from heads.run import find_device
    from heads.table import make_table, plan_table
    from heads.table_files import table_markdown, write_table

    place = find_device(device)
    settings = [*([f"epochs={epochs}"] if epochs is not None else []), *(set_ or ())]
    lists = {"train": train_list, "val": val_list, "test": test_list}
    stores = open_all(features)
    found = None
    if labels is not None:
        from stores.label_files import read_labels

        found = read_labels(labels)
    wanted = split(heads or "")
    with resumable_signals():
        plan = plan_table(
            out,
            stores,
            found,
            heads=wanted,
            settings=settings,
            sets=split(sets or ""),
            seeds=range(seed, seed + seeds),
            lists={name: path for name, path in lists.items() if path is not None},
            label_source=str(labels or "attached to the store"),
        )
        for store in stores:
            store.close()
        announce(plan, out, str(place))
        made = make_table(plan, device=place, observer=TableProgress())
        files = write_table(out, made)
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(made), "files": [str(path) for path in files]}, indent=2))
    else:
        typer.echo(table_markdown(made))
        typer.echo(" ".join(str(path) for path in files))
    if made.failed or (wanted and made.unfit):
        raise typer.Exit(SOME_FAILED)


def announce(plan: TablePlan, out: Path, device: str) -> None:
    """Say what will be trained and what not, and shout where the features come from random weights."""
    configs = [run.plan.config for run in plan.runs]
    shout_if_random(any(config.random_weights for config in configs))
    for head, reason in plan.unfit.items():
        print_line(f"{head} does not fit: {reason}")
    for note in dict.fromkeys(note for run in plan.runs for note in run.plan.notes if not note.startswith("features:")):
        print_line(note)
    heads = dict.fromkeys(run.head for run in plan.runs)
    done = sum(run.finished for run in plan.runs)
    finished = f", {done} of them finished" if done else ""
    print_line(f"{', '.join(heads)}: {len(plan.runs)} runs in {out / 'runs'} on {device}{finished}")


class TableProgress:
    """A heading and a bar for each run, on stderr."""

    @contextmanager
    def training(self, run: Planned, number: int, total: int) -> Iterator[Observer]:
        """Heading and bar."""
        from cli.training_progress import TrainingProgress

        print_line(f"{number} of {total}: {run.head}, seed {run.seed}; {run.plan.notes[0]}")
        with TrainingProgress() as progress:
            yield progress

    def failed(self, run: Planned, error: Exception) -> None:
        """One line; of what looks like a bug also the traceback."""
        from stores.errors import VlError

        if not isinstance(error, VlError):
            import traceback

            typer.echo("".join(traceback.format_exception(error)), err=True)
        print_line(f"{run.folder.name} failed: {error}", colour="red")
