"""Tensors out of .pt files: the only file of this package that imports PyTorch, and only when one is read.

Source of the format: torch.save, a zip archive of one pickle and raw storages. The pickle is read with
`weights_only=True`, first on the meta device, so that nothing is allocated before sizes are known to be real.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from stores.array_layouts import Unusable

MAX_PICKLE = 1 << 20  # bytes of the pickle; one tensor needs 500


def read_pt(file: BinaryIO, size: int, key: str | None) -> NDArray[Any]:
    """The tensor of an open .pt file of `size` bytes: the only one, or that of a dictionary under a key.

    Raises:
        Unusable: it holds something else, is packed, or declares more elements than it has bytes.
    """
    import pickle

    import torch

    from stores.import_arrays import require_size

    require_size(size)
    data = file.read()
    if not data.startswith(b"PK"):
        raise Unusable("decode_error", "it is no zip archive, as torch.save writes since 2020: save it again")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for entry in archive.infolist():
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise Unusable("decode_error", "its archive is packed, which torch.save never does: not read")
            if entry.filename.endswith(".pkl") and entry.file_size > MAX_PICKLE:
                raise Unusable("decode_error", f"its index has {entry.file_size} bytes: it holds more than tensors")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            declared = _tensor(torch.load(io.BytesIO(data), map_location="meta", weights_only=True), key)
            num_bytes = declared.numel() * declared.element_size()
            if num_bytes > size:
                raise Unusable("decode_error", f"a tensor {tuple(declared.shape)} needs more bytes than the file has")
            tensor = _tensor(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True), key)
    except pickle.UnpicklingError as error:
        raise Unusable("decode_error", "it holds more than tensors, and reading that could run code") from error
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    array: NDArray[Any] = np.asarray(tensor.detach().contiguous().numpy())
    return array


def _tensor(document: Any, key: str | None) -> Any:
    """The tensor in what was saved."""
    import torch

    from stores.import_arrays import choose_key

    if isinstance(document, dict):
        document = document[choose_key([str(name) for name in document], key)]
    if not isinstance(document, torch.Tensor) or document.layout != torch.strided or document.is_quantized:
        raise Unusable("decode_error", f"it holds a {type(document).__name__}, not a plain tensor")
    return document
