"""What a training run keeps: a folder that says everything about it, and tensors that run no code.

    runs/mlad-001/config.json       RunConfig: head, options, classes, feature sets, split, versions
                  labels.json       the labels of the run's videos
                  init.safetensors  the weights of another run that it begins with, where it does
                  last.safetensors  weights, optimiser, random states; where the run stood in its metadata
                  best.safetensors  weights of the best validation
                  metrics.csv       a line for each epoch
                  val.zarr test.zarr  stores of scores
                  stored/ *.safetensors  of a run that trained its networks: see `heads.stored_run`
                  result.json       written last: a run that has it is finished

Nothing here is pickled, and what is loaded is checked against the config first.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from heads.end_to_end import ClipNetwork, EndToEnd, TuneOptions
from heads.head import HeadError, head_class
from heads.options import TrainOptions
from heads.standardise import Model
from stores import disk
from stores.errors import DamageError
from stores.files import read_document
from stores.labels import Labels
from stores.names import printable
from stores.spec import FeatureSpec

BEST, INITIAL = "best.safetensors", "init.safetensors"


@dataclass(frozen=True)
class RunConfig:
    """All that decides what a run does; the same config on the same machine gives the same weights."""

    head: str
    options: Mapping[str, Any]  # the head's whole config
    training: TrainOptions
    classes: tuple[str, ...]
    features: tuple[Mapping[str, Any], ...]  # Source.to_dict() of each set, the time grid first
    split: Mapping[str, tuple[str, ...]]  # train, val, test -> ids in the store
    absent: Mapping[str, tuple[str, ...]]  # the same for labelled videos that have no rows
    split_seed: int
    matched: Mapping[str, str]  # id in the store -> id in the labels, of every video in split or absent
    rows_sha256: str  # over the digests of all rows of the split's videos
    labels: str  # where they came from
    labels_sha256: str
    versions: Mapping[str, str]
    init: Mapping[str, str] | None = None  # run and sha256 of the weights that it began with; None: of chance
    finetune: Mapping[str, Any] | None = None  # `options` of TuneOptions, and what made the `clips`; None: stored rows

    @property
    def random_weights(self) -> bool:
        """Whether any of the features came from a network that was never trained."""
        return any(entry["spec"].get("random_weights") for entry in self.features)

    @property
    def specs(self) -> list[tuple[str, FeatureSpec]]:
        """(role, spec) of every feature set, in the order in which their features stand; of the first speed alone."""
        found = [(str(entry["role"]), FeatureSpec.from_dict(entry["spec"])) for entry in self.features]
        first = found[0][1]
        return [(role, spec) for role, spec in found if not spec.view or spec.speed == first.speed]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return plain

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The config that `to_dict` wrote.

        Raises:
            HeadError: a field is missing, unknown or of another type.
        """
        try:
            values = dict(fields)
            values["training"] = TrainOptions(**values["training"])
            values["classes"] = tuple(str(name) for name in values["classes"])
            values["features"] = tuple(dict(entry) for entry in values["features"])
            for name in ("split", "absent"):
                values[name] = {part: tuple(videos) for part, videos in values[name].items()}
            return cls(**values)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise HeadError(f"the run's config.json is malformed or of another version of vl: {error!r}.") from error


@dataclass(frozen=True)
class Run:
    """A run on disk, and its best weights in a model that scores."""

    path: Path
    config: RunConfig
    model: Model


