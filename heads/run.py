"""One training run, from feature stores and labels to weights and scored predictions.

`heads.run_plan` decides everything and writes nothing; `carry_out` does what a run's config says, from wherever the
run stands. A first start and a resume are therefore the same code.

Shape letters: N rows, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.checkpoint import RunConfig, build_model, load_run, read_config, read_run_labels, write_json
from heads.clip_windows import ClipWindows, Videos
from heads.cost import PeakMemory
from heads.end_to_end import ClipNetwork, TuneOptions
from heads.head import HeadError, head_class
from heads.initial import load_initial
from heads.outcome import outcome
from heads.ranks import ALONE, Ranks
from heads.run_plan import rows_digest
from heads.samples import SampledWindows, clip_labels
from heads.score_store import write_scores
from heads.sources import Source, find_sources
from heads.stored_run import write_stored_run
from heads.train import Observer, Training
from heads.tuning_checks import check_tuning
from heads.windows import Windows
from stores import disk
from stores.errors import SpecMismatchError
from stores.labels import Labels
from stores.names import printable
from stores.opening import open_store
from stores.spec import FeatureStore


def carry_out(
    run: Path,
    *,
    device: torch.device,
    observer: Observer,
    clips: Videos | None = None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Train the run in the folder `run` to its end, score its validation and test videos, and say how it went.

    Args:
        clips: the videos of a run that trains its networks, too; None: stored rows.

    Returns:
        What result.json holds, as `heads.outcome` has it; nothing in all processes but the first.

    Raises:
        SpecMismatchError: the stores no longer hold what the run was planned on.
        InterruptedRunError: a signal came; calling again goes on.
    """
    config = read_config(run)
    labels = read_run_labels(run, config)
    if (config.finetune is None) != (clips is None):
        way = "train-head" if config.finetune is None else "finetune"
        raise HeadError(f"{printable(run)} was begun by vl {way}: 'vl {way} --resume {printable(run)}' goes on.")
    if config.finetune is not None:
        require_shareable(TuneOptions.from_dict(config.finetune["options"]), ranks)
    stores = [] if clips is None else [clips.store]
    held = open_stores(config, known=stores)
    networks = None if clips is None else clips.networks
    memory = PeakMemory(device)
    try:
        sources = find_sources(config.features, stores or held, held if stores else ())
        videos = [video for split in config.split.values() for video in split]
        if rows_digest(sources, videos) != config.rows_sha256:
            raise SpecMismatchError("the stores' rows have changed since the run began. Start a new run.")
        windows = run_windows(config, sources, videos, labels, device, clips)
        index = {video: number for number, video in enumerate(videos)}
        members = {name: [index[video] for video in split] for name, split in config.split.items()}
        training = prepare(config, windows, members, run, observer, networks, ranks)
        training.memory = memory
        if clips is not None:
            training.command = "finetune"
            if ranks.first:
                check_tuning(training, clips, sources)
            ranks.wait()
        training.run()
        trained = load_run(run, device, networks)
        ranks.copy_first(trained.model.state_dict().values())  # whatever a network file system still shows the others
        if ranks.first and clips is not None:
            write_stored_run(trained, labels)
        predictions = {}
        for name in ("val", "test"):
            if members[name]:
                out = run / f"{name}.zarr"
                if ranks.first:
                    disk.remove_tree(out)  # of an attempt that did not finish
                counted = [*config.split[name], *config.absent[name]]
                kept = labels.only(config.matched[video] for video in counted).to_dict()
                keep = config.training.keep_windows
                write_scores(
                    out,
                    trained,
                    windows,
                    members[name],
                    expected=counted,
                    split=name,
                    labels=kept,
                    keep_windows=keep,
                    ranks=ranks,
                )
                predictions[name] = str(out)
        if not ranks.first:
            return {}
        result = outcome(config, training, members["train"], predictions, memory)
        write_json(run / "result.json", result)
        return result
    finally:
        for store in (*stores, *held):
            store.close()


def require_shareable(options: TuneOptions, ranks: Ranks) -> None:
    """HeadError for batch norm that is tuned by several processes: each would take the statistics of its share."""
    if ranks.world > 1 and options.batch_norm == "tuned":
        raise HeadError(
            "batch_norm=tuned takes its statistics from all clips of a batch, and each process sees its share alone. "
            "Train with --batch-norm frozen, or in one process."
        )


def prepare(
    config: RunConfig,
    windows: Windows | SampledWindows,
    members: Mapping[str, Sequence[int]],
    run: Path,
    observer: Observer,
    networks: Mapping[str, ClipNetwork] | None = None,
    ranks: Ranks = ALONE,
) -> Training:
    """The model with its first weights, drawn from the seed, and everything that trains it."""
    torch.manual_seed(config.training.seed)
    with torch.random.fork_rng(devices=[]):  # the same first weights on every device
        model = build_model(config, networks).to(windows.device)
    if config.init is not None:
        load_initial(model, run, config)
    elif config.training.standardise:
        if ranks.first and not (networks and (run / "last.safetensors").exists()):  # else it is kept
            model.standardise.set_statistics(windows.statistics(members["train"]))
        ranks.copy_first(model.standardise.buffers())
    windows.fill_missing(model.standardise.means)
    of_videos = [np.atleast_2d(windows.labels_of(video)).max(axis=0) for video in members["train"]]
    model.head.learn_labels(torch.from_numpy(np.stack(of_videos)).to(windows.device))
    return Training(model, windows, members["train"], members["val"], config.training, run, observer, ranks)


def run_windows(
    config: RunConfig,
    sources: Sequence[Source],
    videos: Sequence[str],
    labels: Labels,
    device: torch.device,
    clips: Videos | None = None,
) -> Windows | SampledWindows:
    """All videos of a run with their labels."""
    options, level = config.training, head_class(config.head).level
    if sources[0].spec.view:
        return SampledWindows(
            sources,
            videos,
            device=device,
            labels=lambda video, times: clip_labels(labels, config.matched[video], times, options.boundary),
            video_labels=lambda video: labels.video(config.matched[video]),
            resident=options.resident,
        )

    def label_rows(video: str, times: NDArray[np.float64]) -> NDArray[np.int8]:
        named = config.matched[video]
        if level == "video":
            return labels.video(named)
        return labels.rows(named, times, options.label_at, options.boundary)

    if clips is not None:
        return ClipWindows(sources, videos, device=device, clips=clips, seed=options.seed, labels=label_rows)
    return Windows(sources, videos, device=device, labels=label_rows, resident=options.resident)


def find_device(name: str) -> torch.device:
    """`cpu`, `cuda`, `cuda:1`, or `auto`: the GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise HeadError(f"a device is auto, cpu, cuda or cuda:N, not '{printable(name)}'.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise HeadError(f"there is no {device}: this machine shows {torch.cuda.device_count()} CUDA devices.")
    return device


def open_stores(config: RunConfig, known: Sequence[FeatureStore] = ()) -> list[FeatureStore]:
    """The stores of a run's features but for those that are known, in the order of their first mention."""
    paths = dict.fromkeys(str(entry["store"]) for entry in config.features)
    return [open_store(path) for path in paths if path not in {str(store.path.resolve()) for store in known}]
