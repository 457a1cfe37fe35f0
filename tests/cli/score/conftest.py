"""`vl score` in a folder of its own."""

from pathlib import Path

import pytest

from tests.cli.commands import Said, runner
from tests.cli.score.files import LABELS


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    """Run `vl score WORDS` in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    return runner(capsys, "score")


@pytest.fixture
def label_file(said: Said) -> None:
    """`l.csv` in that folder: the labels of the videos of `tests.cli.score.files`."""
    Path("l.csv").write_text(LABELS)
