"""What weights there are: listed, fetched ahead of an extraction, and verified."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from extract.backbone import BACKBONES, backbone_class
from extract.download import cache_folder, file_sha256
from extract.published import WEIGHTS, Weights
from extract.state_dict import WeightsError, load_into
from extract.weights import locate
from stores.names import printable


@dataclass(frozen=True)
class WeightsCard:
    """One published checkpoint, and where it is on this machine."""

    backbone: str
    stream: str
    name: str  # as --weights takes it
    default: bool
    file: str
    size: int | None  # bytes
    sha256: str | None
    licence: str
    source: str
    url: str
    state: str  # installed, cached, absent, or unknown: no digest is known, so a file of the user's is needed
    path: str | None  # where it is


def stock(names: Sequence[str] = ()) -> list[WeightsCard]:
    """Every published checkpoint, or those of some backbones (`i3d`, or `i3d.flow` for one stream).

    Raises:
        WeightsError: a name is no backbone with published weights.
    """
    keys = [key for key in sorted(WEIGHTS) if not names or key[0] in names or f"{key[0]}.{key[1]}" in names]
    for name in names:
        if not any(name in (key[0], f"{key[0]}.{key[1]}") for key in keys):
            known = ", ".join(sorted({key[0] for key in WEIGHTS}))
            raise WeightsError(f"there are no published weights of '{printable(name)}'. There are: {known}.")
    return [card(*key, WEIGHTS[key]) for key in keys]


def card(backbone: str, stream: str, name: str, weights: Weights) -> WeightsCard:
    """The card of one entry; looks at the disk, opens nothing."""
    path = place(weights)
    here = path is not None and path.is_file()
    known = weights.sha256 is not None
    present = "installed" if weights.package else "cached"
    return WeightsCard(
        backbone,
        stream,
        name,
        backbone_class(backbone).default_weights == name,
        Path(weights.filename).name,
        weights.size,
        weights.sha256,
        weights.licence,
        weights.source,
        weights.url,
        present if here and known else "absent" if known else "unknown",
        str(path) if here and known else None,
    )


def place(weights: Weights) -> Path | None:
    """Where the file belongs; None where its package is not installed."""
    if weights.package is None:
        return cache_folder() / weights.filename
    spec = importlib.util.find_spec(weights.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return Path(folders[0]) / weights.filename if folders else None


def fetch_weights(found: WeightsCard, report: Callable[[str], None] | None = None) -> Path:
    """Download one checkpoint, unless it is here, and verify it.

    Raises:
        WeightsError: it cannot be had, or is another file than the published one.
    """
    return locate(WEIGHTS[found.backbone, found.stream, found.name], found.backbone, report)[0]


def digest_is_right(found: WeightsCard) -> bool:
    """Whether the file that is here is the published one, by all of its bytes."""
    assert found.path is not None, found
    return file_sha256(Path(found.path)) == found.sha256


def check_fit(backbone: str, path: Path, stream: str | None = None) -> tuple[int, str]:
    """(tensors, sha256) of a file whose tensors are those of the network `backbone`.

    Raises:
        WeightsError: there is no such backbone, or the file is no checkpoint of it.
    """
    if backbone not in BACKBONES:
        raise WeightsError(f"there is no backbone '{printable(backbone)}'. There are: {', '.join(sorted(BACKBONES))}.")
    kind = backbone_class(backbone)
    network = kind() if stream in (None, kind.stream) else kind(stream)
    if not path.is_file():
        raise WeightsError(f"{printable(path)} is no file.")
    load_into(network, path, f"{backbone} ({network.stream})")
    return len(network.state_dict()), file_sha256(path)
