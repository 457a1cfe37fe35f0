"""Training: a short loop that can be cut off anywhere and goes on with the same numbers.

A checkpoint holds weights, optimiser, random states and how far the epoch has come; the learning rate is a
function of the step, and an epoch's batches are a function of seed and epoch, so neither needs keeping.

Shape letters: N rows, V videos, C classes.
"""

from __future__ import annotations

import copy
import csv
import dataclasses
import io
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from heads.checkpoint import load_tensors, save_tensors
from heads.cost import PeakMemory
from heads.events import Events
from heads.head import Batch, HeadError
from heads.loss import balancing_weights, known_labels
from heads.metrics import frame_map, video_map
from heads.metrics_tagging import global_average_precision
from heads.optimise import learning_rate, make_optimizer
from heads.options import TrainOptions
from heads.plan import Crops, training_crops, training_videos
from heads.predict import Reading, autocast, score_videos
from heads.ranks import ALONE, Ranks
from heads.samples import SampledWindows
from heads.standardise import Model
from heads.stopping import StopSignal, stop_signal
from heads.windows import Windows
from stores import disk

VALIDATIONS = 40  # about so many in a run that does not say how often
SELECTION: Mapping[
    tuple[str, str], tuple[str, Callable[..., float]]
] = {  # level and --set select -> the protocol of the score that chooses the epoch, and what computes it
    ("row", "map"): ("frame-map", frame_map),
    ("video", "map"): ("video-map", video_map),
    ("video", "gap"): ("gap", global_average_precision),
}
PLATEAU_FACTOR = 0.1
RANK_SEEDS = 1_000_003  # between the seeds of two processes


@dataclass(frozen=True)
class Epoch:
    """A line of metrics.csv."""

    epoch: int  # from 1
    loss: float  # mean over the batches
    val: float | None  # mAP of the validation videos; None where the epoch was not validated
    lr: float  # of the last step
    seconds: float


class Observer(Protocol):
    """Whoever shows how training goes."""

    def note(self, text: str) -> None:
        """Something that people should know."""

    def step(self, done: int, total: int) -> None:
        """So many of all updates are done."""

    def epoch(self, epoch: Epoch, best: bool) -> None:
        """An epoch is done; `best`: no validation was better."""


@dataclass
class Position:
    """How far a run has come, in JSON types."""

    epoch: int = 0  # whole epochs done
    batch: int = 0  # batches done in the running one
    best: float | None = None
    best_epoch: int | None = None
    since_best: int = 0  # validations
    since_drop: int = 0  # validations that were no better, since the last one that was or the last drop of the rate
    drops: int = 0  # of the rate, by plateau
    seconds: float = 0.0  # spent in the running epoch
    events: int = 0  # bytes of the event file
    peak_memory: int = 0  # bytes
    history: list[dict[str, Any]] = field(default_factory=list)


