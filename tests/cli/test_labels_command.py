"""`vl labels`: check, convert, attach, stats."""

import csv
import json
from pathlib import Path

import matplotlib.image
import pytest

from stores import open_store
from stores.label_files import read_labels
from stores.labels import Labels
from tests.cli.commands import Said, runner
from tests.heads.feature_stores import planted, write_store

ROWS = "video,start,end,label,subset,duration\n"
DIRTY = ROWS + "a,3,2,run,train,9\na,0,1,run,train,9\na,0,1,run,train,9\nb,8,10,jump,test,9\nb,0,1,run,test,9\n"
CLEAN = ROWS + "a,0,1,run,,9\nb,2,3,run,,9\n"


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Said:
    monkeypatch.chdir(tmp_path)
    return runner(capsys, "labels")


def saved(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def test_check_says_what_is_wrong_and_where(said: Said) -> None:
    code, out, err = said("check", saved("x.csv", DIRTY))
    assert code == 3
    assert out.splitlines() == [
        "x.csv: csv, 2 videos, 2 classes",
        "reversed: 1 (ends before it starts)",
        "  row 2: 'a': run 3 to 2 of 9",
        "late: 1 (ends after its video)",
        "  row 5: 'b': jump 8 to 10 of 9",
        "duplicate: 1 (is there already)",
        "  row 4: 'a': run 0 to 1 of 9",
        "no-positives: 1 (class without positives)",
        "  jump has no positive in train",
    ]
    assert err == "x.csv: as found in the file: 1 reversed, 1 after the end\n"
    code, out, _ = said("check", saved("x.csv", CLEAN))
    assert (code, out.splitlines()[1:]) == (0, ["nothing is wrong"])


def test_check_shows_five_of_a_kind_or_all(said: Said) -> None:
    saved("x.csv", CLEAN + "".join(f"a,{at},{at},run,,\n" for at in range(7)))
    shown = [line for line in said("check", "x.csv")[1].splitlines() if line.startswith("  ")]
    assert (len(shown), shown[-1]) == (6, "  and 2 more; --all shows them")
    assert sum(line.startswith("  row") for line in said("check", "x.csv", "--all")[1].splitlines()) == 7


def test_check_as_json(said: Said) -> None:
    code, out, _ = said("check", saved("x.csv", DIRTY), "--json")
    document = json.loads(out)
    assert code == 3
    assert document["counts"]["reversed"] == 1
    assert document["findings"][0] == {"kind": "reversed", "where": "row 2", "text": "'a': run 3 to 2 of 9"}
    assert (document["format"], document["fixed"]) == ("csv", None)


def test_a_corrected_copy_is_written_and_what_was_corrected_is_said(said: Said) -> None:
    code, out, err = said("check", saved("x.csv", DIRTY), "--fix", "y.csv")
    assert code == 3
    assert out.splitlines()[-3:] == ["cut at the end of the video: 1", "dropped: reversed: 1", "dropped: duplicate: 1"]
    assert "written as csv: y.csv\n" in err
    assert said("check", "y.csv")[1].splitlines()[1:] == [
        "no-positives: 1 (class without positives)",
        "  jump has no positive in train",
    ]
    assert read_labels("x.csv").problems()["reversed"] == 1, "the file itself is never changed"
    code, _, err = said("check", "x.csv", "--fix", "x.csv")
    assert code == 2
    assert err.splitlines()[-1] == "vl: x.csv exists already. Give another name."


def test_a_corrected_copy_numbers_its_classes_as_the_file_does(said: Said) -> None:
    entry = {"subset": "training", "duration": 9.0, "actions": [[1, 0, 1], [2, 8, 10]]}
    said("check", saved("x.json", json.dumps({"v": entry})), "--fix", "y.json")
    assert json.loads(Path("y.json").read_text())["v"]["actions"] == [[1, 0.0, 1.0], [2, 8.0, 9.0]]


def test_a_file_that_cannot_be_written_back_is_corrected_as_csv(said: Said) -> None:
    saved("x.csv", "id,actions,length\nAAAAA,c092 11.90 21.20,15\n")
    code, _, err = said("check", "x.csv", "--fix", "y.csv")
    assert code == 3
    assert "written as csv: y.csv" in err
    assert "not written, for csv cannot hold it: 156 classes that no video has" in err
    assert read_labels("y.csv").videos["AAAAA"].spans.tolist() == [[11.9, 15.0]]


def test_unknown_classes_are_findings_of_check_and_errors_elsewhere(said: Said) -> None:
    saved("names.txt", "run\n")
    code, out, _ = said("check", saved("x.csv", DIRTY), "--classes", "names.txt")
    assert code == 3
    assert "  row 5: 'b': class jump has no name" in out
    code, _, err = said("stats", "x.csv", "--classes", "names.txt")
    assert (code, err) == (2, "vl: x.csv, row 5: class jump, for which the 1 class names have no name.\n")


def test_convert_says_what_the_format_cannot_hold(said: Said) -> None:
    code, out, err = said("convert", saved("x.csv", CLEAN), "folder", "--to", "multithumos")
    assert (code, out) == (0, "folder: 2 videos, 1 classes\n")
    assert err.splitlines() == [
        "written as multithumos: folder",
        "not written, for multithumos cannot hold it: 2 durations of videos",
    ]
    assert Path("folder/run.txt").read_text() == "a 0.0 1.0\nb 2.0 3.0\n"
    code, out, _ = said("convert", "folder", "back.json", "--to", "activitynet", "--json")
    assert json.loads(out) == {"from": "multithumos", "to": "activitynet", "files": ["back.json"], "lost": {}}
    assert read_labels("back.json").classes == ("run",)
    assert said("convert", "x.csv", "y", "--to", "xml")[0] == 2
    assert said("convert", "x.csv", "y.csv", "--to", "csv", "--format", "yt8m")[0] == 2


def test_attach_matches_and_counts_what_does_not(said: Said) -> None:
    features, _ = planted(videos=3)  # v00.mp4, v01.mp4, v02.mp4
    write_store(Path("f.zarr"), {"net.rgb.frame": features})
    saved("x.csv", ROWS + "v00,0,1,run,,\nv01.mp4,0,1,jump,,\ngone,0,1,run,,\n")
    code, out, _ = said("attach", "x.csv", "f.zarr")
    assert code == 0
    assert out.splitlines() == [
        "f.zarr: labels attached, 2 videos have some",
        "1 videos of the store have no labels: v02.mp4",
        "1 videos of the labels are not in the store: gone",
    ]
    attached = open_store("f.zarr").attachment("labels")
    assert attached is not None
    assert Labels.from_dict(attached).fingerprint == read_labels("x.csv").fingerprint
    code, out, _ = said("attach", "x.csv", "f.zarr", "--json")
    assert json.loads(out) == {"matched": 2, "only_store": ["v02.mp4"], "only_labels": ["gone"]}
    assert len(list(Path("f.zarr/attachments").iterdir())) == 1, "the same labels are attached once"
    code, _, err = said("attach", saved("y.csv", CLEAN), "f.zarr")
    assert code == 2
    assert err == (
        "vl: no video of f.zarr has labels: it has 'v00.mp4', the labels 'a'. Ids must be equal, or stems.\n"
    )
    assert open_store("f.zarr").attachment("labels") == attached


def test_an_hdf5_store_is_never_changed(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    features, _ = planted(videos=2)
    write_store(Path("f.zarr"), {"net.rgb.frame": features})
    assert runner(capsys)("convert", "f.zarr", "f.h5")[0] == 0
    code, _, err = said("attach", saved("x.csv", ROWS + "v00,0,1,run,,\n"), "f.h5")
    assert code == 2
    assert "f.h5 is never changed in place" in err
    assert said("attach", "x.csv", "gone.zarr")[0] == 2


def test_stats_as_text_json_csv_and_picture(said: Said) -> None:
    saved("x.csv", ROWS + "a,0,2,run,train,10\na,1,3,jump,train,10\nb,0,5,run,test,10\n")
    code, out, err = said("stats", "x.csv", "--rate", "1", "--out", "s.png", "--csv", "s.csv")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert lines[1] == ["train", "1", "0", "2", "2.00", "2", "0.0", "0.200"]  # run at 1 s, jump at 2 s
    assert lines[3] == ["all", "2", "0", "3", "1.50", "2", "0.0", "0.300"]
    assert lines[6] == ["jump", "1", "0", "1", "1", "0", "1", "2.00", "2.00", "2.00"]
    assert lines[7] == ["run", "1", "1", "2", "1", "1", "2", "7.00", "3.50", "3.50"]
    assert err == "written: s.csv, s_pairs.csv\ndrawn: s.png\n"
    assert len(matplotlib.image.imread("s.png")) > 100
    with Path("s_pairs.csv").open(newline="") as file:
        pairs = {(row["class"], row["other"]): float(row["together"]) for row in csv.DictReader(file)}
    assert pairs == {("jump", "run"): 0.5, ("run", "jump"): pytest.approx(1 / 7)}
    document = json.loads(said("stats", "x.csv", "--json")[1])
    assert [entry["class"] for entry in document["classes"]] == ["jump", "run"]
    assert document["pairs"][0] == {"class": "jump", "other": "run", "together": 0.5, "follows": 0.0}
    for wrong in (("--out", "s.pdf"), ("--out", "no/s.png"), ("--rate", "0"), ("--within", "-1")):
        assert said("stats", "x.csv", *wrong)[0] == 2


def test_without_a_command_the_formats_are_listed(said: Said) -> None:
    code, out, err = said()
    assert (code, out) == (2, "")
    assert "\nlabel-studio  Label Studio's JSON export\n" in err
    assert "\n  attach " in err


def test_the_real_files(said: Said, shared_data: Path) -> None:
    for name, counts in (
        ("multithumos", {"empty": 7, "late": 65, "off-by-one": 1}),
        ("charades", {"reversed": 7, "late": 19_623, "no-labels": 223}),
    ):
        code, out, _ = said("check", shared_data / f"labels/{name}.json", "--json")
        assert code == 3
        assert counts.items() <= json.loads(out)["counts"].items()
