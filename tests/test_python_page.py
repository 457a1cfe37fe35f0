"""The page for those who use the packages from Python: its code runs, and prints what it says."""

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def test_the_code_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) >= 7
    scope: dict[str, object] = {}
    for block in blocks:
        capsys.readouterr()
        exec(compile(block, str(PAGE), "exec"), scope)
        if "print(" in block:
            said = [line.removeprefix("# ") for line in block.splitlines() if line.startswith("# ")]
            assert capsys.readouterr().out.splitlines() == said
