"""The job files of docs/cluster.md: their syntax, and that they say what the page says."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cli.options import fraction

DOCS = Path(__file__).parents[1] / "docs"


def stand_in(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def run(words: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """With `vl`, `srun` and `scontrol` that only say what they were asked."""
    stand_in(folder, "vl", 'echo "vl $*"; exit ${VL_CODE:-0}')
    stand_in(folder, "srun", 'exec "$@"')
    stand_in(folder, "scontrol", 'echo "scontrol $*"')
    path = {"PATH": f"{folder}:{os.environ['PATH']}", **environment}
    return subprocess.run(words, capture_output=True, text=True, env=path, timeout=20, check=False)


def shard_in(text: str) -> tuple[int, int]:
    found = re.search(r"--shard (\S+)", text)
    assert found is not None, text
    return fraction(found[1])


@pytest.mark.parametrize(("code", "ends", "requeued"), [(0, 0, False), (3, 0, False), (75, 0, True), (4, 4, False)])
def test_the_slurm_array(code: int, ends: int, requeued: bool, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    script = DOCS / "jobs" / "extract.slurm"
    assert subprocess.run([bash, "-n", str(script)], capture_output=True, check=False).returncode == 0
    text = script.read_text()
    first, last = (int(number) for number in re.findall(r"#SBATCH --array=(\d+)-(\d+)", text)[0])
    assert first == 1, "--shard counts from 1"
    environment = {
        "SLURM_ARRAY_TASK_ID": str(last),
        "SLURM_ARRAY_TASK_COUNT": str(last - first + 1),
        "SLURM_ARRAY_JOB_ID": "7",
        "VL_CODE": str(code),
    }
    done = run([bash, str(script)], tmp_path, **environment)
    assert done.returncode == ends, done.stderr
    assert shard_in(done.stdout) == (last, last)
    assert ("scontrol requeue 7_64" in done.stdout) == requeued


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (3, 0), (75, 75), (4, 4)])
def test_the_indexed_kubernetes_job(code: int, ends: int, tmp_path: Path) -> None:
    yaml: Any = pytest.importorskip("yaml", reason="needs pyyaml: pip install 'vl[test]'")
    job = yaml.safe_load((DOCS / "jobs" / "extract.yaml").read_text())
    assert (job["apiVersion"], job["kind"], job["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    assert job["spec"]["backoffLimitPerIndex"] > 0
    pod = job["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"  # what backoffLimitPerIndex and podFailurePolicy ask for
    (container,) = pod["containers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert set(mounts.values()) == set(volumes)
    assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    ignored, failed = job["spec"]["podFailurePolicy"]["rules"]
    assert ignored["action"] == "Ignore"
    assert failed["onExitCodes"]["values"] == [2, 4, 5]
    assert failed["onExitCodes"]["containerName"] == container["name"]
    count = job["spec"]["completions"]
    for index in (0, count - 1):
        done = run(
            [*container["command"], *container["args"]], tmp_path, JOB_COMPLETION_INDEX=str(index), VL_CODE=str(code)
        )
        assert done.returncode == ends, done.stderr
        assert shard_in(done.stdout) == (index + 1, count)


@pytest.mark.parametrize("command", ["train-head", "finetune"])
def test_the_page_trains_with_options_that_there_are(capsys: pytest.CaptureFixture[str], command: str) -> None:
    from cli.main import run as vl

    vl([command, "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    lines = re.findall(rf"--no-python vl {command} .*", (DOCS / "cluster.md").read_text())
    named = {word for line in lines for word in re.findall(r"--[a-z-]+", line.partition(command)[2])}
    assert "--out" in named
    assert named <= known


def test_the_pages_name_options_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    from cli.main import run as vl

    vl(["extract", "--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    text = (DOCS / "cluster.md").read_text() + "".join(path.read_text() for path in (DOCS / "jobs").iterdir())
    ours = {word for line in re.findall(r"vl extract[^`|]*", text) for word in re.findall(r"--[a-z-]+", line)}
    assert {"--shard", "--engine", "--ray-address", "--out"} <= ours
    assert ours - known <= {"--array", "--gres", "--cpus-per-task"}, ours - known
