"""`vl extract --engine ray`, in a network namespace of its own: Ray opens ports, which nobody else can reach there."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from extract.crew import Order
from extract.decode import Limits
from extract.extract_options import ExtractOptions
from extract.ray_crew import RayCrew
from extract.synthetic import generate
from stores import open_store
from stores.errors import InterruptedRunError
from stores.zarr_store import is_zarr_store
from tests.cli.commands import runner

ROOT = Path(__file__).parents[2]
WORKERS = 4


def fenced(*more: str) -> list[str]:
    """Words that begin a command which has a network of its own, the loopback alone; skips if that is refused.

    `more` are options of unshare.
    """
    if os.geteuid() or not (shutil.which("unshare") and shutil.which("ip")):
        pytest.skip("Ray opens ports: this runs it in a network namespace, which needs root, unshare and ip")
    words = ["unshare", "--net", *more, "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if subprocess.run([*words, "true"], capture_output=True, check=False).returncode:
        pytest.skip("Ray opens ports: this runs it in a network namespace, which the kernel refuses here")
    return words


def ray_workers(inside: int) -> list[int]:
    """Process ids of the actors in the network namespace of the process `inside`."""
    namespace = Path(f"/proc/{inside}/ns/net").readlink()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
            if words.startswith(b"ray::Worker") and (entry / "ns/net").readlink() == namespace:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_four_workers_one_killed_midway(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray: pip install 'vl[ray]'")
    words = fenced()
    generate(tmp_path / "videos", clips=24, seconds=2.0, seed=3, size=(64, 64))
    vl = [sys.executable, "-m", "cli.main", "extract", "--backbone", "logmel", "--workers", "1", "videos"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([*vl, "--out", "plain.zarr"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    with (tmp_path / "said").open("wb") as said:
        run = subprocess.Popen(
            [*words, *vl, "--out", "ray.zarr", "--engine", "ray", "--ray-workers", str(WORKERS)],
            cwd=tmp_path,
            env=environment,
            stdout=said,
            stderr=said,
        )
        store = tmp_path / "ray.zarr"
        deadline = time.monotonic() + 150
        killed = None
        while run.poll() is None and killed is None:
            assert time.monotonic() < deadline, (tmp_path / "said").read_text()
            if is_zarr_store(store) and any((store / "commits").glob("*.json")):
                at_work = ray_workers(run.pid)
                assert len(at_work) <= WORKERS + 1  # one that was killed may still be listed
                killed = at_work[0]
                os.kill(killed, signal.SIGKILL)
            time.sleep(0.01)
        assert run.wait(150) == 0, (tmp_path / "said").read_text()
    text = (tmp_path / "said").read_text()
    assert killed is not None, text
    assert "a worker was lost" in text
    assert "24 inputs: 24 done, 0 there already, 0 failed" in text
    assert re.search(r"127\.0\.0\.1:\d+ \((gcs_server|raylet)", text), "it says what listens"
    plain, farmed = (open_store(tmp_path / name)["logmel.audio.frame"] for name in ("plain.zarr", "ray.zarr"))
    assert list(plain) == list(farmed)
    for video in plain:
        assert plain.entry(video).sha256 == farmed.entry(video).sha256
        assert plain.read(video).features.tobytes() == farmed.read(video).features.tobytes()


@pytest.mark.slow
def test_a_cluster_that_is_there_is_joined(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="needs ray: pip install 'vl[ray]'")
    words = fenced("--pid", "--fork", "--mount-proc", "--kill-child")  # the cluster ends with its first process
    generate(tmp_path / "videos", clips=4, seconds=1.0, seed=3, size=(64, 64))
    join = "extract --engine ray --ray-address 127.0.0.1:6399 --ray-workers 1 --backbone logmel videos --out s.zarr"
    script = (
        f"{Path(sys.executable).parent}/ray start --head --port 6399 --node-ip-address 127.0.0.1 --num-cpus 1 "
        f"--include-dashboard=false --disable-usage-stats >/dev/null 2>&1; {sys.executable} -m cli.main {join}"
    )
    home = {"HOME": str(tmp_path), "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "5" * 64}
    environment = {**os.environ, **home, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [*words, "sh", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    assert "ray: joined 127.0.0.1:6399" in said
    assert "4 inputs: 4 done, 0 there already, 0 failed" in said
    assert len(open_store(tmp_path / "s.zarr")["logmel.audio.frame"]) == 4


def test_a_signal_inside_ray_still_ends_a_run_so_that_it_can_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="needs ray: pip install 'vl[ray]'")

    def signalled(*arguments: object, **options: object) -> None:
        raise SystemError("returned a result with an exception set") from InterruptedRunError("stopped by SIGTERM")

    monkeypatch.setattr(ray, "wait", signalled)  # what version 2.60 does, as seen
    crew = RayCrew(Order(ExtractOptions(("logmel",)), tmp_path / "s.zarr", 1, Limits()), 1, 1.0, 0)
    with pytest.raises(InterruptedRunError, match="SIGTERM"):
        crew.wait()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--engine", "spark"), "--engine is ray"),
        (("--ray-workers", "2"), "--engine ray"),
        (("--engine", "ray", "--show-pred"), "leave it out with --engine ray"),
        (("--engine", "ray", "--device", "cuda:1"), "cuda:1 is one GPU"),
        (("--engine", "ray", "--ray-address", "127.0.0.1:1"), "nobody answers at --ray-address 127.0.0.1:1"),
        (("--engine", "ray", "--ray-address", "ray://x:1"), "HOST:PORT or auto"),
    ],
)
def test_options_that_do_not_go_together(
    words: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--ray-address" in words:
        pytest.importorskip("ray", reason="needs ray: pip install 'vl[ray]'")
        generate(tmp_path / "videos", clips=1, seconds=1.0, seed=3, size=(32, 32))
        words = (*words, "--out", str(tmp_path / "s.zarr"))
    code, _, err = runner(capsys)("extract", "--backbone", "logmel", *words, tmp_path)
    assert code == 2
    assert says in err
