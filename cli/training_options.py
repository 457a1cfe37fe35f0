"""Options that `vl train-head` and `vl finetune` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from stores.remote import local_path

Out = Annotated[
    Path | None, typer.Option(help="Folder of the run; else runs/HEAD-NNN.", parser=local_path, metavar="PATH")
]
Set = Annotated[list[str] | None, typer.Option("--set", help="key=value: an option of head or training.")]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training videos.")]
LearningRate = Annotated[float | None, typer.Option(help="Highest learning rate of the head.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Windows a batch.")]
Window = Annotated[int | None, typer.Option(min=1, help="Rows a window; row heads only.")]
Optimizer = Annotated[str | None, typer.Option(help="adam, adamw or sgd.")]
Schedule = Annotated[str | None, typer.Option(help="none, cosine, onecycle or plateau.")]
Precision = Annotated[str | None, typer.Option(help="fp32, bf16 (autocast) or fp64.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")]
TrainList = Annotated[Path | None, typer.Option(help="File of ids to train on.")]
ValList = Annotated[Path | None, typer.Option(help="File of ids to choose the epoch on.")]
TestList = Annotated[Path | None, typer.Option(help="File of ids to score at the end.")]
LabelAt = Annotated[str | None, typer.Option(help="centre, start or overlap of a row.")]
Boundary = Annotated[str | None, typer.Option(help="strict or inclusive ends of labels.")]
Resume = Annotated[Path | None, typer.Option(help="Go on with this unfinished run; needs nothing else.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON.")]

SETTINGS = ("epochs", "lr", "batch_size", "window", "optimizer", "schedule", "precision", "label_at", "boundary")
LISTS = ("train", "val", "test")


def settings_of(words: list[str] | None, *own: object) -> tuple[str, ...]:
    """`key=value` for everything that is given: --set first, then the options with names of their own, as SETTINGS.

    >>> settings_of(["embed=64"], 5, None, None, None, None, None, None, "start", None)
    ('embed=64', 'epochs=5', 'label_at=start')
    """
    given = zip(SETTINGS, own, strict=True)
    return (*(words or ()), *(f"{name}={value}" for name, value in given if value is not None))


def lists_of(*files: Path | None) -> dict[str, Path]:
    """The files of ids that are given, by split; in the order of LISTS."""
    return {name: path for name, path in zip(LISTS, files, strict=True) if path is not None}
