"""How tests run `vl`, in their own process."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cli.main import run

Said = Callable[..., tuple[int, str, str]]
"""Exit code, stdout and stderr of a command."""


def runner(capsys: pytest.CaptureFixture[str], *first: str) -> Said:
    """What runs `vl FIRST WORDS`, where FIRST are words that all commands of a test begin with."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()  # what came before is no part of it
        code = run([*first, *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call
