"""What tests share: the folder of real data, which is never part of the project."""

import os
import signal
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
