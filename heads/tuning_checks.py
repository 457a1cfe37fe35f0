"""Before the first step of an end-to-end training: what memory it will take, and whether it begins where it should.

Shape letters: B windows, N rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from heads.clip_windows import ClipWindows, Videos
from heads.end_to_end import EndToEnd, Trunk, clip_rows
from heads.head import Batch, HeadError
from heads.options import TrainOptions
from heads.plan import Crops
from heads.sources import Source
from heads.train import Training
from heads.windows import Windows
from stores.names import printable

GIB = 2**30
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "uint8": 2e-1}  # of a logit, by what rows are rounded to
COMPARED = 3  # videos, the shortest
MOST_ROWS = 64  # of a video that is compared


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device at the highest point of a step, and beside it."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int  # of the networks: of one chunk, or of everything that goes through them at once
    head: int  # its activations over all rows of a batch
    frames: int  # of a batch as the host holds it
    rows: int  # of the longest batch
    at_once: int  # clips

    @property
    def device(self) -> int:
        """All but the frames."""
        return self.parameters + self.gradients + self.optimizer + self.activations + self.head

    def words(self) -> str:
        """A line for people."""
        parts = {
            "weights": self.parameters,
            "gradients": self.gradients,
            "optimiser": self.optimizer,
            f"activations of {self.at_once} clips": self.activations,
            "head": self.head,
        }
        named = ", ".join(f"{name} {size / GIB:.3g}" for name, size in parts.items())
        return (
            f"memory plan in GiB: {named}; together {self.device / GIB:.3g} on the device, and frames "
            f"{self.frames / GIB:.3g} beside it (batches of up to {self.rows} rows)"
        )


def memory_plan(
    model: EndToEnd, options: TrainOptions, *rows: int, others: Mapping[str, Sequence[int]] | None = None
) -> MemoryPlan:
    """What a step takes; counted on shapes alone, so nothing is computed.

    Temporary memory of single layers and of libraries comes on top of it.

    Args:
        rows: real rows of each window of the batch.
        others: the same of sets whose rows have times of their own.
    """
    weights = list(model.parameters())
    learning = sum(size_of(weight) for weight in weights if weight.requires_grad)
    states = {"sgd": 1 if options.momentum else 0}.get(options.optimizer, 2)
    trunks = {name: model.trunk(name) for name in model.roles}
    shapes = {name: clip_rows(trunk) for name, trunk in trunks.items()}
    own = {**dict.fromkeys(trunks, rows), **(others or {})}
    clips = {
        name: sum(-(-length // (trunks[name].form.rows or shapes[name][0])) for length in own[name]) for name in trunks
    }
    kept, of_chunk, most = 0, 0, 0
    for name, trunk in trunks.items():
        at_once = min(model.options.chunk or clips[name], clips[name])
        most = max(most, at_once)
        if trunk.learns and at_once < clips[name]:
            of_chunk = max(of_chunk, activations(trunk) * at_once)  # one at a time
        elif trunk.learns:
            kept += activations(trunk) * at_once
    everything = sum(map(size_of, weights)) * (2 if options.ema else 1)
    return MemoryPlan(
        parameters=everything,
        gradients=learning,
        optimizer=states * learning,
        activations=kept + of_chunk,
        head=head_activations(model, {name: shape[1:] for name, shape in shapes.items()}, sum(rows)),
        frames=sum(clips[name] * size_of(trunk.form.empty_clip()) for name, trunk in trunks.items()),
        rows=sum(rows),
        at_once=most,
    )


def activations(trunk: Trunk) -> int:
    """Bytes that one clip's backward pass keeps of its forward pass."""
    return kept_bytes(trunk.backbone, *trunk.form.arguments(trunk.form.empty_clip()))


def head_activations(model: EndToEnd, made: Mapping[str, tuple[int, ...]], rows: int) -> int:
    """Bytes that the head keeps of one pass over so many rows, as one window.

    Args:
        made: set to the shape of the rows that a network makes; rows of roles without networks are vectors.
    """
    height_and_width = {model.roles[name]: rest for name, (*rest, _) in made.items()}
    shapes = {role: (*height_and_width.get(role, ()), len(mean)) for role, mean in model.standardise.means.items()}
    dtype = next(model.head.parameters()).dtype
    features = {role: torch.empty(1, rows, *shape, dtype=dtype, device="meta") for role, shape in shapes.items()}
    mask = {role: torch.ones(1, rows, dtype=torch.bool, device="meta") for role in features}
    batch = Batch(features, mask, torch.empty(1, rows, 2, device="meta"), videos=("one",))
    return kept_bytes(model.head, batch)


