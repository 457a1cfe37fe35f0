"""`vl score`: a number for a store of scores, with all that it stands on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import OptionError
from stores.names import printable

if TYPE_CHECKING:
    from heads.protocols import Report

RUNS = Path("runs")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would run


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(score)


def score(
    targets: Annotated[
        list[Path] | None,
        typer.Argument(help="Run or store of scores, or several; the newest finished run in runs/ if left out."),
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
    """Score predictions under a named protocol; of several also mean and deviation."""
    from heads.scoring import Question, find_scores, label_options, newest_run, score_store

    paths = [find_scores(target, split) for target in targets or [newest_run(RUNS)]]
    if len(paths) > 1 and per_class is not None:
        raise OptionError("--per-class writes the classes of one store of scores. Score them one by one.")
    at, edge = label_options(label_at, boundary)
    question = Question(labels, classes, split, protocol, at, edge, allow_missing)
    reports = [score_store(path, question) for path in paths]
    if per_class is not None:
        from stores import disk

        disk.write_atomically(per_class, class_table(reports[0]).encode())
    if len(reports) == 1:
        typer.echo(json.dumps(reports[0].to_dict(), indent=2) if as_json else text(reports[0]))
        return
    spread = spread_of(reports)
    if as_json:
        typer.echo(json.dumps({"reports": [report.to_dict() for report in reports], "spread": spread}, indent=2))
    else:
        typer.echo("\n\n".join([*map(text, reports), spread_text(reports, spread)]))


def spread_of(reports: Sequence[Report]) -> dict[str, dict[str, float]]:
    """Mean and deviation (n - 1) of every value that all reports give under one protocol on as many videos.

    Raises:
        OptionError: they do not compare.
    """
    kinds = {(report.protocol, report.taken, report.split, report.scored, report.classes) for report in reports}
    if len(kinds) > 1:
        raise OptionError("these were scored under different protocols, splits or classes. Score them one by one.")
    return {
        name: {"mean": statistics.mean(values), "sd": statistics.stdev(values)}
        for name in reports[0].values
        if len(values := [float(report.values[name]) for report in reports if name in report.values]) == len(reports)
    }


def spread_text(reports: Sequence[Report], spread: Mapping[str, Mapping[str, float]]) -> str:
    """The last lines of several reports."""
    lines = [f"{len(reports)} together, {reports[0].protocol}, mean \N{PLUS-MINUS SIGN} sd"]
    for name, value in spread.items():
        lines.append(f"{name:10} {value['mean']:.4f} \N{PLUS-MINUS SIGN} {value['sd']:.4f}")
    return "\n".join(lines)


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
