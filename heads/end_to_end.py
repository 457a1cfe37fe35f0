"""A head and the networks whose rows it reads, trained together; any number of rows in bounded memory.

The gradient goes through the rows in two passes. Rows are made in chunks of so many clips, and of a chunk nothing is
kept but its rows; the head runs forward and backward over all rows of the video, which gives the gradient of every
row; then one chunk after the other is run again, this time keeping its activations, and sent backward with its rows'
gradient. Peak memory is that of one chunk and of the head, whatever the length of the video; the cost is a second
forward pass, 4/3 of the work. The very last chunk, which is the first to be sent backward, is kept and not run again.
The gradient is that of one pass, because a clip's rows depend on no other clip: batch norm uses the statistics that it
came with, and dropout draws the same numbers again. PyTorch's checkpoint is the mechanism: a chunk is one checkpointed
function.

Where batch norm is tuned, it takes its statistics from all clips of a batch, so these go through at once.

A network gives one row of a clip, or several: maps, and convolutions over all frames, have one for each of its output
time steps.

Shape letters: B windows, N rows of a window, K clips of a batch, S rows that a clip gives, R real rows of a batch, T
frames of a clip, H height, W width, F frames, J spectrogram frames, M mel bands, or rows that make up a row.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from heads.head import Batch, Head, HeadError, Scores, wide
from heads.standardise import Model
from stores.names import printable
from stores.spec import Granularity

CHUNK = 8  # clips; of R(2+1)D-18 at 12 frames of 112 x 112 they take 2.8 GiB


@dataclass(frozen=True)
class TuneOptions:
    """How the networks under a head are trained; the head has its own options, and both have the trainer's."""

    learning: tuple[str, ...] = ()  # feature sets whose networks learn; the others stay as they came
    backbone_lr: float = 5e-6  # the highest of the schedule, for the networks; STAN's authors' for all weights
    batch_norm: Literal["frozen", "tuned"] = "frozen"  # whether statistics are those of the batch
    freeze: tuple[str, ...] = ()  # patterns of weights that stay as they came
    chunk: int = CHUNK  # clips at once; 0: all
    checkpoint_activations: bool = False  # keep what goes between the network's parts alone, and compute the rest again

    def __post_init__(self) -> None:
        if not self.backbone_lr > 0:
            raise HeadError(f"backbone_lr is a positive number, not {self.backbone_lr}.")
        if self.batch_norm not in ("frozen", "tuned"):
            raise HeadError(f"batch_norm is frozen or tuned, not '{printable(self.batch_norm)}'.")
        if self.chunk < 0:
            raise HeadError(f"chunks have 1 clip or more, or 0 for all at once, not {self.chunk}.")
        if self.batch_norm == "tuned" and (self.chunk or self.checkpoint_activations):
            raise HeadError(
                "batch_norm=tuned takes its statistics from all clips of a batch in one pass: it goes with "
                "--chunk-scenes 0 and without --checkpoint-activations."
            )

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> TuneOptions:
        """The options of a run's config."""
        return cls(**{**fields, "learning": tuple(fields["learning"]), "freeze": tuple(fields["freeze"])})


class ClipNetwork(NamedTuple):
    """A network that makes rows of clips, as whoever joins it to a head hands it over.

    `module(frames, levels)` takes (B, T, H, W, 3) uint8 and a set of granularities, and gives for each of them
    (B, S, *row_shape), S = 1 but for maps: what every backbone of `extract` does. `module(frames, levels, True)` is one
    convolution over all frames of a clip, which has a row for each output time step.
    """

    module: nn.Module
    name: str  # as weights are called by, "resnet18"
    level: Granularity  # of its rows
    clip_shape: tuple[int, ...]  # (T, H, W, 3), of the longest clip; of sound (T, J, M), of float32
    dtype: torch.dtype = torch.uint8
    convolutional: bool = False
    rows: int | None = None  # of the longest clip that are wanted; None: all that it gives

    def arguments(self, frames: Tensor) -> tuple[Any, ...]:
        """What the module is called with for (B, T, H, W, 3) frames."""
        levels = frozenset({self.level})
        return (frames, levels, True) if self.convolutional else (frames, levels)

    def empty_clip(self) -> Tensor:
        """(1, T, H, W, 3) of no memory, to count with."""
        return torch.empty(1, *self.clip_shape, dtype=self.dtype, device="meta")


