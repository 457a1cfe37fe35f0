"""The `vl` command: parse, call one function, print.

Results go to stdout, progress and errors to stderr. A command has no `try`: this file prints an error that the
user can mend as one line, with its exit code; a bug keeps its traceback and ends with 1.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.metadata import version

import typer
from typer.exceptions import TyperException

from cli import (
    backbones_command,
    demo_command,
    diff_command,
    export_command,
    extract_command,
    finetune_command,
    fuse_command,
    heads_command,
    import_command,
    labels_command,
    score_command,
    store_commands,
    table_command,
    train_command,
    weights_command,
)
from cli.output import help_alone, print_line
from stores.errors import VlError

EPILOG = (
    "Every command takes --json (results and errors as JSON on stdout) and --debug (tracebacks). Exit codes: "
    "0 ok, 1 bug, 2 usage, 3 finished but some inputs failed, 4 features made with other settings (vl diff: differ), "
    "5 damage found, 6 no space, 75 interrupted and resumable, 130 Ctrl-C."
)

app = typer.Typer(
    name="vl",
    help="Label actions in video: extract features once, train attention heads on them in minutes, score.",
    epilog=EPILOG,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(version("vl"))
        raise typer.Exit


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    show: bool = typer.Option(False, "--version", callback=show_version, is_eager=True, help="Print the version."),  # noqa: ARG001
) -> None:
    """Options before the command."""
    help_alone(context)


for commands in (
    extract_command,
    import_command,
    export_command,
    train_command,
    finetune_command,
    score_command,
    fuse_command,
    table_command,
    heads_command,
    backbones_command,
    store_commands,
    diff_command,
    labels_command,
    weights_command,
    demo_command,
):
    commands.register(app)


def main(arguments: list[str] | None = None) -> None:
    """Run `vl` and end the process with the exit code of the first thing that went wrong."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    if debug:
        words.remove("--debug")
    sys.exit(run(words, debug))


def run(words: list[str], debug: bool = False) -> int:
    """Exit code of `vl WORDS`; prints a mendable error as one line, lets a bug through with its traceback."""
    as_json = "--json" in words
    try:
        code = app(words, standalone_mode=False, prog_name="vl")
        sys.stdout.flush()
    except (VlError, TyperException) as error:
        if debug:
            raise
        message = error.format_message() if isinstance(error, TyperException) else str(error)
        return fail(message, error.exit_code, as_json)
    except BrokenPipeError:  # the reader of our output has gone (`vl ls | head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return fail("stopped by Ctrl-C; the same command resumes.", 130, as_json)
    if code == 130:
        return fail("stopped by Ctrl-C; the same command resumes.", 130, as_json)
    return code if isinstance(code, int) else 0


def fail(message: str, exit_code: int, as_json: bool) -> int:
    """Print one error where the caller looks for it: stderr, or stdout as JSON."""
    if as_json:
        typer.echo(json.dumps({"error": message, "exit_code": exit_code}))
    print_line(f"vl: {message}")
    return exit_code


if __name__ == "__main__":
    main()
