"""One table of all heads that fit some stores: trained on the same split and seeds, scored on the same test videos.

    OUT/runs/HEAD-seedN    one run each, as 'vl train-head' makes them

A run that is finished is never trained again and an unfinished one goes on, so that a table that was cut off does too.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from heads.checkpoint import create_run, read_json
from heads.head import HEADS, Head, HeadError, head_class
from heads.options import TrainOptions, split_settings
from heads.report import Report
from heads.run import carry_out
from heads.run_plan import RunPlan, attached_labels, plan_run, require_begun_with
from heads.scoring import Question, score_store
from heads.train import Observer
from stores.errors import DamageError, InterruptedRunError, NoSpaceError, StoreError, VlError
from stores.labels import Labels
from stores.names import printable
from stores.spec import FeatureStore

ROW_PROTOCOL, VIDEO_PROTOCOL = "frame-map", "video-map"


@dataclass(frozen=True)
class Planned:
    """One run of the table."""

    head: str
    seed: int
    folder: Path
    plan: RunPlan

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to train."""
        return (self.folder / "result.json").is_file()


@dataclass(frozen=True)
class TablePlan:
    """What will be trained, and what cannot be."""

    runs: tuple[Planned, ...]  # head by head
    unfit: Mapping[str, str]  # head -> why not


@dataclass(frozen=True)
class Spread:
    """A score over several seeds."""

    mean: float
    sd: float | None  # of n - 1; None of one seed

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Spread | None:
        """Of those that are numbers; None if there are none.

        >>> Spread.of([1.0, 3.0, None])
        Spread(mean=2.0, sd=1.4142135623730951)
        """
        known = [value for value in values if value is not None and value == value]
        if not known:
            return None
        return cls(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None)


@dataclass(frozen=True)
class Line:
    """One head."""

    head: str
    level: str  # what it scores: row or video
    sets: tuple[str, ...]  # feature sets that it reads; the rows of the first are scored
    video: Spread | None  # test mAP over videos, of a row head by its highest row
    rows: Spread | None  # test mAP over rows; row heads alone
    val: Spread | None
    val_protocol: str
    video_chance: float | None  # what scores that say nothing get there
    rows_chance: float | None
    videos_scored: int
    videos_expected: int
    parameters: int
    multiply_adds: int  # of a forward pass over so many rows:
    pass_rows: int
    seconds_per_epoch: float | None  # median of the seeds' medians
    peak_memory: int  # bytes, the most of all seeds
    peak_memory_of: str
    seeds: tuple[int, ...]  # those that were trained to their end
    random_weights: bool


@dataclass(frozen=True)
class Table:
    """All of it."""

    lines: tuple[Line, ...]  # best video score first
    unfit: Mapping[str, str]  # head -> why it was not trained
    failed: Mapping[str, str]  # HEAD-seedN -> what went wrong

    @property
    def random_weights(self) -> bool:
        """Whether any feature came from a network that was never trained."""
        return any(line.random_weights for line in self.lines)


class TableObserver(Protocol):
    """Whoever shows how a table comes along."""

    def training(self, run: Planned, number: int, total: int) -> AbstractContextManager[Observer]:
        """Run `number` of `total` begins or goes on; the context watches it."""

    def failed(self, run: Planned, error: Exception) -> None:
        """A run broke; the others go on."""


def parse_settings(words: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """What `--set` says for each head: `HEAD:key=value` for one, `key=value` of the training for all.

    Raises:
        HeadError: there is no such head, or an option for all heads that their training does not have.
    """
    parsed: list[tuple[str | None, str]] = []
    for word in words:
        key, _, _ = word.partition("=")
        head, colon, _ = key.partition(":")
        if colon:
            head_class(head)
            parsed.append((head, word.partition(":")[2]))
        elif key in TrainOptions.__dataclass_fields__:
            parsed.append((None, word))
        else:
            raise HeadError(
                f"training has no option '{printable(key)}'. For an option of one head write HEAD:{printable(word)}."
            )
    return lambda name: tuple(word for head, word in parsed if head in (None, name))


def plan_table(
    folder: Path,
    stores: Sequence[FeatureStore],
    labels: Labels | None,
    *,
    heads: Sequence[str] = (),
    settings: Sequence[str] = (),
    sets: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1, 2),
    lists: Mapping[str, Path] | None = None,
    label_source: str = "attached to the store",
) -> TablePlan:
    """Settle every run; nothing is written.

    Args:
        folder: of the table.
        stores: feature stores, joined by video.
        labels: None takes those attached to the first store that has some.
        heads: names; empty takes all that there are.
        settings: as `parse_settings` has them.
        sets: names of feature sets; each head takes those of them that it can; empty: all that it can.
        seeds: of weights and batches; the first also splits videos where neither lists nor labels do.
        lists: split name to a file of ids.

    Raises:
        HeadError: no head fits, a set is not there, or a run that lies there was begun with other settings.
    """
    words_for = parse_settings(settings)
    held = sorted(name for store in stores for name in store)
    if unknown := [name for name in sets if name not in held]:
        raise HeadError(f"there is no set '{printable(unknown[0])}'; there is {', '.join(held) or 'none'}.")
    labels = labels or attached_labels(stores)
    runs: list[Planned] = []
    unfit: dict[str, str] = {}
    for name in dict.fromkeys(heads or sorted(HEADS)):
        kind = head_class(name)
        for seed in seeds:
            options, training = split_settings(kind, (*words_for(name), f"seed={seed}"))
            try:
                plan = plan_run(
                    name,
                    stores,
                    labels,
                    options=options,
                    training=training,
                    sets=sets_for(kind, stores, sets, options),
                    lists=lists,
                    split_seed=seeds[0],
                    label_source=label_source,
                )
            except DamageError:
                raise
            except (HeadError, StoreError) as error:
                unfit[name] = str(error)
                break
            run = Planned(name, seed, folder / "runs" / f"{name}-seed{seed}", plan)
            if (run.folder / "config.json").exists():
                require_begun_with(run.folder, plan.config)
            runs.append(run)
    if not runs:
        raise HeadError("no head fits. " + " ".join(f"{name}: {reason}" for name, reason in unfit.items()))
    return TablePlan(tuple(runs), unfit)


