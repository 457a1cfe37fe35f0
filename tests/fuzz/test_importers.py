"""A quick share of the fuzzing of importers; `python -m tests.fuzz.importers` runs 10,000 cases each."""

from pathlib import Path

import pytest

from tests.fuzz.importers import KINDS, fuzz


@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_are_imported_or_fail_with_one_line(kind: str, tmp_path: Path) -> None:
    found = fuzz(kind, 60 if kind == "zarr" else 300, 1, tmp_path)
    assert found["imported"], "none was good enough: nothing is shown of what comes after reading"
    assert found.total() > found["imported"], "none was bad"
