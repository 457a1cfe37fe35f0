"""Weights out of a file that nobody vouches for: tensors alone, and only those that the network has.

A checkpoint may try to run code, or declare 10^12 elements in a file of a kilobyte. So three things happen before a
tensor is made: the index of the file is scanned for anything but tensors, keys and shapes are read without their
data, and both are compared with the network's. The file is safetensors, or PyTorch's (either of its formats)
and then read with `weights_only=True`.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, cast

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from extract.backbone import BackboneError
from stores.names import printable

WRAPPERS = ("state_dict", "model_state", "model_state_dict", "model")  # keys under which training scripts put it
OPTIONAL = "num_batches_tracked"  # counts training steps; old checkpoints have none, and nothing reads it here
PREFIXES = ("module.", "model.")  # before all names: of DataParallel, and of a model of timm or transformers here
MAX_INDEX = 16 * 2**20  # bytes of names and shapes; a network of 10,000 tensors needs 2 MB
PICKLES = 5  # of the older format: magic number, version, system, the objects, the storages' order
SHOWN = 3  # names of each kind in a message

# What the index of a plain state dict calls. PyTorch's own list is longer and has bytearray, which takes a size.
TENSORS_ALONE = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor|tensor_v2|parameter)|torch \w+Storage|torch Size"
)
# All that the readers were seen to raise on damaged and forged files.
UNREADABLE = (
    ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
    OSError, RuntimeError, SafetensorError, TypeError, ValueError, pickle.UnpicklingError, struct.error,
    zipfile.BadZipFile,
)  # fmt: skip

SAFETENSORS_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip


class WeightsError(BackboneError):
    """Weights cannot be had, read or used."""


def load_into(network: nn.Module, path: Path, name: str) -> None:
    """Copies the tensors of the file at `path` into `network`, in its dtype and on its device.

    Raises:
        WeightsError: the file is no checkpoint or damaged, holds more than tensors, or does not fit `network`; then
            the network is as it was. `name` is what the message calls the network.
    """
    tensors = read_file(path, network.state_dict(), name)
    network.load_state_dict(tensors, strict=False)  # keys were compared; OPTIONAL may be absent


def read_state(path: Path) -> dict[str, Tensor]:
    """All tensors of the file at `path`, by their names there, for a caller that compares them itself.

    Raises:
        WeightsError: the file is no checkpoint or damaged, or holds more than tensors.
    """
    return read_file(path, None, "")


def read_file(path: Path, wanted: Mapping[str, Tensor] | None, name: str) -> dict[str, Tensor]:
    """The tensors of a file after every check; compared with those that are `wanted`, if any."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd pickles; they are read or refused here
            return read_tensors(file, path, wanted, name)
    except UNREADABLE as error:
        reason = printable(str(error).partition("\n")[0][:120]) or type(error).__name__
        raise WeightsError(
            f"{printable(path)} cannot be read as weights: it is damaged, or no checkpoint ({reason})."
        ) from error


def read_tensors(file: BinaryIO, path: Path, wanted: Mapping[str, Tensor] | None, name: str) -> dict[str, Tensor]:
    """The tensors of an open file under the network's keys, after every check."""
    start = file.read(8)
    file.seek(0)
    if start.startswith(b"PK"):
        check_archive(file, path)
        declared = unwrap(torch.load(file, map_location="meta", weights_only=True), path)
    # Also the length of a safetensors header may begin with this byte, but a pickle's first eight are a huge number.
    elif start.startswith(b"\x80") and int.from_bytes(start, "little") > MAX_INDEX:
        for _ in range(PICKLES):
            check_index(file, path)
        file.seek(0)
        with torch.serialization.skip_data():
            declared = unwrap(torch.load(file, map_location="cpu", weights_only=True), path)
    else:
        return read_safetensors(file, path, wanted, name)
    check_sizes(declared, file, path)
    if wanted is not None:
        compare(declared, wanted, path, name)
    file.seek(0)
    tensors = unwrap(torch.load(file, map_location="cpu", weights_only=True), path)
    return {key: convert(key, tensor, wanted[key] if wanted else tensor, path) for key, tensor in tensors.items()}


def read_safetensors(file: BinaryIO, path: Path, wanted: Mapping[str, Tensor] | None, name: str) -> dict[str, Tensor]:
    header = int.from_bytes(file.read(8), "little")
    if header > MAX_INDEX:
        raise WeightsError(
            f"{printable(path)} is no checkpoint: it is neither PyTorch's zip or pickle format nor safetensors."
        )
    with safe_open(path, framework="pt") as opened:
        slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118
        declared = {
            key: torch.empty(part.get_shape(), dtype=SAFETENSORS_DTYPES[part.get_dtype()], device="meta")
            for key, part in slices.items()
        }
        stripped = strip_prefix(declared)
        if wanted is not None:
            compare(stripped, wanted, path, name)
        tensors = {key: opened.get_tensor(old) for key, old in zip(stripped, declared, strict=True)}
    return {key: convert(key, tensor, wanted[key] if wanted else tensor, path) for key, tensor in tensors.items()}


