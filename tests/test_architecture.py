"""The import rules of the house, read from the source and from fresh interpreters."""

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cli", "extract", "heads", "stores")
OURS = {
    "stores": {"stores"},
    "extract": {"extract", "stores"},
    "heads": {"heads", "stores"},
    "cli": {"cli", "extract", "heads", "stores"},
}


def imports(file: Path) -> list[tuple[str, bool]]:
    """(module, whether at module level) of every import in a file."""
    tree = ast.parse(file.read_text())
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.append((node.module or "", id(node) in top))
    return found


def roots(file: Path) -> set[str]:
    return {module.split(".")[0] for module, _ in imports(file)}


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_follow_the_arrows(package: str) -> None:
    for file in (ROOT / package).glob("**/*.py"):
        ours = roots(file) & {*PACKAGES, "tests"}
        assert ours <= OURS[package], f"{file.name} imports {sorted(ours - OURS[package])}"


def test_stores_never_import_torch() -> None:
    """The reader of .pt files alone does, when one is read."""
    for file in (ROOT / "stores").glob("**/*.py"):
        found = [top for module, top in imports(file) if module.split(".")[0] == "torch"]
        assert not any(found), f"{file.name} imports torch when it is imported"
        assert not found or file.name == "import_pt.py", file.name


def test_metrics_import_numpy_alone() -> None:
    for file in (ROOT / "heads").glob("metrics*.py"):
        third_party = roots(file) - set(sys.stdlib_module_names) - {"heads"}
        assert third_party <= {"numpy"}, f"{file.name}: {third_party}"


def test_decoders_stay_out_of_heads_and_stores() -> None:
    for package in ("heads", "stores"):
        for file in (ROOT / package).glob("**/*.py"):
            assert not roots(file) & {"av", "decord", "pytorchvideo"}, file.name


def test_commands_import_heavy_modules_only_when_they_run() -> None:
    heavy = {"torch", "numpy", "pandas", "zarr", "h5py", "av", "decord"}
    for file in (ROOT / "cli").glob("**/*.py"):
        at_top = {module.split(".")[0] for module, top in imports(file) if top}
        assert not at_top & heavy, f"{file.name} imports {sorted(at_top & heavy)} at module level"


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return done.stdout.strip()


@pytest.mark.parametrize("words", [["--help"], ["score", "--help"], ["info", "--help"], ["train-head", "--help"]])
def test_help_starts_without_torch(words: list[str]) -> None:
    code = f"import sys; from cli.main import run; run({words!r}); print('torch' in sys.modules)"
    assert fresh(code).splitlines()[-1] == "False"


def test_score_logic_and_stores_import_without_torch() -> None:
    modules = "stores, heads.metrics, heads.scoring, heads.comparison, heads.fusion, heads.tuning"
    readers = [f"heads.{file.stem}" for file in (ROOT / "heads").glob("prediction*.py")]
    modules = ", ".join([modules, *readers])
    assert fresh(f"import sys, {modules}; print('torch' in sys.modules)") == "False"


def test_decode_workers_import_without_torch() -> None:
    assert fresh("import sys, extract.worker_process; print('torch' in sys.modules)") == "False"


def test_help_is_quick() -> None:
    """The target is 0.4 s on a machine that does nothing else: of CPU, so that what else it does is not counted."""
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        fresh("from cli.main import run; run(['--help'])")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.6, seconds


def test_importing_makes_no_connection() -> None:
    code = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('connection')\n"
        "socket.socket.connect = refuse\n"
        "import extract.pipeline, heads.train, stores, cli.main\n"
        "print('quiet')"
    )
    assert fresh(code) == "quiet"
