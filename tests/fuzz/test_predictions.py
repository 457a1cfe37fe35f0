"""A few hundred of the hostile predictions of `tests.fuzz.predictions`."""

from pathlib import Path

import numpy as np
import pytest

from tests.fuzz import predictions

CASES = 60


@pytest.mark.parametrize("form", sorted(predictions.FORMS))
def test_what_is_changed_at_random_is_scored_or_refused_with_one_line(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = {predictions.attempt(tmp_path, form, seed) for seed in range(CASES)}
    assert "refused" in outcomes
    monkeypatch.setattr(predictions, "mutated", lambda sound, rng: sound)
    assert predictions.attempt(tmp_path, form, 0) == "scored"


def test_a_case_depends_on_its_seed_alone() -> None:
    sound = predictions.csv_of_frames()
    assert predictions.mutated(sound, np.random.default_rng(3)) == predictions.mutated(sound, np.random.default_rng(3))
