"""`vl demo`: everything once, on videos of our own drawing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.output import print_line
from cli.signals import resumable_signals

if TYPE_CHECKING:
    from cli.demo import Result


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(demo)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for videos, features and runs.")] = Path("demo"),
    clips: Annotated[
        int, typer.Option(min=6, max=1000, help="Videos to draw; fewer are faster, and score worse.")
    ] = 48,
    seed: Annotated[int, typer.Option(min=0, help="Of videos, weights and batches.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="The table as JSON.")] = False,
) -> None:
    """Draw labelled videos, extract features, train four heads and score them, in a few minutes; rerun to resume."""
    from cli.demo import Settings, finished, run_demo

    settings = Settings(clips=clips, seed=seed)
    result = finished(out, settings)
    if result is None:
        with resumable_signals():
            result = run_demo(out, settings, device)
    else:
        print_line(f"{out} is finished, and this is its table. Give --out a new folder to run the demo again.")
    typer.echo(json.dumps(result.to_dict(), indent=2) if as_json else text(result, out))


def text(result: Result, out: Path) -> str:
    """The table, where the files are, and what to try next."""
    lines = [f"{'':14}{'frame mAP':>10}{'video mAP':>10}{'parameters':>12}{'seconds':>9}"]
    for row in result.table:
        maps = "".join(f"{'-' if value is None else f'{value:.3f}':>10}" for value in (row.frame_map, row.video_map))
        costs = f"{'-' if row.parameters is None else f'{row.parameters:,}':>12}"
        costs += f"{'-' if row.seconds is None else f'{row.seconds:.0f}':>9}"
        lines.append(f"{row.name:14}{maps}{costs}")
    drawn, extracted, trained = (f"{result.seconds[stage]:.0f}" for stage in ("videos", "features", "heads"))
    return "\n".join(
        [
            *lines,
            "",
            f"{result.test_videos} held-out videos of {result.videos}, {result.classes} classes",
            f"seconds on {result.device}: {drawn} drawing, {extracted} extracting, {trained} training and scoring",
            f"videos and labels.csv  {out / 'videos'}",
            f"features               {out / 'features.zarr'}",
            f"runs                   {out / 'runs'}",
            "",
            "Try next:",
            f"  vl info {out / 'features.zarr'}",
            f"  vl score {out / 'runs' / 'mlad'} --per-class mlad.csv",
            f"  vl train-head mlad --features {out / 'features.zarr'} --set embed=64",
            "  vl extract --backbone efficientnet_lite0,logmel YOUR_VIDEOS --out yours.zarr",
        ]
    )
