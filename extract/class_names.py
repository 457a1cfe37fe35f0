"""Names of the classes that the public classifiers tell apart, and the best few of a clip.

The lists lie beside this file, one name a line in the order of the logits. Kinetics-400 is in alphabetical order, as
in the label map of the I3D checkpoints; ImageNet names are torchvision's short ones.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from torch import Tensor

from extract.backbone import BackboneError

CLASS_LISTS = {"imagenet1000": 1000, "kinetics400": 400}


@cache
def class_names(list_name: str) -> tuple[str, ...]:
    """Names in the order of the logits; `list_name` is a backbone's `class_list`."""
    if list_name not in CLASS_LISTS:
        raise BackboneError(f"there is no class list '{list_name}'. There are: {', '.join(sorted(CLASS_LISTS))}.")
    text = Path(__file__).with_name(f"class_names_{list_name}.txt").read_text(encoding="utf-8")
    names = tuple(text.splitlines())
    assert len(names) == CLASS_LISTS[list_name], f"{list_name} has {len(names)} names"
    return names


def top_classes(logits: Tensor, list_name: str, k: int = 5) -> list[tuple[str, float]]:
    """The `k` likeliest classes of one clip and their probabilities, from logits (classes,)."""
    names = class_names(list_name)
    assert logits.shape == (len(names),), f"{list_name} has {len(names)} names, not {tuple(logits.shape)}"
    best = logits.float().softmax(0).topk(k)
    return [(names[index], value) for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