def new_run(folder: Path, head: str) -> Path:
    """A new folder `HEAD-NNN` in `folder`, with the next free number; two callers never get the same one."""
    disk.ensure_directory(folder)
    taken = [path.name.removeprefix(f"{head}-") for path in folder.iterdir()]
    number = max((int(name) for name in taken if name.isdecimal()), default=0)
    while True:
        number += 1
        path = folder / f"{head}-{number:03d}"
        with contextlib.suppress(FileExistsError):
            disk.make_directory(path)
            disk.sync_directory(folder)
            return path


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Durably and at once."""
    disk.write_atomically(path, json.dumps(document, indent=1).encode())


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DamageError: it holds something else.
    """
    try:
        document = json.loads(read_document(str(path)))
    except OSError as error:
        raise HeadError(f"{printable(path)} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DamageError(f"{printable(path)} is no JSON: {error}. Train the head again.") from error
    if not isinstance(document, dict):
        raise DamageError(f"{printable(path)} holds no JSON object. Train the head again.")
    return document


def create_run(path: Path, config: RunConfig, labels: Labels) -> None:
    """Write what a run needs to start, and to start again, into its folder; the config last."""
    disk.ensure_directory(path)
    if config.init is not None:
        disk.write_atomically(path / INITIAL, (Path(config.init["run"]) / BEST).read_bytes())
    write_json(path / "labels.json", labels.to_dict())
    write_json(path / "config.json", config.to_dict())


def read_config(path: Path) -> RunConfig:
    """The config of the run at `path`.

    Raises:
        HeadError: there is no run, or its config is malformed.
    """
    if not (path / "config.json").is_file():
        raise HeadError(f"{printable(path)} is no training run: it has no config.json. 'vl train-head' makes one.")
    return RunConfig.from_dict(read_json(path / "config.json"))


def read_run_labels(path: Path, config: RunConfig) -> Labels:
    """The labels of the run at `path`; DamageError if they are not those it was made with."""
    labels = Labels.from_dict(read_json(path / "labels.json"))
    if labels.fingerprint != config.labels_sha256:
        raise DamageError(f"{printable(path / 'labels.json')} is not what the run began with. Train again.")
    return labels


def save_tensors(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Tensors and a JSON document in one safetensors file, durably and at once."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    disk.write_atomically(path, safetensors.torch.save(plain, {"state": json.dumps(state)}))


def load_tensors(path: Path, expected: Mapping[str, Tensor] | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote, on the CPU.

    Args:
        expected: tensors (of the meta device, say) of the names, shapes and dtypes that must be there, checked
            before any is read.

    Raises:
        HeadError: a tensor is missing, left over, or of another shape; the message says which.
        DamageError: the file is no such file.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if expected is not None:
                _require_tensors(path, {name: tuple(file.get_slice(name).get_shape()) for name in names}, expected)
            state = json.loads((file.metadata() or {}).get("state", "{}"))
            return {name: file.get_tensor(name) for name in names}, state
    except FileNotFoundError:
        raise HeadError(
            f"{printable(path)} is missing: the run has not come so far. 'vl train-head --resume' goes on."
        ) from None
    except (safetensors.SafetensorError, ValueError) as error:
        raise DamageError(f"{printable(path)} is no checkpoint: {error}.") from error


def _require_tensors(path: Path, found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    for name in sorted({*found, *expected}):
        wanted = tuple(expected[name].shape) if name in expected else None
        if found.get(name) != wanted:
            raise HeadError(
                f"{printable(path)} does not fit its config: {printable(name)} is {found.get(name, 'missing')}, "
                f"the head has {wanted or 'no such tensor'}."
            )


def build_model(config: RunConfig, networks: Mapping[str, ClipNetwork] | None = None) -> Model:
    """The model of a run with fresh weights, on the current default device.

    Args:
        networks: feature set to the network that makes its rows, for a run that trains them with the head.

    Raises:
        HeadError: the options are not those of the head, or the run has networks and none are given.
    """
    head = head_class(config.head)
    try:
        built = head(head.config_class(**config.options))
    except (TypeError, ValueError, RuntimeError) as error:
        raise HeadError(f"the options {dict(config.options)} do not make a {config.head}: {error}.") from error
    dtype = torch.float64 if config.training.precision == "fp64" else torch.float32
    widths: dict[str, int] = {}
    for role, spec in config.specs:
        widths[role] = widths.get(role, 0) + spec.row_shape[-1]
    if config.finetune is None:
        return Model(built, widths).to(dtype)
    if networks is None:
        raise HeadError(
            "the run was trained end to end, by 'vl finetune'. Its head on stored features is RUN/stored, for features "
            "that were extracted with its networks: vl extract --weights NAME=RUN/NAME.safetensors."
        )
    tuning = TuneOptions.from_dict(config.finetune["options"])
    roles = {str(entry["set"]): str(entry["role"]) for entry in config.features}
    below = {name: networks[name] for name in roles if name in networks}  # other sets are of stored rows
    return EndToEnd(built, widths, below, tuning.learning, tuning, roles).to(dtype)


def load_run(path: Path, device: torch.device | str = "cpu", networks: Mapping[str, ClipNetwork] | None = None) -> Run:
    """The run at `path` with its best weights, in evaluation mode; `networks` as `build_model` has them.

    Raises:
        HeadError: it is no run, or has no weights yet, or they do not fit its config.
        DamageError: a file of it is not what it should be.
    """
    config = read_config(path)
    with torch.device("meta"):
        expected = build_model(config, networks).state_dict()
    tensors, _ = load_tensors(path / BEST, expected)
    model = build_model(config, networks).to(device)
    model.load_state_dict(tensors)
    return Run(path, config, model.eval())


def file_sha256(path: Path) -> str:
    """Of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
