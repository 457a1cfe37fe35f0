"""`vl finetune`: networks and head trained together on videos."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import training_options as shared
from cli.extract_command import find_labels
from cli.finetune_videos import (
    SIZES,
    Asked,
    absolute,
    backbones_of,
    commands_for_new_videos,
    levels_of,
    list_videos,
    open_videos,
)
from cli.options import OptionError, per_name, positive, split
from cli.signals import resumable_signals
from cli.train_command import RUNS, announce, place_words, require_folder, show, together
from stores.names import printable

if TYPE_CHECKING:
    import torch

    from heads.clip_windows import Videos
    from heads.options import TrainOptions
    from heads.ranks import Ranks
    from heads.run_plan import RunPlan
    from stores.spec import FeatureStore

MOST_TILE_ROWS = 64  # of the convolutional mode, where all rows go through at once
RECIPE = {"batch_size": 2, "standardise": False, "schedule": "cosine", "epochs": 10}  # where nobody says otherwise


def register(app: typer.Typer) -> None:
    """Add the command to the app."""
    app.command()(finetune)


def finetune(
    head: Annotated[
        str | None, typer.Argument(help="stan-small, stan-large, or any other head with --backbone: vl heads.")
    ] = None,
    videos: Annotated[list[Path] | None, typer.Argument(help="Video files, or folders of them.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Label file; else labels.csv or .json beside the videos.")] = None,
    out: shared.Out = None,
    init: Annotated[
        Path | None,
        typer.Option(help="Run to begin with, on rows made as its own: of vl train-head or vl finetune."),
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(
            help="The networks that learn, as i3d,vggish; for heads other than stan.", show_default="those of --init"
        ),
    ] = None,
    features: Annotated[
        list[Path] | None,
        typer.Option(help="Feature store of rows that no network of the run makes, as gated's sound."),
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(help="rgb, flow, or both as rgb,flow.", show_default="those of --init, or rgb"),
    ] = None,
    flow: Annotated[str | None, typer.Option(help="How flow is computed, as for vl extract.")] = None,
    weights: Annotated[list[str] | None, typer.Option(help="NAME, PATH or random, as for vl extract.")] = None,
    fps: Annotated[list[str] | None, typer.Option(help="Frames a second, as for vl extract.")] = None,
    stride: Annotated[list[str] | None, typer.Option(help="Frames from one row to the next.")] = None,
    frames: Annotated[list[str] | None, typer.Option(help="Frames of a row: vl extract's --window.")] = None,
    dense: Annotated[
        str | None,
        typer.Option(help="convolutional or windowed, as for vl extract.", show_default="that of --init, or windowed"),
    ] = None,
    scene_detector: Annotated[str | None, typer.Option(help="As for vl extract.")] = None,
    min_scene: Annotated[float | None, typer.Option(help="Seconds, as for vl extract.")] = None,
    max_scene: Annotated[float | None, typer.Option(help="Seconds, as for vl extract.")] = None,
    augment: Annotated[
        str | None,
        typer.Option(help="none, jitter (size, crop, flip) or stan.", show_default="stan for stan, else jitter"),
    ] = None,
    backbone_lr: Annotated[float, typer.Option(help="Highest learning rate of the networks.")] = 5e-6,
    lr: shared.LearningRate = None,
    batch_norm: Annotated[str, typer.Option(help="frozen or tuned statistics.")] = "frozen",
    freeze: Annotated[str | None, typer.Option(help="Weights that stay, as layer1.*,resnet18.conv1,head.h.")] = None,
    chunk_scenes: Annotated[
        int | None,
        typer.Option(min=0, help="Rows whose activations are held at once; 0: all.", show_default="8"),
    ] = None,
    checkpoint_activations: Annotated[
        bool, typer.Option("--checkpoint-activations", help="Instead of chunks: all at once, layers computed twice.")
    ] = False,
    set_: shared.Set = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches, changes and, without subsets, the split.")] = 0,
    epochs: shared.Epochs = None,
    batch_size: shared.BatchSize = None,
    window: shared.Window = None,
    optimizer: shared.Optimizer = None,
    schedule: shared.Schedule = None,
    precision: shared.Precision = None,
    device: shared.Device = "auto",
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes.")] = None,
    train_list: shared.TrainList = None,
    val_list: shared.ValList = None,
    test_list: shared.TestList = None,
    label_at: shared.LabelAt = None,
    boundary: shared.Boundary = None,
    resume: shared.Resume = None,
    as_json: shared.Json = False,
) -> None:
    """Train a head and the networks below it on videos; scores validation and test videos at the end."""
    if resume is not None:
        if head or videos or out or set_ or init or features:
            raise OptionError("--resume RUN takes everything from the run; give nothing else.")
        with resumable_signals(), together(device) as (place, ranks):
            result = go_on(resume, Crew(place, ranks, workers))
            if ranks.first:
                tell(result, as_json)
        return
    if head is None or not videos:
        raise OptionError("give a HEAD and videos: vl finetune stan-large videos/ --labels labels.csv")
    if dense not in {None, "convolutional", "windowed"}:
        raise OptionError(f"--dense is convolutional or windowed, not '{printable(dense)}'.")
    if head in SIZES and not {dense, stream, flow} <= {None, "rgb"}:
        raise OptionError(f"{head} sees the pictures of scenes: leave --dense, --stream and --flow out.")
    names = backbones_of(head, backbone, init)
    asked = Asked(
        videos=tuple(os.path.abspath(path) for path in videos),  # noqa: PTH100  # resolve() would follow links
        backbones=names,
        scenes=head in SIZES,
        weights=tuple(absolute(choice) for choice in weights or ()),
        fps=positive("--fps", per_name("--fps", fps or [], names, float)),
        stride=positive("--stride", per_name("--stride", stride or [], names, int)),
        frames=positive("--frames", per_name("--frames", frames or [], names, int)),
        cutting={
            name: value
            for name, value in (("detector", scene_detector), ("min_scene", min_scene), ("max_scene", max_scene))
            if value is not None
        },
        augment=augment or ("stan" if head in SIZES else "jitter"),
        levels=levels_of(head),
        dense=dense,
        streams=split(stream or ""),
        flow=absolute(flow) if flow is not None else None,
    )
    tuning = {
        "backbone_lr": backbone_lr,
        "batch_norm": batch_norm,
        "freeze": split(freeze or ""),
        "chunk": chunk_of(chunk_scenes, batch_norm, checkpoint_activations),
        "checkpoint_activations": checkpoint_activations,
    }
    with resumable_signals(), together(device) as (place, ranks):
        require_folder(ranks, out)
        result = start(
            head,
            asked,
            tuning,
            labels=labels,
            settings=(
                *shared.settings_of(
                    set_, epochs, lr, batch_size, window, optimizer, schedule, precision, label_at, boundary
                ),
                f"seed={seed}",
            ),
            lists=shared.lists_of(train_list, val_list, test_list),
            split_seed=seed,
            init=init,
            beside=tuple(features or ()),
            out=out,
            crew=Crew(place, ranks, workers),
        )
        if ranks.first:
            tell(result, as_json)


def tell(result: Mapping[str, Any], as_json: bool) -> None:
    """The closing summary, and how new videos are labelled."""
    show([result], as_json)
    if not as_json:
        typer.echo("\n  ".join(("new videos are labelled by", *result["commands_for_new_videos"])))


@dataclasses.dataclass(frozen=True)
class Crew:
    """Who does the work."""

    device: torch.device
    ranks: Ranks
    workers: int | None  # decode processes of each of the processes that train; None: its share of the processors

    @property
    def decoders(self) -> int:
        """Decode processes of this process."""
        from extract.workers import default_workers
        from heads.ranks import processes_here

        return self.workers or max(1, default_workers() // processes_here())


def start(
    head: str,
    asked: Asked,
    tuning: Mapping[str, Any],
    *,
    labels: Path | None,
    settings: tuple[str, ...],
    lists: Mapping[str, Path],
    split_seed: int,
    init: Path | None,
    beside: tuple[Path, ...],
    out: Path | None,
    crew: Crew,
) -> dict[str, Any]:
    """Plan a run, write its folder, and carry it out; one that lies unfinished in `out` goes on."""
    if not crew.ranks.first:
        assert out is not None, "several processes have a folder"
        return follow(out, crew)
    from heads.checkpoint import build_model, create_run, new_run, read_config
    from heads.end_to_end import TuneOptions
    from heads.run import require_shareable
    from heads.run_plan import plan_run, require_resumable
    from stores.labels import Labels
    from stores.opening import open_store

    name = "stan" if head in SIZES else head
    options, training = training_options(name, settings, init)
    require_shareable(TuneOptions(**tuning), crew.ranks)  # what is wrong shall be said before videos are looked through
    list_videos(asked)  # so is this, and before labels are missed beside videos that are not there
    label_file, document = find_labels([Path(path) for path in asked.videos], labels)
    if document is None:
        raise OptionError("there are no labels: give --labels FILE (csv or json), or put a labels.csv into the folder.")
    if init is not None:
        asked = asked.begun_with(spec for _, spec in read_config(init).specs)
    require_tunable(asked, tuning)
    asked = dataclasses.replace(asked, tile_rows=tuning["chunk"] or MOST_TILE_ROWS)
    stored = [open_store(path) for path in beside]
    folder = (out.parent if out is not None else RUNS).absolute()
    videos, plan, asked = open_videos(asked, str(crew.device), crew.decoders, folder)
    if any(network.convolutional for network in plan.networks):
        tuning = {**tuning, "chunk": min(tuning["chunk"], 1)}  # a clip has as many rows as go through at once
    learning = SIZES.get(head, asked.backbones)
    tuned = tuple(name for name, spec in plan.specs.items() if spec.backbone in learning)
    run_plan: RunPlan = plan_run(
        name,
        [videos.store],
        Labels.from_dict(document),
        options=options,
        training=training,
        lists=lists,
        split_seed=split_seed,
        label_source=str(label_file),
        sets=sets_of(init, [videos.store, *stored]),
        init=init,
        finetune={
            "options": {**tuning, "learning": tuned},
            "clips": dataclasses.asdict(asked),
        },
        beside=stored,
    )
    if out is not None and (out / "config.json").exists():
        require_resumable(out, run_plan.config)
        crew.ranks.wait()
        return carry(out, videos, crew)
    build_model(run_plan.config, videos.networks)  # what does not fit shall be said before a folder is made
    run = out or new_run(RUNS, head)
    create_run(run, run_plan.config, run_plan.labels)
    announce(run, run_plan, place_words(crew.device, crew.ranks))
    crew.ranks.wait()
    return carry(run, videos, crew)


def training_options(name: str, settings: tuple[str, ...], init: Path | None) -> tuple[dict[str, Any], TrainOptions]:
    """The head's options and the trainer's: as for `vl train-head`, but for what RECIPE says."""
    from heads.checkpoint import read_config
    from heads.head import head_class
    from heads.options import split_settings

    kind = head_class(name)
    recipe: dict[str, Any] = dict(RECIPE)
    if init is not None:
        recipe["standardise"] = read_config(init).training.standardise
    given = {word.partition("=")[0] for word in settings}
    added = [f"{key}={str(value).lower()}" for key, value in recipe.items() if key not in given]
    added = [word for word in added if not (word.startswith("epochs=") and "steps" in given)]
    options, training = split_settings(kind, (*added, *settings))
    if "stride" not in given:  # each row is made once when videos are scored
        training = dataclasses.replace(training, stride=training.window)
    return options, training


def sets_of(init: Path | None, stores: Sequence[FeatureStore]) -> tuple[str, ...]:
    """The feature sets of a run to begin with, in its order; none where the stores have others."""
    from heads.checkpoint import read_config

    entries = read_config(init).features if init is not None else ()
    known = all(any(entry["set"] in store for store in stores) for entry in entries)
    return tuple(f"{entry['role']}={entry['set']}" for entry in entries) if known else ()


def chunk_of(given: int | None, batch_norm: str, checkpoint_activations: bool) -> int:
    """How many clips go through at once."""
    from heads.end_to_end import CHUNK

    if given is not None:
        return given
    return 0 if checkpoint_activations or batch_norm == "tuned" else CHUNK


def require_tunable(asked: Asked, tuning: Mapping[str, Any]) -> None:
    """OptionError for batch norm that would take its statistics from tiles."""
    if asked.dense == "convolutional" and tuning["batch_norm"] == "tuned":
        raise OptionError(
            "batch norm is tuned on clips of one length, and tiles of the convolutional mode have several: give "
            "--dense windowed, or leave --batch-norm out."
        )


def go_on(run: Path, crew: Crew) -> dict[str, Any]:
    """Carry out the rest of a run."""
    if not crew.ranks.first:
        return follow(run, crew)
    from heads.checkpoint import read_config

    config = read_config(run)
    if config.finetune is None:
        raise OptionError(f"{run} was begun by vl train-head: 'vl train-head --resume {run}' goes on.")
    if (run / "result.json").is_file():
        raise OptionError(f"{run} is finished. 'vl score {run}' scores it; give --out a new folder to train again.")
    clips = Asked.from_dict(config.finetune["clips"])
    videos, _, _ = open_videos(clips, str(crew.device), crew.decoders, run.parent)
    crew.ranks.wait()
    return carry(run, videos, crew)


def follow(run: Path, crew: Crew) -> dict[str, Any]:
    """Carry out a run beside the first process, once that has looked through the videos and begun it or found it."""
    from heads.checkpoint import read_config

    crew.ranks.wait()
    finetune = read_config(run).finetune
    assert finetune is not None, "the first process has looked"
    clips = Asked.from_dict(finetune["clips"])
    videos, _, _ = open_videos(clips, str(crew.device), crew.decoders, run.parent, look=False)
    return carry(run, videos, crew)


def carry(run: Path, videos: Videos, crew: Crew) -> dict[str, Any]:
    """Carry out a run with its progress on stderr, that of the first process; its result, and how to use it."""
    from cli.training_progress import TrainingProgress
    from heads.checkpoint import read_config
    from heads.run import carry_out

    with TrainingProgress(quiet=not crew.ranks.first) as progress:
        result = carry_out(run, device=crew.device, observer=progress, clips=videos, ranks=crew.ranks)
    config = read_config(run)
    assert config.finetune is not None, "it was carried out"
    networks = [network.name for network in videos.networks.values()]
    beside = {str(entry["store"]): None for entry in config.features if entry["set"] not in videos.networks}
    commands = commands_for_new_videos(run, Asked.from_dict(config.finetune["clips"]), networks, beside)
    return {"run": str(run), **result, "commands_for_new_videos": commands}
