"""Rows on their way from one store to another, checked against the digest that was committed with them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from stores.errors import DamageError
from stores.names import printable
from stores.spec import FeatureSet, Rows

BLOCK_BYTES = 32 << 20


def checked_rows(part: FeatureSet, video: str) -> Iterator[Rows]:
    """All rows of `video` in blocks; use none of them before the last has come without an error.

    Raises:
        DamageError: the rows are not those that were committed.
    """
    entry = part.entry(video)
    step = max(1, BLOCK_BYTES // part.spec.row_bytes)
    digest = hashlib.sha256()
    times = part.times(video)
    for start in range(0, entry.num_rows, step):
        rows = part.read(video, start, start + step)
        digest.update(rows.features.data)
        yield rows
    digest.update(times.data)
    if digest.hexdigest() != entry.sha256:
        raise DamageError(
            f"rows of '{printable(video)}' in '{part.name}' are not those that were committed. "
            "'vl verify --full' lists all damage, 'vl repair' puts it aside."
        )
