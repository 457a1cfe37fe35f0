"""`vl train-head` and `vl predict`: stored features in, weights and scores out."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import training_options as shared
from cli.options import OptionError, split
from cli.output import print_line
from cli.signals import resumable_signals
from stores.remote import as_path

if TYPE_CHECKING:
    import torch

    from heads.ranks import Ranks
    from heads.run_plan import RunPlan
    from stores.spec import FeatureStore

RUNS = Path("runs")


def register(app: typer.Typer) -> None:
    """Add the commands to the app."""
    app.command("train-head")(train_head)
    app.command()(predict)


def train_head(
    head: Annotated[str | None, typer.Argument(help="mlad, stld, asf, gated, stan or a baseline: vl heads.")] = None,
    features: Annotated[list[Path] | None, typer.Option(help="Feature store; several are joined by video.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Label file; without, those attached to the store.")] = None,
    out: shared.Out = None,
    set_: shared.Set = None,
    sets: Annotated[str | None, typer.Option(help="Feature sets to use, as a,b; the first is the time grid.")] = None,
    init: Annotated[
        Path | None, typer.Option(help="Run to begin with the weights of, for a second stage; takes its options too.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and, without subsets, the split.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Train so many runs, with successive seeds.")] = 1,
    epochs: shared.Epochs = None,
    lr: shared.LearningRate = None,
    batch_size: shared.BatchSize = None,
    window: shared.Window = None,
    optimizer: shared.Optimizer = None,
    schedule: shared.Schedule = None,
    precision: shared.Precision = None,
    device: shared.Device = "auto",
    train_list: shared.TrainList = None,
    val_list: shared.ValList = None,
    test_list: shared.TestList = None,
    label_at: shared.LabelAt = None,
    boundary: shared.Boundary = None,
    resume: shared.Resume = None,
    as_json: shared.Json = False,
) -> None:
    """Train an attention head on stored features; scores validation and test videos at the end."""
    if resume is not None:
        require(
            not (head or features or out or set_ or init),
            "--resume RUN takes everything from the run; give nothing else.",
        )
        with resumable_signals(), together(device) as (place, ranks):
            result = go_on(resume, place, ranks)
            if ranks.first:
                show([result], as_json)
        return
    if head is None or not features:
        raise OptionError("give a HEAD and --features STORE: vl train-head mlad --features store.zarr")
    from heads.head import head_class

    require(
        window is None or head_class(head).level == "row",
        f"{head} sees whole videos; --window is for heads that score rows.",
    )
    choice = Choice(
        head=head,
        features=tuple(features),
        labels=labels,
        settings=shared.settings_of(
            set_, epochs, lr, batch_size, window, optimizer, schedule, precision, label_at, boundary
        ),
        sets=split(sets or ""),
        lists=shared.lists_of(train_list, val_list, test_list),
        split_seed=seed,
        seeds=seeds,
        init=init,
    )
    results = []
    with resumable_signals(), together(device) as (place, ranks):
        require_folder(ranks, out, seeds)
        for number in range(seed, seed + seeds):
            folder = out if out is None or seeds == 1 else out.with_name(f"{out.name}-seed{number}")
            results.append(start(choice, number, folder, place, ranks))
        if ranks.first:
            show(results, as_json)


def predict(
    stores: Annotated[list[Path], typer.Argument(help="Feature store; several are joined by video.")],
    head: Annotated[Path, typer.Option(help="Run of 'vl train-head'.")],
    out: Annotated[Path, typer.Option(help="Store of scores to write.", parser=as_path, metavar="PATH")] = Path(
        "predictions.zarr"
    ),
    keep_windows: Annotated[
        bool, typer.Option("--keep-windows", help="Keep the scores of every window too, for --protocol mlad-slide.")
    ] = False,
    sets: Annotated[str | None, typer.Option(help="Clip-sampled sets to see, as a,b; else those trained on.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="The result as JSON.")] = False,
) -> None:
    """Score stored features with a trained head; labels are not needed."""
    from heads.checkpoint import load_run
    from heads.run import find_device
    from heads.score_store import predict_store

    place = find_device(device)
    run = load_run(head)
    shout_if_random(run.config.random_weights)
    with resumable_signals():
        chosen = split(sets or "")
        empty = predict_store(run, open_all(stores), out, sets=chosen, device=place, keep_windows=keep_windows)
    for video in empty:
        print_line(f"no rows to score: {video}")
    if as_json:
        typer.echo(json.dumps({"predictions": str(out), "run": str(head), "without_rows": empty}))
    else:
        typer.echo(f"{out}: scores of {run.config.head} ({len(run.config.classes)} classes)")


@dataclass(frozen=True)
class Choice:
    """What the command line asks for, but for the seed; of several seeds a finished run is not trained again."""

    head: str
    features: tuple[Path, ...]
    labels: Path | None
    settings: tuple[str, ...]
    sets: tuple[str, ...]
    lists: dict[str, Path]
    split_seed: int
    seeds: int = 1
    init: Path | None = None


@contextmanager
def together(device: str) -> Iterator[tuple[torch.device, Ranks]]:
    """The device of this process, and the processes that torchrun started with it."""
    from heads.ranks import joined, local_device
    from heads.run import find_device

    place = local_device(find_device(device))
    with joined(place) as ranks:
        yield place, ranks


def require_folder(ranks: Ranks, out: Path | None, seeds: int = 1) -> None:
    """Raise unless all processes know which run they train, after a restart too."""
    require(
        ranks.world == 1 or (out is not None and seeds == 1),
        "several processes train one run: give --out, where a restart goes on, and one seed.",
    )


def place_words(device: torch.device, ranks: Ranks) -> str:
    """Where a run is trained."""
    return f"{device}, {ranks.world} processes" if ranks.world > 1 else str(device)


def start(choice: Choice, seed: int, out: Path | None, device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """Begin one run and carry it out; a run that lies unfinished in `out` with the same config goes on."""
    if not ranks.first:
        assert out is not None, "several processes have a folder"
        ranks.wait()  # the first begins the run, or finds it begun
        return carry(out, device, ranks)
    from heads.checkpoint import create_run, new_run, read_json
    from heads.head import head_class
    from heads.options import split_settings
    from heads.run_plan import plan_run, require_begun_with, require_resumable

    options, training = split_settings(head_class(choice.head), (*choice.settings, f"seed={seed}"))
    stores = open_all(choice.features)
    labels = None
    if choice.labels is not None:
        from stores.label_files import read_labels

        labels = read_labels(choice.labels)
    plan = plan_run(
        choice.head,
        stores,
        labels,
        options=options,
        training=training,
        sets=choice.sets,
        lists=choice.lists,
        split_seed=choice.split_seed,
        label_source=str(choice.labels or "attached to the store"),
        init=choice.init,
    )
    for store in stores:
        store.close()
    if out is not None and (out / "config.json").exists():
        if choice.seeds > 1 and (out / "result.json").is_file():
            require_begun_with(out, plan.config)
            print_line(f"{out} is finished")
            return {"run": str(out), **read_json(out / "result.json")}
        require_resumable(out, plan.config)
        ranks.wait()
        return go_on(out, device, ranks)
    run = out or new_run(RUNS, choice.head)
    create_run(run, plan.config, plan.labels)
    announce(run, plan, place_words(device, ranks))
    ranks.wait()
    return carry(run, device, ranks)


def go_on(run: Path, device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """Carry out the rest of a run; a finished one gives its result again."""
    if (run / "result.json").is_file():
        raise OptionError(f"{run} is finished. 'vl score {run}' scores it; give --out a new folder to train again.")
    return carry(run, device, ranks)


def carry(run: Path, device: torch.device, ranks: Ranks) -> dict[str, Any]:
    """Carry out a run with its progress on stderr, that of the first process."""
    from cli.training_progress import TrainingProgress
    from heads.run import carry_out

    with TrainingProgress(quiet=not ranks.first) as progress:
        return {"run": str(run), **carry_out(run, device=device, observer=progress, ranks=ranks)}


def announce(run: Path, plan: RunPlan, device: str) -> None:
    """Say what will be trained, on what, and shout where the features come from random weights."""
    shout_if_random(plan.config.random_weights)
    for note in plan.notes:
        print_line(note)
    print_line(f"{plan.config.head}: {words(plan.config.options)}")
    print_line(f"training: {words(plan.config.to_dict()['training'])}")
    print_line(f"run {run} on {device}")


def words(options: Mapping[str, Any]) -> str:
    """Options as they would stand after --set."""
    return " ".join(f"{name}={value}" for name, value in options.items())


def shout_if_random(random: bool) -> None:
    """Make sure that nobody takes these scores for a result."""
    if random:
        print_line("RANDOM WEIGHTS: these features come from a network that was never trained.", colour="red")


def show(results: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """The closing summary: of each run, and of all seeds together."""
    spreads = {part: spread_over(results, part) for part in ("val", "test")}
    if as_json:
        typer.echo(json.dumps({"runs": list(results), **spreads}))
        return
    for result in results:
        random = "RANDOM WEIGHTS " if result["random_weights"] else ""
        line = f"{random}{result['run']}: {result['head']} {said(result, 'val')} at epoch {result['best_epoch']}"
        typer.echo(f"{line} of {result['epochs']}; {said(result, 'test')}")
        if "test" in result["predictions"]:
            typer.echo(f"test predictions: {result['predictions']['test']} ('vl score {result['run']}' scores them)")
    for part, spread in spreads.items():
        if spread:
            name = f"{part} {results[0][part]['protocol']}"
            typer.echo(f"{name} {spread['mean']:.4f} ± {spread['sd']:.4f}, {spread['seeds']} seeds")


def said(result: Mapping[str, Any], part: str) -> str:
    """A run's score of one split, with what it leaves out."""
    found = result[part]
    if found is None or found["score"] is None:
        return f"no {'validation' if part == 'val' else part} score"
    text = f"{part} {found['protocol']} {found['score']:.4f}"
    if found.get("videos_scored") == found.get("videos_expected"):
        return text
    return f"{text} on {found['videos_scored']} of {found['videos_expected']} videos"


def spread_over(results: Sequence[Mapping[str, Any]], part: str) -> dict[str, float] | None:
    """Mean and deviation (n - 1) of the runs' scores; None of fewer than two."""
    scores = [result[part]["score"] for result in results if result[part] and result[part]["score"] is not None]
    if len(scores) < 2:
        return None
    return {"mean": statistics.mean(scores), "sd": statistics.stdev(scores), "seeds": len(scores)}


def open_all(paths: Sequence[Path]) -> list[FeatureStore]:
    """The stores at these paths."""
    from stores import open_store

    return [open_store(path) for path in paths]


def require(holds: bool, otherwise: str) -> None:
    """Raise what the user can mend."""
    if not holds:
        raise OptionError(otherwise)
