"""Models whose configuration and weights lie in a folder of the user's, or in the cache of the Hugging Face Hub.

Nothing here asks the network: a model that was never fetched is an error that says what to fetch. Weights are read by
the guarded loader, and no code of a repository is ever run.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from extract.backbone import BackboneError
from extract.download import file_sha256
from extract.state_dict import WeightsError
from stores.names import printable

PRETRAINED = "pretrained"  # the weights that lie with the model
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")  # the first there is
MAX_JSON = 16 * 2**20  # bytes of a configuration or an index
HUB = "https://huggingface.co"


class HubModel(ABC):
    """What a backbone adds whose weights are not in the table of `extract.published`."""

    name: str

    def load_weights(self, choice: str) -> str:
        """Fill the network with its own weights ("pretrained"), or those of a file or folder; their sha256.

        Raises:
            WeightsError: they are not there, cannot be read, or do not fit; the message says what to fetch.
        """
        files = self.pretrained_files() if choice == PRETRAINED else chosen_files(choice, self.name)
        self.load_files(files)
        return files_sha256(files)

    @abstractmethod
    def pretrained_files(self) -> Sequence[Path]:
        """Its own weights, as they lie on this machine; WeightsError saying what to fetch."""

    @abstractmethod
    def load_files(self, files: Sequence[Path]) -> None:
        """Fill the network with the tensors of these files; WeightsError unless they fit it."""


def chosen_files(choice: str, name: str) -> Sequence[Path]:
    """The files that a path on the command line stands for."""
    path = Path(choice).expanduser()
    try:
        if path.is_dir():
            return weight_files(path)
        if path.is_file():
            return [path]
    except (OSError, ValueError):
        fault = "cannot be read"
    else:
        fault = "is not there"
    raise WeightsError(
        f"there are no weights '{printable(choice)}' for {printable(name)}: as a file or folder it {fault}, and "
        f"the names are {PRETRAINED}, random."
    )


def weight_files(folder: Path) -> list[Path]:
    """The weights in a model's folder: one file, or the parts that an index lists."""
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        raise WeightsError(f"{printable(folder)} has no weights: none of {', '.join(WEIGHT_FILES)} is in it.")
    if file.suffix != ".json":
        return [file]
    places = read_json(file).get("weight_map")
    parts = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
    for part in parts:
        if Path(part).name != part or not (folder / part).is_file():
            raise WeightsError(f"{printable(file)} lists {printable(part)}, which is not beside it.")
    return [folder / part for part in parts]


def files_sha256(files: Sequence[Path]) -> str:
    """Digest of the file; of several, that of the text which sha256sum prints of them."""
    digests = [file_sha256(file) for file in files]
    if len(digests) == 1:
        return digests[0]
    text = "".join(f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def read_json(path: Path) -> dict[str, object]:
    """A JSON object; WeightsError for anything else."""
    try:
        if path.stat().st_size > MAX_JSON:
            raise WeightsError(f"{printable(path)} has over {MAX_JSON:,} bytes.")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{printable(path)} cannot be read as JSON: {printable(error)}.") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{printable(path)} holds no JSON object.")
    return found


def cached_folder(repository: str, file: str) -> Path | None:
    """The folder in the Hub's cache that holds `file` of a repository; None if it was never fetched."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(repository, file)
    except HFValidationError as error:
        raise BackboneError(f"'{printable(repository)}' is neither a folder nor a repository of the Hub.") from error
    return Path(found).parent if isinstance(found, str) else None


def extra_missing(name: str, extra: str, package: str, error: Exception) -> BackboneError:
    """For a family whose package is not installed, or broken."""
    reason = printable(str(error).partition("\n")[0][:120])
    return BackboneError(f"{printable(name)} needs the package {package} ({reason}): pip install 'vl[{extra}]'.")
