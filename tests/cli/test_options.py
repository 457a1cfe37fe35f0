"""Options with a value for each backbone, whatever characters its name has."""

import pytest

from cli.options import OptionError, per_name

NAMES = ("resnet18", "timm:vit_tiny.a", "hf:MCG-NJU/videomae-base", "hf:/data/lr=0.1/model", "hf:/data/lr")


def test_a_value_is_for_one_name_or_for_all() -> None:
    assert per_name("--fps", ["5", "resnet18=2"], NAMES, float) == {"": 5.0, "resnet18": 2.0}


def test_names_may_have_colons_slashes_and_equals_signs() -> None:
    given = ["timm:vit_tiny.a=1", "hf:MCG-NJU/videomae-base=2", "hf:/data/lr=0.1/model=3", "hf:/data/lr=4"]
    assert list(per_name("--fps", given, NAMES, float).items()) == [
        ("timm:vit_tiny.a", 1.0),
        ("hf:MCG-NJU/videomae-base", 2.0),
        ("hf:/data/lr=0.1/model", 3.0),
        ("hf:/data/lr", 4.0),
    ]


def test_a_path_may_have_an_equals_sign() -> None:
    assert per_name("--pca", ["/data/a=b/pca.npz"], NAMES, str) == {"": "/data/a=b/pca.npz"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["resnet19=5"], "--fps resnet19=5 names resnet19; the names are hf:"),
        (["timm:other=5"], "names timm:other"),
        (["5", "6"], "given twice for all"),
        (["resnet18=5", "resnet18=6"], "given twice for resnet18"),
        (["resnet18=fast"], "'fast' is no float"),
        (["hf:other/model=5"], "is no float"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(values: list[str], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        per_name("--fps", values, NAMES, float)
