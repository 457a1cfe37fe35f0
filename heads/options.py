"""Options by name: what `--set key=value` may change, and how a word becomes a value.

A head's options are its frozen config, the trainer's are `TrainOptions`; no name is in both.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from heads.head import Head, HeadError
from stores.labels import Boundary, LabelAt
from stores.names import printable

Precision = Literal["fp32", "bf16", "fp64"]


@dataclass(frozen=True)
class TrainOptions:
    """How a head is trained; a head's `recipe` may depart from these defaults."""

    optimizer: Literal["adam", "adamw", "sgd"] = "adamw"
    lr: float = 1e-3  # the highest of the schedule
    weight_decay: float = 1e-2
    momentum: float = 0.9  # of sgd
    schedule: Literal["none", "cosine", "onecycle", "plateau"] = "onecycle"
    plateau_patience: int = 3  # validations in a row that may be no better before plateau takes a tenth of the rate
    warmup: float = 0.05  # share of the steps in which cosine rises from 0 to lr
    accumulate: int = 1  # batches whose gradients make one update, as one batch so many times larger would
    ema: float = 0.0  # decay of a running mean of the weights, which is then what is validated and kept; 0: none
    class_weights: Literal["none", "balanced"] = "none"  # balanced: a class's positives count as much as its negatives
    clip: float = 1.0  # largest norm of the gradient; 0: not clipped
    batch_size: int = 32
    epochs: int = 0  # 0: as many as come next above `steps`
    steps: int = 2000  # updates of the weights, where `epochs` does not say
    window: int = 128  # rows a crop (T); row heads only
    stride: int = 16  # rows from one window to the next when scoring
    variable_length: bool = False  # a batch keeps the first 16, 32, .. or T rows of its crops
    eval_every: int = 0  # epochs from one validation to the next; 0: about 40 in all
    select: Literal["map", "gap"] = "map"  # validation score that chooses the epoch: mAP, or GAP of whole videos
    patience: int = 0  # validations without a better score before the end; 0: never
    seed: int = 0
    precision: Precision = "fp32"  # bf16: autocast, weights stay float32; fp64: weights too, to compare runs by
    standardise: bool = True  # features to mean 0 and deviation 1, as the training rows have them
    resident: bool | None = None  # rows stay on the device; None: if they fit
    label_at: LabelAt | None = None  # None: as the labels say
    boundary: Boundary = "strict"
    keep_windows: bool = False  # predictions keep the scores of every window too, for the protocol mlad-slide
    checkpoint_seconds: float = 60.0  # from one checkpoint to the next

    def __post_init__(self) -> None:
        for name in ("lr", "batch_size", "accumulate", "steps", "window", "stride"):
            if not getattr(self, name) > 0:
                raise HeadError(f"{name} is a positive number, not {getattr(self, name)}.")
        for name in (
            "weight_decay",
            "momentum",
            "clip",
            "epochs",
            "eval_every",
            "patience",
            "plateau_patience",
            "seed",
        ):
            if not getattr(self, name) >= 0:
                raise HeadError(f"{name} is 0 or more, not {getattr(self, name)}.")
        if not self.checkpoint_seconds >= 0:
            raise HeadError(f"checkpoint_seconds is 0 or more, not {self.checkpoint_seconds}.")
        if not 0 <= self.ema < 1:
            raise HeadError(f"ema is a decay in [0, 1), not {self.ema}.")
        if not 0 <= self.warmup < 1:
            raise HeadError(f"warmup is a share of the steps in [0, 1), not {self.warmup}.")


def split_settings(head: type[Head], settings: Sequence[str]) -> tuple[dict[str, Any], TrainOptions]:
    """The head's options (without its sizes) and the trainer's, from `key=value` words.

    Args:
        head: gives the names and types, and its recipe.
        settings: as given to `--set`; a key that is named twice has its last value.

    Raises:
        HeadError: a key is unknown (the message lists the known ones) or a value does not fit its type.
    """
    sizes = set(size_fields(head))
    for_head = {name: kind for name, kind in _types(head.config_class).items() if name not in sizes}
    for_training = _types(TrainOptions)
    assert not set(for_head) & set(for_training), f"{head.name} has an option that the trainer has"
    options: dict[str, Any] = {}
    training: dict[str, Any] = dict(head.recipe)
    for word in settings:
        key, equals, text = word.partition("=")
        if not equals:
            raise HeadError(f"--set takes key=value, not '{printable(word)}'.")
        if key in for_head:
            options[key] = parse_value(key, text, for_head[key])
        elif key in for_training:
            training[key] = parse_value(key, text, for_training[key])
        else:
            raise HeadError(
                f"{head.name} has no option '{printable(key)}'. It has {', '.join(sorted(for_head)) or 'none'}; "
                f"its training has {', '.join(sorted(for_training))}."
            )
    return options, TrainOptions(**training)


def size_fields(head: type[Head]) -> tuple[str, ...]:
    """The fields of a head's config that come from the data: a width for each role, and the number of classes."""
    widths = ("num_features",) if len(head.roles) == 1 else tuple(f"num_{role}" for role in head.roles)
    return (*widths, "num_classes")


def full_config(
    head: type[Head], shapes: Mapping[str, tuple[int, ...]], num_classes: int, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Every field of a head's config, as JSON types.

    Args:
        shapes: role to the shape of its rows.
        options: those that differ from the defaults.
    """
    widths = [shapes[role][-1] if role in shapes else 0 for role in head.roles]  # 0: the options leave it out
    sizes = dict(zip(size_fields(head), (*widths, num_classes), strict=True))
    return dataclasses.asdict(head.config_class(**sizes, **options))


def parse_value(key: str, text: str, kind: Any) -> Any:
    """`text` as a value of the annotated type `kind`: bool, int, float, str, a Literal, or one of those or None.

    >>> parse_value("alpha", "0.5", float | None), parse_value("alpha", "none", float | None)
    (0.5, None)
    """
    if get_origin(kind) in (types.UnionType, typing.Union):
        if text.lower() == "none":
            return None
        (kind,) = (part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is Literal:
        if text not in get_args(kind):
            raise HeadError(f"{key} is one of {', '.join(get_args(kind))}, not '{printable(text)}'.")
        return text
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise HeadError(f"{key} is true or false, not '{printable(text)}'.")
        return text.lower() == "true"
    try:
        value = kind(text)
    except ValueError:
        raise HeadError(f"{key} is of type {kind.__name__}, which '{printable(text)}' is not.") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise HeadError(f"{key} is a finite number, not {text}.")
    return value


def _types(config: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(config)
    return {field.name: hints[field.name] for field in dataclasses.fields(config)}
