"""Checkpoints run no code, fit their config or are refused, and are whole or not there."""

import json
import pickle
import struct
from pathlib import Path

import pytest
import torch

from heads.checkpoint import create_run, load_run, load_tensors, new_run, read_config, save_tensors
from heads.head import HeadError, head_class
from heads.options import split_settings
from heads.run import carry_out
from heads.run_plan import plan_run
from stores.errors import DamageError
from tests.heads.feature_stores import Silent, planted, write_store

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    features, labels = planted(videos=8)
    store = write_store(tmp_path / "f.zarr", {"one": features})
    options, training = split_settings(head_class("linear"), ["epochs=1"])
    plan = plan_run("linear", [store], labels, options=options, training=training)
    create_run(tmp_path / "run", plan.config, plan.labels)
    carry_out(tmp_path / "run", device=CPU, observer=Silent())
    return tmp_path / "run"


def change_config(run: Path, **fields: object) -> None:
    document = json.loads((run / "config.json").read_text())
    for name, value in fields.items():
        part, _, key = name.partition("__")
        if key:
            document[part][key] = value
        else:
            document[part] = value
    (run / "config.json").write_text(json.dumps(document))


def test_config_survives_writing_and_reading(run: Path) -> None:
    config = read_config(run)
    assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config.options == {"num_features": 8, "num_classes": 3, "dropout": 0.0}
    assert sum(len(videos) for videos in config.split.values()) == 8


def test_a_pickle_in_place_of_weights_is_refused_unread(run: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "marker",)

    (run / "best.safetensors").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(DamageError, match=r"best\.safetensors is no checkpoint"):
        load_run(run)
    assert not (tmp_path / "marker").exists()


def test_a_small_file_that_declares_a_huge_tensor_is_refused(run: Path) -> None:
    size = 4 * 10**12
    header = json.dumps({"head.last.weight": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, size]}}).encode()
    (run / "best.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(DamageError, match="no checkpoint"):
        load_run(run)


def test_weights_of_another_shape_are_refused_by_name_before_anything_is_built(run: Path) -> None:
    change_config(run, options__num_classes=10**12)  # 36 TB of weights
    with pytest.raises(HeadError, match=r"head\.last\.bias is \(3,\), the head has \(1000000000000,\)"):
        load_run(run)


def test_weights_that_are_missing_or_left_over_are_named(run: Path) -> None:
    tensors, state = load_tensors(run / "best.safetensors")
    bias = tensors.pop("head.last.bias")
    save_tensors(run / "best.safetensors", tensors, state)
    with pytest.raises(HeadError, match=r"head\.last\.bias is missing"):
        load_run(run)
    save_tensors(run / "best.safetensors", {**tensors, "head.last.bias": bias, "extra": bias.clone()}, state)
    with pytest.raises(HeadError, match=r"extra is \(3,\), the head has no such tensor"):
        load_run(run)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"options__depth": 3}, "do not make a linear"),
        ({"head": "os"}, "no head 'os'"),
        ({"training__lr": "fast"}, "malformed"),
        ({"classes": 5}, "malformed"),
        ({"surprise": 1}, "malformed"),
    ],
)
def test_a_config_that_says_something_else_is_refused(run: Path, fields: dict[str, object], message: str) -> None:
    change_config(run, **fields)
    with pytest.raises(HeadError, match=message):
        load_run(run)


def test_a_config_that_is_no_json_is_damage(run: Path) -> None:
    (run / "config.json").write_text("{")
    with pytest.raises(DamageError, match=r"config\.json is no JSON"):
        load_run(run)


def test_a_folder_without_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match="is no training run"):
        load_run(tmp_path)


def test_runs_are_numbered_from_1_without_reuse(tmp_path: Path) -> None:
    assert new_run(tmp_path / "runs", "mlad").name == "mlad-001"
    assert new_run(tmp_path / "runs", "mlad").name == "mlad-002"
    assert new_run(tmp_path / "runs", "linear").name == "linear-001"
    (tmp_path / "runs" / "mlad-x").mkdir()
    (tmp_path / "runs" / "mlad-001").rmdir()
    assert new_run(tmp_path / "runs", "mlad").name == "mlad-003"
