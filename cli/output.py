"""Lines for people: one line each, on stderr, coloured only on a terminal."""

from __future__ import annotations

import sys

import typer

from stores.names import printable


def print_line(text: str, *, colour: str | None = None) -> None:
    """One line on stderr; control characters and line breaks in it are shown, not obeyed."""
    line = printable(text)
    typer.echo(typer.style(line, fg=colour) if colour and sys.stderr.isatty() else line, err=True)
