"""The matrices of attention: whether there are any, their size, and the error before they do not fit."""

import pytest
import torch
from torch import Tensor

from heads import attention_memory
from heads.attention_memory import Matrices, MatrixGuard, makes_matrices
from heads.head import Batch, HeadError
from heads.mlad import Mlad, MladConfig

GIB = 2**30
B, N, C, LAYERS = 2, 9, 4, 3


def small(**options: object) -> Mlad:
    sizes = {"num_features": 6, "num_classes": C, "embed": 8, "num_layers": LAYERS, "branches": "joint"}
    return Mlad(MladConfig(**{**sizes, **options}))  # type: ignore[arg-type]


def batch(rows: int = N, dtype: torch.dtype = torch.float32) -> Batch:
    return Batch(
        {"x": torch.randn(B, rows, 6, dtype=dtype)},
        {"x": torch.ones(B, rows, dtype=torch.bool)},
        torch.zeros(B, rows, 2),
    )


def shaped(windows: int, rows: int, classes: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of any shape that takes no memory."""
    return torch.empty(1, 1, 1, 1, dtype=dtype).expand(windows, rows, classes, width)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that there are free, first; then one 0 for every time that somebody asked."""
    free = [0]

    def answer(device: torch.device) -> int:
        free.append(0)
        return free[0]

    monkeypatch.setattr(attention_memory, "free_memory", answer)
    return free


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize(
    ("dtype", "autocast", "itemsize"),
    [(torch.float32, False, 4), (torch.float64, False, 8), (torch.float32, True, 4)],
    ids=["float32", "float64", "bfloat16"],
)
def test_matrices_that_wait_for_the_backward_pass_are_those_that_are_counted(
    dtype: torch.dtype, autocast: bool, itemsize: int, dropout: float
) -> None:
    head = small(dropout=dropout).to(dtype)
    assert head.guard is not None
    once = B * (N * C) ** 2 * itemsize
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.nbytes() >= once:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=autocast),
    ):
        logits = head(batch(dtype=dtype)).logits
    x_BNCE = torch.zeros(B, N, C, 8, dtype=torch.bfloat16 if autocast else dtype)
    assert makes_matrices(x_BNCE, dropout) == (dropout > 0)
    assert sum(kept.values()) == (3 * LAYERS * once if dropout else 0)
    if dropout:
        assert Matrices(B, N * C, LAYERS, itemsize).kept(dropout=True) == sum(kept.values())
    assert logits.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_too_large_matrices_are_refused_with_what_they_take_and_what_to_lower(
    asked: list[int], dtype: torch.dtype
) -> None:
    asked[0] = 32 * GIB
    needed = 32 * 8320**2 * 4 * (3 * 5 + 2)  # three copies in five layers wait, two more are at work
    assert round(needed / GIB) == 140
    with pytest.raises(HeadError) as caught:
        MatrixGuard(layers=5, dropout=0.2).check(shaped(32, 128, 65, 128, dtype), training=True)
    window, batch_size = int(128 * (32 * GIB / needed) ** 0.5), int(32 * 32 * GIB / needed)
    assert (window, batch_size) == (61, 7)
    assert str(caught.value) == (
        "attention over 128 rows x 65 classes makes matrices of 8320 x 8320: a batch of 32 through 5 layers takes "
        "140 GiB, and cpu has 32 GiB free. Lower window to 61 rows or batch_size to 7, or num_layers; embed does not "
        "matter. dropout=0 makes none of them."
    )
    for windows, rows in ((32, window), (batch_size, 128)):
        MatrixGuard(layers=5, dropout=0.2).check(shaped(windows, rows, 65, 128), training=True)
        with pytest.raises(HeadError):
            MatrixGuard(layers=5, dropout=0.2).check(shaped(windows + 1, rows + 1, 65, 128), training=True)


def test_a_batch_of_one_that_does_not_fit_is_told_the_window_alone(asked: list[int]) -> None:
    asked[0] = GIB
    assert int(128 * (GIB / ((128 * 157) ** 2 * 4 * (3 * 5 + 2))) ** 0.5) == 25
    with pytest.raises(HeadError, match=r"Lower window to 25 rows, or num_layers"):
        MatrixGuard(layers=5, dropout=0.2).check(shaped(1, 128, 157, 128), training=True)


def test_the_head_asks_once_for_each_new_shape_and_only_where_matrices_are_made(asked: list[int]) -> None:
    asked[0] = GIB
    head = small()
    for rows, times in ((9, 1), (9, 1), (5, 2), (9, 2), (5, 2)):
        head(batch(rows))
        assert len(asked) - 1 == times
    asked[0] = 0
    with pytest.raises(HeadError, match="makes matrices of 28 x 28: a batch of 2 through 3 layers takes"):
        head(batch(7))
    with torch.no_grad():
        head.eval()(batch(7))
    small(dropout=0.0)(batch(7))
    Mlad(MladConfig(6, C, embed=8))(batch(7))
    assert len(asked) - 1 == 3


def test_without_gradients_nothing_waits(asked: list[int]) -> None:
    asked[0] = 2 * 4 * 20**2 * 4  # two copies of one layer, as a loss in training mode under no_grad would make
    x_BNCE = shaped(4, 5, 4, 8)
    guard = MatrixGuard(layers=3, dropout=0.2)
    with torch.no_grad():
        guard.check(x_BNCE, training=True)
    with pytest.raises(HeadError):
        guard.check(x_BNCE, training=True)
