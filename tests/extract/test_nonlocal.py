"""I3D with non-local blocks: the same numbers from a functional re-implementation, and SlowFast's checkpoints."""

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from extract.nonlocal_resnet import NonlocalR50
from extract.state_dict import WeightsError
from extract.weights import build_backbone, load_weights
from stores.spec import Granularity
from tests.extract.networks import batch_norm, noise, on_meta, randomised

CLIP, MAP = Granularity.CLIP, Granularity.MAP
BOTH = frozenset({CLIP, MAP})


@pytest.fixture(scope="module")
def network() -> NonlocalR50:
    made = randomised(on_meta("nonlocal_r50").to_empty(device="cpu"))
    assert isinstance(made, NonlocalR50)
    return made


def reference(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """(B, 3, T, H, W) normalised to (B, 2048, T / 2, H / 32, W / 32): section 4 and equation 6 of the paper."""

    norm = partial(batch_norm, state)

    def convolution(x: Tensor, name: str, stride: int = 1) -> Tensor:
        weight = state[f"{name}.weight"]
        pads = [size // 2 for size in reversed(weight.shape[2:]) for _ in range(2)]
        return F.conv3d(F.pad(x, pads), weight, state.get(f"{name}.bias"), stride=(1, stride, stride))

    def attend(x: Tensor, name: str) -> Tensor:
        """Each cell takes what it finds at the cells of a grid half as fine, by softmax of scaled products."""
        few = F.max_pool3d(x, (1, 2, 2))
        queries_QC = convolution(x, f"{name}.conv_theta")[0].flatten(1).T
        keys_PC = convolution(few, f"{name}.conv_phi")[0].flatten(1).T
        values_PC = convolution(few, f"{name}.conv_g")[0].flatten(1).T
        found = [torch.softmax(keys_PC @ query / query.numel() ** 0.5, dim=0) @ values_PC for query in queries_QC]
        y = torch.stack(found, dim=1).view(1, -1, *x.shape[2:])
        return x + norm(convolution(y, f"{name}.conv_out"), f"{name}.bn")

    x = norm(convolution(x, "s1.pathway0_stem.conv", stride=2), "s1.pathway0_stem.bn").relu()
    x = F.max_pool3d(F.pad(x, (1,) * 4), (1, 3, 3), stride=(1, 2, 2))
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for block in range(blocks):
            name, stride = f"s{stage}.pathway0_res{block}", 2 if stage > 2 and block == 0 else 1
            y = norm(convolution(x, f"{name}.branch2.a"), f"{name}.branch2.a_bn").relu()
            y = norm(convolution(y, f"{name}.branch2.b", stride), f"{name}.branch2.b_bn").relu()
            y = norm(convolution(y, f"{name}.branch2.c"), f"{name}.branch2.c_bn")
            if block == 0:
                x = norm(convolution(x, f"{name}.branch1", stride), f"{name}.branch1_bn")
            x = (x + y).relu()
            if f"s{stage}.pathway0_nonlocal{block}.conv_g.weight" in state:
                x = attend(x, f"s{stage}.pathway0_nonlocal{block}")
        if stage == 2:
            x = F.max_pool3d(x, (2, 1, 1))
    return x


@torch.inference_mode()
def test_numbers_are_those_of_the_reference(network: NonlocalR50) -> None:
    frames = noise(1, 4, 64, 64)
    expected = reference(network.state_dict(), ((frames.double() / 255 - 0.45) / 0.225).permute(0, 4, 1, 2, 3))
    rows = network(frames, BOTH)
    torch.testing.assert_close(rows[MAP].permute(0, 4, 1, 2, 3), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rows[CLIP][:, 0], expected.mean((2, 3, 4)), rtol=1e-9, atol=1e-9)
    state = network.state_dict()
    logits = expected.mean((2, 3, 4)) @ state["head.projection.weight"].T + state["head.projection.bias"]
    torch.testing.assert_close(network.classify(frames), logits, rtol=1e-9, atol=1e-9)


@torch.inference_mode()
def test_a_frame_is_seen_across_the_whole_clip(network: NonlocalR50) -> None:
    """In 64 frames the last changes the first map row, which convolutions alone would not let it reach."""
    frames = noise(1, 64, 32, 32)
    changed = frames.clone()
    changed[:, -1] = 255 - changed[:, -1]
    assert bool((network(changed, BOTH)[MAP][:, 0] != network(frames, BOTH)[MAP][:, 0]).any())


def test_a_checkpoint_of_slowfast_loads_unchanged(network: NonlocalR50, tmp_path: Path) -> None:
    """What its `save_checkpoint` writes: epoch, model_state, optimizer_state, cfg."""
    path = tmp_path / "I3D_NLN_8x8_R50.pyth"
    state = {key: value.float() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    torch.save({"epoch": 196, "model_state": state, "optimizer_state": {"state": {}}, "cfg": "NUM_GPUS: 8"}, path)
    fresh = on_meta("nonlocal_r50").to_empty(device="cpu")
    assert load_weights(fresh, str(path)).name == str(path)
    for key, value in fresh.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "nonlocal_r50",
            "Convert it with SlowFast (TRAIN.CHECKPOINT_TYPE caffe2) to a checkpoint with model_state,",
        ),
        ("nonlocal_r101", "nobody serves weights of nonlocal_r101."),
    ],
)
def test_without_a_file_the_message_says_where_one_comes_from(name: str, message: str) -> None:
    with pytest.raises(WeightsError) as caught:
        build_backbone(name)
    assert message in str(caught.value)
    assert str(caught.value).endswith(f" and give --weights {name}=PATH.")
