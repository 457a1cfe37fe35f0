"""No label file, however broken, ends in anything but labels or one line; `python -m tests.fuzz.labels` tries more."""

import pytest

from tests.fuzz.labels import run
from tests.stores.label_samples import FORMS


@pytest.mark.parametrize("form", FORMS)
def test_a_broken_file_is_read_or_refused_with_one_line(form: str) -> None:
    found = run(form, range(25))
    assert found.total() == 25
    assert found["refused"], "the changes do no harm: the test would show nothing"
