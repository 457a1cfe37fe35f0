"""`vl score`: a number for a store of scores, with all that it stands on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stores.names import printable

if TYPE_CHECKING:
    from heads.protocols import Report

RUNS = Path("runs")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(score)


def score(
    target: Annotated[
        Path | None, typer.Argument(help="Run or store of scores; the newest finished run in runs/ if left out.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Label file instead of the labels that came along.")] = None,
    classes: Annotated[Path | None, typer.Option(help="Names of the classes, if --labels numbers them.")] = None,
    split: Annotated[
        str | None, typer.Option(help="test, val, another subset of the labels, or all.", show_default="test")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="frame-map, video-map, charades-video-map, ...; a wrong name lists all.")
    ] = None,
    label_at: Annotated[str | None, typer.Option(help="centre, start or overlap of a row.")] = None,
    boundary: Annotated[str | None, typer.Option(help="strict or inclusive ends of a label.")] = None,
    per_class: Annotated[Path | None, typer.Option(help="Write class, positives and AP to this csv.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score the videos that have scores, and say how many.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Score predictions under a named protocol."""
    from heads.scoring import Question, find_scores, label_options, newest_run, score_store

    path = find_scores(target or newest_run(RUNS), split)
    at, edge = label_options(label_at, boundary)
    report = score_store(path, Question(labels, classes, split, protocol, at, edge, allow_missing))
    if per_class is not None:
        from stores import disk

        disk.write_atomically(per_class, class_table(report).encode())
    typer.echo(json.dumps(report.to_dict(), indent=2) if as_json else text(report))


def text(report: Report) -> str:
    """The report for people, the number last but one."""
    counts = report.positives
    present = [name for name, positives in zip(report.classes, counts, strict=True) if positives]
    absent = [printable(name) for name, positives in zip(report.classes, counts, strict=True) if not positives]
    lines = [printable(report.path)]
    if report.random_weights:
        loud = "RANDOM WEIGHTS: the features come from a network that was never trained"
        lines.append(typer.style(loud, fg="red", bold=True))  # echo drops the colour when it is piped
    lines.append(f"{report.protocol}: {report.text}; {len(present)} of {len(report.classes)} classes have positives")
    lines.append(f"labels {report.taken}")
    expected = report.scored + len(report.missing)
    extra = f"; {report.extra} more videos have scores and are not in this split" if report.extra else ""
    covered = f"{report.scored} of {expected} videos scored, {report.rows} rows{extra}"
    lines.append(f"{printable(report.split)}: {covered}")
    if absent:
        shown = ", ".join(absent[:8]) + (" ..." if len(absent) > 8 else "")
        lines.append(f"classes without positives, in no mean: {shown}")
    lines += [f"warning: {warning}" for warning in report.warnings]
    for name, value in report.values.items():
        lines.append(f"{name:10} {value if isinstance(value, int) else format(value, '.4f')}")
    if report.chance is not None:
        lines.append(f"{'chance':10} {report.chance:.4f}  (mean share of positives: what constant scores give)")
    return "\n".join(lines)


def class_table(report: Report) -> str:
    """A csv that spreadsheets read as text and numbers, whatever the classes are called."""
    import csv
    import io

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["class", "positives", "ap"])
    for name, positives, value in zip(report.classes, report.positives, report.average_precision, strict=True):
        safe = f"'{name}" if name.startswith(FORMULA) else name
        writer.writerow([safe, positives, "" if value is None else repr(value)])
    return out.getvalue()