Clips = tuple[Tensor, tuple[Tensor, ...], Tensor]
"""(F, H, W, 3) uint8 frames, or (F, J, M) float32 pieces of a spectrogram; K times (T,) which of them make up each
clip, of whatever length; and (K, 2) which of the rows that a clip gives are wanted, from and up to. On the CPU."""


Gathered = tuple[Tensor, Tensor]
"""(B, N, M) rows that make up each row of a batch, and their weights, which sum to 1, or to 0 where there is none."""


@dataclass
class ClipBatch(Batch):
    """A batch with rows that are still clips: their roles are not in `features` until networks have seen them."""

    clips: dict[str, Clips] = field(default_factory=dict)  # by feature set; real rows of all windows, one after another
    joins: dict[str, Gathered] = field(default_factory=dict)  # of the sets whose rows have times of their own


class Trunk(nn.Module):
    """A network under a head: clips to rows, learning or not."""

    def __init__(self, network: ClipNetwork, options: TuneOptions, learns: bool) -> None:
        super().__init__()
        self.backbone, self.name, self.level = network.module, network.name, network.level
        self.form = network._replace(module=nn.Identity())  # what is said of it, without its weights
        self.tunes_batch_norm = options.batch_norm == "tuned"
        used = used_weights(network) if learns else set()
        for name, weight in self.backbone.named_parameters():
            weight.requires_grad_(name in used and not frozen(self.name, name, options.freeze))
        if self.learns and options.checkpoint_activations:
            checkpoint_parts(self.backbone)

    @property
    def learns(self) -> bool:
        """Whether any of its weights does."""
        return any(weight.requires_grad for weight in self.backbone.parameters())

    @cached_property
    def row_shape(self) -> tuple[int, ...]:
        """Of a row that it makes."""
        return clip_rows(self)[1:]

    def train(self, mode: bool = True) -> Trunk:
        """Training mode for what learns; batch norm keeps the statistics that it came with, unless it is tuned."""
        super().train(mode and self.learns)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.train(self.training and self.tunes_batch_norm and any_learns(module))
        return self

    def forward(self, frames: Tensor, index_KT: Tensor, place: Tensor) -> Tensor:
        """(F, H, W, 3) frames, of which each clip has those of a row of `index_KT`, to rows (K, S, *row_shape).

        Args:
            place: any tensor on the network's device: by it, a checkpoint knows whose random numbers to draw again.
        """
        clips = frames[index_KT]
        if place.device.type == "cuda":
            clips = clips.pin_memory().to(place.device, non_blocking=True)
        rows: Tensor = self.backbone(*self.form.arguments(clips.to(place.device)))[self.level]
        return rows


