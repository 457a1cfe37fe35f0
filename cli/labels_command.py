"""`vl labels`: check label files, convert them, attach them to a store, and see what is in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.options import OptionError
from cli.output import help_alone, print_line
from stores.names import printable
from stores.remote import as_path

if TYPE_CHECKING:
    from stores.label_check import Report
    from stores.label_table import LabelFile

Source = Annotated[Path, typer.Argument(metavar="LABELS", help="Label file or folder; 'vl labels' lists the formats.")]
Form = Annotated[str | None, typer.Option("--format", help="What the file is; without, its content tells.")]
Classes = Annotated[Path | None, typer.Option(help="Names of the classes, as category_idx.txt.")]
Fps = Annotated[float | None, typer.Option(help="Frames (rows) a second, where a file counts frames.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON.")]

commands = typer.Typer()


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.add_typer(commands, name="labels")


@commands.callback(invoke_without_command=True)
def labels(context: typer.Context) -> None:
    """Label files: check, convert, attach to a store, statistics."""
    if context.invoked_subcommand is None:
        from stores.label_files import FORMATS

        for name, words in FORMATS.items():
            print_line(f"{name:14}{words}")
    help_alone(context)


def read(path: Path, form: str | None, classes: Path | None, fps: float | None, lenient: bool = False) -> LabelFile:
    """The labels; what the reader decided and found goes to stderr."""
    from stores.label_files import read_label_file
    from stores.label_table import ReadOptions

    file = read_label_file(path, ReadOptions(classes, fps, lenient), form)
    for note in file.labels.notes:
        print_line(f"{path.name}: {note}")
    return file


@commands.command()
def check(
    path: Source,
    form: Form = None,
    classes: Classes = None,
    fps: Fps = None,
    every: Annotated[bool, typer.Option("--all", help="Every finding, not the first five of each kind.")] = False,
    fix: Annotated[Path | None, typer.Option(help="Write a corrected copy here.")] = None,
    as_json: Json = False,
) -> None:
    """What is wrong with labels, with row numbers; exit 3 if anything is.

    --fix cuts segments at the end of their video, and drops those that are reversed, empty or begin after it, and
    exact copies. It guesses nothing: overlaps, class ids and names stay as they are.
    """
    from stores.label_check import check as check_labels

    file = read(path, form, classes, fps, lenient=True)
    report = check_labels(file, None if every else 5)
    written = None if fix is None else write_fixed(file, fix)
    if as_json:
        document = {
            "format": file.form,
            "videos": len(file.labels.videos),
            "classes": len(file.labels.classes),
            "without_duration": report.without_duration,
            "counts": report.counts,
            "findings": [vars(finding) for found in report.shown.values() for finding in found],
            "fixed": written,
        }
        typer.echo(json.dumps(document, indent=2))
    else:
        show(file, report)
        for what, count in (written or {}).get("done", {}).items():
            typer.echo(f"{what}: {count:,}")
    if report.total:
        raise typer.Exit(3)


def show(file: LabelFile, report: Report) -> None:
    """The findings for people."""
    from stores.label_check import KINDS

    videos, classes = len(file.labels.videos), len(file.labels.classes)
    typer.echo(f"{printable(file.path)}: {file.form}, {videos:,} videos, {classes:,} classes")
    for kind, found in report.shown.items():
        if count := report.counts[kind]:
            typer.echo(f"{kind}: {count:,} ({KINDS[kind]})")
            for finding in found:
                typer.echo(f"  {finding.where}{': ' if finding.where else ''}{finding.text}")
            if count > len(found):
                typer.echo(f"  and {count - len(found):,} more; --all shows them")
    if report.without_duration:
        typer.echo(f"{report.without_duration:,} videos have no duration: what ends after them cannot be told")
    if not report.total:
        typer.echo("nothing is wrong")


def write_fixed(file: LabelFile, out: Path) -> dict[str, Any]:
    """Write the corrected copy, in the format that was read where that can be written, else as csv."""
    from stores.label_fix import fixed
    from stores.label_writers import WRITABLE, write_labels

    form = file.form if file.form in WRITABLE else "csv"
    mended, done = fixed(file)
    written = write_labels(mended, out, form, first=min(file.numbers or (0,)))
    tell(written.files, written.lost, form)
    return {"format": form, "files": [str(name) for name in written.files], "done": done, "lost": dict(written.lost)}


def tell(files: tuple[Path, ...], lost: Any, form: str) -> None:
    """What was written and what was not, on stderr."""
    print_line(f"written as {form}: {', '.join(map(str, files))}")
    for what, count in lost.items():
        print_line(f"not written, for {form} cannot hold it: {count:,} {what}")


@commands.command()
def convert(
    path: Source,
    out: Annotated[Path, typer.Argument(help="The file (for multithumos the folder) to write.")],
    to: Annotated[str, typer.Option(help="csv, super-events, activitynet, multithumos or yt8m.")],
    form: Form = None,
    classes: Classes = None,
    fps: Fps = None,
    as_json: Json = False,
) -> None:
    """Write labels in another format; what it cannot hold is counted and said."""
    from stores.label_writers import WRITABLE, write_labels

    if to not in WRITABLE:
        raise OptionError(f"--to is one of {', '.join(WRITABLE)}, not '{printable(to)[:40]}'.")
    file = read(path, form, classes, fps)
    first = min(file.numbers or (0,)) if to == file.form else 0
    written = write_labels(file.labels, out, to, first)
    if as_json:
        names = [str(name) for name in written.files]
        typer.echo(json.dumps({"from": file.form, "to": to, "files": names, "lost": dict(written.lost)}, indent=2))
        return
    tell(written.files, written.lost, to)
    typer.echo(f"{printable(out)}: {len(file.labels.videos):,} videos, {len(file.labels.classes):,} classes")


@commands.command()
def attach(
    path: Source,
    store: Annotated[
        Path, typer.Argument(help="The feature store (.zarr) that keeps the labels.", parser=as_path, metavar="STORE")
    ],
    form: Form = None,
    classes: Classes = None,
    fps: Fps = None,
    as_json: Json = False,
) -> None:
    """Keep labels with a store, where train-head, table and score find them; they replace those attached before."""
    from stores.label_attachment import attach_labels

    matched = attach_labels(read(path, form, classes, fps).labels, store)
    if as_json:
        sides = {"only_store": list(matched.only_store), "only_labels": list(matched.only_labels)}
        typer.echo(json.dumps({"matched": len(matched.pairs), **sides}, indent=2))
        return
    typer.echo(f"{printable(store)}: labels attached, {len(matched.pairs):,} videos have some")
    for what, names in (
        ("videos of the store have no labels", matched.only_store),
        ("videos of the labels are not in the store", matched.only_labels),
    ):
        if names:
            shown = ", ".join(printable(name) for name in names[:3]) + ", ..." * (len(names) > 3)
            typer.echo(f"{len(names):,} {what}: {shown}")


@commands.command()
def stats(
    path: Source,
    form: Form = None,
    classes: Classes = None,
    fps: Fps = None,
    rate: Annotated[float, typer.Option(help="Rows a second, for labels per row.")] = 3.0,
    within: Annotated[float, typer.Option(help="Seconds in which a class follows another.")] = 10.0,
    out: Annotated[Path | None, typer.Option(help="Draw a picture here (.png).")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Write the tables here (.csv).")] = None,
    as_json: Json = False,
) -> None:
    """Videos, segments and seconds by class and subset, which classes occur together, what follows what."""
    if out is not None and out.suffix.lower() != ".png":
        raise OptionError(f"--out {out} must end in .png.")
    for file in (out, table):
        if file is not None and not file.parent.is_dir():
            raise OptionError(f"there is no folder {file.parent} to write {file.name} into.")
    from stores import label_tables
    from stores.label_stats import MAX_MATRIX, statistics

    found = statistics(read(path, form, classes, fps).labels, rate, within)
    if found.together_CC is None:
        print_line(f"pairs of classes are left out: {len(found.classes):,} classes are more than {MAX_MATRIX:,}")
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else label_tables.text(found))
    if table is not None:
        print_line(f"written: {', '.join(map(str, label_tables.write_csv(found, table)))}")
    if out is not None:
        shown = label_tables.write_picture(found, out)
        rest = f", the {shown} most frequent classes of {len(found.classes)}" if shown < len(found.classes) else ""
        print_line(f"drawn: {out}{rest}")
