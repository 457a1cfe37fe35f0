"""Extract to a bucket, kill, resume, verify, train from it, as a user does; against moto's server."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from extract.synthetic import generate
from stores import open_store
from stores.remote import RemotePath
from tests.cli.commands import Said, runner
from tests.stores.bucket import SECRET, s3_bucket

ROOT = Path(__file__).parents[2]
CLIPS = 10


@pytest.fixture(scope="module")
def bucket() -> Iterator[RemotePath]:
    with s3_bucket() as found:
        yield found


@pytest.fixture
def vl(capsys: pytest.CaptureFixture[str]) -> Said:
    return runner(capsys)


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_extract_kill_resume_verify_and_train(
    scheme: str, bucket: RemotePath, tmp_path: Path, vl: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate(tmp_path / "videos", clips=CLIPS, seconds=2.0, seed=3, size=(64, 64))
    (tmp_path / "first").mkdir()
    clips = sorted((tmp_path / "videos").glob("*.mp4"))
    for clip in clips[:3]:
        shutil.copy(clip, tmp_path / "first")
    folder = f"{scheme}://features/{scheme}"
    place, segments = f"{folder}/store.zarr", bucket / f"{scheme}/store.zarr/segments"
    words = ("extract", "--backbone", "logmel", "--workers", "1", "--out", place)

    code, out, err = vl(*words, "first")
    assert (code, "3 done" in out, place in out) == (0, True, True), err

    # The first segment that comes after those means that a worker is writing; then everything is killed.
    before = len(segments.sizes())
    run = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *words, "videos"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while run.poll() is None and len(segments.sizes()) == before:
        assert time.monotonic() < deadline, "nothing is written"
        time.sleep(0.002)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL

    code, out, err = vl("verify", "--full", place)
    assert code == 0, out + err
    code, out, err = vl(*words, "videos")
    assert code == 0, err
    assert f"{CLIPS} inputs" in out
    assert " 0 failed" in out
    assert "3 there already" in out or f"{CLIPS} there already" in out  # the kill may have come after the record
    code, _, err = vl(*words[:-1], "plain.zarr", "videos")
    assert code == 0, err
    remote, local = (open_store(path)["logmel.audio.frame"] for path in (place, "plain.zarr"))
    assert list(remote) == list(local)
    for video in local:
        assert remote.entry(video).sha256 == local.entry(video).sha256
        assert remote.read(video).features.tobytes() == local.read(video).features.tobytes()
    code, out, err = vl("verify", "--full", place)
    assert (code, f"{CLIPS} videos" in out, "ok (every byte read)" in out) == (0, True, True), out + err

    code, out, _ = vl("info", place)
    assert (code, out.splitlines()[0]) == (0, place)
    code, out, _ = vl("ls", place)
    assert (code, len(out.splitlines())) == (0, CLIPS)

    for source, run_folder in ((place, "remote-run"), ("plain.zarr", "local-run")):
        code, out, err = vl("train-head", "linear", "--features", source, "--set", "steps=5", "--out", run_folder)
        assert code == 0, err
    # Same rows, same seed: the same weights, wherever the rows came from.
    remote_weights, local_weights = (Path(f"{name}/best.safetensors") for name in ("remote-run", "local-run"))
    assert remote_weights.read_bytes() == local_weights.read_bytes()
    code, out, err = vl("predict", place, "--head", "remote-run", "--out", f"{folder}/predictions.zarr")
    assert code == 0, err
    code, out, err = vl("score", f"{folder}/predictions.zarr")
    assert code == 0, err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("extract", "--backbone", "logmel", "{videos}", "--out", "s3://features/x.h5"),
            "only stores NAME.zarr may lie there",
        ),
        (("extract", "--backbone", "logmel", "{videos}", "--out", "ftp://x/s.zarr"), "ftp:// is no place"),
        (
            ("train-head", "linear", "--features", "s3://features/a.zarr", "--out", "s3://features/run"),
            "Give a local path",
        ),
        (("info", "s3://features/none.zarr"), "there is no store s3://features/none.zarr"),
        (("info", "s3://nobody/none.zarr"), "NoSuchBucket"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    words: tuple[str, ...], says: str, bucket: RemotePath, tmp_path: Path, vl: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    generate(tmp_path / "videos", clips=1, seconds=1.0, seed=3, size=(64, 64))
    code, _, err = vl(*(word.format(videos="videos") for word in words))
    lines = [line for line in err.splitlines() if line.startswith("vl: ")]
    assert code == 2, err
    assert len(lines) == 1
    assert says in lines[0]
    assert SECRET not in err
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]
