"""Lines for people: one line each, on stderr, coloured only on a terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from stores.names import printable

if TYPE_CHECKING:
    from rich.progress import Progress


def print_line(text: str, *, colour: str | None = None) -> None:
    """One line on stderr; control characters and line breaks in it are shown, not obeyed."""
    line = printable(text)
    typer.echo(typer.style(line, fg=colour) if colour and sys.stderr.isatty() else line, err=True)


def help_alone(context: typer.Context) -> None:
    """Where a group of commands is called without one: show its help, and end as wrong usage does."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help(), err=True)
        raise typer.Exit(2)


def print_above(bar: Progress, text: str, *, colour: str | None = None) -> None:
    """One line above a progress bar on a terminal; where there is none, as `print_line` does."""
    from rich.markup import escape

    if not bar.console.is_terminal:
        print_line(text)
        return
    shown = escape(printable(text))
    bar.console.print(f"[{colour}]{shown}[/]" if colour else shown, highlight=False, soft_wrap=True)
