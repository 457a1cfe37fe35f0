"""Networks of pytorchvideo's hub: the hub's own forward on the same weights, and the import of pytorchvideo."""

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from extract.backbone import BackboneError, backbone_class
from extract.extract_options import ExtractOptions
from extract.hub import HubBackbone, pytorchvideo
from extract.plan import make_plan
from extract.slowfast import slow_frames
from extract.weights import build_backbone
from stores.spec import Granularity
from tests.extract.networks import narrow, noise, randomised

CLIP, MAP = Granularity.CLIP, Granularity.MAP
BOTH = frozenset({CLIP, MAP})

# Narrow networks with the published depth and kernels, and the side of the crop: the published one for two, in whose
# heads windows of 7 x 7 overlap; for the others a smaller one, and the head then pools what there is.
NARROW: dict[str, tuple[dict[str, Any], int]] = {
    "slow_r50": ({"stem_dim_out": 8}, 256),
    "i3d_r50": ({"stem_dim_out": 8}, 64),
    "c2d_r50": ({"stem_dim_out": 8}, 64),
    "csn_r101": ({"stem_dim_out": 8}, 64),
    "r2plus1d_r50": ({"stem_dim_out": 8}, 256),
    "slowfast_r50": ({"stem_dim_outs": (8, 1)}, 64),
    "slowfast_r101": ({"stem_dim_outs": (8, 1)}, 64),
    "x3d_xs": ({}, 160),
    "x3d_s": ({}, 64),
    "x3d_m": ({}, 64),
    "x3d_l": ({}, 64),
    "mvit_b_16x4": ({"spatial_size": 64, "patch_embed_dim": 24}, 64),
    "mvit_b_32x3": ({"spatial_size": 64, "patch_embed_dim": 24}, 64),
}


def hub_network(network: HubBackbone) -> tuple[Any, list[Tensor]]:
    """The hub's own network with these weights, that gives logits, and the list of what its classifier is given."""
    reference = getattr(pytorchvideo("pytorchvideo.models.hub"), network.builder)(**network.options)
    reference.double().eval().load_state_dict(network.state_dict())
    head = reference.head if hasattr(reference, "head") else reference.blocks[-1]
    head.activation = None  # a softmax, in R(2+1)D and X3D
    seen: list[Tensor] = []
    head.proj.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    return reference, seen