def sets_for(
    head: type[Head], stores: Sequence[FeatureStore], wanted: Sequence[str], options: Mapping[str, Any]
) -> Sequence[str]:
    """Those of the wanted sets that the head reads; all of them if it reads none, for the error to name."""
    specs = {name: store[name].spec for store in stores for name in store}
    roles = head.roles_for(options)
    return [name for name in wanted if head.role_of(specs[name]) in roles] or wanted


def make_table(plan: TablePlan, *, device: torch.device, observer: TableObserver) -> Table:
    """Train what is not trained yet and score everything.

    Raises:
        InterruptedRunError: a signal came; calling again goes on.
        NoSpaceError: no run could write any more.
    """
    failed: dict[str, str] = {}
    for number, run in enumerate(plan.runs, start=1):
        if run.finished:
            continue
        try:
            if not (run.folder / "config.json").exists():
                create_run(run.folder, run.plan.config, run.plan.labels)
            with observer.training(run, number, len(plan.runs)) as watching:
                carry_out(run.folder, device=device, observer=watching)
        except InterruptedRunError as error:
            again = InterruptedRunError(f"stopped while {run.folder.name} trained; the same command goes on.")
            again.exit_code = error.exit_code
            raise again from error
        except NoSpaceError:
            raise
        except (VlError, RuntimeError, MemoryError) as error:  # of torch, memory that is not there is the second
            failed[run.folder.name] = str(error).strip().partition("\n")[0] or type(error).__name__
            observer.failed(run, error)
    heads = dict.fromkeys(run.head for run in plan.runs if run.finished)
    lines = [line_of([run for run in plan.runs if run.head == head and run.finished]) for head in heads]
    lines.sort(key=lambda line: -line.video.mean if line.video else 1.0)
    return Table(tuple(lines), plan.unfit, failed)


def line_of(runs: Sequence[Planned]) -> Line:
    """The line of one head from its finished runs."""
    results = [read_json(run.folder / "result.json") for run in runs]
    level = head_class(runs[0].head).level
    video = [report for run in runs if (report := _report(run, VIDEO_PROTOCOL))]
    rows = [report for run in runs if level == "row" and (report := _report(run, ROW_PROTOCOL))]
    costs = [result["cost"] for result in results]
    seconds = [cost["seconds_per_epoch"] for cost in costs if cost["seconds_per_epoch"] is not None]
    return Line(
        head=runs[0].head,
        level=level,
        sets=tuple(str(entry["set"]) for entry in runs[0].plan.config.features),
        video=Spread.of([report.score for report in video]),
        rows=Spread.of([report.score for report in rows]),
        val=Spread.of([result["val"]["score"] for result in results]),
        val_protocol=results[0]["val"]["protocol"],
        video_chance=video[0].chance if video else None,
        rows_chance=rows[0].chance if rows else None,
        videos_scored=video[0].scored if video else 0,
        videos_expected=video[0].scored + len(video[0].missing) if video else 0,
        parameters=costs[0]["parameters"],
        multiply_adds=costs[0]["multiply_adds"],
        pass_rows=costs[0]["rows"],
        seconds_per_epoch=statistics.median(seconds) if seconds else None,
        peak_memory=max(cost["peak_memory"] for cost in costs),
        peak_memory_of=costs[0]["peak_memory_of"],
        seeds=tuple(run.seed for run in runs),
        random_weights=any(result["random_weights"] for result in results),
    )


def _report(run: Planned, protocol: str) -> Report | None:
    """The run's test videos under a protocol; None where it has no test videos."""
    scores = run.folder / "test.zarr"
    return score_store(scores, Question(protocol=protocol, allow_missing=True)) if scores.exists() else None
