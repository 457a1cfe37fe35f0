"""Checkpoints of strangers: what fits is loaded, everything else is refused before it can do harm."""

import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from extract.state_dict import WeightsError, load_into, read_state
from tests.memory import PEAK_MIB


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 1)
        self.bn = nn.BatchNorm1d(3)


def state() -> dict[str, Tensor]:
    """Values that no initialisation gives."""
    values = Net().state_dict()
    return {key: torch.arange(v.numel(), dtype=v.dtype).view(v.shape) + len(key) for key, v in values.items()}


def zipped(tensors: Mapping[str, object], path: Path) -> None:
    torch.save(tensors, path)


def legacy(tensors: Mapping[str, object], path: Path) -> None:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def safetensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    save_file(dict(tensors), path)


FORMATS = pytest.mark.parametrize("write", [zipped, legacy, safetensors])
Write = Callable[[Mapping[str, object], Path], None]


def assert_loads(path: Path, expected: Mapping[str, Tensor]) -> None:
    net = Net()
    load_into(net, path, "net")
    loaded = net.state_dict()
    for key, value in expected.items():
        assert torch.equal(loaded[key], value), key


def refusal(path: Path) -> str:
    """The message; the network must be as it was."""
    net = Net()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_into(net, path, "net")
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


@FORMATS
def test_every_format_loads(write: Write, tmp_path: Path) -> None:
    write(state(), tmp_path / "w")
    assert_loads(tmp_path / "w", state())


@FORMATS
def test_prefix_of_data_parallel_is_taken_off(write: Write, tmp_path: Path) -> None:
    write({f"module.{key}": value for key, value in state().items()}, tmp_path / "w")
    assert_loads(tmp_path / "w", state())


@pytest.mark.parametrize("wrapper", ["state_dict", "model_state", "model_state_dict", "model"])
@pytest.mark.parametrize("write", [zipped, legacy])
def test_state_is_found_inside_what_training_scripts_save(write: Write, wrapper: str, tmp_path: Path) -> None:
    write({"epoch": 3, wrapper: OrderedDict(state()), "history": [0.5, None, "text"]}, tmp_path / "w")
    assert_loads(tmp_path / "w", state())


@FORMATS
def test_step_counters_may_be_absent(write: Write, tmp_path: Path) -> None:
    write({key: value for key, value in state().items() if "num_batches" not in key}, tmp_path / "w")
    assert_loads(tmp_path / "w", {"conv.weight": state()["conv.weight"], "bn.num_batches_tracked": torch.tensor(0)})


def test_parameters_that_want_gradients_load(tmp_path: Path) -> None:
    zipped({key: nn.Parameter(v) if v.is_floating_point() else v for key, v in state().items()}, tmp_path / "w")
    assert_loads(tmp_path / "w", state())


class Old:
    """A tensor as PyTorch 0.3 wrote it, in the days of the I3D checkpoints."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> tuple[object, ...]:
        storage = torch.storage.TypedStorage(  # type: ignore[no-untyped-call]
            wrap_storage=self.tensor.untyped_storage(), dtype=self.tensor.dtype, _internal=True
        )
        return torch._utils._rebuild_tensor, (storage, 0, tuple(self.tensor.shape), self.tensor.stride())


def test_checkpoints_of_2017_load(tmp_path: Path) -> None:
    old = OrderedDict((key, Old(v)) for key, v in state().items() if "num_batches" not in key)
    legacy(old, tmp_path / "w")
    assert b"_rebuild_tensor\n" in (tmp_path / "w").read_bytes()
    assert_loads(tmp_path / "w", {key: state()[key] for key in old})


@FORMATS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_real_numbers_are_converted(write: Write, dtype: torch.dtype, tmp_path: Path) -> None:
    write({k: v.to(dtype) if v.is_floating_point() else v for k, v in state().items()}, tmp_path / "w")
    assert_loads(tmp_path / "w", state())


@FORMATS
def test_message_counts_and_names_what_does_not_fit(write: Write, tmp_path: Path) -> None:
    wrong = state() | {"conv.weight": torch.zeros(3, 5, 1), "head.weight": torch.zeros(2), "bn.bias": torch.arange(3)}
    del wrong["conv.bias"], wrong["bn.running_mean"]
    write(wrong, tmp_path / "w.pt")
    assert refusal(tmp_path / "w.pt") == (
        f"{tmp_path / 'w.pt'} does not fit net: of its 7 tensors 2 missing (conv.bias, bn.running_mean); "
        "1 unexpected (head.weight); 1 of another shape (conv.weight is 3x5x1, not 3x2x1); "
        "1 not real numbers (bn.bias is int64). Give the weights of this network, or choose another --backbone."
    )


def test_only_the_first_few_names_are_shown(tmp_path: Path) -> None:
    zipped(state() | {f"extra{i}": torch.zeros(1) for i in range(50)}, tmp_path / "w")
    assert "50 unexpected (extra0, extra1, extra2, ...)" in refusal(tmp_path / "w")


def test_names_in_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    zipped(state() | {"\x1b[31mred\n": torch.zeros(1)}, tmp_path / "w")
    assert r"\x1b[31mred\n" in refusal(tmp_path / "w")


@FORMATS
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_numbers_that_are_not_finite_are_damage(write: Write, value: float, tmp_path: Path) -> None:
    wrong = state() | {"bn.weight": torch.tensor([1.0, value, 1.0], dtype=torch.float64)}
    write(wrong, tmp_path / "w")
    assert "bn.weight has values that are not finite" in refusal(tmp_path / "w")


@pytest.mark.parametrize("write", [zipped, legacy])
@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ([torch.zeros(1)], "holds no state dict"),
        ({}, "holds no state dict"),
        ({1: torch.zeros(1)}, "holds no state dict"),
        ({"conv.weight": 5}, "conv.weight is no plain tensor"),
        ({"conv.weight": torch.eye(3).to_sparse()}, "holds more than tensors"),
    ],
)
def test_what_is_no_state_dict_is_refused(write: Write, saved: object, message: str, tmp_path: Path) -> None:
    torch.save(saved, tmp_path / "w", _use_new_zipfile_serialization=write is zipped)
    assert message in refusal(tmp_path / "w")


class Touch:
    """Makes a file when it is unpickled, if it is."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("write", ["zip", "legacy", "pickle"])