def as_the_hub_wants_it(network: HubBackbone, frames: Tensor) -> Any:
    """Normalised clips, for SlowFast the two pathways as SlowFast's own code takes them from a clip."""
    x = network.normalise(frames)
    if not network.name.startswith("slowfast"):
        return x
    taken = torch.linspace(0, x.shape[2] - 1, x.shape[2] // 4).long()
    return [x[:, :, taken], x]


def pool_all(reference: nn.Module) -> None:
    """Let the head's fixed average pooling fit any size."""
    for module in list(reference.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.AvgPool3d):
                setattr(module, name, nn.AdaptiveAvgPool3d(1))


@pytest.mark.parametrize("name", sorted(NARROW))
@torch.inference_mode()
def test_logits_and_features_are_those_of_the_hubs_own_network(name: str) -> None:
    options, side = NARROW[name]
    network = narrow(name, **options)
    randomised(network)
    reference, seen = hub_network(network)
    if side == 64 and not name.startswith("mvit"):
        pool_all(reference)
    frames = noise(1, network.clip.window, side, side)
    expected = reference(as_the_hub_wants_it(network, frames))
    torch.testing.assert_close(network.classify(frames), expected, rtol=1e-9, atol=1e-9)
    (pooled,) = seen
    features = pooled.reshape(-1, pooled.shape[-1]).mean(0)  # of all windows
    torch.testing.assert_close(network(frames, BOTH)[CLIP][0, 0], features, rtol=1e-9, atol=1e-9)
    assert expected.std() > 1e-3, "the classes do not differ: the test would show nothing"


@torch.inference_mode()
def test_maps_of_slowfast_are_both_pathways_the_slow_one_repeated() -> None:
    network = randomised(narrow("slowfast_r50", stem_dim_outs=(8, 1)))
    assert isinstance(network, HubBackbone)
    frames = noise(1, 8, 64, 64)
    reference, _ = hub_network(network)
    pathways = as_the_hub_wants_it(network, frames)
    for block in reference.blocks[:-2]:
        pathways = block(pathways)
    slow, fast = pathways
    rows = network(frames, BOTH)[MAP]
    assert rows.shape == (1, 8, 2, 2, 256 + 32)
    for t in range(8):
        torch.testing.assert_close(rows[0, t, ..., :256], slow[0, :, t // 4].permute(1, 2, 0))
        torch.testing.assert_close(rows[0, t, ..., 256:], fast[0, :, t].permute(1, 2, 0))


@pytest.mark.parametrize("frames", [4, 8, 12, 32, 64, 100])
def test_slow_frames_are_those_of_slowfasts_own_sampling(frames: int) -> None:
    assert slow_frames(frames).tolist() == torch.linspace(0, frames - 1, frames // 4).long().tolist()


@torch.inference_mode()
def test_tokens_of_mvit_lie_in_time_then_rows_then_columns() -> None:
    network = randomised(narrow("mvit_b_16x4", spatial_size=64, temporal_size=8, patch_embed_dim=24))
    assert isinstance(network, HubBackbone)
    reference, _ = hub_network(network)
    grids: list[list[int]] = []
    tokens: list[Tensor] = []
    reference.blocks[-1].register_forward_hook(lambda _, given, made: grids.append(made[1]))
    reference.norm_embed.register_forward_hook(lambda _, given, made: tokens.append(made))
    frames = noise(1, 8, 64, 64)
    reference(network.normalise(frames))
    rows = network(frames, BOTH)[MAP]
    assert [list(rows.shape[1:4])] == [list(grid) for grid in grids] == [[4, 2, 2]]
    for index, cell in enumerate(rows[0].flatten(0, 2)):  # after the class token, the last number fastest
        torch.testing.assert_close(cell, tokens[0][0, 1 + index], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "frames"), [("slow_r50", 40), ("i3d_r50", 80), ("c2d_r50", 16), ("r2plus1d_r50", 120)]
)
def test_a_map_row_reaches_as_many_frames_as_declared(name: str, frames: int) -> None:
    network = randomised(narrow(name, stem_dim_out=8))
    assert isinstance(network, HubBackbone)
    x = network.normalise(noise(1, frames, 16, 16)).requires_grad_()
    maps = network.trunk(x)
    (gradient,) = torch.autograd.grad(maps[:, :, maps.shape[2] // 2].sum(), x)
    reached = gradient.abs().sum((0, 1, 3, 4)).nonzero().flatten()
    assert int(reached[-1] - reached[0]) + 1 == network.clip.receptive_field


def test_there_is_no_flow_stream() -> None:
    with pytest.raises(BackboneError, match="slow_r50 sees RGB frames; it has no stream 'flow'"):
        narrow("slow_r50", stem_dim_out=8).__class__("flow")


IMPORT = (
    "import sys, warnings; warnings.simplefilter('error')\n"
    "from extract.hub import pytorchvideo\n"
    "head = pytorchvideo('pytorchvideo.models.hub') and sys.modules['pytorchvideo.models.head']\n"
    "print(sorted(name for name in sys.modules if name.startswith('torchvision')), head.RoIAlign.__module__)"
)


def imported(folder: Path) -> str:
    """What a fresh interpreter prints that finds torchvision in `folder` before any other."""
    code = f"import sys; sys.path.insert(0, {str(folder)!r})\n{IMPORT}"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def package(folder: Path, init: str, ops: str) -> Path:
    (folder / "torchvision").mkdir()
    (folder / "torchvision" / "__init__.py").write_text(init)
    (folder / "torchvision" / "ops.py").write_text(ops)
    return folder


def test_with_a_torchvision_that_fails_pytorchvideo_is_imported_and_no_stand_in_left(tmp_path: Path) -> None:
    """As one for another torch does; without any, every test of this file runs beside a stand-in that is gone."""
    assert imported(package(tmp_path, "raise RuntimeError('operator torchvision::nms does not exist')", "")) == (
        "[] extract.hub"
    )


def test_a_torchvision_that_is_there_is_the_one_used(tmp_path: Path) -> None:
    folder = package(tmp_path, "", "class RoIAlign: pass")
    assert imported(folder) == "['torchvision', 'torchvision.ops'] torchvision.ops"


@pytest.mark.parametrize(
    ("name", "level", "window", "message"),
    [
        ("slowfast_r50", CLIP, 30, "--window 30 of slowfast_r50 must be a multiple of 4 frames."),
        ("c2d_r50", Granularity.SCENE, 7, "--window 7 of c2d_r50 must be a multiple of 2 frames."),
        (
            "mvit_b_16x4",
            Granularity.SCENE,  # which has 12 frames, unless told otherwise
            None,
            (
                "mvit_b_16x4 takes clips of 16 frames, for which its positions were learned, not of 12: "
                "give --window mvit_b_16x4=16."
            ),
        ),
    ],
)
def test_windows_that_a_network_does_not_take_are_refused_in_one_line(
    name: str, level: Granularity, window: int | None, message: str
) -> None:
    given = {} if window is None else {name: window}
    asked = ExtractOptions((name,), levels=(level,), weights={name: "random"}, window=given, device="cpu")
    with pytest.raises(BackboneError) as caught:
        make_plan(asked)
    assert str(caught.value) == message


def test_another_window_is_taken_where_the_network_allows_it() -> None:
    asked = ExtractOptions(("x3d_xs",), levels=(CLIP,), weights={"x3d_xs": "random"}, window={"": 9}, device="cpu")
    assert make_plan(asked).specs["x3d_xs.rgb.clip"].window == 9


@pytest.mark.parametrize("name", ["x3d_xs", "mvit_b_16x4", "slow_r50"])
@torch.inference_mode()
def test_a_file_as_the_hub_serves_it_loads_unchanged(name: str, tmp_path: Path) -> None:
    """{"model_state": ...} of a network that the hub itself built gives that network's numbers."""
    kind = backbone_class(name)
    assert issubclass(kind, HubBackbone)
    torch.manual_seed(0)
    reference = getattr(pytorchvideo("pytorchvideo.models.hub"), kind.builder)().eval()
    path = tmp_path / "published.pyth"
    torch.save({"model_state": reference.state_dict()}, path)
    network, loaded = build_backbone(name, str(path))
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    state = network.state_dict()
    assert set(state) == set(reference.state_dict())
    assert all(torch.equal(state[key], tensor) for key, tensor in reference.state_dict().items())
