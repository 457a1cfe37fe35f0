"""How tests run `vl`, in their own process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

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


def report(said: Said, *words: object) -> dict[str, Any]:
    """The document that a command gives with --json, without a word on stderr."""
    code, out, err = said(*words, "--json")
    assert (code, err) == (0, "")
    document: dict[str, Any] = json.loads(out)
    return document


def refused(said: Said, *words: object) -> str:
    """The one line with which a command refuses its words."""
    code, out, err = said(*words)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    return err
