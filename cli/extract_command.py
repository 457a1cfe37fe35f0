"""`vl extract`: videos in, a feature store out."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.extract_output import announce, show_estimate, show_summary
from cli.options import OptionError, fraction, per_name, positive, region, split
from cli.output import print_line
from cli.signals import resumable_signals
from stores.remote import as_path

if TYPE_CHECKING:
    from extract.scenes import SceneCutting
    from stores.spec import Granularity

SCENE_BACKBONES = ("resnet18", "r2plus1d_18")
LABEL_FILES = ("labels.csv", "labels.json")


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(extract)


def extract(
    videos: Annotated[list[Path], typer.Argument(help="Video files, or folders of them.")],
    backbone: Annotated[
        str | None,
        typer.Option(
            help="One or more, as i3d,logmel; timm:NAME, hf:NAME. 'vl backbones' lists them.",
            show_default="resnet18,r2plus1d_18 for --level scene",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Store to write: .zarr, .h5 or s3://BUCKET/NAME.zarr.", parser=as_path, metavar="PATH")
    ] = Path("store.zarr"),
    level: Annotated[str | None, typer.Option(help="frame, clip, map or scene; several as clip,map.")] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(help="NAME, PATH or random; for one backbone i3d=PATH, for one stream i3d.flow=PATH. Repeatable."),
    ] = None,
    fps: Annotated[list[str] | None, typer.Option(help="Frames (sound: rows) a second; i3d=25 for one.")] = None,
    stride: Annotated[list[str] | None, typer.Option(help="Frames from one row to the next.")] = None,
    window: Annotated[list[str] | None, typer.Option(help="Frames of a window, or of a scene's clip.")] = None,
    last_stride: Annotated[
        list[str] | None,
        typer.Option(help="1: maps twice as high and wide, from a last stage of stride 1; slowfast_r50=1 for one."),
    ] = None,
    pca: Annotated[
        list[str] | None,
        typer.Option(help="inception_v3_2015=PATH, vggish=PATH: whitened by that PCA and stored as uint8."),
    ] = None,
    dense: Annotated[str | None, typer.Option(help="convolutional or windowed: two definitions.")] = None,
    speeds: Annotated[
        str | None, typer.Option(help="Clip-sampled: 4,2,8 takes every 4th, 2nd, 8th frame; a set each.")
    ] = None,
    views: Annotated[
        str | None, typer.Option(help="Clip-sampled: clips x crops (1 or 3), as 10x3, or one for each speed.")
    ] = None,
    stream: Annotated[str, typer.Option(help="rgb, flow, or both as rgb,flow: those that a backbone has.")] = "rgb",
    flow: Annotated[
        str | None, typer.Option(help="dis, tvl1, raft=PATH or raft_small=PATH.", show_default="dis")
    ] = None,
    save_flow: Annotated[Path | None, typer.Option(help="Folder for the flow of this run as pictures, too.")] = None,
    scene_detector: Annotated[
        str | None, typer.Option(help="intensity, scenedetect or transnetv2.", show_default="intensity")
    ] = None,
    min_scene: Annotated[
        float | None, typer.Option(help="Seconds; a cut that follows faster is passed over.", show_default="0.5")
    ] = None,
    max_scene: Annotated[
        float | None, typer.Option(help="Seconds; a longer scene is cut there.", show_default="60")
    ] = None,
    roi: Annotated[str | None, typer.Option(help="x,y,w,h in pixels of the upright frame: see only this.")] = None,
    dtype: Annotated[str, typer.Option(help="float16 or float32, as stored.")] = "float16",
    labels: Annotated[Path | None, typer.Option(help="Label file to attach to the store.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    precision: Annotated[str, typer.Option(help="fp32 or bf16 (autocast).")] = "fp32",
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Frames, windows or tiles in one pass.")] = None,
    decoder: Annotated[str, typer.Option(help="pyav, or decord for trusted files.")] = "pyav",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds without a sign of life before a kill.")] = 60.0,
    shard: Annotated[str | None, typer.Option(help="i/n: the i-th of n parts of the inputs.")] = None,
    engine: Annotated[str | None, typer.Option(help="ray: many workers, on this machine or on a cluster.")] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="HOST:PORT or auto: the Ray cluster to join; else one of this machine.")
    ] = None,
    ray_workers: Annotated[
        int | None, typer.Option(min=1, help="Workers of --engine ray.", show_default="one a GPU, else one for 4 cores")
    ] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try earlier failures again.")] = False,
    allow_partial: Annotated[
        bool, typer.Option("--allow-partial", help="Keep videos that decode only in part, marked.")
    ] = False,
    missing_audio: Annotated[
        str, typer.Option(help="A video without sound, for audio sets: error, zeros (rows of zeros) or skip.")
    ] = "error",
    compress: Annotated[str | None, typer.Option(help="zstd: smaller maps, slower reads.")] = None,
    show_pred: Annotated[bool, typer.Option("--show-pred", help="Top-5 classes of three clips.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Videos, hours, time and bytes; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The summary as JSON.")] = False,
) -> None:
    """Run frozen networks over videos once, into a feature store; running it again resumes."""
    names = split(backbone) if backbone is not None else default_backbones(level)
    require(out.suffix in {".zarr", ".h5", ".hdf5"}, f"--out {out} must end in .zarr or .h5.")
    require(dtype in {"float16", "float32"}, f"--dtype is float16 or float32, not {dtype}.")
    require(precision in {"fp32", "bf16"}, f"--precision is fp32 or bf16, not {precision}.")
    require(dense in {None, "convolutional", "windowed"}, f"--dense is convolutional or windowed, not {dense}.")
    require(
        missing_audio in {"error", "zeros", "skip"}, f"--missing-audio is error, zeros or skip, not {missing_audio}."
    )
    require(compress in {None, "zstd"}, f"--compress is zstd, not {compress}.")
    check_engine(engine, ray=(ray_address, ray_workers), show_pred=show_pred, device=device)
    sampled = speeds is not None or views is not None
    require(not (sampled and show_pred), "--show-pred shows a stretch of frames: leave it out with --speeds, --views.")
    part, parts = fraction(shard)
    settings: dict[str, Any] = {
        "backbones": names,
        "fps": positive("--fps", per_name("--fps", fps or [], names, float)),
        "stride": positive("--stride", per_name("--stride", stride or [], names, int)),
        "window": positive("--window", per_name("--window", window or [], names, int)),
        "last_stride": per_name("--last-stride", last_stride or [], names, int),
        "pca": per_name("--pca", pca or [], names, str),
        "dense": dense,
        "roi": region(roi),
        "dtype": dtype,
        "device": device,
        "precision": precision,
        "batch": batch,
        "decoder": decoder,
        "streams": split(stream),
        "flow": flow,
        "save_flow": None if dry_run else save_flow,
    }

    from extract.decode import Limits
    from extract.extract_options import ExtractOptions
    from extract.inputs import enumerate_videos
    from extract.inputs import shard as shard_videos
    from extract.plan import make_plan
    from extract.view_options import parse_views
    from extract.weights import parse_weight_choices
    from extract.workers import default_workers

    settings["levels"] = levels_of(level)
    settings["scenes"] = cutting_of(detector=scene_detector, min_scene=min_scene, max_scene=max_scene)
    found = enumerate_videos(videos)
    require(bool(found.videos or found.failures), f"no videos in {', '.join(map(str, videos))}.")
    if parts > 1:
        found = dataclasses.replace(found, videos=shard_videos(found.videos, part - 1, parts))
    label_file, document = find_labels(videos, labels)
    settings["views"] = parse_views(speeds, views)
    settings["weights"] = parse_weight_choices(weights or [], names)
    options = ExtractOptions(**settings)
    # With a crew the networks run elsewhere: here they only say what they fill.
    plan = make_plan(dataclasses.replace(options, device="cpu") if engine == "ray" else options, report=print_line)
    announce(plan, found, label_file)
    limits = Limits(timeout_s=timeout, allow_partial=allow_partial)
    workers = workers or default_workers()
    with resumable_signals():
        if dry_run:
            from extract.estimate import estimate

            show_estimate(estimate(found.videos, plan, workers=workers, limits=limits), found, as_json)
            return
        from cli.progress import ExtractionProgress
        from extract.accounts import MissingAudio
        from extract.pipeline import extract_videos
        from stores.packing import packed_at_end

        rest: dict[str, Any] = {
            "workers": workers,
            "limits": limits,
            "retry_failed": retry_failed,
            "missing_audio": MissingAudio(missing_audio),
            "compress": compress,
        }
        attached = {"labels": document} if document else None
        with packed_at_end(out) as store, ExtractionProgress() as progress:
            if engine == "ray":
                from cli.engines import on_ray

                summary = on_ray(found, plan, options, store, rest, attached, progress, ray_address, ray_workers)
            else:
                summary = extract_videos(
                    found.videos,
                    found.failures,
                    plan,
                    store,
                    observer=progress,
                    attachments=attached,
                    show_pred=3 if show_pred else 0,
                    **rest,
                )
    show_summary(summary, plan, found, out, as_json)
    if summary.failures or summary.changed:
        raise typer.Exit(3)


def require(holds: bool, otherwise: str) -> None:
    """Raise what the user can mend."""
    if not holds:
        raise OptionError(otherwise)


def check_engine(engine: str | None, ray: tuple[str | None, int | None], show_pred: bool, device: str) -> None:
    """Raise OptionError where the engine is none, or does not go with the other options."""
    require(engine in {None, "ray"}, f"--engine is ray, or left out for this process alone, not {engine}.")
    require(engine == "ray" or ray == (None, None), "--ray-... is for --engine ray: give both.")
    if engine == "ray":
        require(not show_pred, "--show-pred shows what this process sees: leave it out with --engine ray.")
        require(":" not in device, f"--device {device} is one GPU; with --engine ray it is auto, cpu or cuda.")


def levels_of(text: str | None) -> tuple[Granularity, ...]:
    """`clip,map` as levels; none if the option is not given."""
    from stores.spec import Granularity

    known = [str(known) for known in Granularity if known is not Granularity.SCORE]
    words = split(text or "")
    if unknown := [word for word in words if word not in known]:
        raise OptionError(f"--level has {', '.join(unknown)}; the levels are {', '.join(known)}.")
    return tuple(Granularity(word) for word in words)


def cutting_of(**options: str | float | None) -> SceneCutting | None:
    """How scenes are cut, if any of the options about it is given."""
    from extract.scenes import SceneCutting

    given = {name: value for name, value in options.items() if value is not None}
    return SceneCutting(**given) if given else None  # type: ignore[arg-type]


def default_backbones(level: str | None) -> tuple[str, ...]:
    """STAN's two where scenes alone are asked for."""
    require(split(level or "") == ("scene",), "name at least one --backbone; 'vl extract --help' lists them.")
    return SCENE_BACKBONES


def find_labels(videos: list[Path], given: Path | None) -> tuple[Path | None, dict[str, Any] | None]:
    """The label file to attach: the given one, or labels.csv or labels.json in the first folder of videos."""
    folder = next((path for path in videos if path.is_dir()), None)
    beside = [folder / name for name in LABEL_FILES if (folder / name).is_file()] if folder else []
    file = given or (beside[0] if beside else None)
    if file is None:
        return None, None
    from stores.label_files import read_labels

    return file, read_labels(file).to_dict()
