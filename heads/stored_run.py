"""What an end-to-end run leaves for stored features: weights of networks to extract with, and a head that reads them.

RUN/resnet18.safetensors   for 'vl extract --weights resnet18=...'; one file for each network that learned
RUN/stored/                a run of the head alone, for 'vl predict STORE --head RUN/stored'
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from heads.checkpoint import BEST, Run, create_run, file_sha256, load_tensors, save_tensors
from heads.end_to_end import EndToEnd
from stores.labels import Labels
from stores.names import slug
from stores.spec import FeatureSpec

STORED = "stored"
DTYPE = "float16"  # in which 'vl extract' stores rows unless it is told otherwise


def write_stored_run(trained: Run, labels: Labels) -> list[Path]:
    """Write both parts into the folder of a run that has its best weights; gives the files of the networks.

    Args:
        trained: with the best weights.
        labels: those of the run.
    """
    model, config = trained.model, trained.config
    assert isinstance(model, EndToEnd), "other runs read stored features already"
    files: list[Path] = []
    features: list[Mapping[str, Any]] = []
    for entry in config.features:
        if entry["set"] not in model.roles:
            features.append(entry)  # of stored rows, which are what they were
            continue
        trunk = model.trunk(str(entry["set"]))
        spec = dataclasses.replace(FeatureSpec.from_dict(entry["spec"]), dtype=DTYPE)
        if trunk.learns:
            file = weights_file(trained.path, trunk.name)
            save_tensors(file, trunk.backbone.state_dict(), {})
            files.append(file)
            digest = file_sha256(file)
            spec = dataclasses.replace(spec, weights=str(file), weights_sha256=digest, random_weights=False)
        features.append(described(entry, spec))
    stored = trained.path / STORED
    create_run(stored, dataclasses.replace(config, features=tuple(features), finetune=None, init=None), labels)
    tensors, state = load_tensors(trained.path / BEST)
    of_head = {name: tensor for name, tensor in tensors.items() if not name.startswith("trunks.")}
    save_tensors(stored / BEST, of_head, state)
    return files


def weights_file(run: Path, network: str) -> Path:
    """Where a run keeps the weights of a network that learned."""
    return run / f"{slug(network, 100)}.safetensors"


def described(entry: Any, spec: FeatureSpec) -> dict[str, Any]:
    """What a config keeps of a set, of another spec."""
    return {**entry, "fingerprint": spec.fingerprint, "spec": spec.to_dict()}
