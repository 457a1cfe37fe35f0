"""`vl import`: features that people have already, into a store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import OptionError
from cli.output import print_line
from cli.signals import resumable_signals
from stores.names import printable

if TYPE_CHECKING:
    from stores.importing import ImportOptions, ImportSource, ImportSummary

KINDS = ("npy", "hdf5", "yt8m", "csv", "zarr")
LINE_EVERY_S = 30.0
SHOWN = 3  # videos of each warning
MEANING = {
    "constant": "all rows of a video are equal",
    "duration": "rows that do not fit the duration by more than two rows",
    "not exact": "records that an export cannot repeat byte by byte",
    "other arrays": "arrays under another key, left out",
    "times not used": "files that say times, which --fps and --stride or the recipe go before",
    "silent shard": "a whole shard without sound",
    "untrimmed": "as many rows as only the script that leaves overlaps in gives",
    "width": "rows of another width than the recipe's",
}


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command("import")(import_features)


def import_features(
    kind: Annotated[str, typer.Argument(help="npy (folders of .npy, .npz, .pt), hdf5, yt8m, csv or zarr.")],
    paths: Annotated[list[Path], typer.Argument(help="Files, or folders of them.")],
    out: Annotated[Path, typer.Option(help="Store to write: .zarr or .h5.")] = Path("store.zarr"),
    recipe: Annotated[
        str | None,
        typer.Option(help="charades-i3d, thumos-i3d, anet-i3d, epic-slowfast, videomae or yt8m: grid and backbone."),
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second that the network saw.")] = None,
    stride: Annotated[int | None, typer.Option(help="Frames from one row to the next.")] = None,
    window: Annotated[int | None, typer.Option(help="Frames of a row.", show_default="up to the next row")] = None,
    offset: Annotated[float | None, typer.Option(help="Frames before the first row.", show_default="0")] = None,
    backbone: Annotated[str | None, typer.Option(help="What made the features.", show_default="the recipe's")] = None,
    stream: Annotated[
        str | None, typer.Option(help="rgb, flow, audio or another word.", show_default="the recipe's, else rgb")
    ] = None,
    level: Annotated[
        str | None, typer.Option(help="frame, clip, map or scene.", show_default="clip; frame for single frames")
    ] = None,
    layout: Annotated[
        str, typer.Option(help="Axes: TD (time, features), DT, or with crops CTD or TCD; axes of 1 do not count.")
    ] = "TD",
    crops: Annotated[str, typer.Option(help="Of CTD and TCD: keep all, or take their mean.")] = "keep",
    key: Annotated[
        str | None, typer.Option(help="Array of an .npz, .pt or HDF5 group.", show_default="feats or features")
    ] = None,
    prefix: Annotated[str, typer.Option(help="What stands before the video in file names.")] = "",
    suffix: Annotated[str, typer.Option(help="What stands after it; files without are left out.")] = "",
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float16 or float32, as stored; bytes of yt8m stay bytes.", show_default="float16; of yt8m float32"
        ),
    ] = None,
    duration_from: Annotated[
        Path | None, typer.Option(help="Label file, or store with labels: do the rows fit its durations?")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Bring features into a store, on a time grid that is given; running it again resumes."""
    require_word("KIND", kind, KINDS)
    require_word("--layout", layout, ("TD", "DT", "CTD", "TCD"))
    require_word("--crops", crops, ("keep", "mean"))
    if dtype is not None:
        require_word("--dtype", dtype, ("float16", "float32"))
    if level is not None:
        require_word("--level", level, ("frame", "clip", "map", "scene"))
    if kind == "yt8m" and (stream is not None or level is not None or layout != "TD"):
        raise OptionError(
            "records of yt8m say their streams, level and axes: leave out --stream, --level and --layout."
        )
    if out.suffix not in {".zarr", ".h5", ".hdf5"}:
        raise OptionError(f"--out {printable(out)} must end in .zarr or .h5.")

    from stores.durations import read_durations
    from stores.importing import import_videos
    from stores.importing_options import make_options

    options = make_options(
        kind,
        recipe=recipe,
        fps=fps,
        stride=stride,
        window=window,
        offset=offset,
        backbone=backbone,
        stream=stream,
        level=level,
        layout=layout,
        crops=crops,
        dtype=dtype,
        durations=read_durations(duration_from) if duration_from is not None else None,
    )
    source = find_source(kind, paths, options, key, prefix, suffix)
    with resumable_signals():
        summary = import_videos(source, out, progress())
    if as_json:
        typer.echo(json.dumps({"store": str(out), **summary.to_dict()}, indent=2))
    else:
        show(summary, out)
    if summary.failures:
        raise typer.Exit(3)


def require_word(option: str, word: str, words: tuple[str, ...]) -> None:
    """Raise what the user can mend."""
    if word not in words:
        raise OptionError(f"{option} is {', '.join(words[:-1])} or {words[-1]}, not '{printable(word)}'.")


def find_source(
    kind: str, paths: list[Path], options: ImportOptions, key: str | None, prefix: str, suffix: str
) -> ImportSource:
    """What the paths hold, by the kind; options that it has no use for are refused."""
    if kind != "npy" and (prefix or suffix):
        raise OptionError(f"--prefix and --suffix are of file names a video each, which {kind} has not.")
    if kind not in ("npy", "hdf5", "zarr") and key is not None:
        raise OptionError(f"--key names an array, of which {kind} has none.")
    if kind == "npy":
        from stores.import_arrays import ArrayNames, array_source

        return array_source(paths, options, ArrayNames(prefix, suffix, key))
    if kind == "hdf5":
        from stores.import_hdf5 import hdf5_source

        return hdf5_source(paths, options, key)
    if kind == "zarr":
        from stores.import_zarr import zarr_source

        return zarr_source(paths, options, key)
    if kind == "yt8m":
        from stores.import_yt8m import yt8m_source

        return yt8m_source(paths, options)
    from stores.import_csv import csv_source

    return csv_source(paths, options)


def progress() -> Callable[[str], None]:
    """A line on stderr now and then."""
    began = last = time.monotonic()
    count = 0

    def on_video(_: str) -> None:
        nonlocal last, count
        count += 1
        now = time.monotonic()
        if now - last >= LINE_EVERY_S:
            last = now
            print_line(f"{count} videos, {now - began:.0f} s")

    return on_video


def show(summary: ImportSummary, out: Path) -> None:
    """Every video, accounted for."""
    inputs = summary.done + summary.there + len(summary.failures)
    typer.echo(
        f"{inputs} inputs: {summary.done} done, {summary.there} there already, {len(summary.failures)} failed "
        f"-> {printable(out)}"
    )
    for name, rows in sorted(summary.rows.items()):
        typer.echo(f"  {name}: {rows} rows")
    if summary.labels:
        typer.echo(f"  labels of {summary.labels} videos are attached")
    if summary.ignored:
        typer.echo(f"  left out: {len(summary.ignored)} files that are no features by their names")
    for kind, words in sorted(summary.warnings.items()):
        print_line(f"warning: {MEANING[kind]}: {len(words)}")
        for word in words[:SHOWN]:
            print_line(f"  {word}")
    for failure in summary.failures:
        what = f" ({failure.set_name})" if failure.set_name else ""
        typer.echo(f"  failed: {printable(f'{failure.video}{what}: [{failure.reason}] {failure.detail}')}")
