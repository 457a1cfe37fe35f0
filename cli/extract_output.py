"""What `vl extract` says: what will be made, what it would cost, and how it ended."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cli.output import print_line
from stores.names import printable

if TYPE_CHECKING:
    from extract.accounts import Summary
    from extract.estimate import Estimate
    from extract.inputs import Inputs
    from extract.plan import Plan


def announce(plan: Plan, found: Inputs, label_file: Path | None) -> None:
    """Say what will be made, and shout where the weights are random."""
    for name, spec in sorted(plan.specs.items()):
        rate = f"{spec.fps:g} a second" if spec.fps else "the video's own rate"
        seen = f"{rate}, stride {spec.stride or 1}"
        if spec.view:
            seen = f"{rate}, {spec.view} clips x crops of {spec.window} frames at speed {spec.speed}"
        elif spec.granularity == "scene":
            seen = f"one a scene ({spec.settings['detector']})"
        moved = f", flow by {spec.settings['flow']}" if "flow" in spec.settings else ""
        print_line(f"{name}: rows {spec.row_shape} {spec.dtype}, {seen}, {spec.weights}{moved}")
        if spec.random_weights:
            print_line(f"RANDOM WEIGHTS in {name}: its features mean nothing.", colour="red")
    if label_file is not None:
        print_line(f"labels: {label_file} is attached to the store")
    if found.ignored:
        print_line(f"left out: {len(found.ignored)} files that are no videos by their names")


def show_estimate(cost: Estimate, found: Inputs, as_json: bool) -> None:
    """The dry run's result."""
    failures = [*found.failures, *cost.failures]
    if as_json:
        document = {
            "videos": cost.videos,
            "video_seconds": cost.video_seconds,
            "bytes": cost.bytes,
            "seconds": cost.seconds,
            "failures": [vars(failure) for failure in failures],
        }
        typer.echo(json.dumps(document, indent=2))
        return
    typer.echo(f"{cost.videos} videos, {cost.video_seconds / 3600:.2f} hours")
    for name, size in cost.bytes.items():
        typer.echo(f"  {name}: about {size / 1e6:.1f} MB")
    if cost.seconds is not None:
        typer.echo(f"about {cost.seconds / 60:.1f} minutes (from {cost.tried_seconds:.0f} s of one video)")
    for failure in failures:
        print_line(f"cannot be read: {failure.video} [{failure.reason}] {failure.detail}")
    typer.echo("dry run: nothing was written")


def show_summary(summary: Summary, plan: Plan, found: Inputs, out: Path, as_json: bool) -> None:
    """Every input, accounted for."""
    if as_json:
        document = {
            "store": str(out),
            "done": summary.done,
            "there_already": summary.there,
            "partly": summary.partly,
            "failed": summary.failed,
            "failures": [vars(failure) for failure in summary.failures],
            "skipped": [vars(failure) for failure in summary.skipped],
            "silent": summary.silent,
            "changed": summary.changed,
            "ignored": [str(path) for path in found.ignored],
            "rows": dict(summary.rows),
            "video_seconds": summary.video_seconds,
            "frames_decoded": summary.frames_decoded,
            "bf16_cosine": plan.agreements,
            "random_weights": sorted(name for name, spec in plan.specs.items() if spec.random_weights),
        }
        typer.echo(json.dumps(document, indent=2))
        return
    inputs = summary.done + summary.there + summary.partly + summary.failed
    partly = f"{summary.partly} in part, " if summary.partly else ""
    typer.echo(
        f"{inputs} inputs: {summary.done} done, {summary.there} there already, {partly}{summary.failed} failed; "
        f"{summary.video_seconds / 60:.1f} minutes of video -> {printable(str(out))}"
    )
    for name, rows in sorted(summary.rows.items()):
        typer.echo(f"  {name}: {rows} rows")
    for name, cosine in plan.agreements.items():
        typer.echo(f"  bf16 against fp32 on the first batch of {name}: cosine {cosine:.5f} at least")
    for reason, count in sorted(Counter(str(f.reason) for f in summary.failures).items()):
        typer.echo(f"  failed [{reason}]: {count}")
    for failure in summary.failures:
        what = f" ({failure.set_name})" if failure.set_name else ""
        typer.echo(f"    {printable(f'{failure.video}{what}: [{failure.reason}] {failure.detail}')}")
    if summary.silent:
        typer.echo(f"  no sound: {summary.silent} videos have rows of zeros in the audio sets, marked in the store")
    if summary.skipped:
        videos = sorted({failure.video for failure in summary.skipped})
        typer.echo(f"  no sound: {len(videos)} videos are left out of the audio sets: {printable(', '.join(videos))}")
    for video in summary.changed:
        typer.echo(f"  changed since it was extracted, its rows are of the old file: {printable(video)}")
    if summary.failures:
        typer.echo("  'vl extract ... --retry-failed' tries them again.")
