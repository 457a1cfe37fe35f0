"""What `vl score` prints for people, and its table of classes."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from stores.names import printable, spreadsheet_text

if TYPE_CHECKING:
    from heads.comparison import Comparison
    from heads.metrics_bootstrap import Interval
    from heads.report import Report


def report_text(report: Report) -> str:
    """The report for people, the number last but one."""
    counts = report.positives
    present = [name for name, positives in zip(report.classes, counts, strict=True) if positives]
    absent = [printable(name) for name, positives in zip(report.classes, counts, strict=True) if not positives]
    lines = [printable(report.path) if report.kind == "store of scores" else f"{printable(report.path)}, {report.kind}"]
    if report.random_weights:
        loud = "RANDOM WEIGHTS: the features come from a network that was never trained"
        lines.append(typer.style(loud, fg="red", bold=True))  # echo drops the colour when it is piped
    lines.append(f"{report.protocol}: {report.text}; {len(present)} of {len(report.classes)} classes have positives")
    lines.append(f"labels {report.taken}")
    expected = report.scored + len(report.missing)
    extra = f"; {report.extra} more videos have scores and are not in this split" if report.extra else ""
    what = "segments" if report.protocol == "detection" else "rows"
    covered = f"{report.scored} of {expected} videos scored, {report.rows} {what}{extra}"
    lines.append(f"{printable(report.split)}: {covered}")
    for said, videos in (("have no scores", report.missing), ("are not in the labels", report.unknown)):
        if videos:
            shown = ", ".join(f"'{printable(video)}'" for video in videos[:5])
            lines.append(f"{len(videos)} videos {said}: {shown}{' ...' if len(videos) > 5 else ''}")
    lines += [printable(note) for note in report.notes]
    if absent:
        shown = ", ".join(absent[:8]) + (" ..." if len(absent) > 8 else "")
        lines.append(f"classes without positives, in no mean: {shown}")
    lines += [f"warning: {warning}" for warning in report.warnings]
    width = max(10, *map(len, report.values))
    for place, (name, value) in enumerate(report.values.items()):
        sure = f" {interval_text(report.interval)}" if report.interval and not place else ""
        lines.append(f"{name:{width}} {value if isinstance(value, int) else format(value, '.4f')}{sure}")
    if report.chance is not None:
        lines.append(f"{'chance':{width}} {report.chance:.4f}  (mean share of positives: what constant scores give)")
    return "\n".join(lines)


def interval_text(interval: Interval) -> str:
    """Its ends, and what they stand on."""
    lost = f" ({interval.undefined} without a positive left out)" if interval.undefined else ""
    ends = f"[{interval.low:.4f}, {interval.high:.4f}]"
    return f"{ends} 95 % over {interval.resamples} resamples of {interval.videos} videos{lost}"


def comparison_text(found: Comparison) -> str:
    """Both reports, and the difference of their scores."""
    name = next(iter(found.reports[0].values))
    lines = [
        f"difference of {name}, the first less the second, paired bootstrap",
        f"{name:10} {found.difference:+.4f} {interval_text(found.interval)}",
        f"{'p':10} {found.p_value:.4f}  (two-sided)",
    ]
    return "\n\n".join([*map(report_text, found.reports), "\n".join(lines)])


def spread_text(reports: Sequence[Report], spread: Mapping[str, Mapping[str, float]]) -> str:
    """The last lines of several reports."""
    lines = [f"{len(reports)} together, {reports[0].protocol}, mean \N{PLUS-MINUS SIGN} sd"]
    for name, value in spread.items():
        lines.append(f"{name:10} {value['mean']:.4f} \N{PLUS-MINUS SIGN} {value['sd']:.4f}")
    return "\n".join(lines)


def class_table(report: Report) -> str:
    """A csv that spreadsheets read as text and numbers, whatever the classes are called."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = {"ap": report.average_precision, **report.columns}
    writer.writerow(["class", "positives", *columns])
    for place, (name, positives) in enumerate(zip(report.classes, report.positives, strict=True)):
        values = ["" if of_class[place] is None else repr(of_class[place]) for of_class in columns.values()]
        writer.writerow([spreadsheet_text(name), positives, *values])
    return out.getvalue()
