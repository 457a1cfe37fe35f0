"""What all tests of this tier share."""

from __future__ import annotations

import pytest

import stores.segments
from tests.fault.faults import SHARD_BYTES


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long video has several shards."""
    monkeypatch.setattr(stores.segments, "SHARD_BYTES", SHARD_BYTES)
