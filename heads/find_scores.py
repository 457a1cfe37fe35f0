"""Which scores somebody means who names a run, a store, or nothing."""

from __future__ import annotations

from pathlib import Path

from heads.protocols import ScoringError
from stores.names import printable


def newest_run(folder: Path) -> Path:
    """The run in `folder` that finished last.

    Raises:
        ScoringError: none has finished.
    """
    results = [path for path in folder.glob("*/result.json") if path.is_file()]
    if not results:
        begun = sorted(path.parent.name for path in folder.glob("*/config.json"))
        hint = f"; {printable(begun[-1])} is not finished" if begun else ""
        raise ScoringError(
            f"there is no finished run in {printable(folder)}{hint}. 'vl train-head' makes one; or name a store "
            "of scores."
        )
    return max(results, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent


def find_scores(target: Path, split: str | None) -> Path:
    """The store of scores that `target`, a run or a store, stands for; of a run that of `split`, or of test.

    Raises:
        ScoringError: the run has no scores of this split.
    """
    if not (target / "config.json").is_file():
        return target
    split = split or "test"
    path = target / f"{split}.zarr"
    if not path.exists():
        held = ", ".join(sorted(store.stem for store in target.glob("*.zarr"))) or "none"
        finished = "" if (target / "result.json").is_file() else " The run is not finished; train it to its end."
        raise ScoringError(
            f"the run {printable(target)} has no scores of '{printable(split)}' (it has: {held}).{finished}"
        )
    return path