class Training:
    """One model on its way through the epochs, with everything that a checkpoint keeps.

    Args:
        model: with fresh weights; those of `folder` replace them if the run was there before.
        windows: with labels.
        train: indices of the videos to learn from.
        val: indices of those that choose the epoch; empty: the last epoch is kept.
        options: how.
        folder: of the run; checkpoints and metrics go there.
        observer: is told.
        ranks: the processes that train this model together.
    """

    def __init__(
        self,
        model: Model,
        windows: Windows | SampledWindows,
        train: Sequence[int],
        val: Sequence[int],
        options: TrainOptions,
        folder: Path,
        observer: Observer,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self.ranks = ranks
        self.windows = windows
        self.train = train
        self.val = val
        self.options = options
        self.folder = folder
        self.observer = observer
        self.level = model.head.level
        self.optimizer = make_optimizer(model, options, windows.device)
        self.position = Position()
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=windows.device)
        self.batches_an_epoch = len(self.plan(0))
        if not self.batches_an_epoch:
            raise HeadError("no training video has a row. 'vl info' shows what the store holds.")
        self.steps_an_epoch = -(-self.batches_an_epoch // options.accumulate)
        dtype = next(model.parameters()).dtype
        self.known = torch.zeros((), dtype=dtype, device=windows.device)  # labels in the gradient, if that is a sum
        self.class_weights = self.balance() if options.class_weights == "balanced" else None
        self.averaged = copy.deepcopy(model) if options.ema else None
        self.epochs = options.epochs or math.ceil(options.steps / self.steps_an_epoch)
        self.eval_every = options.eval_every or max(1, self.epochs // VALIDATIONS)
        self.events = Events(folder, self.epochs * self.steps_an_epoch)
        self.memory: PeakMemory | None = None  # whoever wants to know the memory starts measuring before the rows load
        self.command = "train-head"  # that goes on with the run
        self.saved_at = time.monotonic()

    @property
    def sums(self) -> bool:
        """Whether a gradient is put together of several parts, each of which counts by its known labels."""
        return self.options.accumulate > 1 or self.ranks.world > 1

    def balance(self) -> Tensor:
        """(C,) weights of positive labels, from the labels of the training videos."""
        tables = self.windows.label_tables(self.train)
        positives_C = sum((table == 1).sum(axis=0) for table in tables)
        known_C = sum((table >= 0).sum(axis=0) for table in tables)
        weights_C = balancing_weights(np.asarray(positives_C), np.asarray(known_C))
        return torch.from_numpy(weights_C).to(self.windows.device)

    def plan(self, epoch: int) -> list[Crops]:
        """The batches of an epoch."""
        options, rows_V = self.options, self.windows.rows_V
        if isinstance(self.windows, SampledWindows):
            return self.windows.training_batches(
                self.train, batch_size=options.batch_size, seed=options.seed, epoch=epoch
            )
        if self.level == "video":
            return training_videos(rows_V, self.train, batch_size=options.batch_size, seed=options.seed, epoch=epoch)
        return training_crops(
            rows_V,
            self.train,
            window=options.window,
            batch_size=options.batch_size,
            seed=options.seed,
            epoch=epoch,
            variable_length=options.variable_length,
        )

    def run(self) -> Position:
        """Train to the end, from the last checkpoint if there is one.

        Raises:
            InterruptedRunError: a signal came; the run is saved.
            HeadError: the loss is no number any more.
        """
        self.restore()
        places = {(place.epoch, place.batch) for place in self.ranks.gather(self.position)}
        if len(places) > 1:
            raise HeadError(f"the processes found different checkpoints: {self.folder} must be one folder for all.")
        with stop_signal() as stop:
            while self.position.epoch < self.epochs and not self.out_of_patience:
                self.run_epoch(stop)
                self.close_epoch(stop)
            self.save()
        return self.position

    def run_epoch(self, stop: StopSignal) -> None:
        """The batches of the running epoch that are left."""
        position, began = self.position, time.monotonic()
        self.model.train()
        left = self.plan(position.epoch)[position.batch :]
        shares = [self.ranks.share(crops) for crops in left]
        for whole, batch in zip(left, self.windows.batches(shares, position.epoch), strict=True):
            loss = self.add_gradient(batch, self.ranks.has_share(whole))
            position.batch += 1
            if position.batch % self.options.accumulate and position.batch < self.batches_an_epoch:
                continue  # the gradient is not kept by checkpoints: to stop here would lose it
            done = position.epoch * self.steps_an_epoch + -(-position.batch // self.options.accumulate)
            self.update(done - 1)
            self.events.loss(done, loss)
            self.observer.step(done, self.epochs * self.steps_an_epoch)
            due = time.monotonic() - self.saved_at >= self.options.checkpoint_seconds
            due_anywhere = self.agree(stop, due)
            if stop.number is not None or due_anywhere:
                position.seconds += time.monotonic() - began
                began = time.monotonic()
                self.save()
                self.leave_if_asked(stop)
        position.seconds += time.monotonic() - began

    def add_gradient(self, batch: Batch, counts: bool = True) -> Tensor:
        """Of the loss of one batch, which is returned; of several to an update each counts by its known labels.

        Of several processes, each has a share of the batch, which may not count; the loss is that of the whole batch.
        """
        batch.class_weights = self.class_weights
        with autocast(self.windows.device, self.options.precision):
            scores = self.model(batch)
        loss = self.model.head.loss(scores, batch)
        mean = loss.detach()
        if self.sums:
            count = known_labels(batch, scores.logits)[1].sum() * counts
            self.known += count
            loss = loss * count
            if self.ranks.world > 1:
                total, counted = self.ranks.add_up(torch.stack([loss.detach(), count])).unbind()
                mean = total / counted.clamp(min=1)
        self.loss_sum += mean
        torch.autograd.backward(loss)
        return mean

    def update(self, step: int) -> None:
        """Change the weights by the gradient; `step` counts updates from 0."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(step) * group["lr_share"]
        weights: list[Tensor] = list(self.model.parameters())
        if self.sums:
            self.ranks.add_up_gradients(weights)
            self.ranks.add_up(self.known)
            gradients = [tensor.grad for tensor in weights if tensor.grad is not None]
            torch._foreach_div_(gradients, self.known.clamp(min=1))
            self.known.zero_()
        if self.options.clip:
            torch.nn.utils.clip_grad_norm_(weights, self.options.clip)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            decay = min(self.options.ema, (1 + step) / (10 + step))  # so that the first weights are soon forgotten
            with torch.no_grad():
                torch._foreach_lerp_(list(self.averaged.parameters()), weights, 1 - decay)

    def rate(self, step: int) -> float:
        """The learning rate of an update, counted from 0."""
        planned = learning_rate(step, self.epochs * self.steps_an_epoch, self.options)
        return planned * PLATEAU_FACTOR**self.position.drops

    @property
    def judged(self) -> Model:
        """The model that is validated and kept: with averaged weights, where there are some."""
        return self.model if self.averaged is None else self.averaged

    def close_epoch(self, stop: StopSignal) -> None:
        """Validate where it is due, keep the weights if they are the best, write the epoch's line."""
        position, began = self.position, time.monotonic()
        number = position.epoch + 1
        loss = float(self.loss_sum) / self.batches_an_epoch
        if not math.isfinite(loss):
            raise HeadError(
                f"the loss of epoch {number} is {loss}. Train again with a lower lr (now {self.options.lr})."
            )
        lr = self.rate(number * self.steps_an_epoch - 1)  # before this validation lowers it
        due = number % self.eval_every == 0 or number == self.epochs
        score = self.validate(stop) if due else None
        best = due and (score is None or position.best is None or score > position.best)
        if best:
            position.best, position.best_epoch = score, number
            state = {"epoch": number, "val": score}
            if self.ranks.first:
                save_tensors(self.folder / "best.safetensors", self.judged.state_dict(), state)
        if due:
            position.since_best = 0 if best else position.since_best + 1
            position.since_drop = 0 if best else position.since_drop + 1
            if self.options.schedule == "plateau" and position.since_drop > self.options.plateau_patience:
                position.drops, position.since_drop = position.drops + 1, 0
        epoch = Epoch(number, loss, score, lr, position.seconds + time.monotonic() - began)
        position.history.append(dataclasses.asdict(epoch))
        position.epoch, position.batch, position.seconds = number, 0, 0.0
        self.loss_sum.zero_()
        self.events.epoch(number * self.steps_an_epoch, loss, lr, score)
        if due:  # a file of so many epochs, written after each, would take longer than they do
            self.write_curves()
        self.observer.epoch(epoch, best)

    def write_curves(self) -> None:
        """What people look at while the run goes on: metrics.csv, and the events for TensorBoard."""
        if not self.ranks.first:
            return
        disk.write_atomically(self.folder / "metrics.csv", metrics_csv(self.position.history))
        self.position.events = self.events.write()

    def validate(self, stop: StopSignal) -> float | None:
        """The score of the validation videos that chooses the epoch; None where none of them has a positive label."""
        if not self.val:
            return None
        found: dict[int, NDArray[np.float32]] = {}
        own = self.ranks.own(self.val)
        for video, of_video in score_videos(self.judged, self.windows, own, reading(self.model, self.options)):
            found[video] = of_video
            if stop.number is not None:
                break
        self.agree(stop)
        if stop.number is not None:
            self.save()
            self.leave_if_asked(stop)
        for of_others in self.ranks.gather(found):
            found |= of_others
        scores = [found[video] for video in self.val if video in found]
        labels = [self.windows.labels_of(video).reshape(found[video].shape) for video in self.val if video in found]
        _, metric = SELECTION[self.level, self.options.select]
        table = np.concatenate(labels)
        if self.options.select == "gap" and (table < 0).any():
            raise HeadError("select=gap cannot leave out labels that are unknown; select=map can.")
        score = metric(np.concatenate(scores), table)
        return None if math.isnan(score) else score

    @property
    def out_of_patience(self) -> bool:
        """Whether validation has not improved for as long as the options allow."""
        return 0 < self.options.patience <= self.position.since_best

    def agree(self, stop: StopSignal, due: bool = False) -> bool:
        """Whether a checkpoint is due in any process; a signal that one has got becomes everybody's."""
        signalled, due_anywhere = self.ranks.highest([stop.number or 0, int(due)])
        stop.number = signalled or None
        return bool(due_anywhere)

    def leave_if_asked(self, stop: StopSignal) -> None:
        """Raise if a signal came; the caller has saved."""
        if stop.number is not None:
            raise stop.error(self.folder, self.command)

    def save(self) -> None:
        """Everything that the next step depends on, in one file, durably and at once; all processes come here."""
        device = self.windows.device
        on_gpu = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        random = self.ranks.gather((torch.get_rng_state(), on_gpu))
        if not self.ranks.first:
            self.saved_at = time.monotonic()
            return
        self.write_curves()
        if self.memory is not None:
            self.position.peak_memory = max(self.position.peak_memory, self.memory.highest)
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in state.items() if tensor is not None}
        if self.averaged is not None:
            tensors |= {f"averaged.{name}": tensor for name, tensor in self.averaged.state_dict().items()}
        for rank, (of_cpu, of_gpu) in enumerate(random):
            tensors[random_name("cpu", rank)] = of_cpu
            if of_gpu is not None:
                tensors[random_name("cuda", rank)] = of_gpu
        tensors["loss_sum"] = self.loss_sum
        save_tensors(self.folder / "last.safetensors", tensors, dataclasses.asdict(self.position))
        self.saved_at = time.monotonic()

    def restore(self) -> None:
        """What `save` wrote, if it ever did."""
        path = self.folder / "last.safetensors"
        if not path.exists():
            if not self.ranks.first:  # the first has the state that the weights were drawn with
                torch.manual_seed(self.options.seed + RANK_SEEDS * self.ranks.rank)
            return
        tensors, state = load_tensors(path)
        for kind, model in (("model.", self.model), ("averaged.", self.averaged)):
            if model is not None:
                named = {name: tensor for name, tensor in tensors.items() if name.startswith(kind)}
                model.load_state_dict({name.removeprefix(kind): tensor for name, tensor in named.items()})
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            if kind == "optimizer":
                index, _, slot = rest.partition(".")
                states.setdefault(int(index), {})[slot] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": states, "param_groups": groups})
        own, own_gpu = (random_name(kind, self.ranks.rank) for kind in ("cpu", "cuda"))
        if own in tensors:
            torch.set_rng_state(tensors[own])
        else:  # there are more processes now
            torch.manual_seed(self.options.seed + RANK_SEEDS * self.ranks.rank)
        if own_gpu in tensors and self.windows.device.type == "cuda":
            torch.cuda.set_rng_state(tensors[own_gpu], self.windows.device)
        self.loss_sum.copy_(tensors["loss_sum"])
        self.position = Position(**state)
        if not self.events.resume(self.position.events):
            for entry in self.position.history:
                done = entry["epoch"] * self.steps_an_epoch
                self.events.epoch(done, entry["loss"], entry["lr"], entry["val"])
        self.observer.note(f"going on after {self.position.epoch} epochs and {self.position.batch} batches")


def random_name(kind: str, rank: int) -> str:
    """What a checkpoint calls the state of one process's random numbers, on the "cpu" or its "cuda"."""
    return f"random.{kind}.{rank}" if rank else f"random.{kind}"


def reading(model: Model, options: TrainOptions) -> Reading:
    """How the rows are cut into windows for scoring: the same for choosing the model and for using it."""
    return Reading(model.head.level, options.window, options.stride, options.batch_size, options.precision)


def metrics_csv(history: Sequence[dict[str, Any]]) -> bytes:
    """The lines of all epochs, with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [entry.name for entry in dataclasses.fields(Epoch)])
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()
