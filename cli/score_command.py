"""`vl score`: a number for predictions of anybody, with all that it stands on."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import OptionError, whole_numbers
from cli.score_output import class_table, comparison_text, report_text, spread_text
from stores.names import printable

if TYPE_CHECKING:
    from heads.report import Report

RUNS = Path("runs")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(score)


def score(
    targets: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Run, store of scores, npz, csv, json or txt of predictions; the newest finished run if left out."
        ),
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Label file instead of the labels that came along.")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="Names of the classes, if --labels or the columns of scores number them.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split", "--subset", help="test, val, another subset of the labels, or all.", show_default="test"
        ),
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
    tau: Annotated[
        str | None, typer.Option(help="Rows of the action-conditional window, as 0,5,10,20,40.", show_default="0")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of the videos for a 95 % interval of the score; 1000 is usual.")
    ] = 0,
    bootstrap_seed: Annotated[int, typer.Option(min=0, help="Of the draws of videos.")] = 0,
    compare: Annotated[
        Path | None, typer.Option(help="Other predictions: is the difference of the two luck with the videos?")
    ] = None,
    common_with: Annotated[
        list[Path] | None, typer.Option(help="Score only the videos that these predictions score too; repeatable.")
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Rows a second, for predictions that do not say where their rows lie.")
    ] = None,
    rows_of: Annotated[
        Path | None, typer.Option(help="STORE or STORE:SET whose rows these are, instead of --fps.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="From this probability on a class is predicted.", show_default="0.5")
    ] = None,
    tune_thresholds_on: Annotated[
        Path | None, typer.Option(help="Validation predictions whose best F1 sets a threshold for each class.")
    ] = None,
    tiou: Annotated[
        str | None,
        typer.Option(help="tIoU of --protocol detection, as 0.3,0.5 or 0.5:0.95:0.05.", show_default="0.1:0.9:0.1"),
    ] = None,
    segments_from_rows: Annotated[
        float | None, typer.Option(help="Detection from row scores: segments are runs of rows from this score on.")
    ] = None,
    allow_constant: Annotated[
        bool, typer.Option("--allow-constant", help="Score classes and videos that have one score everywhere.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Score predictions under a named protocol; of several also mean and deviation."""
    from heads.find_scores import find_scores, newest_run
    from heads.scoring import Question, label_options, score_store

    paths = [find_scores(target, split) for target in targets or [newest_run(RUNS)]]
    if compare is not None and (len(paths) > 1 or per_class is not None):
        raise OptionError("--compare sets one prediction against another, without --per-class. Give one of each.")
    if len(paths) > 1 and per_class is not None:
        raise OptionError("--per-class writes the classes of one store of scores. Score them one by one.")
    at, edge = label_options(label_at, boundary)
    require_numbers(fps, threshold, segments_from_rows)
    question = Question(
        labels,
        classes,
        split,
        protocol,
        at,
        edge,
        allow_missing,
        whole_numbers("--tau", tau),
        bootstrap,
        bootstrap_seed,
        fps,
        rows_of,
        tuple(find_scores(other, split) for other in common_with or ()),
        threshold,
        tious=tious_of(tiou),
        segments_from_rows=segments_from_rows,
        allow_constant=allow_constant,
    )
    if tune_thresholds_on is not None:
        from heads.tuning import with_tuned_thresholds

        if threshold is not None:
            raise OptionError("--threshold and --tune-thresholds-on both set thresholds. Give one of them.")
        others = [] if compare is None else [find_scores(compare, split)]
        question = with_tuned_thresholds(question, find_scores(tune_thresholds_on, "val"), [*paths, *others])
    if compare is not None:
        from heads.comparison import compare_stores

        found = compare_stores(paths[0], find_scores(compare, split), question)
        typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else comparison_text(found))
        return
    reports = [score_store(path, question) for path in paths]
    if per_class is not None:
        from stores import disk

        disk.write_atomically(per_class, class_table(reports[0]).encode())
    if len(reports) == 1:
        typer.echo(json.dumps(reports[0].to_dict(), indent=2) if as_json else report_text(reports[0]))
        return
    spread = spread_of(reports)
    if as_json:
        typer.echo(json.dumps({"reports": [report.to_dict() for report in reports], "spread": spread}, indent=2))
    else:
        typer.echo("\n\n".join([*map(report_text, reports), spread_text(reports, spread)]))


def require_numbers(fps: float | None, threshold: float | None, segments_from_rows: float | None) -> None:
    """OptionError unless those that are given make sense."""
    if fps is not None and not 0 < fps < float("inf"):
        raise OptionError(f"--fps is a number of rows a second above 0, not {fps:g}.")
    if threshold is not None and not 0 <= threshold <= 1:
        raise OptionError(f"--threshold is a probability from 0 to 1, not {threshold:g}.")
    if segments_from_rows is not None and not abs(segments_from_rows) < float("inf"):
        raise OptionError(f"--segments-from-rows is a score, not {segments_from_rows:g}.")


def tious_of(text: str | None) -> tuple[float, ...]:
    """`0.3,0.5` or `FIRST:LAST:STEP`, each above 0 and at most 1; none if the option is not given."""
    if text is None:
        return ()
    try:
        if ":" in text:
            first, last, step = (float(word) for word in text.split(":"))
            count = int((last - first) / step + 1.5)
            values = tuple(round(first + step * place, 6) for place in range(count if 0 < count < 1000 else 0))
        else:
            values = tuple(float(word) for word in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError):
        values = ()
    if not values or not all(0 < value <= 1 for value in values) or len({*values}) < len(values):
        raise OptionError(
            f"--tiou takes numbers above 0 up to 1, as 0.3,0.5 or 0.5:0.95:0.05, not '{printable(text)}'."
        )
    return values


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