def test_code_in_a_checkpoint_does_not_run(write: str, protocol: int, tmp_path: Path) -> None:
    path, marker = tmp_path / "w", tmp_path / "marker"
    hostile = state() | {"conv.bias": Touch(marker)}
    if write == "pickle":
        path.write_bytes(pickle.dumps(hostile["conv.bias"], protocol=protocol))
    else:
        torch.save(hostile, path, _use_new_zipfile_serialization=write == "zip", pickle_protocol=protocol)
    assert "holds more than tensors" in refusal(path)
    assert not marker.exists()


def forged(path: Path, elements: int, shape: tuple[int, ...], data: bytes = b"\0" * 4, stored: bool = True) -> None:
    """A zip checkpoint whose one tensor "conv.weight" declares a storage of `elements` and has `data`."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def text(value: str) -> bytes:
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    def group(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    strides = tuple(int(torch.Size(shape[i + 1 :]).numel()) for i in range(len(shape)))
    index = (
        b"\x80\x02}(" + text("conv.weight") + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + number(elements) + b"tQ"
        + number(0) + group(shape) + group(strides) + b"\x89ccollections\nOrderedDict\n)RtRu."
    )  # fmt: skip
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", index)
        archive.writestr("archive/data/0", data)
        archive.writestr("archive/version", "3\n")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    forged(tmp_path / "w", 10**12, (10**12,))
    size = (tmp_path / "w").stat().st_size
    assert f"declares 4,000,000,000,000 bytes for conv.weight, but is {size} bytes long" in refusal(tmp_path / "w")


def oversized(path: Path, elements: int) -> None:
    """A checkpoint in the older format whose tensor of 6 numbers declares a storage of `elements`."""
    legacy({"conv.weight": torch.zeros(6)}, path)
    plain = path.read_bytes()
    at = plain.index(b"K\x06", plain.index(b"FloatStorage"))
    path.write_bytes(plain[:at] + b"\x8a\x06" + elements.to_bytes(6, "little") + plain[at + 2 :])


def test_the_older_format_is_measured_before_its_numbers_are_read(tmp_path: Path) -> None:
    oversized(tmp_path / "w", 10**8)
    assert "declares 400,000,000 bytes for conv.weight" in refusal(tmp_path / "w")


def test_a_tensor_of_the_right_shape_without_its_data_is_refused(tmp_path: Path) -> None:
    forged(tmp_path / "w", 6, (3, 2, 1))
    with pytest.raises(WeightsError, match="cannot be read as weights"):
        load_into(nn.ModuleDict({"conv": nn.Conv1d(2, 3, 1, bias=False)}), tmp_path / "w", "net")


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    forged(tmp_path / "w", 6, (3, 2, 1), data=b"\0" * 24, stored=False)
    assert "not one that torch.save writes" in refusal(tmp_path / "w")


BOMBS = f"""{PEAK_MIB}
import sys
from pathlib import Path
import torch
from extract.resnet import ResNet18
from extract.state_dict import WeightsError, load_into
network = ResNet18()
for file in map(Path, sys.argv[1:]):
    before = peak_mib()
    try:
        load_into(network, file, "resnet18")
    except WeightsError:
        print(file.name, peak_mib() - before)
