"""`vl info`, `ls`, `verify`, `repair`, `compact`, `convert`, `merge`: looking at stores and after them."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stores.errors import DamageError
from stores.names import printable
from stores.remote import as_path

if TYPE_CHECKING:
    from stores.spec import FeatureSet, FeatureStore

StorePath = Annotated[
    Path, typer.Argument(help="Feature store (.zarr or .h5, s3://...).", parser=as_path, metavar="STORE")
]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    for command in (info, ls, verify, repair, compact, convert, merge):
        app.command()(command)


def info(store: StorePath, as_json: Json = False) -> None:
    """What a store holds: sets and their specs, videos, failures, attachments."""
    from stores import open_store

    opened = open_store(store)
    document = describe(opened)
    typer.echo(json.dumps(document, indent=2) if as_json else info_text(document))


def describe(store: FeatureStore) -> dict[str, Any]:
    """Everything `vl info` shows, as JSON types."""
    return {
        "store": str(store.path),
        "snapshot": store.snapshot_id,
        "sets": {name: describe_set(store[name]) for name in store},
        "failures": dict(sorted(Counter(failure.reason for failure in store.failures()).items())),
        "attachments": sorted(store.attachments()),
        "damage": [str(damage) for damage in getattr(store, "damage", ())],
    }


def describe_set(part: FeatureSet) -> dict[str, Any]:
    """One set, as JSON types."""
    entries = [part.entry(video) for video in part]
    rows = sum(entry.num_rows for entry in entries)
    durations = [float(entry.info["duration"]) for entry in entries if entry.info.get("duration")]
    return {
        "videos": len(entries),
        "rows": rows,
        "bytes": rows * (part.spec.row_bytes + 16),  # 16 of the two times
        "seconds": sum(durations),  # of the videos whose duration is known
        "without_duration": len(entries) - len(durations),
        "partial": sum(bool(entry.info.get("partial")) for entry in entries),
        "silent": sum(entry.info.get("missing_audio") == "zeros" for entry in entries)
        if part.spec.stream == "audio"
        else 0,
        "fingerprint": part.spec.fingerprint,
        "spec": part.spec.to_dict(),
        "provenance": dict(part.provenance),
    }


def info_text(document: dict[str, Any]) -> str:
    """The same for people."""
    lines = [printable(document["store"])]
    for name, part in document["sets"].items():
        spec = {key: value for key, value in part["spec"].items() if value not in (None, "", [], {}, False)}
        classes = spec.pop("classes", None)
        lines.append(
            f"{name}: {part['videos']} videos, {part['rows']} rows, {size(part['bytes'])}"
            + (f", {part['seconds'] / 3600:.2f} h" if part["seconds"] else "")
            + (f", {part['without_duration']} of unknown duration" if part["without_duration"] else "")
            + (f", {part['partial']} partial" if part["partial"] else "")
            + (f", {part['silent']} without sound: zeros" if part["silent"] else "")
        )
        if part["spec"]["random_weights"]:
            lines.append(typer.style("  RANDOM WEIGHTS: rows of a network that was never trained", fg="red", bold=True))
        lines.append(f"  fingerprint {part['fingerprint']}")
        lines.append(printable("  " + ", ".join(f"{key} {short(value)}" for key, value in spec.items())))
        if classes:
            lines.append(printable(f"  {len(classes)} classes: {', '.join(classes[:8])}{' ...' * (len(classes) > 8)}"))
        if part["provenance"]:
            lines.append(printable(f"  made with {short(part['provenance'])}"))
    if not document["sets"]:
        lines.append("no video is committed yet")
    if document["failures"]:
        counts = ", ".join(f"{count} {printable(reason)}" for reason, count in document["failures"].items())
        lines.append(f"failed: {counts} ('vl ls --failed' lists them)")
    if document["attachments"]:
        lines.append(f"attached: {printable(', '.join(document['attachments']))}")
    lines += [typer.style(f"DAMAGE {damage}", fg="red", bold=True) for damage in document["damage"]]
    lines.append(f"snapshot {document['snapshot']}")
    return "\n".join(lines)


def short(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, list):
        return " x ".join(map(str, value))
    if isinstance(value, dict):
        return "(" + ", ".join(f"{key} {short(inner)}" for key, inner in value.items()) + ")"
    return str(value)


def size(num_bytes: float) -> str:
    """Bytes for people.

    >>> size(1536)
    '1.5 KiB'
    """
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def ls(
    store: StorePath,
    set_name: Annotated[str | None, typer.Option("--set", help="Only videos of this set.")] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Inputs that failed, with the reason.")] = False,
    as_json: Json = False,
) -> None:
    """The videos of a store, one a line: rows in each set, duration, a mark if partial."""
    from stores import open_store

    opened = open_store(store)
    rows = failure_rows(opened, set_name) if failed else video_rows(opened, set_name)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo("\t".join(printable(cell) for cell in cells(row)))


def failure_rows(store: FeatureStore, set_name: str | None) -> list[dict[str, Any]]:
    """Failures as JSON types."""
    return [
        {"video": failure.video, "reason": failure.reason, "set": failure.set_name, "detail": failure.detail}
        for failure in store.failures()
        if set_name is None or failure.set_name in (None, set_name)
    ]


def video_rows(store: FeatureStore, set_name: str | None) -> list[dict[str, Any]]:
    """Videos, in order of their ids, as JSON types."""
    videos: dict[str, dict[str, Any]] = {}
    for name in [set_name] if set_name is not None else list(store):
        part = store[name]
        for video in part:
            entry = part.entry(video)
            row = videos.setdefault(video, {"video": video, "duration": None, "partial": False, "rows": {}})
            row["rows"][name] = entry.num_rows
            row["duration"] = entry.info.get("duration", row["duration"])
            row["partial"] = row["partial"] or bool(entry.info.get("partial"))
    return [videos[video] for video in sorted(videos)]


def cells(row: dict[str, Any]) -> list[str]:
    """The columns of one line of `vl ls`."""
    if "reason" in row:
        return [row["video"], row["reason"], row["set"] or "all sets", row["detail"]]
    seconds = "?" if row["duration"] is None else f"{row['duration']:.2f} s"
    rows = " ".join(f"{name}={count}" for name, count in row["rows"].items())
    return [row["video"], seconds, rows, *(["partial"] if row["partial"] else [])]


def verify(
    store: StorePath,
    full: Annotated[bool, typer.Option("--full", help="Read every byte against its digest.")] = False,
    as_json: Json = False,
) -> None:
    """Check records, sizes and shapes, and with --full every digest; exit 5 if anything is damaged."""
    from stores import maintenance

    report = maintenance.verify(store, full=full)
    if as_json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    else:
        for finding in report.findings:
            typer.echo(str(finding))
        extent = "every byte read" if full else "records, sizes and shapes; --full reads every byte"
        held = f"{report.commits} commits, {report.videos} videos, {size(report.num_bytes)}"
        state = "DAMAGED, 'vl repair' puts the damaged parts aside" if report.damaged else "ok"
        typer.echo(f"{printable(store)}: {held}: {state} ({extent})")
    if report.damaged:
        raise typer.Exit(DamageError.exit_code)


def repair(
    store: StorePath,
    fast: Annotated[bool, typer.Option("--fast", help="Look at sizes and records, not at every byte.")] = False,
    as_json: Json = False,
) -> None:
    """Move damaged parts to STORE/damaged and list the videos to extract again; nothing is deleted."""
    from stores import maintenance

    done = maintenance.repair(store, full=not fast)
    if as_json:
        lost = [{"video": video, "set": name} for video, name in done.lost]
        typer.echo(
            json.dumps({"moved": done.moved, "into": done.into, "lost": lost, "unknown": done.unknown}, indent=2)
        )
        return
    for part in done.moved:
        typer.echo(printable(f"put aside: {part}"))
    for video, name in done.lost:
        typer.echo(printable(f"extract again: {video} ({name})"))
    if done.unknown:
        typer.echo(f"{done.unknown} commits cannot be read: what they held is missing now, and extracted again as well")
    typer.echo(f"{printable(store)}: {len(done.moved)} parts put aside, {len(done.lost)} videos to extract again")


def compact(
    store: StorePath,
    target: Annotated[int, typer.Option(min=1, help="Size of a merged segment in MiB.")] = 1024,
    grace: Annotated[
        float, typer.Option(min=0, help="Hours that replaced or abandoned segments stay for open readers.")
    ] = 24.0,
    as_json: Json = False,
) -> None:
    """Merge small segments; remove those replaced, or abandoned by killed writers, long ago; index what is there."""
    from stores.compaction import compact as run

    done = run(store, target_bytes=target << 20, grace_seconds=grace * 3600)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done), indent=2))
        return
    typer.echo(
        f"{printable(store)}: {done.merged} segments merged into {done.into}, {len(done.removed)} old entries removed, "
        f"{done.kept} replaced segments kept for open readers, "
        f"{'all indexed' if done.indexed else 'no index: the digests or the number of the commits allow none'}"
    )


def convert(
    source: Annotated[Path, typer.Argument(help="Store to read.", parser=as_path, metavar="SOURCE")],
    target: Annotated[
        Path,
        typer.Argument(help="Store to write, .zarr or .h5; it must not exist.", parser=as_path, metavar="TARGET"),
    ],
    as_json: Json = False,
) -> None:
    """Write a store in the other format: equal rows, times, specs and attachments."""
    from stores import open_store, transfer

    transfer.convert(source, target)
    show_written(open_store(target), as_json)


def merge(
    sources: Annotated[
        list[Path], typer.Argument(help="Stores to read; one is fine.", parser=as_path, metavar="SOURCES")
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Zarr store to write; what it holds already is not copied again.", parser=as_path, metavar="PATH"
        ),
    ],
    as_json: Json = False,
) -> None:
    """Copy the videos of several stores into one; their sets must have been made in the same way."""
    from stores import open_store, transfer

    transfer.merge(sources, out)
    show_written(open_store(out), as_json)


def show_written(store: FeatureStore, as_json: bool) -> None:
    """What a store that was just written holds."""
    if as_json:
        typer.echo(json.dumps(describe(store), indent=2))
        return
    for name in store:
        typer.echo(f"{printable(store.path)}: {name}: {len(store[name])} videos")
