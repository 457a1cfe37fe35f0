"""What tests share: the folder of real data, which is never part of the project."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real videos and labels; a test that needs it is skipped, visibly, without it."""
    folder = Path(os.environ.get("VL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set VL_TEST_DATA")
    return folder
