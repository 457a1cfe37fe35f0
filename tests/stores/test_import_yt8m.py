"""YouTube-8M's records, written here byte by byte: into a store, with their labels, and out again as they were."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from stores import StoreError, open_store
from stores.alignment import dequantised
from stores.exporting import export_store
from stores.import_yt8m import yt8m_source
from stores.importing import ImportSummary, import_videos
from stores.importing_options import make_options
from stores.labels import Labels
from stores.protobuf import byte_rows, integers, pack_integers
from stores.tfrecord import MAX_RECORD
from stores.yt8m import decode
from tests.stores.yt8m_files import (
    bytes_feature,
    entry,
    frame_record,
    int_feature,
    masked,
    message,
    random_frames,
    video_record,
    write_shard,
)

RGB, AUDIO = "yt8m.rgb.frame", "yt8m.audio.frame"


def run(folder: Path, out: Path, **options: str) -> ImportSummary:
    return import_videos(yt8m_source([folder], make_options("yt8m", **options)), out)  # type: ignore[arg-type]


def frames(seed: int, rows: int = 5) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return random_frames(np.random.default_rng(seed), rows)


def test_frame_level_records_keep_their_bytes(tmp_path: Path) -> None:
    rgb, audio = frames(0, 300)
    write_shard(tmp_path / "in" / "train00.tfrecord", [frame_record("aB3-", [3861, 7], rgb, audio)])
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert (summary.done, summary.failures, summary.warnings) == (1, [], {})
    store = open_store(tmp_path / "o.zarr")
    for name, expected in ((RGB, rgb), (AUDIO, audio)):
        rows = store[name].read("aB3-")
        np.testing.assert_array_equal(rows.features, expected)
        np.testing.assert_array_equal(rows.times, [[i, i + 1] for i in range(300)])
        assert (store[name].spec.dtype, store[name].spec.fps, store[name].spec.stride) == ("uint8", 1.0, 1)
    document = store.attachment("labels")
    assert document is not None
    labels = Labels.from_dict(document)
    assert len(labels.classes) == 3862
    assert set(np.flatnonzero(labels.video("aB3-") == 1)) == {7, 3861}


def test_bytes_stand_for_the_published_values(tmp_path: Path) -> None:
    """b 4 / 255 + 4 / 512 - 2: 0, 128 and 255 are -1.9921875, 0.0156556 and 2.0078125."""
    rgb = np.array([[0, 128, 255]], np.uint8)
    write_shard(tmp_path / "in" / "a.tfrecord", [frame_record("v", [], rgb, rgb)])
    run(tmp_path / "in", tmp_path / "o.zarr")
    part = open_store(tmp_path / "o.zarr")[RGB]
    found = dequantised(part.read("v").features, part.spec)
    np.testing.assert_allclose(found, [[-1.9921875, 0.0156556, 2.0078125]], rtol=0, atol=5e-7)


def test_imported_records_are_exported_byte_by_byte(tmp_path: Path) -> None:
    """Whatever the order of the maps, with features of the context that only segments have."""
    segments = entry("segment_labels", int_feature([4, 4])) + entry("other", bytes_feature(b"\xff\x00"))
    shards = {
        "train00.tfrecord": [
            frame_record("a", [1, 2], *frames(1)),
            frame_record("c", [300, 3861], *frames(2, 300), audio_first=True),
        ],
        "sub/train01.tfrecord": [frame_record("b", [0], *frames(3, 1), extra=segments)],
    }
    for name, records in shards.items():
        write_shard(tmp_path / "in" / name, records)
    assert run(tmp_path / "in", tmp_path / "o.zarr").warnings == {}
    done = export_store(open_store(tmp_path / "o.zarr"), "tfrecord", tmp_path / "out")
    assert (done.videos, done.notes) == (3, [])
    for name in shards:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "in" / name).read_bytes()


def test_video_level_records_are_one_row_each(tmp_path: Path) -> None:
    means = [0.1, -2.5, 3.0]
    write_shard(
        tmp_path / "in" / "a.tfrecord", [video_record("v", [5], means, [0.25]), video_record("w", [], means, [1])]
    )
    assert run(tmp_path / "in", tmp_path / "o.zarr").done == 2
    store = open_store(tmp_path / "o.zarr")
    assert list(store) == ["yt8m.audio.clip", "yt8m.rgb.clip"]
    rows = store["yt8m.rgb.clip"].read("v")
    np.testing.assert_array_equal(rows.features, np.array([means], np.float32))
    assert rows.times.tolist() == [[0.0, 300.0]]
    export_store(store, "tfrecord", tmp_path / "out")
    assert (tmp_path / "out" / "a.tfrecord").read_bytes() == (tmp_path / "in" / "a.tfrecord").read_bytes()


def test_rounded_video_level_rows_are_not_called_exact(tmp_path: Path) -> None:
    write_shard(tmp_path / "in" / "a.tfrecord", [video_record("v", [5], [0.1], [0.25])])
    summary = run(tmp_path / "in", tmp_path / "o.zarr", dtype="float16")
    assert list(summary.warnings) == ["not exact"]
    done = export_store(open_store(tmp_path / "o.zarr"), "tfrecord", tmp_path / "out")
    assert done.notes == ["1 records hold the same values and not the same bytes as those imported"]
    record = decode((tmp_path / "out" / "a.tfrecord").read_bytes()[12:-4])
    assert (record.video, record.labels) == ("v", (5,))
    np.testing.assert_array_equal(record.parts["rgb"], [[np.float16(0.1)]])


def test_odd_encodings_are_read_and_told(tmp_path: Path) -> None:
    """Labels one by one instead of packed, a length of two bytes where one would do, a field nobody knows."""
    one_by_one = entry("id", bytes_feature(b"v")) + entry("labels", message(3, b"\x08\x05\x08\xad\x1e"))
    long_length = b"\x0a\x86\x00" + b"\x0a\x04" + b"\x0a\x02" + b"\x01\x02"  # 6 written as 0x86 0x00
    rows = long_length + message(1, bytes_feature(b"\x03\x04"))
    record = message(1, one_by_one) + message(2, entry("rgb", rows)) + message(9, b"?")
    found = decode(record)
    assert (found.video, found.labels, found.form["exact"]) == ("v", (5, 3885), False)
    assert found.parts["rgb"].tolist() == [[1, 2], [3, 4]]
    write_shard(tmp_path / "in" / "a.tfrecord", [record])
    assert list(run(tmp_path / "in", tmp_path / "o.zarr").warnings) == ["not exact"]


def test_numbers_are_two_s_complement() -> None:
    feature = pack_integers([0, 1, 300, -1])
    assert feature.hex() == "1a100a0e0001ac02ffffffffffffffffff01"
    assert integers(memoryview(feature)) == [0, 1, 300, -1]


def test_frames_of_different_lengths_are_no_rows() -> None:
    with pytest.raises(StoreError, match="different lengths"):
        byte_rows(memoryview(message(1, bytes_feature(b"ab")) + message(1, bytes_feature(b"abc"))))
    unknown = message(1, message(1, message(2, b"ab")))  # as long as the others, and its bytes in a field nobody knows
    with pytest.raises(StoreError, match="different lengths"):
        byte_rows(memoryview(message(1, bytes_feature(b"ab")) + unknown))


def test_damaged_records_cost_themselves(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "in" / "a.tfrecord", [frame_record(v, [1], *frames(i)) for i, v in enumerate("abc")])
    data = bytearray(path.read_bytes())
    size = len(data) // 3
    data[size + 400] ^= 1  # in the second one's payload
    path.write_bytes(data)
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert summary.done == 2
    (failure,) = summary.failures
    assert (failure.video, failure.reason) == ("a.tfrecord#1", "decode_error")
    assert failure.detail == f"the record at byte {size} has another checksum"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda data, half: data[:half] + b"\xff" + data[half + 1 :], "has another checksum: the rest cannot be read"),
        (lambda data, half: data[:-1], "bytes and the file ends before"),
        (lambda data, half: data[: half + 5], "it ends within the record at byte"),
        (
            lambda data, half: data[:half] + struct.pack("<Q", 2**63) + masked(struct.pack("<Q", 2**63)),
            f"declares 9223372036854775808 bytes, more than {MAX_RECORD}",
        ),
    ],
)
def test_a_length_that_is_wrong_ends_its_file(tmp_path: Path, spoil: object, reason: str) -> None:
    path = write_shard(tmp_path / "in" / "a.tfrecord", [frame_record(v, [1], *frames(0)) for v in "ab"])
    data = path.read_bytes()
    path.write_bytes(spoil(data, len(data) // 2))  # type: ignore[operator]
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert summary.done == 1
    assert summary.failures[0].detail.startswith("from record 1 on: ")
    assert reason in summary.failures[0].detail


def test_a_shard_without_sound_is_named(tmp_path: Path) -> None:
    silent = np.zeros((5, 128), np.uint8)
    write_shard(tmp_path / "in" / "a.tfrecord", [frame_record(v, [], frames(0)[0], silent) for v in "ab"])
    write_shard(
        tmp_path / "in" / "b.tfrecord",
        [frame_record("c", [], frames(0)[0], silent), frame_record("d", [], *frames(1))],
    )
    warnings = run(tmp_path / "in", tmp_path / "o.zarr").warnings
    assert warnings["silent shard"] == ["a.tfrecord: the audio of all its 2 videos is zero"]
    assert warnings["constant"] == [f"{v}: all 5 rows of yt8m.audio.frame are equal" for v in "abc"]


def test_importing_again_adds_what_is_new_and_its_labels(tmp_path: Path) -> None:
    write_shard(tmp_path / "in" / "a.tfrecord", [frame_record("a", [1], *frames(0))])
    run(tmp_path / "in", tmp_path / "o.zarr")
    write_shard(
        tmp_path / "in" / "b.tfrecord", [frame_record("b", [2], *frames(1)), frame_record("a", [1], *frames(0))]
    )
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert (summary.done, summary.there) == (1, 1)
    assert [failure.reason for failure in summary.failures] == ["duplicate"]
    document = open_store(tmp_path / "o.zarr").attachment("labels")
    assert document is not None
    assert sorted(document["videos"]) == ["a", "b"]


def test_labels_of_another_folder_are_added(tmp_path: Path) -> None:
    for name, labels in (("a", [1]), ("b", [5000])):
        write_shard(tmp_path / name / "x.tfrecord", [frame_record(name, labels, *frames(0))])
        run(tmp_path / name, tmp_path / "o.zarr")
    document = open_store(tmp_path / "o.zarr").attachment("labels")
    assert document is not None
    found = Labels.from_dict(document)
    assert {video: found.videos[video].video_level for video in found.videos} == {"a": (1,), "b": (5000,)}
    assert len(found.classes) == 5001


def test_levels_are_not_mixed_and_values_go_to_arrays(tmp_path: Path) -> None:
    write_shard(
        tmp_path / "in" / "a.tfrecord", [frame_record("a", [1], *frames(0)), video_record("v", [], [1.0], [2.0])]
    )
    summary = run(tmp_path / "in", tmp_path / "o.zarr")
    assert [failure.detail for failure in summary.failures] == [
        "a video-level record of a.tfrecord among frame-level ones"
    ]
    export_store(open_store(tmp_path / "o.zarr"), "npy", tmp_path / "npy", RGB)
    found = np.load(tmp_path / "npy" / "a.npy")
    np.testing.assert_allclose(found, frames(0)[0] * (4 / 255) + 4 / 512 - 2, rtol=0, atol=1e-6)
