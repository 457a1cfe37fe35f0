"""An HDF5 store that is extended: packed anew where something came, left alone where nothing did."""

from __future__ import annotations

from pathlib import Path

from stores import open_store
from stores.packing import packed_at_end
from stores.spec import Failure
from stores.zarr_store import ZarrWriter
from tests.stores.samples import CLIP, assert_rows, put, rows_of


def test_only_what_changes_a_store_packs_it_anew(tmp_path: Path) -> None:
    out = tmp_path / "s.h5"
    with packed_at_end(out) as parts, ZarrWriter(parts, {"clip": CLIP}) as writer:
        put(writer, "a", {"clip": rows_of(CLIP, 30, 1)})
    first = out.stat()
    with packed_at_end(out) as parts, ZarrWriter(parts, {"clip": CLIP}):
        assert_rows(open_store(parts)["clip"].read("a"), rows_of(CLIP, 30, 1))
    assert (out.stat().st_ino, out.stat().st_mtime_ns) == (first.st_ino, first.st_mtime_ns)
    with packed_at_end(out) as parts, ZarrWriter(parts, {"clip": CLIP}) as writer:
        writer.fail(Failure("b", "empty", "has no bytes"))
    assert [failure.video for failure in open_store(out).failures()] == ["b"]
    with packed_at_end(out) as parts, ZarrWriter(parts, {"clip": CLIP}) as writer:
        writer.attach("labels", {"classes": ["wave"]})
    assert open_store(out).attachment("labels") == {"classes": ["wave"]}
    assert [failure.video for failure in open_store(out).failures()] == ["b"]
    assert_rows(open_store(out)["clip"].read("a"), rows_of(CLIP, 30, 1))
    assert [path.name for path in tmp_path.iterdir()] == ["s.h5"]
