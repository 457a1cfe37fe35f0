"""`vl diff` on stores whose defect is known: by construction, and for pictures by EfficientNet-Lite0 on a real clip."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stores import open_store
from stores.alignment import cosines, pair_rows
from stores.difference import Difference, compare_stores
from stores.errors import StoreError
from stores.evidence import Cause
from stores.spec import FeatureSpec, Granularity, Rows
from stores.transfer import convert
from stores.untrimmed import untrimmed_chunks
from stores.zarr_store import ZarrWriter
from tests.cli.commands import Said, runner

D = 32
SPEC = FeatureSpec(Granularity.CLIP, (D,), "float32", backbone="net", stream="rgb", weights_sha256="1" * 64, fps=24.0)
Array = NDArray[np.float32]
Times = NDArray[np.float64]


def process(seconds: NDArray[np.float64], seed: int = 0) -> Array:
    """(N, D) smooth features of a video at the given seconds (N,)."""
    random = np.random.default_rng(seed)
    frequency, phase, mix = random.uniform(0.1, 0.9, 16), random.uniform(0, 6, 16), random.normal(size=(16, D))
    waves = np.sin(2 * np.pi * frequency * seconds[:, None] + phase)
    found: Array = np.maximum(waves @ mix + 1, 0).astype(np.float32)
    return found


def grid(rows: int, rate: float = 3.0) -> Times:
    return np.stack([np.arange(rows), np.arange(rows) + 1], axis=1) / rate


def centres(times: Times) -> NDArray[np.float64]:
    found: NDArray[np.float64] = times.mean(1)
    return found


def store(path: Path, videos: Mapping[str, tuple[Array, Times]], spec: FeatureSpec = SPEC, name: str = "x") -> Path:
    with ZarrWriter(path, {name: spec}) as writer:
        for video, (features, times) in videos.items():
            taker = writer.video(video, {})
            taker.append(name, Rows(features.astype(spec.dtype), times))
            taker.commit()
    return path


def videos(rows: int = 90, rate: float = 3.0) -> dict[str, tuple[Array, Times]]:
    times = grid(rows, rate)
    return {f"{seed}.mp4": (process(centres(times), seed), times) for seed in range(3)}


def changed(change: Callable[[Array, Times], tuple[Array, Times]]) -> dict[str, tuple[Array, Times]]:
    return {video: change(*rows) for video, rows in videos().items()}


def compare(tmp_path: Path, b: Mapping[str, tuple[Array, Times]], spec: FeatureSpec = SPEC) -> Difference:
    first = store(tmp_path / "a.zarr", videos())
    return compare_stores(open_store(first), open_store(store(tmp_path / "b.zarr", b, spec)))


def causes(found: Difference) -> list[tuple[str, str]]:
    return [(cause.certainty, cause.name) for cause in found.sets[0].causes]


def test_a_store_is_equal_to_itself_and_to_its_conversion(tmp_path: Path) -> None:
    path = store(tmp_path / "a.zarr", videos())
    convert(path, tmp_path / "a.h5")
    for other in (path, tmp_path / "a.h5"):
        found = compare_stores(open_store(path), open_store(other))
        assert found.equal
        assert found.sets[0].causes == ()
        assert found.sets[0].cosines == pytest.approx({"mean": 1, "min": 1, "low": 1})


def brute_pairs(a: Times, b: Times) -> list[tuple[int, int]]:
    """Each row of the coarser grid with the nearest centre of the other, within half of the shorter row."""
    coarse, fine, swap = (b, a, True) if np.median(np.diff(b[:, 0])) > np.median(np.diff(a[:, 0])) else (a, b, False)
    found = []
    for i, (start, end) in enumerate(coarse):
        apart = [abs((start + end) / 2 - (s + e) / 2) for s, e in fine]
        j = int(np.argmin(apart))
        if apart[j] <= min(end - start, fine[j, 1] - fine[j, 0]) / 2 + 1e-9:
            found.append((j, i) if swap else (i, j))
    return found


@pytest.mark.parametrize("rates", [(3.0, 3.0), (3.0, 3.75), (12.5, 2.0), (1.0, 24.0)])
@pytest.mark.parametrize("offset", [0.0, 0.21, 4.0])
def test_rows_are_paired_by_their_seconds(rates: tuple[float, float], offset: float) -> None:
    a, b = grid(round(8 * rates[0]), rates[0]), grid(round(9 * rates[1]), rates[1]) + offset
    assert list(zip(*(column.tolist() for column in pair_rows(a, b)), strict=True)) == brute_pairs(a, b)


def test_rows_that_share_no_second_are_not_compared(tmp_path: Path) -> None:
    found = compare(tmp_path, changed(lambda x, times: (x, times + 1000)))
    assert not found.equal
    assert [video.pairs for video in found.sets[0].videos] == [0, 0, 0]
    json.dumps(found.to_dict(), allow_nan=False)


def test_the_figures_are_those_of_a_plain_loop(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (90, D)).astype(np.float32)
    found = compare(tmp_path, changed(lambda x, times: (x + noise, times)))
    for video in found.sets[0].videos:
        x, _ = videos()[video.video]
        y = x + noise
        each = [float(p @ q) / float(np.linalg.norm(p) * np.linalg.norm(q)) for p, q in zip(x, y, strict=True)]
        assert video.cosine_mean == pytest.approx(np.mean(each), abs=1e-6)
        assert video.cosine_min == pytest.approx(min(each), abs=1e-6)
        assert video.cosine_low == pytest.approx(sorted(each)[0] + 0.89 * (sorted(each)[1] - sorted(each)[0]), abs=1e-6)
        assert video.relative_l2 == pytest.approx(np.linalg.norm(noise) / np.linalg.norm(x), abs=1e-6)
        assert (video.rows, video.pairs, video.equal) == ((90, 90), 90, False)
        assert (video.offset, video.stretch) == pytest.approx((0, 1))
    assert found.sets[0].cosines["min"] == min(video.cosine_min for video in found.sets[0].videos)


def test_half_precision_is_equal_within_its_rounding(tmp_path: Path) -> None:
    found = compare(tmp_path, videos(), dataclasses.replace(SPEC, dtype="float16"))
    assert found.equal
    assert causes(found) == [("shown", "rounding to float16")]
    assert "dtype float32 is not float16" in found.sets[0].spec


def test_one_value_off_by_two_steps_is_a_difference(tmp_path: Path) -> None:
    def nudge(steps: float) -> Callable[[Array, Times], tuple[Array, Times]]:
        def change(x: Array, times: Times) -> tuple[Array, Times]:
            y = x.copy()
            y[7, 3] = 1.5 * (1 + steps * float(np.finfo(np.float32).eps))
            return y, times

        return change

    one = store(tmp_path / "one.zarr", changed(nudge(0)))
    for steps, equal in ((0.7, True), (4, False)):
        other = store(tmp_path / f"{steps}.zarr", changed(nudge(steps)))
        assert compare_stores(open_store(one), open_store(other)).equal is equal


def test_levels_of_eight_bits_are_equal_to_what_they_stand_for(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, dtype="uint8", scale=0.1, offset=-1.0)
    stored = changed(lambda x, times: (np.clip(np.round((x + 1) / 0.1), 0, 255), times))
    assert compare(tmp_path, stored, spec).equal
    (tmp_path / "more").mkdir()
    assert not compare(tmp_path / "more", changed(lambda x, times: (stored["0.mp4"][0] + 1, times)), spec).equal


def test_videos_and_sets_of_one_side_are_named(tmp_path: Path) -> None:
    one, two = videos(), videos()
    del one["0.mp4"], two["2.mp4"]
    first, second = store(tmp_path / "a.zarr", one), store(tmp_path / "b.zarr", two)
    store(second, videos(), name="more")
    found = compare_stores(open_store(first), open_store(second))
    assert not found.equal
    assert found.sets[0].only == (("2.mp4",), ("0.mp4",))
    assert found.only == ((), ("more",))
    assert compare_stores(open_store(first), open_store(second), [("x", "more")]).sets[0].only == ((), ("0.mp4",))
    with pytest.raises(StoreError, match="no set is in both"):
        compare_stores(open_store(first), open_store(store(tmp_path / "c.zarr", one, name="y")))


def test_clip_sampled_sets_are_compared_sample_by_sample(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, view="2x3", window=8)
    times = np.concatenate([grid(4) + clip for clip in (0.0, 0.5) for _ in range(3)])  # clips overlap
    rows = {"v.mp4": (process(np.arange(24.0)), times)}
    paths = [store(tmp_path / f"{name}.zarr", rows, spec) for name in "ab"]
    found = compare_stores(open_store(paths[0]), open_store(paths[1]))
    assert found.equal
    assert found.sets[0].videos[0].pairs == 24
    assert found.sets[0].cosines["min"] == pytest.approx(1)


def test_a_shift_by_rows_is_found_with_its_direction(tmp_path: Path) -> None:
    for k in (2, -3):
        (tmp_path / str(k)).mkdir()
        found = compare(
            tmp_path / str(k), {v: (process(centres(t) - k / 3, int(v[0])), t) for v, (_, t) in videos().items()}
        )
        assert causes(found) == [("shown", f"shifted by {k:+d} rows ({k / 3:+.3f} s)")]


def test_shifts_that_differ_by_video_are_no_shift(tmp_path: Path) -> None:
    shifted = {v: (process(centres(t) - int(v[0]), int(v[0])), t) for v, (_, t) in videos().items()}
    assert not any("shifted" in name for _, name in causes(compare(tmp_path, shifted)))


def test_columns_in_another_order_are_found(tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(D)
    assert causes(compare(tmp_path, changed(lambda x, t: (x[:, order], t)))) == [("shown", "permuted columns")]
    (tmp_path / "halves").mkdir()
    halves = compare(tmp_path / "halves", changed(lambda x, t: (np.roll(x, D // 2, axis=1), t)))
    assert causes(halves) == [("shown", "halves in another order")]


def test_rows_of_unit_length_are_found(tmp_path: Path) -> None:
    found = compare(tmp_path, changed(lambda x, t: (x / np.linalg.norm(x, axis=1, keepdims=True), t)))
    assert causes(found) == [("shown", "rows scaled to another length")]


def test_frames_at_30_a_second_stamped_as_25_drift_in_time(tmp_path: Path) -> None:
    stamped = {f"{s}.mp4": (process(centres(grid(108, 3.6)), s), grid(108, 3.0)) for s in range(3)}  # 36 s, not 30
    found = compare(tmp_path, stamped, dataclasses.replace(SPEC, fps=None))
    ((certainty, name),) = causes(found)
    assert certainty in {"shown", "likely"}
    assert name == "frames at 30 a second stamped as 25: time drifts in proportion to time"
    assert found.sets[0].videos[0].stretch == pytest.approx(1.2)


def test_a_longer_video_is_no_drift(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (108, D)).astype(np.float32)
    longer = {f"{seed}.mp4": (process(centres(grid(108)), seed) + noise, grid(108)) for seed in range(3)}
    found = compare(tmp_path, longer)
    assert found.sets[0].videos[0].stretch == pytest.approx(1.2)
    assert not any("stamped" in name for _, name in causes(found))


@pytest.mark.parametrize("recorded", [True, False])
def test_rows_at_another_rate_are_compared_at_their_seconds(tmp_path: Path, recorded: bool) -> None:
    other = {f"{s}.mp4": (process(centres(grid(108, 3.6)), s), grid(108, 3.6)) for s in range(3)}
    spec = dataclasses.replace(SPEC, fps=28.8 if recorded else None)
    found = compare(tmp_path, other, spec)
    assert causes(found) == [
        ("likely", "24 against 28.8 frames a second" if recorded else "25 against 30 frames a second")
    ]
    assert found.sets[0].cosines["mean"] > 0.9


def script_rows(num_frames: int, seed: int) -> Array:
    """What the script gives of a video whose frame n has the features process(n / 24): written out row by row."""
    frames = process(np.arange(num_frames) / 24, seed)
    rows = []
    for start in range(1, num_frames - 56, 1600):
        end = min(num_frames - 1, start + 1600 + 56)
        start = max(1, start - 48)
        chunk = frames[start:end]
        steps = [chunk[k : k + 8].mean(0) for k in range(0, len(chunk), 8)]
        rows += [(first + second) / 2 for first, second in itertools.pairwise(steps)]
    return np.stack(rows)


@pytest.mark.parametrize("swap", [False, True])
def test_overlaps_that_were_not_trimmed_are_found_by_count_and_by_their_jumps(tmp_path: Path, swap: bool) -> None:
    good, bad = {}, {}
    for seed, num_frames in enumerate((4000, 5203)):
        frames = process(np.arange(num_frames) / 24, seed)
        cells = grid(-(-num_frames // 8))
        good[f"{seed}.mp4"] = np.stack([frames[k : k + 8].mean(0) for k in range(0, num_frames, 8)]), cells
        rows = script_rows(num_frames, seed)
        assert sum(count for _, count in untrimmed_chunks(num_frames)) == len(rows)
        bad[f"{seed}.mp4"] = rows, grid(len(rows))
    paths = [store(tmp_path / "good.zarr", good), store(tmp_path / "bad.zarr", bad)]
    first_path, second_path = paths[::-1] if swap else paths
    found = compare_stores(open_store(first_path), open_store(second_path))
    first = found.sets[0].causes[0]
    assert (first.certainty, first.name) == ("shown", f"untrimmed overlap of chunks in {'A' if swap else 'B'}")
    assert "time jumps back by 12 rows at row 206, 418" in first.evidence


def test_a_long_video_with_too_many_rows_for_another_reason_is_not_called_untrimmed(tmp_path: Path) -> None:
    cells = grid(500)
    good = {"v.mp4": (process(centres(cells)), cells)}
    more = grid(540, 540 / 500 * 3)
    paths = [store(tmp_path / "a.zarr", good), store(tmp_path / "b.zarr", {"v.mp4": (process(centres(more)), more)})]
    found = compare_stores(open_store(paths[0]), open_store(paths[1]))
    assert not any("untrimmed" in name for _, name in causes(found))


def test_rows_of_another_shape_are_another_network(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, row_shape=(D // 2,), backbone="other")
    found = compare(tmp_path, changed(lambda x, t: (x[:, : D // 2], t)), spec)
    assert not found.equal
    assert causes(found) == [("shown", "another stream, backbone or level"), ("likely", "another backbone")]


def test_other_weights_are_named_by_the_spec(tmp_path: Path) -> None:
    random = np.random.default_rng(3).normal(size=(D, D))
    found = compare(
        tmp_path,
        changed(lambda x, t: ((x @ random).astype(np.float32), t)),
        dataclasses.replace(SPEC, weights_sha256="2" * 64),
    )
    assert causes(found) == [("likely", "other weights")]


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"roi": (0, 0, 5, 5)}, "another crop or resize"),
        ({"random_weights": True}, "other weights"),
        ({"window": 64, "dense": "windowed"}, "another window or stride"),
        ({"stream": "flow"}, "another stream"),
    ],
)
def test_what_one_spec_has_and_the_other_has_not_is_named(fields: dict[str, Any], name: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 0.3, (90, D)).astype(np.float32)
    found = compare(tmp_path, changed(lambda x, times: (x + noise, times)), dataclasses.replace(SPEC, **fields))
    assert causes(found) == [("likely", name)]
    assert next(iter(fields)) in found.sets[0].causes[0].evidence


def test_unrelated_rows_of_the_same_spec_are_unscaled_pixels_or_another_network(tmp_path: Path) -> None:
    random = np.random.default_rng(3).normal(size=(D, D))
    found = compare(tmp_path, changed(lambda x, t: ((x @ random).astype(np.float32), t)))
    assert causes(found) == [
        ("consistent with", "missing normalisation (pixels of 0 to 255)"),
        ("consistent with", "another stream, backbone or weights"),
    ]


def test_cosine_of_zero_rows() -> None:
    zero, one = np.zeros((1, 2), np.float32), np.ones((1, 2), np.float32)
    assert [float(cosines(a, b)[0]) for a, b in ((zero, zero), (zero, one), (one, -one))] == pytest.approx([1, 0, -1])


@pytest.fixture(scope="module")
def frames(shared_data: Path) -> NDArray[np.uint8]:
    """(T, H, W, 3) six frames a second of a real clip of four seconds."""
    import av

    with av.open(str(shared_data / "videos" / "imageio_cockatoo.mp4")) as container:
        shown = [(frame.time or 0.0, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    return np.stack([[image for at, image in shown if at <= k / 6 + 0.001][-1] for k in range(24)])


def lite0(images: NDArray[np.uint8], resize: int = 256, crop: int = 224, scale: float | None = None) -> Array:
    """(T, 1280) features; `scale`: pixels times this instead of the right normalisation."""
    import torch

    from extract.transform import resize_and_crop
    from extract.weights import build_backbone

    net, _ = build_backbone("efficientnet_lite0")
    if scale is not None:
        net.normalise = lambda x: x.permute(0, 4, 1, 2, 3).float() * scale  # type: ignore[method-assign, assignment]
    x = resize_and_crop(torch.from_numpy(np.ascontiguousarray(images)), resize, crop)
    with torch.inference_mode():
        found: Array = net(x[:, None], frozenset({Granularity.FRAME}))[Granularity.FRAME][:, 0].numpy()
    return found


LITE0 = FeatureSpec(
    Granularity.FRAME, (1280,), "float32", backbone="efficientnet_lite0", stream="rgb", weights_sha256="5" * 64,
    fps=6.0, resize="short side 256", crop="centre 224", normalise="mean 127/255, sd 128/255",
)  # fmt: skip
UNTOLD = dataclasses.replace(LITE0, resize="", crop="", normalise="")  # as an importer of foreign features knows it


@pytest.fixture(scope="module")
def right(frames: NDArray[np.uint8]) -> Array:
    """Features as they should be."""
    return lite0(frames)


def first_causes(
    tmp_path: Path, right: Array, wrong: Array, spec: FeatureSpec, rates: tuple[float, float] = (6, 6)
) -> list[Cause]:
    a = store(tmp_path / "a.zarr", {"v.mp4": (right, grid(len(right), rates[0]))}, LITE0)
    b = store(tmp_path / "b.zarr", {"v.mp4": (wrong, grid(len(wrong), rates[1]))}, spec)
    return list(compare_stores(open_store(a), open_store(b)).sets[0].causes)


def test_swapped_colours_of_a_real_clip(frames: NDArray[np.uint8], right: Array, tmp_path: Path) -> None:
    wrong = lite0(frames[..., ::-1])
    assert 0.6 < cosines(right, wrong).mean() < 0.99
    found = first_causes(tmp_path, right, wrong, LITE0)
    assert (found[0].certainty, found[0].name) == ("consistent with", "BGR instead of RGB")
    assert "another crop or resize" not in [cause.name for cause in found]  # which both specs give as equal


@pytest.mark.parametrize(("scale", "name"), [(1 / 255, ""), (1.0, " (pixels of 0 to 255)")])
def test_missing_normalisation_of_a_real_clip(
    scale: float, name: str, frames: NDArray[np.uint8], right: Array, tmp_path: Path
) -> None:
    wrong = lite0(frames, scale=scale)
    found = first_causes(tmp_path, right, wrong, UNTOLD)
    assert (found[0].certainty, found[0].name) == ("consistent with", f"missing normalisation{name}")
    (tmp_path / "told").mkdir()
    told = dataclasses.replace(LITE0, normalise="mean 0, sd 1")
    (only,) = first_causes(tmp_path / "told", right, wrong, told)
    assert (only.certainty, only.name) == ("likely", "another normalisation of the pixels")


@pytest.mark.parametrize(("resize", "crop"), [(256, 256), (224, 224), (320, 224)])
def test_another_crop_of_a_real_clip(
    resize: int, crop: int, frames: NDArray[np.uint8], right: Array, tmp_path: Path
) -> None:
    wrong = lite0(frames, resize, crop)
    found = first_causes(tmp_path, right, wrong, UNTOLD)
    assert (found[0].certainty, found[0].name) == ("consistent with", "another crop or resize")
    (tmp_path / "told").mkdir()
    told = dataclasses.replace(LITE0, resize=f"short side {resize}", crop=f"centre {crop}")
    (only,) = first_causes(tmp_path / "told", right, wrong, told)
    assert (only.certainty, only.name) == ("likely", "another crop or resize")


@pytest.mark.parametrize(
    ("alike", "alone", "names"),
    [
        (0.6, 0.1, ["missing normalisation", "BGR instead of RGB", "another crop or resize"]),
        (0.32, 0.38, ["BGR instead of RGB", "missing normalisation", "another crop or resize"]),
        (0.1, 0.4, ["another crop or resize", "BGR instead of RGB", "missing normalisation"]),
    ],
)
def test_what_moves_all_rows_alike_is_no_crop(alike: float, alone: float, names: list[str], tmp_path: Path) -> None:
    """Ten videos whose rows share a profile; `alike` moves all of them together, `alone` each by itself.

    With rows of length² 1 + 0.49 the ratio is (1 - (1 + alike²)^-1/2) / (1 - (1 + (alike² + alone²) / 1.49)^-1/2),
    which is 1.36, 0.65 and 0.10; of ten videos it is under 0.51 for a crop and over 0.82 for a scale.
    """
    random = np.random.default_rng(0)
    profile, change = random.normal(size=(2, 256))
    right, wrong = {}, {}
    for number in range(10):
        rows = profile + 0.7 * random.normal(size=(20, 256))
        moved = rows + alike * change + alone * random.normal(size=rows.shape)
        right[f"{number}.mp4"] = rows.astype(np.float32), grid(20)
        wrong[f"{number}.mp4"] = moved.astype(np.float32), grid(20)
    a = store(tmp_path / "a.zarr", right, dataclasses.replace(LITE0, row_shape=(256,)))
    b = store(tmp_path / "b.zarr", wrong, dataclasses.replace(UNTOLD, row_shape=(256,)))
    found = compare_stores(open_store(a), open_store(b)).sets[0].causes
    assert [cause.name for cause in found] == names


def test_another_frame_rate_of_a_real_clip(frames: NDArray[np.uint8], right: Array, tmp_path: Path) -> None:
    slower = right[np.minimum(np.round(np.arange(20) * 6 / 5).astype(int), 23)]  # 5 a second: the frame on the screen
    (honest,) = first_causes(tmp_path, slower, right, dataclasses.replace(UNTOLD, fps=None), (5, 6))
    assert honest.name == "25 against 30 frames a second"
    (tmp_path / "drift").mkdir()
    (drift,) = first_causes(tmp_path / "drift", slower, right, dataclasses.replace(UNTOLD, fps=None), (5, 5))
    assert drift.name == "frames at 30 a second stamped as 25: time drifts in proportion to time"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Said:
    """Run `vl diff WORDS` beside a store, one that is shifted, and one with another name of the set."""
    monkeypatch.chdir(tmp_path)
    store(Path("a.zarr"), videos())
    store(Path("late.zarr"), {v: (process(centres(t) - 1, int(v[0])), t) for v, (_, t) in videos().items()})
    store(Path("named.zarr"), videos(), name="y")
    return runner(capsys, "diff")


def test_the_command_says_what_differs_and_ends_with_4(said: Said) -> None:
    code, out, _ = said("a.zarr", "a.zarr")
    assert (code, out.splitlines()[-1]) == (0, "the stores are equal")
    code, out, err = said("a.zarr", "late.zarr")
    assert (code, err) == (4, "")
    assert "x: DIFFERENT, 3 videos in both" in out
    assert "shown: shifted by +3 rows (+1.000 s)" in out
    code, out, _ = said("a.zarr", "late.zarr", "--json")
    document: dict[str, Any] = json.loads(out)
    assert (code, document["equal"], len(document["sets"][0]["videos"])) == (4, False, 3)
    assert said("a.zarr", "named.zarr", "--sets", "x=y")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.zarr", "named.zarr"], "no set is in both stores"),
        (["a.zarr", "named.zarr", "--sets", "x="], "--sets takes names, or a=b"),
        (["a.zarr", "named.zarr", "--sets", ","], "--sets names no set"),
        (["a.zarr", "named.zarr", "--sets", "x"], "x"),
        (["a.zarr", "none.zarr"], "there is no store none.zarr"),
    ],
)
def test_wrong_input_gets_one_line(words: list[str], message: str, said: Said) -> None:
    code, out, err = said(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.strip().splitlines()) == 1