def check_archive(file: BinaryIO, path: Path) -> None:
    """PyTorch's zip format: nothing compressed (a bomb would be), a small index that speaks of tensors alone."""
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        index = next((record for record in records if record.filename.endswith("/data.pkl")), None)
        if index is None or any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise WeightsError(f"{printable(path)} is a zip file, but not one that torch.save writes.")
        if index.file_size > MAX_INDEX:
            raise WeightsError(f"{printable(path)} has an index of {index.file_size:,} bytes, over {MAX_INDEX:,}.")
        if damaged := archive.testzip():  # PyTorch itself does not look at the checksums
            raise WeightsError(f"{printable(path)} is damaged: the checksum of {printable(damaged)} is wrong.")
        with archive.open(index) as data:
            check_index(cast("BinaryIO", data), path)
    file.seek(0)


def check_index(file: BinaryIO, path: Path) -> None:
    """Reads one pickle without running it; refuses what a state dict has no need to call."""
    for code, argument, position in pickletools.genops(file):
        called = argument if code.name == "GLOBAL" else "" if code.name in ("STACK_GLOBAL", "INST") else None
        if called is not None and not TENSORS_ALONE.fullmatch(str(called)):
            what = f" ({printable(str(called).replace(' ', '.')[:80])})" if called else ""
            raise WeightsError(
                f"{printable(path)} holds more than tensors{what}, which could run code. "
                "Give a file that holds the state dict alone, best as safetensors."
            )
        if (position or 0) > MAX_INDEX:
            raise WeightsError(f"{printable(path)} has an index of over {MAX_INDEX:,} bytes.")


def check_sizes(declared: Mapping[str, Tensor], file: BinaryIO, path: Path) -> None:
    """No tensor's memory may be larger than the file that is to fill it, nor a tensor than its memory."""
    size = file.seek(0, 2)
    for key, tensor in declared.items():
        needed = max(tensor.untyped_storage().nbytes(), tensor.numel() * tensor.element_size())
        if needed > size:
            raise WeightsError(
                f"{printable(path)} declares {needed:,} bytes for {printable(key)}, but is {size:,} bytes long."
            )


def unwrap(loaded: object, path: Path) -> dict[str, Tensor]:
    """The state dict inside what a training script saved, without the prefix that DataParallel adds."""
    for wrapper in WRAPPERS:
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(key, str) for key in loaded):
        raise WeightsError(f"{printable(path)} holds no state dict (names and their tensors).")
    for key, value in loaded.items():
        if type(value) not in (Tensor, nn.Parameter) or value.layout is not torch.strided or value.is_quantized:
            raise WeightsError(f"{printable(path)}: {printable(key)} is no plain tensor.")
    return strip_prefix({key: value.detach() for key, value in loaded.items()})


def strip_prefix(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if all(key.startswith(prefix) for key in tensors):
            return {key.removeprefix(prefix): value for key, value in tensors.items()}
    return dict(tensors)


def compare(declared: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, name: str) -> None:
    """Keys, shapes and kinds of number; the message counts what differs and names the first few."""
    missing = [key for key in wanted if key not in declared and not key.endswith(OPTIONAL)]
    unexpected = [key for key in declared if key not in wanted]
    both = [(key, declared[key], wanted[key]) for key in declared if key in wanted]
    shapes = [f"{key} is {sides(a)}, not {sides(b)}" for key, a, b in both if a.shape != b.shape]
    kinds = [
        f"{key} is {str(a.dtype).removeprefix('torch.')}"
        for key, a, b in both
        if a.is_complex() or (b.is_floating_point() and not a.is_floating_point())
    ]
    problems = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "not real numbers": kinds}
    if not any(problems.values()):
        return
    parts = [
        f"{len(names)} {kind} ({printable(', '.join(names[:SHOWN]))}{', ...' if len(names) > SHOWN else ''})"
        for kind, names in problems.items()
        if names
    ]
    raise WeightsError(
        f"{printable(path)} does not fit {name}: of its {len(wanted)} tensors {'; '.join(parts)}. "
        f"Give the weights of this network, or choose another --backbone."
    )


def sides(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a single number"


def convert(key: str, tensor: Tensor, like: Tensor, path: Path) -> Tensor:
    """`tensor` in the dtype of `like`; a number that this dtype does not have, or nan, is an error."""
    converted = tensor.to(like.dtype)
    if not bool(torch.isfinite(converted).all()):
        raise WeightsError(f"{printable(path)} is damaged: {printable(key)} has values that are not finite.")
    return converted
