"""`vl diff`: how two stores differ, by the seconds of their rows, and what may have caused it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.options import OptionError, split
from stores.errors import SpecMismatchError
from stores.names import printable

if TYPE_CHECKING:
    from stores.difference import Difference, SetDifference, VideoDifference

SHOWN = 10  # videos of a set that are printed: those that differ most


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(diff)


def diff(
    a: Annotated[Path, typer.Argument(help="Feature store (.zarr or .h5).")],
    b: Annotated[Path, typer.Argument(help="The one to compare with it.")],
    sets: Annotated[
        str | None, typer.Option(help="Names of sets, or a=b for sets of different names.", show_default="all in both")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON, with every video.")] = False,
) -> None:
    """Compare two stores by time and guess why they differ; exit 0 if equal within rounding, 4 if not."""
    pairs = parse_pairs(sets)

    from stores import open_store
    from stores.difference import compare_stores

    found = compare_stores(open_store(a), open_store(b), pairs)
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else text(found))
    if not found.equal:
        raise typer.Exit(SpecMismatchError.exit_code)


def parse_pairs(sets: str | None) -> list[tuple[str, str]]:
    """`a=b,c` is set a of the first store with set b of the second, and set c of both."""
    pairs = []
    for word in split(sets or ""):
        first, equals, second = word.partition("=")
        if not first or (equals and not second):
            raise OptionError(f"--sets takes names, or a=b for two names, not '{printable(word)}'.")
        pairs.append((first, second or first))
    if sets is not None and not pairs:
        raise OptionError("--sets names no set.")
    return pairs


def text(found: Difference) -> str:
    """The result for people."""
    lines = []
    for part in found.sets:
        lines += set_lines(part)
    for letter, path, only in zip("AB", found.paths, found.only, strict=True):
        if only:
            lines.append(printable(f"only in {letter} ({path}): {', '.join(only)}"))
    lines.append("the stores are equal" if found.equal else "the stores differ")
    return "\n".join(lines)


def set_lines(part: SetDifference) -> list[str]:
    """One pair of sets."""
    name = part.names[0] if part.names[0] == part.names[1] else " = ".join(part.names)
    lines = [f"{name}: {'equal' if part.equal else 'DIFFERENT'}, {len(part.videos)} videos in both"]
    if part.spec:
        lines.append(printable(f"  spec: {part.spec}"))
    for letter, only in zip("AB", part.only, strict=True):
        if only:
            lines.append(
                printable(f"  only in {letter}: {len(only)} videos ({', '.join(only[:5])}{', ...' * (len(only) > 5)})")
            )
    if part.cosines:
        lines.append(
            f"  cosine of rows at the same seconds: mean {part.cosines['mean']:.6f}, least {part.cosines['min']:.6f}, "
            f"1 % below {part.cosines['low']:.6f}"
        )
    differing = sorted(
        (v for v in part.videos if not v.equal), key=lambda v: (not math.isnan(v.cosine_mean), v.cosine_mean)
    )
    lines += ["  " + video_line(video) for video in differing[:SHOWN]]
    if len(differing) > SHOWN:
        lines.append(f"  and {len(differing) - SHOWN} more that differ (--json lists all)")
    lines += [printable(f"  {cause.certainty}: {cause.name}: {cause.evidence}") for cause in part.causes]
    if not part.equal and part.videos and not part.causes:
        lines.append("  no known cause fits")
    return lines


def video_line(video: VideoDifference) -> str:
    """One video."""
    a, b = video.rows
    words = [f"{video.video}: {a} rows" if a == b else f"{video.video}: {a} and {b} rows"]
    if abs(video.rates[0] - video.rates[1]) > 1e-6 * video.rates[0]:
        words.append(f"{video.rates[0]:.4g} and {video.rates[1]:.4g} a second")
    if abs(video.offset) > 1e-6:
        words.append(f"the first {video.offset:+.3f} s")
    if abs(video.stretch - 1) > 1e-6:
        words.append(f"{video.stretch:.4f} times as long")
    if video.pairs:
        words.append(
            f"{video.pairs} compared: cosine {video.cosine_mean:.4f} (least {video.cosine_min:.4f}), "
            f"relative distance {video.relative_l2:.4g}, length {video.norm_ratio:.3f}"
        )
    return printable(", ".join(words))