"""


def test_bombs_are_refused_in_little_memory(tmp_path: Path) -> None:
    forged(tmp_path / "elements", 10**12, (10**12,))
    forged(tmp_path / "right-shape", 1000 * 512, (1000, 512))
    forged(tmp_path / "deflated", 2**28, (2**28,), data=bytes(2**28), stored=False)
    expanded = {"fc.weight": torch.zeros(1).expand(10**6, 10**6)}
    torch.save(expanded, tmp_path / "expanded")
    oversized(tmp_path / "legacy", 4 * 10**9)
    # a legal call of PyTorch's unpickler: bytearray(4 GB)
    hungry = b"\x80\x02}(X\x01\x00\x00\x00acbuiltins\nbytearray\n\x8a\x05\x00\x28\x6b\xee\x00\x85Ru."
    with zipfile.ZipFile(tmp_path / "bytearray", "w") as archive:
        archive.writestr("archive/data.pkl", hungry)
        archive.writestr("archive/version", "3\n")
    (tmp_path / "header").write_bytes(struct.pack("<Q", 2**62) + b"{")
    shape = b'{"fc.weight":{"dtype":"F32","shape":[1000000,1000000],"data_offsets":[0,4]}}'
    (tmp_path / "safetensors").write_bytes(struct.pack("<Q", len(shape)) + shape + b"\0" * 4)
    files = sorted(tmp_path.iterdir())
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, *map(str, files)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    grown = dict(line.split() for line in done.stdout.splitlines())
    assert grown.keys() == {file.name for file in files}
    assert max(map(int, grown.values())) < 100, grown


@FORMATS
def test_truncated_files_are_refused(write: Write, tmp_path: Path) -> None:
    write(state(), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    for length in (0, 1, 7, 8, 9, 40, len(data) // 2, len(data) - 1):
        (tmp_path / "w").write_bytes(data[:length])
        assert refusal(tmp_path / "w")


def test_a_flipped_bit_among_the_numbers_of_an_archive_is_found(tmp_path: Path) -> None:
    zipped(state(), tmp_path / "w")
    data = bytearray((tmp_path / "w").read_bytes())
    at = data.index(struct.pack("<3f", 9, 10, 11))  # bn.weight
    data[at] ^= 1
    (tmp_path / "w").write_bytes(data)
    assert "the checksum of w/data/" in refusal(tmp_path / "w")


@FORMATS
def test_damaged_files_are_refused_or_load_whole(write: Write, tmp_path: Path) -> None:
    """Whatever a flipped bit does, it ends in a message or in a network with finite weights."""
    write(state(), tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    dice = random.Random(0)
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(dice.choice([1, 1, 1, 4])):
            damaged[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        (tmp_path / "w").write_bytes(damaged)
        net = Net()
        try:
            load_into(net, tmp_path / "w", "net")
        except WeightsError:
            continue
        assert all(bool(v.isfinite().all()) for v in net.state_dict().values())


@pytest.mark.parametrize("content", [b"just text, no weights", b"\x93NUMPY\x01\x00", b"\x89HDF\r\n\x1a\n" + b"\0" * 90])
def test_other_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(content)
    assert "neither PyTorch's zip or pickle format nor safetensors" in refusal(tmp_path / "w")


def test_a_zip_file_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w", "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert "not one that torch.save writes" in refusal(tmp_path / "w")


def test_safetensors_whose_header_begins_like_a_pickle_are_read(tmp_path: Path) -> None:
    """The length of the header is its first byte: 0x80 is also the first byte of a pickle."""
    from safetensors.torch import save_file

    for length in range(0, 300, 8):
        path = tmp_path / f"{length}.safetensors"
        save_file({"weight": torch.ones(1, 1), "bias": torch.ones(1)}, path, metadata={"note": "x" * length})
        if path.read_bytes()[0] == 0x80:
            break
    assert path.read_bytes()[0] == 0x80
    layer = torch.nn.Linear(1, 1)
    load_into(layer, path, "a layer")
    assert layer.weight.item() == layer.bias.item() == 1
    assert read_state(path).keys() == {"weight", "bias"}


def test_a_state_that_nothing_is_compared_with_declares_no_more_than_the_file_has(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="declares 4,000,000,000,000 bytes for weight"):
        read_state(tmp_path / "w.pt")
