"""A run that begins with the weights of another: the second stage of a training, as ASF's speed-invariant tuning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from heads.checkpoint import BEST, INITIAL, RunConfig, file_sha256, load_tensors, read_config
from heads.head import Head, HeadError
from heads.options import size_fields
from heads.sources import view_difference
from heads.standardise import Model
from stores.errors import DamageError, SpecMismatchError
from stores.names import printable


@dataclass(frozen=True)
class Initial:
    """The run whose best weights another one begins with."""

    path: Path
    config: RunConfig
    sha256: str  # of the file of its best weights

    @classmethod
    def read(cls, path: Path, head: str) -> Self:
        """The run at `path`.

        Raises:
            HeadError: it is no run, or of another head, or has no weights yet.
        """
        config = read_config(path)
        if config.head != head:
            raise HeadError(f"--init {printable(path)} is a run of {config.head}, not of {head}.")
        if not (path / BEST).is_file():
            raise HeadError(f"--init {printable(path)} has no weights yet. 'vl train-head --resume' goes on with it.")
        return cls(path, config, file_sha256(path / BEST))

    def to_dict(self) -> dict[str, str]:
        """What the config of the run that begins with it keeps."""
        return {"run": str(self.path.resolve()), "weights_sha256": self.sha256}

    def options(self, head: type[Head], given: Mapping[str, Any]) -> dict[str, Any]:
        """The options of its head, sizes left out; HeadError where `given` has another value."""
        own = {name: value for name, value in self.config.options.items() if name not in size_fields(head)}
        for name, value in given.items():
            if own.get(name) != value:
                raise HeadError(
                    f"--init {printable(self.path)} was trained with {name}={own.get(name)}, not {value}: its weights "
                    "fit no other. Leave that option out."
                )
        return own

    def require_fits(self, config: RunConfig) -> None:
        """Raise unless the weights mean the same in a run of this config, and none of its held-out videos was seen.

        Raises:
            HeadError: other classes, another standardisation, or videos to be scored that it was trained on.
            SpecMismatchError: features of another kind; only speed and view may differ.
        """
        name = f"--init {printable(self.path)}"
        if self.config.finetune is not None and config.finetune is None:
            raise HeadError(f"{name} trained its networks, too: its head fits no stored features.")
        if self.config.classes != config.classes:
            raise HeadError(f"{name} was trained on other classes, or on these in another order.")
        if self.config.training.standardise != config.training.standardise:
            raise HeadError(
                f"{name} was trained with standardise={str(self.config.training.standardise).lower()}: set the same."
            )
        own, new = self.config.specs, config.specs
        if [role for role, _ in own] != [role for role, _ in new]:
            raise HeadError(f"{name} reads {len(own)} sets at a time, not {len(new)}.")
        for (_, before), (_, now) in zip(own, new, strict=True):
            if difference := view_difference(now, before):
                raise SpecMismatchError(f"{name} was trained on other features: {difference}.")
        seen = {part: {self.config.matched[video] for video in self.config.split[part]} for part in ("train", "val")}
        for part, used in (("val", seen["train"]), ("test", seen["train"] | seen["val"])):
            known = [video for video in config.split[part] if config.matched[video] in used]
            if known:
                raise HeadError(
                    f"{name} has learned from {len(known)} of the {part} videos, '{printable(known[0])}' for one: "
                    "scores would be too good. Give the same --seed or lists as there."
                )


def load_initial(model: Model, run: Path, config: RunConfig) -> None:
    """Bring the weights that the run in the folder `run` begins with into its fresh model, standardisation included.

    Raises:
        DamageError: the file is not what the config names.
    """
    assert config.init is not None, "the run begins with weights of chance"
    path = run / INITIAL
    if not path.is_file() or file_sha256(path) != config.init["weights_sha256"]:
        raise DamageError(f"{printable(path)} is not what the run began with. Train again.")
    expected = model.state_dict()
    if not any(name.startswith("trunks.") for name in load_tensors(path)[0]):  # of a head on stored features
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith("trunks.")}
    tensors, _ = load_tensors(path, expected)
    model.load_state_dict({**model.state_dict(), **tensors})