class EndToEnd(Model):
    """Standardisation and head over networks that see the clips themselves; also takes rows, as a plain model does.

    Args:
        networks: feature set to the network that makes its rows; copied, so that several models never share weights.
            Rows of roles without networks come with the batches.
        learning: sets whose networks learn.
        roles: set to the role of its rows, where that has another name. The rows of several sets of one role are
            concatenated in the order of `networks`.

    Raises:
        HeadError: a pattern of `options.freeze` names no weight, or leaves no network anything to learn.
    """

    def __init__(
        self,
        head: Head,
        widths: Mapping[str, int],
        networks: Mapping[str, ClipNetwork],
        learning: Iterable[str],
        options: TuneOptions,
        roles: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(head, widths)
        self.options = options
        self.roles = {name: (roles or {}).get(name, name) for name in networks}
        require_known(options.freeze, head, networks.values())
        chosen = set(learning)
        self.trunks = nn.ModuleDict(
            {
                part_name(name): Trunk(network._replace(module=copy.deepcopy(network.module)), options, name in chosen)
                for name, network in networks.items()
            }
        )
        if not any(weight.requires_grad for weight in self.trunks.parameters()):
            raise HeadError("no network learns: all is frozen. 'vl train-head' trains a head on stored features.")
        for name, weight in head.named_parameters():
            if frozen("head", name, options.freeze):
                weight.requires_grad_(False)

    def forward(self, batch: Batch) -> Scores:
        """The head's scores of clips, or of rows."""
        if isinstance(batch, ClipBatch):
            *_, last = batch.clips
            parts: dict[str, list[Tensor]] = {}
            for name in batch.clips:
                of_role = parts.setdefault(self.roles[name], [])
                first = sum(rows.shape[-1] for rows in of_role)
                of_role.append(self.features(name, batch, first, keep=name == last))
            made = {
                role: of_role[0] if len(of_role) == 1 else torch.cat(of_role, -1) for role, of_role in parts.items()
            }
            batch = dataclasses.replace(batch, features={**batch.features, **made})
        return super().forward(batch)

    def features(self, name: str, batch: ClipBatch, first: int = 0, keep: bool = False) -> Tensor:
        """(B, N, *row_shape) of one set, zeros beyond a video's end.

        Args:
            name: of the set.
            batch: with its clips.
            first: where the set's features begin in its role: the mean of these stands in for a row that it lacks.
            keep: as for `rows`.
        """
        role = self.roles[name]
        mask_BN = batch.mask[role]
        rows = self.rows(name, batch.clips[name], keep)
        if name in batch.joins:
            of_grid, present_BN = gathered(rows, *batch.joins[name])
            fill = self.standardise.means[role][first : first + rows.shape[-1]].to(rows.dtype)
            return torch.where(wide(present_BN, of_grid), of_grid, fill)
        empty = rows.new_zeros(*mask_BN.shape, *rows.shape[1:])
        return empty.masked_scatter(wide(mask_BN, empty).expand_as(empty), rows)  # by a mask: the host need not wait

    def trunk(self, name: str) -> Trunk:
        """The network of a set."""
        trunk = self.trunks[part_name(name)]
        assert isinstance(trunk, Trunk)
        return trunk

    def rows(self, name: str, clips: Clips, keep: bool = False) -> Tensor:
        """(R, *row_shape) of one set's clips, chunk by chunk; `keep` the activations of the last one."""
        trunk = self.trunk(name)
        frames, index, wanted_K2 = clips
        place = torch.empty(0, device=next(trunk.parameters()).device)
        learns = trunk.learns and torch.is_grad_enabled()
        chunks = of_one_length(index, wanted_K2, self.options.chunk or max(len(index), 1))
        # Where all goes through at once, all activations are there: nothing is saved by computing them again.
        kept = len(chunks) - 1 if keep or len(chunks) == 1 else len(chunks)
        replayed = range(kept if learns and self.options.chunk else 0)
        made = []
        with torch.set_grad_enabled(learns):
            for number, (index_KT, wanted_of) in enumerate(chunks):
                rows = (
                    checkpoint(trunk, frames, index_KT, place, use_reentrant=False)
                    if number in replayed
                    else trunk(frames, index_KT, place)
                )
                made.append(wanted(rows, wanted_of))
        return torch.cat(made) if made else place.new_zeros(0, *trunk.row_shape)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Weights that learn, those of the head first; `lr` stands where a group has a rate of its own."""
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in self.head.parameters() if weight.requires_grad]},
            {
                "params": [weight for weight in self.trunks.parameters() if weight.requires_grad],
                "lr": self.options.backbone_lr,
            },
        ]
        return [group for group in groups if group["params"]]


def of_one_length(index: Sequence[Tensor], wanted_K2: Tensor, most: int) -> list[tuple[Tensor, Tensor]]:
    """Clips in their order, as many together as have one length, but `most` at once: (K, T) index and (K, 2) wanted.

    >>> long, short = torch.arange(5), torch.arange(3)
    >>> [tuple(part.shape) for part, _ in of_one_length([long, long, long, short], torch.zeros(4, 2), 2)]
    [(2, 5), (1, 5), (1, 3)]
    """
    starts: list[int] = []
    for at in range(len(index)):
        if not starts or at - starts[-1] == most or len(index[at]) != len(index[at - 1]):
            starts.append(at)
    stops = [*starts[1:], len(index)][: len(starts)]
    return [
        (torch.stack(list(index[start:stop])), wanted_K2[start:stop]) for start, stop in zip(starts, stops, strict=True)
    ]


def part_name(set_name: str) -> str:
    """A feature set's name where names of modules have dots between them."""
    return set_name.replace(".", "-")


def gathered(rows: Tensor, index_BNM: Tensor, weight_BNM: Tensor) -> tuple[Tensor, Tensor]:
    """(R, *row_shape) rows to (B, N, *row_shape) weighted means of some of them, zeros where there is none; and (B, N)
    where there is one.

    By an index with a place for each row that could be part of a mean: no sum depends on the order of additions.
    """
    if not len(rows):
        shape = index_BNM.shape[:2]
        return rows.new_zeros(*shape, *rows.shape[1:]), torch.zeros(shape, dtype=torch.bool, device=rows.device)
    if rows.device.type == "cuda":
        index_BNM, weight_BNM = index_BNM.pin_memory(), weight_BNM.pin_memory()
    index_BNM = index_BNM.to(rows.device, non_blocking=True)
    weight_BNM = weight_BNM.to(rows.device, rows.dtype, non_blocking=True)
    means = (rows[index_BNM] * weight_BNM.reshape(*weight_BNM.shape, *(1,) * (rows.dim() - 1))).sum(2)
    return means, (weight_BNM > 0).any(2)


def clip_rows(trunk: Trunk) -> tuple[int, ...]:
    """(S, *row_shape) of what a network gives of one clip. Nothing is computed."""
    module = trunk.backbone
    on_meta = {name: tensor.detach().to("meta") for name, tensor in module.state_dict(keep_vars=True).items()}
    with torch.no_grad():
        rows = functional_call(module, on_meta, trunk.form.arguments(trunk.form.empty_clip()))[trunk.level]
    return tuple(rows.shape[1:])


def wanted(rows: Tensor, wanted_K2: Tensor) -> Tensor:
    """(K, S, ...) rows of clips to those (R, ...) that are wanted: a video may end within its last clip."""
    steps_S = torch.arange(rows.shape[1])
    wanted_KS = (steps_S >= wanted_K2[:, :1]) & (steps_S < wanted_K2[:, 1:])
    if bool(wanted_KS.all()):  # on the CPU, as the index is: nothing waits for the device
        return rows.flatten(0, 1)
    index_R = wanted_KS.flatten().nonzero().squeeze(1)
    if rows.device.type == "cuda":
        index_R = index_R.pin_memory()
    return rows.flatten(0, 1)[index_R.to(rows.device, non_blocking=True)]


def used_weights(network: ClipNetwork) -> set[str]:
    """Names of the weights that a clip's rows depend on: not those of a classifier, say. Nothing is computed."""
    module = network.module
    with torch.enable_grad():
        named = {name: weight.detach().to("meta").requires_grad_() for name, weight in module.named_parameters()}
        buffers = {name: buffer.to("meta") for name, buffer in module.named_buffers()}
        rows = functional_call(module, {**named, **buffers}, network.arguments(network.empty_clip()))[network.level]
        found = torch.autograd.grad(rows.sum(), list(named.values()), allow_unused=True)
    return {name for name, gradient in zip(named, found, strict=True) if gradient is not None}


def any_learns(module: nn.Module) -> bool:
    """Whether any weight right in this module does; one without weights goes along."""
    weights = list(module.parameters(recurse=False))
    return not weights or any(weight.requires_grad for weight in weights)


def checkpoint_parts(backbone: nn.Module) -> None:
    """Let every direct part of a network that learns keep its input alone, and run again when the gradient comes."""
    for part in backbone.children():
        if any(weight.requires_grad for weight in part.parameters()):
            part.forward = partial(_replayed, part, part.forward)


def _replayed(part: nn.Module, forward: Any, *inputs: Any) -> Any:
    if torch.is_grad_enabled() and part.training:
        return checkpoint(forward, *inputs, use_reentrant=False)
    return forward(*inputs)


def frozen(owner: str, name: str, patterns: Iterable[str]) -> bool:
    """Whether a weight of a network (or of the head, called "head") is meant by a pattern.

    A pattern stands for a weight or a module, with or without the owner's name before it.

    >>> [frozen("resnet18", "layer1.0.conv1.weight", [text]) for text in ("layer1.*", "resnet18.layer1", "conv1")]
    [True, True, False]
    >>> frozen("head", "q.0.weight", ["q"]), frozen("head", "q.0.weight", ["head.q"])
    (False, True)
    """
    parts = name.split(".")
    short = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    names = [owner, *(f"{owner}.{text}" for text in short)] + ([] if owner == "head" else short)
    return any(fnmatchcase(text, pattern) for pattern in patterns for text in names)


def require_known(patterns: Iterable[str], head: Head, networks: Iterable[ClipNetwork]) -> None:
    """HeadError for a pattern that no weight of the head or of a network fits, with what there is."""
    owners = [("head", head), *((network.name, network.module) for network in networks)]
    for pattern in patterns:
        if not any(frozen(owner, name, [pattern]) for owner, module in owners for name, _ in module.named_parameters()):
            parts = [f"{owner}.{name}" for owner, module in owners for name, _ in module.named_children()]
            raise HeadError(f"--freeze {printable(pattern)} names no weight. There are {', '.join(parts)}.")
