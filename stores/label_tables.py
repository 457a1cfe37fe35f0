"""Statistics of labels as text, as csv and as a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stores import disk
from stores.label_csv import guarded
from stores.label_stats import Matrix, Statistics, SubsetStatistics
from stores.names import printable

if TYPE_CHECKING:  # matplotlib takes a second to import
    from matplotlib.axes import Axes

MOST = 160  # classes in a picture; of more the most frequent are shown
CELL = 0.15  # inches a class takes: letters of 7 points are 0.1 high
LETTER = 0.068  # inches a letter of 7 points is wide, the widest names apart
SHOWN_PAIRS = 10
MAX_NAME = 40


def text(stats: Statistics) -> str:
    """The tables for people."""
    header = ["subset", "videos", "empty", "segments", "a video", "most classes", "hours"]
    lines = _aligned([*header, f"labels a row, {stats.rate:g} rows/s"], [_subset_row(part) for part in stats.subsets])
    names = [printable(subset.name) for subset in stats.subsets]
    header = ["class", *(f"videos {name}" for name in names), *(f"segments {name}" for name in names)]
    lines += ["", *_aligned([*header, "total s", "mean s", "median s"], _class_rows(stats))]
    pairs = [pair for pair in stats.pairs() if pair[0] != pair[1]]
    for title, shares in (
        ("together, share of the first's time", {(i, j): share for i, j, share, _ in pairs}),
        (f"follows within {stats.within:g} s", {(i, j): share or 0.0 for i, j, _, share in pairs}),
    ):
        best = sorted((-share, i, j) for (i, j), share in shares.items() if share)[:SHOWN_PAIRS]
        if best:
            rows = [[_short(stats, i), _short(stats, j), f"{-share:.2f}"] for share, i, j in best]
            lines += ["", *_aligned(["class", "other", title], rows)]
    return "\n".join(lines)


def _subset_row(subset: SubsetStatistics) -> list[str]:
    return [
        printable(subset.name),
        *(f"{count:,}" for count in (subset.videos, subset.empty, subset.segments)),
        f"{subset.segments_per_video:.2f}",
        str(subset.max_classes),
        "" if subset.hours is None else f"{subset.hours:.1f}",
        "" if subset.labels_per_row is None else f"{subset.labels_per_row:.3f}",
    ]


def _short(stats: Statistics, index: int) -> str:
    name = printable(stats.classes[index])
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"


def _class_rows(stats: Statistics) -> list[list[str]]:
    times = (stats.total_C, stats.mean_C, stats.median_C)
    return [
        [
            _short(stats, index),
            *(f"{count:,}" for count in stats.videos_CU[index].tolist()),
            *(f"{count:,}" for count in stats.segments_CU[index].tolist()),
            *("" if np.isnan(values[index]) else f"{values[index]:,.2f}" for values in times),
        ]
        for index in range(len(stats.classes))
    ]


def _aligned(header: list[str], rows: list[list[str]]) -> list[str]:
    """Columns of equal width, the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    words = not all(row[1][:1].isdigit() for row in rows)
    return [
        "  ".join(
            cell.ljust(width) if at == 0 or (at == 1 and words) else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [header, *rows]
    ]


def write_csv(stats: Statistics, out: Path) -> tuple[Path, Path]:
    """`out` with a row a class, and NAME_pairs.csv beside it with a row for every pair of classes that occurs."""
    pairs = out.with_name(f"{out.stem}_pairs.csv")
    document = stats.to_dict()
    names = [subset.name for subset in stats.subsets]
    times, columns = ("seconds", "mean", "median"), ("class", "other", "together", "follows")
    header = ["class", *(f"videos_{name}" for name in names), *(f"segments_{name}" for name in names), *times]
    rows = [
        [entry["class"], *entry["videos"].values(), *entry["segments"].values(), *(entry[name] for name in times)]
        for entry in document["classes"]
    ]
    disk.write_atomically(out, _csv([header, *rows]))
    pair_rows = [[entry[name] for name in columns] for entry in document["pairs"]]
    disk.write_atomically(pairs, _csv([list(columns), *pair_rows]))
    return out, pairs


def _csv(rows: list[list[Any]]) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([guarded(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return out.getvalue().encode()


def write_picture(stats: Statistics, out: Path) -> int:
    """A png: segments (or videos) of each class, which classes occur together, what follows what.

    Returns:
        How many classes it shows: the most frequent, in their order.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    timed = bool(stats.segments_CU.any())
    counts_CU = stats.segments_CU if timed else stats.videos_CU
    order = np.sort(np.argsort(-counts_CU[:, -1], kind="stable")[:MOST])
    names = [_short(stats, index) for index in order.tolist()]
    panels: list[tuple[str, Matrix]] = []
    if stats.together_CC is not None:
        unit = "time" if timed else "videos"
        panels.append((f"share of the row's {unit} in which the column is there too", stats.together_CC))
    if stats.follows_CC is not None:
        title = f"share of the row's segments that the column follows within {stats.within:g} s"
        panels.append((title, stats.follows_CC))
    side = max(len(names) * CELL, 3.0)
    margin = LETTER * max(map(len, names), default=1) + 0.3
    widths = [margin, 3.0, *([margin, side, 0.15, 0.15, 0.4] * len(panels)), 0.2]  # a panel, and its bar of colours
    width, height = sum(widths), side + margin + 0.9
    figure = Figure(figsize=(width, height), dpi=110)
    FigureCanvasAgg(figure)

    def axes(at: int, tall: float = side) -> Axes:
        return figure.add_axes((sum(widths[:at]) / width, (margin + 0.3) / height, widths[at] / width, tall / height))

    _bars(axes(1), stats, counts_CU[order], names, "segments" if timed else "videos")
    for number, (title, matrix) in enumerate(panels):
        image = _heat(axes(3 + 5 * number), matrix[np.ix_(order, order)], names, title)
        bar = axes(5 + 5 * number, min(side, 3.0))
        figure.colorbar(image, cax=bar)
        bar.tick_params(labelsize=7)
    with io.BytesIO() as buffer:
        figure.savefig(buffer, format="png")
        disk.write_atomically(out, buffer.getvalue())
    return len(names)


def _bars(axes: Axes, stats: Statistics, counts_CU: Any, names: list[str], what: str) -> None:
    """One bar a class, its subsets side by side in it."""
    columns = [at for at, subset in enumerate(stats.subsets) if subset.name != "all"] or [0]
    left = np.zeros(len(names))
    for at in columns:
        axes.barh(range(len(names)), counts_CU[:, at], left=left, label=stats.subsets[at].name, height=0.8)
        left += counts_CU[:, at]
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel(what, fontsize=8)
    if len(columns) > 1:
        axes.legend(fontsize=7)


def _heat(axes: Axes, matrix: Matrix, names: list[str], title: str) -> Any:
    """A colour a pair of classes, from 0 to the highest share of two different ones."""
    other = matrix[~np.eye(len(matrix), dtype=bool)]
    highest = max(float(np.nan_to_num(other).max(initial=0.0)), 0.01)
    image = axes.imshow(matrix, vmin=0, vmax=highest, cmap="viridis", aspect="auto", interpolation="nearest")
    axes.set_xticks(range(len(names)), names, fontsize=7, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, fontsize=7, parse_math=False)
    axes.set_title(title, fontsize=9)
    return image
