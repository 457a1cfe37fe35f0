"""What tests share: the folder of real data, which is never part of the project, and a network that is not there."""

import os
import signal
import socket
from pathlib import Path

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, and every process they start with them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos and labels; a test that needs it is skipped, visibly, without it."""
    folder = Path(os.environ.get("VL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set VL_TEST_DATA")
    return folder


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks the network fails the test."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("a test asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
