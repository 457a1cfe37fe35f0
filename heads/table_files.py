"""A table of heads for a spreadsheet, for a page and for the eye: table.csv, table.md, table.png."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heads.table import Line, Spread, Table
from stores import disk
from stores.names import printable

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.figure import Figure

RANDOM = "RANDOM WEIGHTS: these features come from a network that was never trained. The scores mean nothing."
PLUS_MINUS = "\N{PLUS-MINUS SIGN}"
COLUMNS = ("head", "video mAP", "frame mAP", "parameters", "MACs", "s/epoch", "MiB")
RED, GREY, BLUE, DARK = "#c62828", "#9e9e9e", "#3b6ea8", "#333333"
BASELINES = ("linear", "meanpool", "tconv")
LINE_INCHES, WIDTH_INCHES = 0.36, 12.0
LONGEST = 150  # letters of a line under the chart


def write_table(folder: Path, table: Table) -> tuple[Path, ...]:
    """The three files in `folder`, each durably and at once; their paths."""
    disk.ensure_directory(folder)
    made = {"table.csv": table_csv(table), "table.md": table_markdown(table).encode(), "table.png": table_png(table)}
    for name, data in made.items():
        disk.write_atomically(folder / name, data)
    return tuple(folder / name for name in made)


def table_csv(table: Table) -> bytes:
    """A line for every head, also for those that could not be trained; numbers in full, empty where there is none."""
    lines = [{"status": status_of(table, line.head), **csv_fields(line)} for line in table.lines]
    trained = {line.head for line in table.lines}
    lines += [{"head": head, "status": f"does not fit: {reason}"} for head, reason in table.unfit.items()]
    lost = {run.rpartition("-")[0] for run in table.failed} - trained
    lines += [{"head": head, "status": status_of(table, head)} for head in sorted(lost)]
    text = io.StringIO()
    names = [*csv_fields(EMPTY), "status"]
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows({name: printable(line.get(name, "")) for name in names} for line in lines)
    return text.getvalue().encode()


def csv_fields(line: Line) -> dict[str, Any]:
    """Column to value; None where there is none."""
    fields: dict[str, Any] = {"head": line.head, "weights": "RANDOM WEIGHTS" if line.random_weights else "trained"}
    for name, spread in (("video_map", line.video), ("frame_map", line.rows), ("val", line.val)):
        fields |= {name: spread and spread.mean, f"{name}_sd": spread and spread.sd}
    fields |= {
        "val_protocol": line.val_protocol,
        "video_chance": line.video_chance,
        "frame_chance": line.rows_chance,
        "test_videos_scored": line.videos_scored,
        "test_videos": line.videos_expected,
        "parameters": line.parameters,
        "multiply_adds": line.multiply_adds,
        "of_rows": line.pass_rows,
        "seconds_per_epoch": line.seconds_per_epoch,
        "peak_memory_bytes": line.peak_memory,
        "peak_memory_of": line.peak_memory_of,
        "seeds": " ".join(map(str, line.seeds)),
        "sets": " ".join(line.sets),
    }
    return {name: "" if value is None else value for name, value in fields.items()}


EMPTY = Line("", "", (), None, None, None, "", None, None, 0, 0, 0, 0, 0, None, 0, "", (), False)


def status_of(table: Table, head: str) -> str:
    """What went wrong in a head's runs; empty for nothing."""
    return "; ".join(f"{run} failed: {why}" for run, why in table.failed.items() if run.rpartition("-")[0] == head)


def table_markdown(table: Table) -> str:
    """The table and what it stands on, for people."""
    rows = [COLUMNS, ("---", *["---:"] * (len(COLUMNS) - 1)), *map(cells, table.lines), chance_cells(table)]
    parts = [f"**{RANDOM}**"] if table.random_weights else []
    parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
    parts.append("\n".join(f"- {note}" for note in notes(table)))
    return "\n\n".join(parts) + "\n"


def cells(line: Line) -> tuple[str, ...]:
    """One head's columns, short."""
    return (
        f"{line.head} (RANDOM WEIGHTS)" if line.random_weights else line.head,
        spread_text(line.video),
        spread_text(line.rows),
        f"{line.parameters:,}",
        with_prefix(line.multiply_adds),
        "-" if line.seconds_per_epoch is None else f"{line.seconds_per_epoch:.3g}",
        f"{line.peak_memory / 2**20:,.0f}",
    )


def with_prefix(count: int) -> str:
    """Three digits and a prefix.

    >>> with_prefix(96), with_prefix(66_944), with_prefix(12_417_433_600)
    ('96', '66.9 k', '12.4 G')
    """
    for size, prefix in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:#.3g}".rstrip(".") + f" {prefix}"
    return str(count)


def spread_text(spread: Spread | None) -> str:
    """Mean and deviation, four digits."""
    if spread is None:
        return "-"
    return f"{spread.mean:.4f}" if spread.sd is None else f"{spread.mean:.4f} {PLUS_MINUS} {spread.sd:.4f}"


