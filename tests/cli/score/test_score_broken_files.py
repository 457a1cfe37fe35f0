"""`vl score` on files that are not sound: one line that says where, and nothing is run."""

import json
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import Said, refused
from tests.cli.score.files import npz, some, val_scores
from tests.cli.score.stores import CLASSES

pytestmark = pytest.mark.usefixtures("label_file")

BAD: dict[str, tuple[str | bytes, str]] = {
    "nothing.csv": ("", "nothing.csv is empty and no store. vl scores stores, npz matrices"),
    "binary.bin": (b"\x00\x01", "binary.bin is no text and no store"),
    "one.npy": (b"\x93NUMPY\x01\x00", "one.npy is one array, which names no videos"),
    "p.pkl": (b"\x80\x04\x95", "p.pkl is a pickle, which can run code"),
    "words.txt": ("some words", "words.txt begins with 'some words': no form that is known"),
    "list.json": ("[]", 'list.json is json, but not {"results"'),
    "twice.json": ('{"results": {"a": [], "a": []}}', "twice.json has 'a' twice in one object"),
    "broken.json": ('{"results": {', "broken.json, row 1: this is no sound json"),
    "back.csv": ("video,start,end,label,score\na,2,1,run,0.5\n", "row 2: the segment 2 to 1 s ends before it starts"),
    "word.csv": ("video,start,end,label,score\na,0,1,run,high\n", "word.csv, row 2: score is 'high', no number"),
    "same.csv": ("video,start,end,label,score\na,0,1,run,1\na,2,3,run,1\n", "all 2 segments have the score 1"),
    "nan.csv": ("video,time,run,jump\na,0,0.5,nan\n", "nan.csv, row 2, field 4: 'nan' is no number"),
    "short.csv": ("video,time,run,jump\na,0,0.5,1\na,1,0.5\n", "short.csv, row 3: 3 fields where 4 belong"),
    "long.csv": ("video,time,run\na,0,0.5\na,1,0.5,3\n", "long.csv, row 3: 4 fields where 3 belong"),
    "again.csv": ("video,time,run,jump,fall\na,0,0.5,1,1\na,0,0.6,1,1\n", "again.csv has two rows for 'a' at 0 to 0 s"),
    "untimed.csv": ("video,run\na,0.5\na,0.6\n", "untimed.csv has 2 rows for 'a' and no times"),
    "half.csv": ("video,start,run\na,0,0.5\n", "half.csv has the columns start: give time, or start and end"),
    "names.csv": ("video,time,run,run\na,0,1,2\n", "the header names the class 'run' twice"),
    "odd.csv": ("VideoId,LabelConfidencePairs\na,1 0.5 2\n", "odd.csv, row 2: not of the form"),
    "copy.csv": (
        "VideoId,LabelConfidencePairs\na,1 0.5\na,1 0.4\n",
        "row 3: the video 'a' stands there twice",
    ),
    "wide.csv": ("video,time,run\na,0,0.5,3\na,1,0.6,3\n", "wide.csv, row 2: 4 fields where 3 belong"),
    "flat.csv": ("VideoId,LabelConfidencePairs\na,1 0.5\nb,2 0.5\n", "flat.csv: all confidences are the same"),
    "pair.csv": ("VideoId,LabelConfidencePairs\na,1 0.5 1 0.4\n", "pair.csv, row 2: 'a' has a class twice"),
}


@pytest.mark.parametrize("name", sorted(BAD))
def test_a_file_that_is_not_sound_gets_one_line_that_says_where(said: Said, name: str) -> None:
    content, message = BAD[name]
    Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
    warnings.simplefilter("ignore")  # as for people: what pandas only warns of is refused too
    assert message in refused(said, name, "--labels", "l.csv", "--split", "all", "--allow-missing")
    document = json.loads(said(name, "--labels", "l.csv", "--json")[1])
    assert document["exit_code"] == 2


def test_an_npz_that_is_not_sound_is_refused_and_runs_nothing(said: Said) -> None:
    names = np.array(CLASSES)
    words = ["--labels", "l.csv", "--fps", "1", "--allow-missing"]
    np.savez("object.npz", a=np.array([{}], object), allow_pickle=True)
    assert "'a.npy' holds objects (object). Save plain numbers" in refused(said, "object.npz", *words)
    tables = some()
    tables["b"][1, 2] = np.nan
    message = refused(said, npz("nan.npz", tables, classes=names), *words)
    assert "1 scores of 'b' are nan, the first in row 1, class 'fall'" in message
    tables["b"][1, 2] = -np.inf
    message = refused(said, npz("inf.npz", tables, classes=names), *words)
    assert "1 scores of 'b' are infinite, the first in row 1, class 'fall'" in message
    message = refused(said, npz("wide.npz", {"a": np.ones((4, 3)), "b": np.ones((3, 2))}), *words)
    assert "wide.npz holds videos of 2 and 3 classes" in message
    message = refused(said, npz("mixed.npz", {"a": np.ones((4, 3)), "b": np.ones(3)}), *words)
    assert "(T, C) and (C,) matrices" in message
    np.savez("times.npz", scores=np.ones((2, 1)), videos=np.array(["a", "a"]), times=np.array([0.0, np.nan]))
    assert "row 1 of the times: nan to nan s is no stretch of time" in refused(said, "times.npz", *words)
    Path("cut.npz").write_bytes(Path("nan.npz").read_bytes()[:-40])
    assert "cut.npz is no sound npz file" in refused(said, "cut.npz", *words)


def test_an_npz_that_lies_about_sizes_or_texts_takes_no_memory(said: Said) -> None:
    def rewritten(path: str, name: str, old: bytes, new: bytes) -> str:
        with zipfile.ZipFile("p.npz") as archive:
            members = {member: archive.read(member) for member in archive.namelist()}
        assert old in members[name]
        members[name] = members[name].replace(old, new)
        with zipfile.ZipFile(path, "w") as archive:
            for member, content in members.items():
                archive.writestr(member, content)
        return path

    words = ["--labels", "l.csv", "--fps", "1"]
    npz("p.npz", some(), classes=np.array(CLASSES))
    huge = rewritten("huge.npz", "a.npy", b"(4, 3), }          ", b"(4000000000000, 3),}")
    assert "'a.npy' says it is float64 (4000000000000, 3), but has" in refused(said, huge, *words)
    odd = rewritten("odd.npz", "classes.npy", "r".encode("utf-32-le"), b"\xff\xff\xff\x7f")
    assert "'classes' holds what is no text" in refused(said, odd, *words)


def test_scoring_a_file_needs_no_torch(said: Said, tmp_path: Path) -> None:
    npz("p.npz", some(), classes=np.array(CLASSES))
    words = ["score", "p.npz", "--labels", "l.csv", "--fps", "1", "--protocol", "weighted"]
    words += ["--tune-thresholds-on", val_scores()]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[3])!r}); from cli.main import run; "
        f"code = run({words!r}); print(code, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr
