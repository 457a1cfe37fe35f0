"""`vl score` from the command line on files as large as people have: processor time and memory of the whole process.

The limits are those of the project: a million rows in 10 s and 1 GB; Charades' localisation (1,863 videos, 25 times,
157 classes) in seconds. The AP itself is also timed against scikit-learn.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from heads import metrics
from tests.bench.table import least_seconds, line

ROOT = Path(__file__).parents[2]
ROWS, CLASSES = 1_000_000, 65
TURNS = 3


CODE = """
import re, sys, time
from pathlib import Path
from cli.main import run
assert run(["score", *sys.argv[1:]]) == 0, "vl score failed"
memory = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(time.process_time(), memory[1] if memory else "nan")
"""


def run(folder: Path, *words: str) -> tuple[float, float]:
    """Processor seconds and peak MB of one `vl score` in a process of its own, its start included."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CODE, *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    seconds, kilobytes = done.stdout.splitlines()[-1].split()
    return float(seconds), float(kilobytes) * 1024 / 1e6


def frames(folder: Path) -> list[str]:
    """100 videos of 10,000 rows, 3 a second; labels in csv."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {"classes": np.array([f"class {index}" for index in range(CLASSES)])}
    labels = ["video,start,end,label,subset,duration"]
    for number in range(100):
        arrays[f"v{number:03d}"] = rng.random((ROWS // 100, CLASSES), dtype=np.float32)
        labels += [
            f"v{number:03d},{start:.2f},{start + 9:.2f},class {rng.integers(CLASSES)},test,3333.4"
            for start in rng.uniform(0, 3000, 400)
        ]
    np.savez(folder / "frames.npz", **arrays)
    (folder / "frames.csv").write_text("\n".join(labels))
    return ["frames.npz", "--labels", "frames.csv", "--fps", "3"]


def charades(folder: Path) -> list[str]:
    """A submission text of Charades' size, and labels of its kind."""
    rng = np.random.default_rng(0)
    labels = ["video,start,end,label,subset,duration"]
    with (folder / "charades.txt").open("w") as file:
        for number in range(1863):
            table = rng.random((25, 157), dtype=np.float32)
            for frame, row in enumerate(table, 1):
                file.write(f"V{number:04d} {frame} " + " ".join(np.char.mod("%.5f", row)) + "\n")
            labels += [
                f"V{number:04d},{start:.2f},{start + 5:.2f},c{rng.integers(157):03d},test,30"
                for start in rng.uniform(0, 25, 7)
            ]
    (folder / "charades.csv").write_text("\n".join(labels))
    return ["charades.txt", "--labels", "charades.csv"]


def report(what: str, folder: Path, words: list[str], seconds: float) -> None:
    taken, peak = run(folder, *words)
    line(f"vl score, {what}", f"{taken:.1f} s", f"{seconds:.0f} s", seconds / taken, ">= 1", ">= 1")
    line(f"vl score, {what}: memory", f"{peak:.0f} MB", "1000 MB", 1000 / peak, ">= 1", ">= 1")


def scikit_learn(scores: NDArray[Any], labels: NDArray[Any]) -> float:
    return float(average_precision_score(labels, scores))


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report(f"{ROWS:,} rows x {CLASSES} classes", folder, frames(folder), 10)
        report("Charades localisation text", folder, charades(folder), 10)
    rng = np.random.default_rng(0)
    scores, labels = rng.random(ROWS, dtype=np.float32), (rng.random(ROWS) < 0.03).astype(np.int8)
    column = scores[:, None], labels[:, None]
    assert abs(metrics.frame_map(*column) - scikit_learn(scores, labels)) < 1e-9, "the two ways differ"
    ours, theirs = least_seconds([lambda: metrics.frame_map(*column), lambda: scikit_learn(scores, labels)], TURNS)
    line(f"AP of {ROWS:,} rows", f"{1e3 * ours:.0f} ms", f"{1e3 * theirs:.0f} ms", theirs / ours, ">= 2")


if __name__ == "__main__":
    main()
