"""Words become values of the right type, or an error that lists what there is."""

from typing import Any, Literal

import pytest

from heads.baselines import TemporalConvolution
from heads.head import HeadError
from heads.mlad import Mlad
from heads.options import TrainOptions, full_config, parse_value, split_settings


def test_settings_go_to_the_head_or_to_its_training() -> None:
    options, training = split_settings(Mlad, ["embed=32", "fixed_alpha=0.25", "lr=0.5", "standardise=false", "lr=0.25"])
    assert options == {"embed": 32, "fixed_alpha": 0.25}
    assert training == TrainOptions(**{**Mlad.recipe, "lr": 0.25, "standardise": False})


def test_mlad_trains_as_its_paper_says_unless_told() -> None:
    _, training = split_settings(Mlad, [])
    assert (training.optimizer, training.lr, training.weight_decay) == ("adam", 1e-4, 1e-6)
    assert (training.batch_size, training.window, training.variable_length) == (32, 128, True)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("7", int, 7),
        ("1e-3", float, 1e-3),
        ("True", bool, True),
        ("none", float | None, None),
        ("0.5", float | None, 0.5),
        ("none", bool | None, None),
        ("false", bool | None, False),
        ("cb", Literal["both", "cb"], "cb"),
        ("none", Literal["none", "cosine"], "none"),
    ],
)
def test_a_word_becomes_a_value_of_its_type(text: str, kind: Any, value: Any) -> None:
    found = parse_value("key", text, kind)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("embde=3", r"no option 'embde'\. It has branches, dropout, embed, .*; its training has accumulate, .*"),
        ("embed", "key=value"),
        ("embed=1.5", "embed is of type int, which '1.5' is not"),
        ("branches=all", "both, cb, tb"),
        ("pos_enc=1", "true or false"),
        ("lr=nan", "finite"),
        ("lr=0", "lr is a positive number, not 0"),
        ("clip=-1", "clip is 0 or more"),
        ("warmup=1", r"\[0, 1\)"),
        ("num_classes=3", "no option 'num_classes'"),
        ("a\x1b[2J=3", r"\\x1b"),
    ],
)
def test_a_word_that_fits_nothing_is_an_error(word: str, message: str) -> None:
    with pytest.raises(HeadError, match=message):
        split_settings(Mlad, [word])


def test_the_sizes_of_a_config_come_from_the_data() -> None:
    config = full_config(TemporalConvolution, {"x": (40,)}, 7, {"width": 16})
    assert config == {"num_features": 40, "num_classes": 7, "dropout": 0.2, "width": 16}
