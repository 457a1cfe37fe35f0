"""VGGish: names of the published checkpoint, its examples by a slow loop, and rows where the sound ends."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from extract.backbone import AudioBackbone
from extract.logmel import LogMel, mel_matrix
from extract.plan_networks import plan_sound
from extract.sound_rows import Sound
from extract.vggish import Vggish
from extract.weights import LoadedWeights, fill_randomly
from stores.spec import FeatureSpec, Granularity

RATE = 100 / 96  # rows a second, end to end
EXAMPLE = 15_600  # samples: the last of 96 frames begins 15,200 behind the first, and has 400

# torchvggish's VGG: convolutions of 64, 128, 256, 256, 512, 512, then 512 x 4 x 6 -> 4096 -> 4096 -> 128.
CHECKPOINT = {
    "features.0": (64, 1, 3, 3),
    "features.3": (128, 64, 3, 3),
    "features.6": (256, 128, 3, 3),
    "features.8": (256, 256, 3, 3),
    "features.11": (512, 256, 3, 3),
    "features.13": (512, 512, 3, 3),
    "embeddings.0": (4096, 12_288),
    "embeddings.2": (4096, 4096),
    "embeddings.4": (128, 4096),
}


class MeanOfExample(Vggish):
    """The mean of each band instead of the network: rows that one can compute without it."""

    def __init__(self) -> None:
        AudioBackbone.__init__(self)
        self.front = LogMel()

    def forward(self, examples: Tensor, levels: frozenset[Granularity]) -> dict[Granularity, Tensor]:
        return {level: examples.mean(2).repeat(1, 1, 2) for level in levels}


def noise(samples: int) -> NDArray[np.float32]:
    return np.random.default_rng(samples).uniform(-1, 1, samples).astype(np.float32)


def sound(rate: float) -> Sound:
    spec = FeatureSpec(Granularity.FRAME, (128,), dtype="float32", fps=rate)
    return Sound(MeanOfExample(), "vggish.audio.frame", spec, rate, torch.device("cpu"))


def rows_of(wave: NDArray[np.float32], rate: float, pieces: int) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    rows = sound(rate).start()
    given = [part for piece in np.array_split(wave, pieces) for part in rows.push(piece)]
    given += rows.finish()
    return (
        np.concatenate([part.features for _, part in given]),
        np.concatenate([part.times for _, part in given]),
    )


def slow_example(wave: NDArray[np.float32], start_frame: int) -> NDArray[np.float64]:
    """(96, 64) by the definition, frame by frame; the sound goes on in zeros."""
    window = np.array([0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)])
    padded = np.append(wave.astype(np.float64), np.zeros(40_000))
    frames = []
    for frame in range(start_frame, start_frame + 96):
        spectrum = np.abs(np.fft.rfft(padded[160 * frame : 160 * frame + 400] * window, 512))
        frames.append(np.log(spectrum @ mel_matrix() + 0.01))
    return np.array(frames)


def test_names_shapes_and_count_are_those_of_the_checkpoint() -> None:
    with torch.device("meta"):
        ours = {name: tuple(value.shape) for name, value in Vggish().state_dict().items()}
    weights = {f"{name}.weight": shape for name, shape in CHECKPOINT.items()}
    biases = {f"{name}.bias": (shape[0],) for name, shape in CHECKPOINT.items()}
    assert ours == weights | biases
    assert sum(math.prod(shape) for shape in ours.values()) == 72_141_184


def test_numbers_are_those_of_the_reference() -> None:
    network = Vggish().requires_grad_(False)
    fill_randomly(network, 1)
    for index, (name, parameter) in enumerate(network.named_parameters()):
        if name.endswith("bias"):
            parameter.copy_(torch.linspace(-0.1, 0.1 + index / 100, len(parameter)))
    wave = torch.from_numpy(noise(EXAMPLE + 15_360))
    x = torch.stack([torch.from_numpy(slow_example(wave.numpy(), 96 * k)) for k in range(2)]).float().unsqueeze(1)
    state = network.state_dict()
    for index, name in enumerate(list(CHECKPOINT)[:6]):
        x = F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1).clamp(min=0)
        if index in (0, 1, 3, 5):  # a pool behind 64, 128, 256 and 512
            x = x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2))
    assert x.shape == (2, 512, 6, 4)
    # The first linear layer counts times, then bands, then channels: index (time * 4 + band) * 512 + channel.
    weight = state["embeddings.0.weight"].view(4096, 6, 4, 512)
    x = (torch.einsum("nctb,otbc->no", x, weight) + state["embeddings.0.bias"]).clamp(min=0)
    x = (x @ state["embeddings.2.weight"].T + state["embeddings.2.bias"]).clamp(min=0)
    expected = x @ state["embeddings.4.weight"].T + state["embeddings.4.bias"]
    assert bool((expected < 0).any())  # no ReLU at the end
    assert bool((expected > 0).any())
    rows = network.rows(wave[: network.span(0, 2, RATE)[1]], 0, 2, RATE)
    torch.testing.assert_close(rows, expected, rtol=2e-3, atol=2e-3 * float(expected.std()))


@pytest.mark.parametrize("pieces", [1, 7])
@pytest.mark.parametrize(("rate", "starts"), [(RATE, (0, 96, 192)), (2.0, (0, 50, 100, 150, 200)), (3.0, (0, 33, 67))])
def test_rows_are_the_examples_of_a_slow_loop(rate: float, starts: tuple[int, ...], pieces: int) -> None:
    wave = noise(16_000 * 4)
    features, times = rows_of(wave, rate, pieces)
    for row, start in enumerate(starts):
        np.testing.assert_allclose(features[row], np.tile(slow_example(wave, start).mean(0), 2), atol=1e-4)
        np.testing.assert_allclose(times[row], (row / rate, row / rate + 0.96), atol=1e-9)
    whole = [start for k in range(100) if (start := round(k * 100 / rate)) * 160 + EXAMPLE <= len(wave)]
    assert len(features) == len(whole)


@pytest.mark.parametrize("rate", [RATE, 1.0, 4.0, 12.5, 100.0])
@pytest.mark.parametrize("samples", [1, 399, 400, EXAMPLE - 1, EXAMPLE, 30_959, 30_960, 16_000 * 5, 123_457])
def test_rows_are_counted_as_vggish_does(rate: float, samples: int) -> None:
    whole = sum(math.floor(k * 100 / rate + 0.5 + 1e-9) * 160 + EXAMPLE <= samples for k in range(1000))
    assert MeanOfExample().num_rows(samples, rate) == max(1, whole)


def test_a_second_of_sound_is_one_row_and_its_rest_is_left_out() -> None:
    features, times = rows_of(noise(16_000), RATE, 1)
    assert features.shape == (1, 128)
    np.testing.assert_allclose(times, [(0, 0.96)])


@pytest.mark.parametrize("samples", [8_000, 200])
def test_a_short_sound_is_one_row_with_zeros_behind_it_and_says_where_it_ends(samples: int) -> None:
    wave = noise(samples)
    features, times = rows_of(wave, RATE, 1)
    np.testing.assert_allclose(times, [(0, samples / 16_000)])
    np.testing.assert_allclose(features[0], np.tile(slow_example(wave, 0).mean(0), 2), atol=1e-4)


def test_no_sound_at_all_gives_no_row() -> None:
    assert list(sound(RATE).start().finish()) == []


def test_the_spec_says_what_an_example_is() -> None:
    from extract.extract_options import ExtractOptions

    options = ExtractOptions(("vggish",), dtype="float32", fps={"vggish": 2.0})
    planned = plan_sound(MeanOfExample(), LoadedWeights("w", "0" * 64), options, torch.device("cpu"))
    assert planned.spec.settings["example"] == 96
    assert planned.spec.settings["hop"] == 160
    assert (planned.spec.fps, planned.spec.row_shape, planned.spec.dtype) == (2.0, (128,), "float32")
