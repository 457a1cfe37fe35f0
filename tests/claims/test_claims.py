"""The generators are what they say they are; and a claim or two, small.

Every check looks at many more videos than an experiment does, so that a shortcut would show.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.claims import asf, asf_speed, gated, mlad, stan, stld
from tests.claims.experiment import Arm, labels_of, mean_ap
from tests.claims.report import lines

VIDEOS = 3000


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def correlations(x_ND: NDArray[np.floating], y_NC: NDArray[np.integer]) -> NDArray[np.float64]:
    """(D, C) of every feature and class; features that never change have none."""
    x = x_ND - x_ND.mean(0)
    y = y_NC - y_NC.mean(0)
    found: NDArray[np.float64] = x.T @ y / len(x) / np.maximum(np.outer(x.std(0), y.std(0)), 1e-9)
    return found


def assert_same_distribution(x_ND: NDArray[np.floating], y_N: NDArray[np.integer]) -> None:
    """Quantiles of every column with the label and without, as far as a sample shows (Kolmogorov and Smirnov)."""
    yes, no = x_ND[y_N == 1], x_ND[y_N == 0]
    for column in range(x_ND.shape[1]):
        a, b, grid = np.sort(yes[:, column]), np.sort(no[:, column]), np.sort(x_ND[:, column])
        gap = np.abs(np.searchsorted(a, grid, "right") / len(a) - np.searchsorted(b, grid, "right") / len(b)).max()
        assert gap < 2.2 * np.sqrt(1 / len(a) + 1 / len(b)), f"column {column}"  # p of about 1e-4


def test_joiners_are_where_the_scenes_partner_is_and_nothing_simple_tells() -> None:
    data = mlad.co_occurring(rng(), VIDEOS)
    (x,) = data.sets.values()
    x_ND, y_NC = x.reshape(-1, x.shape[-1]), data.labels.reshape(-1, data.labels.shape[-1])
    shown, scene = x_ND[:, : mlad.PARTNERS], x_ND[:, mlad.PARTNERS :].argmax(1)
    present = np.abs(shown) > 1
    assert (present == (y_NC[:, : mlad.PARTNERS] == 1)).mean() > 0.98  # by the definition: seen at once
    joiners = y_NC[:, mlad.PARTNERS :]
    for j in range(mlad.JOINERS):
        partner = (scene + 5 * j) % mlad.PARTNERS
        assert (joiners[:, j] == y_NC[np.arange(len(y_NC)), partner]).mean() > 0.99
    assert np.abs(correlations(x_ND, joiners)).max() < 4 / np.sqrt(len(x_ND))  # no linear map of the row
    by_scene = [joiners[scene == index].mean() for index in range(mlad.PARTNERS)]
    assert np.abs(np.array(by_scene) - 0.5).max() < 0.05
    of_video = data.labels[..., mlad.PARTNERS :]
    assert np.abs(correlations(x[:, :-1].reshape(-1, x.shape[-1]), of_video[:, 1:].reshape(-1, 2))).max() < 0.03


def test_followers_are_independent_of_their_own_row_and_place() -> None:
    data = mlad.following(rng(), VIDEOS)
    (x,) = data.sets.values()
    followers = data.labels[..., mlad.LEADERS :]
    assert (followers[:, mlad.LAG :] == data.labels[:, : -mlad.LAG, : mlad.LEADERS]).all()
    flat, y_NC = x.reshape(-1, x.shape[-1]), followers.reshape(-1, mlad.LEADERS)
    assert np.abs(correlations(flat, y_NC)).max() < 4 / np.sqrt(len(flat))
    assert np.abs(followers.mean(0) - 0.2).max() < 4 * np.sqrt(0.16 / VIDEOS)  # in every row alike
    for j in range(mlad.LEADERS):
        assert_same_distribution(flat[:, : mlad.LEADERS], y_NC[:, j])


@pytest.mark.parametrize("together", ["places", "times"])
def test_cues_meet_in_one_memory_and_look_alike_in_the_other(together: str) -> None:
    data = {"places": stld.same_place, "times": stld.same_time}[together](rng(), VIDEOS)
    (x,) = data.sets.values()
    x_VTPD = x.reshape(*x.shape[:2], -1, x.shape[-1])
    over_time, over_places = x_VTPD.max(1), x_VTPD.max(2)  # (V, P, D), (V, T, D)
    telling, hiding = (over_time, over_places) if together == "places" else (over_places, over_time)
    for label in range(stld.LABELS):
        cues = [2 * label, 2 * label + 1]
        meet = telling[..., cues].min(-1).max(1)  # the best row in which both cues are
        assert mean_ap()([meet[:, None]], [data.labels[:, [label]]]) > 0.99
        apart = np.sort(hiding[..., cues].min(-1), axis=1)
        assert_same_distribution(apart, data.labels[:, label])
        assert_same_distribution(np.sort(hiding.sum(-1), axis=1), data.labels[:, label])
        assert_same_distribution(x_VTPD.mean((1, 2)), data.labels[:, label])
    assert ((hiding > 0.7 * stld.STRENGTH).sum(-1) > 1).mean() < 0.001  # no two cues in one of its rows


def test_the_frames_of_a_burst_are_those_of_none_in_another_order() -> None:
    data = gated.bursts(rng(), VIDEOS)
    (x,) = data.sets.values()
    shown = x[..., : gated.CLASSES] > gated.STRENGTH / 2
    assert abs(shown.sum(1).mean() - gated.FRAMES) < 0.2  # noise makes one now and then
    for index in range(gated.CLASSES):
        label = data.labels[:, index]
        for feature in range(8):
            assert_same_distribution(np.sort(x[..., feature], axis=1)[:, ::6], label)
        neighbours = np.stack([x[:, k : k + gated.FRAMES, index].mean(1) for k in range(gated.STEPS - 5)]).max(0)
        assert mean_ap()([neighbours[:, None]], [label[:, None]]) > 0.99
    assert max(shown[:, :30, 1].mean(), shown[:, 30:, 0].mean()) < 0.01  # a cue stays in its half


def test_only_the_order_of_scenes_tells() -> None:
    data = stan.ordered(rng(), VIDEOS)
    for x in data.sets.values():
        for label in range(2):
            first, second = (x[..., 2 * label + k].argmax(1) for k in (0, 1))
            assert ((first < second) == (data.labels[:, label] == 1)).mean() > 0.99
            assert_same_distribution(np.sort(x, axis=1).reshape(VIDEOS, -1), data.labels[:, label])
            assert_same_distribution(x.mean(1), data.labels[:, label])


def test_a_stream_is_independent_of_the_other_ones_labels() -> None:
    data = stan.one_stream_each(rng(), VIDEOS)
    for own, x in zip(([0, 1], [2, 3]), data.sets.values(), strict=True):
        for label in range(4):
            strongest = x[..., label % 2].max(1)
            found = mean_ap()([strongest[:, None]], [data.labels[:, [label]]])
            assert found > 0.99 if label in own else found < 0.56
            if label not in own:
                assert_same_distribution(np.sort(x, axis=1).reshape(VIDEOS, -1), data.labels[:, label])
    assert np.abs(np.corrcoef(data.labels.T) - np.eye(4)).max() < 4 / np.sqrt(VIDEOS)


def test_the_strongest_cue_holds_and_groups_come_together() -> None:
    data = asf.excluding(rng(), VIDEOS)
    (x,) = data.sets.values()
    strength = x[..., : asf.EXCLUDING].reshape(VIDEOS, -1, asf.EXCLUDING).max(1)
    assert (data.labels.sum(1) == 1).all()
    assert (strength.argmax(1) == data.labels.argmax(1)).mean() > 0.8  # noise takes the weak ones
    alone = mean_ap()([strength], [data.labels])
    relative = mean_ap()([strength / strength.sum(1, keepdims=True)], [data.labels])
    assert alone < 0.5 < 0.75 < relative  # a cue by itself, and in comparison
    data = asf.together(rng(), VIDEOS)
    groups = data.labels.reshape(VIDEOS, asf.GROUPS, asf.MEMBERS).any(-1)
    assert (groups.sum(1) <= 1).all()
    (x,) = data.sets.values()
    cues = x[..., : data.labels.shape[1]].reshape(VIDEOS, -1, data.labels.shape[1]).sum(1)
    group = cues.reshape(VIDEOS, asf.GROUPS, asf.MEMBERS).mean(-1).repeat(asf.MEMBERS, axis=1)
    assert mean_ap()([cues + 3 * group], [data.labels]) > mean_ap()([cues], [data.labels]) + 0.1


def test_speeds_teach_the_looks_of_other_paces() -> None:
    train = asf_speed.generate(rng(), 200, (0,))
    test = asf_speed.generate(rng(), 200, asf_speed.PACES)
    seen = {name: set(np.unique(looks)) for name, looks in train.looks.items()}
    assert [seen[name] for name in asf_speed.ALL_SPEEDS] == [{0}, {1}, {-1}]
    assert set(np.unique(test.looks["made.rgb.map.r8"])) == {-3, -2, -1, 0, 1}
    for videos in (train, test):
        for name, x_VIPD in videos.views.items():
            cues = x_VIPD.max(2).mean(1)  # (V, D): over all views
            for index in range(asf_speed.CLASSES):
                at = asf_speed.feature(index, videos.looks[name][:, index])
                strongest = cues[np.arange(200), at]
                assert mean_ap()([strongest[:, None]], [videos.labels[:, [index]]]) > 0.99


def test_labels_in_seconds_are_the_tables() -> None:
    for claim in (mlad.CLAIMS[0], stan.CLAIMS[0]):
        data = claim.generate(rng(), 20)
        labels = labels_of(data)
        rows = next(iter(data.sets.values())).shape[1]
        times = np.stack([np.arange(rows), np.arange(rows) + 1], axis=1) / 5.0  # write_store's five rows a second
        for name, table in zip(labels.videos, data.labels, strict=True):
            found = labels.video(name) if table.ndim == 1 else labels.rows(name, times)
            assert (found == table).all()
        assert [labels.videos[name].subset for name in labels.videos] == ["train"] * 10 + ["val"] * 3 + ["test"] * 7


@pytest.mark.slow
def test_a_claim_shows_when_small() -> None:
    stream = stan.CLAIMS[1]
    small = dataclasses.replace(stream, videos=500, training=(*stream.training, "steps=150", "lr=0.005"))
    arms, chance = small.carry_out(seed=0)
    (figure,), (full,), (ablation,) = chance, small.full, small.ablations
    assert arms[full].figures[figure] > 0.85
    assert arms[ablation].figures[figure] < chance[figure] + 0.12


class Rigged:
    """An experiment whose figures are known: two arms, of which the second seed's differ less than the margin."""

    name, full, ablations = "rigged", {"full": ()}, {"poor": ()}

    def carry_out(self, seed: int) -> tuple[dict[str, Arm], dict[str, float]]:
        return {"full": Arm({"mAP": 0.9}, 7), "poor": Arm({"mAP": 0.5 + 0.38 * seed}, 6)}, {"mAP": 0.25}


def test_a_claim_shows_only_if_every_seed_says_so() -> None:
    (one, _), (both, _) = lines(Rigged(), [0]), lines(Rigged(), [0, 1])
    assert "full (7): 0.900 ± 0.000" in one
    assert one.endswith("0.250 | yes, 1 of 1")
    assert "poor (6): 0.690 ± 0.269" in both  # 0.50 and 0.88
    assert both.endswith("NO, 1 of 2")
