"""What `vl extract` takes from files and folders."""

import os
import socket
import unicodedata
from pathlib import Path

import pytest

from extract.inputs import InputError, VideoInput, enumerate_videos, shard


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def ids(*paths: Path | str) -> list[str]:
    return [video.id for video in enumerate_videos(paths).videos]


def test_ids_are_relative_paths_with_extension_sorted_by_bytes(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a/z.mkv", "a/b/c.AVI", "Z.webm", "é.mp4", "a.mp4")
    assert ids(tmp_path) == ["Z.webm", "a.mp4", "a/b/c.AVI", "a/z.mkv", "b.mp4", "é.mp4"]


def test_a_file_given_by_name_has_its_name_as_id_and_is_always_tried(tmp_path: Path) -> None:
    touch(tmp_path, "deep/clip.bin")
    assert ids(tmp_path / "deep" / "clip.bin") == ["clip.bin"]


def test_paths_are_absolute_whatever_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "v/a:b.mp4")
    monkeypatch.chdir(tmp_path)
    (video,) = enumerate_videos(["v"]).videos
    assert video == VideoInput("a:b.mp4", tmp_path / "v" / "a:b.mp4")


def test_what_is_no_video_by_its_name_is_counted_not_lost(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "labels.csv", "a.txt", "a.align", "README", ".hidden.mp4", "._a.mp4", "f.zarr/zarr.json")
    found = enumerate_videos([tmp_path])
    assert [video.id for video in found.videos] == ["a.mp4"]
    names = [path.name for path in found.ignored]
    assert names == ["._a.mp4", ".hidden.mp4", "README", "a.align", "a.txt", "f.zarr", "labels.csv"]
    assert not found.failures


def test_a_fifo_a_socket_and_a_device_are_failures_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null.avi").symlink_to("/dev/null")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.mkv"))
        found = enumerate_videos([tmp_path, tmp_path / "pipe.mp4"])
    kinds = {failure.video: (failure.reason, failure.detail) for failure in found.failures}
    assert kinds == {
        "null.avi": ("not_regular", "is a character device, not a regular file"),
        "pipe": ("not_regular", "is a FIFO, not a regular file"),
        "pipe.mp4": ("not_regular", "is a FIFO, not a regular file"),
        "socket.mkv": ("not_regular", "is a socket, not a regular file"),
    }
    assert not found.videos


def test_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "videos/real/a.mp4", "elsewhere/b.mp4")
    videos = tmp_path / "videos"
    (videos / "a_link_before_real").symlink_to(videos / "real")
    (videos / "real" / "loop").symlink_to(videos)
    (videos / "self").symlink_to(videos / "self")
    (videos / "outside").symlink_to(tmp_path / "elsewhere")
    (videos / "outside_again").symlink_to(tmp_path / "elsewhere")
    assert ids(videos) == ["outside/b.mp4", "real/a.mp4"]


def test_a_link_to_nowhere_with_the_name_of_a_video_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nothing")
    (tmp_path / "gone.txt").symlink_to(tmp_path / "nothing")
    found = enumerate_videos([tmp_path])
    assert [(failure.video, failure.reason) for failure in found.failures] == [("gone.mp4", "unreadable")]
    assert [path.name for path in found.ignored] == ["gone.txt"]


def test_ids_are_in_normal_form_c(tmp_path: Path) -> None:
    touch(tmp_path, unicodedata.normalize("NFD", "né.mp4"))
    assert ids(tmp_path) == [unicodedata.normalize("NFC", "né.mp4")]


def test_bytes_that_are_no_utf8_are_percent_encoded(tmp_path: Path) -> None:
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.mp4"))).write_bytes(b"x")
    (video,) = enumerate_videos([tmp_path]).videos
    assert video.id == "caf%E9.mp4"
    assert video.path.read_bytes() == b"x"


def test_two_files_with_one_id_are_an_error_that_names_both(tmp_path: Path) -> None:
    touch(tmp_path, "x/a.mp4", "y/a.mp4")
    with pytest.raises(InputError, match=r"x/a\.mp4' and '.*y/a\.mp4' would both have the id 'a\.mp4'"):
        enumerate_videos([tmp_path / "x", tmp_path / "y"])


def test_the_same_file_given_twice_is_taken_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    assert ids(tmp_path, tmp_path / "a.mp4") == ["a.mp4"]


def test_a_path_that_is_not_there_is_an_error_on_one_printable_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        enumerate_videos([tmp_path / "no\x1b[31m\nsuch"])
    message = str(caught.value)
    assert "No such file" in message
    assert "\x1b" not in message
    assert "\n" not in message


def test_shards_are_disjoint_even_and_together_everything() -> None:
    inputs = [VideoInput(f"{index:03}.mp4", Path(f"/{index}")) for index in range(11)]
    parts = [shard(inputs, index, 4) for index in range(4)]
    assert sorted(len(part) for part in parts) == [2, 3, 3, 3]
    assert sorted((video for part in parts for video in part), key=lambda video: video.id) == inputs