def kept_bytes(module: nn.Module, *inputs: Any) -> int:
    """Of all tensors that a backward pass through the module would need, its weights left out."""
    on_meta = {
        name: weight.detach().to("meta").requires_grad_(weight.requires_grad)
        for name, weight in module.named_parameters()
    }
    buffers = {name: buffer.to("meta") for name, buffer in module.named_buffers()}
    kept: dict[int, Tensor] = {}  # by storage; the tensors are held, or their storages could be given out again

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = functional_call(module, {**on_meta, **buffers}, inputs)
    own = {tensor.untyped_storage()._cdata for tensor in (*on_meta.values(), *buffers.values())}
    found = sum(tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in own)
    del result
    return found


def size_of(tensor: Tensor) -> int:
    """Bytes of its values."""
    return tensor.numel() * tensor.element_size()


def check_tuning(training: Training, clips: Videos, sources: Sequence[Source]) -> None:
    """Say what memory a step takes; of a run that has not begun compare some logits with those of stored features.

    Raises:
        HeadError: as `require_stored_logits` has it.
    """
    model, windows, options = training.model, training.windows, training.options
    assert isinstance(model, EndToEnd)
    assert isinstance(windows, ClipWindows)
    learning = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    for name in model.roles:
        trunk = model.trunk(name)
        count = sum(weight.numel() for weight in trunk.parameters() if weight.requires_grad)
        training.observer.note(f"{trunk.name}: {f'{count:,} weights learn' if count else 'stays as it came'}")
    training.observer.note(f"weights to be trained: {learning:,} in all")
    longest = max(training.plan(0), key=lambda of: int(rows_of(windows, of).sum()))
    parts = windows.parts(longest)
    others = {name: [int(np.ptp(rows[name])) for _, rows in parts] for name in windows.joined}
    plan = memory_plan(model, options, *rows_of(windows, longest).tolist(), others=others)
    training.observer.note(plan.words())
    if (training.folder / "last.safetensors").exists():
        return  # it has learned by now
    for name in windows.made:  # extraction shall run with the weights that this run begins with
        clips.networks[name].module.load_state_dict(model.trunk(name).backbone.state_dict())
    clips.store.close()
    with_rows = [video for video in (*training.train, *training.val) if windows.rows_V[video]]
    chosen = sorted(with_rows, key=lambda video: int(windows.rows_V[video]))[:COMPARED]
    names = [windows.videos[video] for video in chosen]
    stored = Windows(sources, names, device=windows.device, resident=True)
    seen = ClipWindows(sources, names, device=windows.device, clips=clips)
    for of in (stored, seen):
        of.fill_missing(model.standardise.means)
    difference = require_stored_logits(model, seen, stored, range(len(names)), options.window)
    training.observer.note(
        f"end to end, {len(names)} videos have the logits of stored features: largest difference {difference:.2g}"
    )


def rows_of(windows: ClipWindows, crops: Crops) -> NDArray[np.int64]:
    """(B,) real rows of each window of a batch."""
    rows: NDArray[np.int64] = np.minimum(windows.rows_V[crops.video_B] - crops.start_B, crops.length)
    return rows


@contextlib.contextmanager
def evaluating(model: EndToEnd) -> Iterator[None]:
    """Inside, the model is in evaluation mode."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def require_stored_logits(
    model: EndToEnd, clips: ClipWindows, stored: Windows, videos: Sequence[int], window: int
) -> float:
    """The largest difference between the logits of clips and those of stored rows, over some videos.

    Args:
        model: nothing of it may have learned yet.
        clips: as the training sees them.
        stored: windows over the same videos, in the same order, whose rows extraction made.
        videos: indices of those to compare.
        window: rows of a row head's window.

    Raises:
        HeadError: they differ by more than rounding explains: the networks would not begin where the head ended.
    """
    difference = 0.0
    tolerance = max(TOLERANCE[source.spec.dtype] for source in clips.sources if source.features.name in clips.made)
    whole = model.head.level == "video"
    lengths = [int(rows) if whole else min(int(rows), window, MOST_ROWS) for rows in clips.rows_V[list(videos)]]
    start = np.zeros(1, np.int64)
    plan = [Crops(np.array([video]), start, length) for video, length in zip(videos, lengths, strict=True)]
    with evaluating(model), torch.inference_mode():
        for video, crops, batch in zip(videos, plan, clips.batches(plan), strict=True):
            found, expected = model(batch).logits.float(), model(stored.batch(crops)).logits.float()
            scale = max(1.0, float(expected.abs().max()))
            difference = max(difference, float((found - expected).abs().max()) / scale)
            if not difference <= tolerance:
                raise HeadError(
                    f"end to end the logits of '{printable(clips.videos[video])}' differ by {difference:.2g} from "
                    f"those of stored features, where rounding explains {tolerance:g}: the clips are not what the "
                    "features were made of. Give the same backbones, weights and scene settings as for the features."
                )
    return difference