def chance_cells(table: Table) -> tuple[str, ...]:
    """What scores that say nothing would get."""
    chances = (chance(table, "video_chance"), chance(table, "rows_chance"))
    return ("chance", *("-" if value is None else f"{value:.4f}" for value in chances), *[""] * (len(COLUMNS) - 3))


def chance(table: Table, name: str) -> float | None:
    """Of the head that was scored on the most videos; None where there is none."""
    known = [line for line in table.lines if getattr(line, name) is not None]
    value: float | None = getattr(max(known, key=lambda line: line.videos_scored), name) if known else None
    return value


def notes(table: Table) -> list[str]:
    """What the numbers are of, and everything that is not in them."""
    memory = ", ".join(dict.fromkeys(line.peak_memory_of for line in table.lines)) or "-"
    found = [
        f"scores are of the test videos, mean {PLUS_MINUS} standard deviation over seeds",
        "video mAP: AP over videos, a row head by the highest row of a video; frame mAP: AP over all rows pooled",
        "MACs: multiply-adds of one forward pass of the head",
        f"s/epoch: the median epoch, its validation included; MiB: the most memory of any seed ({memory})",
    ]
    for line in table.lines:
        what = "rows a window" if line.level == "row" else "rows in the median training video"
        seeds = ", ".join(map(str, line.seeds))
        text = f"{line.head}: {' + '.join(line.sets)}; {line.pass_rows} {what}; seeds {seeds}"
        if not line.videos_expected:
            text += "; no test videos"
        elif line.videos_scored < line.videos_expected:
            text += f"; scored on {line.videos_scored} of {line.videos_expected} test videos"
        found.append(text)
    counts = {line.videos_scored for line in table.lines}
    if len(counts) > 1:
        found.append("not all heads are scored on the same number of test videos, so their scores do not compare")
    if len({line.sets[0] for line in table.lines if line.rows}) > 1:
        found.append("frame mAPs are of the rows of each head's first set, so those of other sets do not compare")
    found += [f"{run} failed: {printable(why)}" for run, why in table.failed.items()]
    found += [f"{head} does not fit: {printable(why)}" for head, why in table.unfit.items()]
    return found


def table_png(table: Table) -> bytes:
    """The picture as a PNG file."""
    data = io.BytesIO()
    table_figure(table).savefig(data, format="png", dpi=130, metadata={"Software": None})
    return data.getvalue()


def table_figure(table: Table) -> Figure:
    """Bars of the video scores with their deviations, chance as a line, the other columns beside them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = table.lines
    missing = [*_shortened(table.unfit, "does not fit"), *_shortened(table.failed, "failed")]
    below = 0.6 + 0.25 * len(missing)
    height = LINE_INCHES * max(len(lines), 1) + 0.9 + below
    figure = Figure(figsize=(WIDTH_INCHES, height))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.09, below / height, 0.3, LINE_INCHES * max(len(lines), 1) / height))
    places = range(len(lines))
    means = [line.video.mean if line.video else 0.0 for line in lines]
    deviations = [(line.video and line.video.sd) or 0.0 for line in lines]
    colours = [RED if line.random_weights else GREY if line.head in BASELINES else BLUE for line in lines]
    axes.barh(places, means, xerr=deviations, color=colours, height=0.62, error_kw={"ecolor": DARK, "capsize": 3})
    axes.set_yticks(places, [line.head for line in lines])
    axes.set_xlim(0, 1)
    axes.set_ylim(max(len(lines), 1) - 0.5, -0.5)
    axes.set_xlabel("video mAP of the test videos")
    axes.spines[["top", "right"]].set_visible(False)
    if (level := chance(table, "video_chance")) is not None:
        axes.axvline(level, color=DARK, linewidth=1, linestyle="--")
        axes.text(level, -0.62, f"chance {level:.3f}", color=DARK, fontsize=8.5, ha="center", va="bottom")
    _columns(axes, lines)
    title = RANDOM if table.random_weights else "Heads on the same features, split and seeds (grey: baselines)"
    figure.text(0.02, 1 - 0.3 / height, title, color=RED if table.random_weights else DARK, weight="bold", fontsize=12)
    if missing:
        figure.text(0.02, 0.1 / height, "\n".join(missing), color=RED, fontsize=9, linespacing=1.5, parse_math=False)
    return figure


def _shortened(reasons: Mapping[str, str], verb: str) -> list[str]:
    """One line each; the whole text stands in table.md."""
    texts = (f"{name} {verb}: {printable(why)}" for name, why in reasons.items())
    return [text if len(text) <= LONGEST else text[: LONGEST - 3] + "..." for text in texts]


def _columns(axes: Any, lines: Sequence[Line]) -> None:
    """The columns of numbers, right of the bars, each right-aligned under its name."""
    ends: Mapping[str, float] = dict(zip(COLUMNS[1:], (1.50, 1.94, 2.28, 2.52, 2.76, 2.98), strict=True))
    for column, (name, end) in enumerate(ends.items(), start=1):
        style = {"transform": axes.get_yaxis_transform(), "ha": "right", "va": "center", "fontsize": 9.5}
        axes.text(end, -0.85, name, color=DARK, weight="bold", **style)
        for place, line in enumerate(lines):
            axes.text(end, place, cells(line)[column], color=DARK, **style)
