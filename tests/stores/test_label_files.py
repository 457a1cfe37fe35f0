"""Label files: each form as people have it, dirt named, and everything wrong refused with its row."""

import csv
import io
import json
import math
import os
import re
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import stores.label_table
import stores.label_text
from stores.label_files import read_labels
from stores.labels import LabelError, Labels


def saved(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def triples(labels: Labels, video: str) -> list[tuple[str, float, float]]:
    entry = labels.videos[video]
    names = [labels.classes[index] if index >= 0 else "?" for index in entry.classes]
    return [(name, start, end) for name, (start, end) in zip(names, entry.spans.tolist(), strict=True)]


def test_csv_of_spans(tmp_path: Path) -> None:
    text = "video,start,end,label\nb.mp4,1.5,2,run\na.mp4,0,1,jump\nb.mp4,3,4.25,jump\n"
    labels = read_labels(saved(tmp_path, text))
    assert labels.classes == ("jump", "run")
    assert triples(labels, "b.mp4") == [("run", 1.5, 2.0), ("jump", 3.0, 4.25)]
    assert triples(labels, "a.mp4") == [("jump", 0.0, 1.0)]
    assert (labels.label_at, labels.timed) == ("centre", True)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffvideo,start,end,label\r\nv,0,1,run\r\n\r\n",
        "label,video,END, Start \nrun,v,1,0\n",
        'video,start,end,label\n"v","0","1"," run "\n',
    ],
)
def test_csv_may_come_from_any_spreadsheet(tmp_path: Path, text: str) -> None:
    assert triples(read_labels(saved(tmp_path, text)), "v") == [("run", 0.0, 1.0)]


def test_csv_of_whole_videos(tmp_path: Path) -> None:
    labels = read_labels(saved(tmp_path, "video,label,subset\na,comedy,train\na,drama,train\nb,drama,test\n"))
    assert labels.video("a").tolist() == [1, 1]
    assert labels.video("b").tolist() == [0, 1]
    assert not labels.timed
    assert [labels.videos[video].subset for video in "ab"] == ["train", "test"]


def test_csv_may_name_empty_videos_ignored_stretches_durations_and_subsets(tmp_path: Path) -> None:
    text = (
        "video,start,end,label,subset,duration\na,0,1,run,Training,10\na,2,3,ignore,,\na,,,jump,,\nb,,,,validation,5\n"
    )
    labels = read_labels(saved(tmp_path, text))
    assert triples(labels, "a") == [("run", 0.0, 1.0), ("?", 2.0, 3.0)]
    assert labels.video("a").tolist() == [1, 1]
    assert labels.video("b").tolist() == [0, 0]
    assert [(entry.subset, entry.duration) for entry in labels.videos.values()] == [("train", 10.0), ("val", 5.0)]


def test_numbers_as_labels_are_sorted_as_numbers(tmp_path: Path) -> None:
    rows = "".join(f"v,0,1,{label}\n" for label in (10, 9, "b", 2))
    assert read_labels(saved(tmp_path, "video,start,end,label\n" + rows)).classes == ("2", "9", "10", "b")


def test_unused_columns_and_dirt_are_named(tmp_path: Path) -> None:
    labels = read_labels(saved(tmp_path, "video,start,end,label,rater\nv,2,1,run,x\nw,0,1,run,y\n"))
    assert labels.notes == ("columns not used: rater", "as found in the file: 1 reversed")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("v,nan,1,run", "row 3: start is 'nan'"),
        ("v,0,inf,run", "row 3: end is 'inf'"),
        ("v,-1,1,run", "row 3: start is '-1'"),
        ("v,1_0,20,run", "row 3: start is '1_0'"),
        ("v,0,soon,run", "row 3: end is 'soon'"),
        ("v,0,,run", "row 3: a start and an end"),
        ("v,0,1,", "row 3: the span 0 to 1 has no label"),
        (",0,1,run", "row 3: the video has no name"),
        ("v,0,1", "row 3: 3 fields where the header has 4"),
        ("v,,,ignore", "row 3: the label 'ignore' needs"),
        ('v,0,1,"run', "row 3: unexpected end of data"),
        ("\x1b[2J,x,1,run", "row 3: start is 'x'"),
    ],
)
def test_a_wrong_row_is_refused_by_its_number(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(LabelError, match=re.escape(f"labels.csv, {message}")):
        read_labels(saved(tmp_path, f"video,start,end,label\nv,0,1,run\n{row}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected the columns video,start,end,label"),
        ("name,from,to,what\nv,0,1,run\n", "header 'name, from, to, what': expected"),
        ("video;start;end;label\nv;0;1;run\n", "expected the columns"),
        ("video,start,label\n", "expected the columns"),
        ("video,video,start,end,label\n", "column video twice"),
        ("video,start,end,label\n", "no row with a label"),
        ("id,actions,length\n", "names no video"),
        (b"\xff\xfe\x00v", "row 1: .*UTF-8"),
        (b"video,start,end,label\nv,0,1,run\nv,0,1,caf\xe9\n", "row 3: .*UTF-8"),
        ("video,start,end,label,duration\nv,0,1,run,5\nv,0,1,run,6\n", "row 3: duration 6.0 for 'v', which had 5.0"),
        ("video,start,end,label,subset\nv,0,1,run,train\nv,0,1,run,test\n", "row 3: subset test for 'v'"),
    ],
)
def test_a_wrong_file_is_refused_with_what_was_expected(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(saved(tmp_path, text))


def test_undecodable_bytes_far_down_are_found(tmp_path: Path) -> None:
    rows = b"video,start,end,label\n" + b"v,0,1,run\n" * 20_000 + b"v,0,1,\xe9\n" + b"v,0,1,run\n" * 5
    with pytest.raises(LabelError, match="row 20002"):
        read_labels(saved(tmp_path, rows))


def test_limits_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, "video,start,end,label\n" + "".join(f"v,0,1,c{index}\n" for index in range(20)))
    monkeypatch.setattr(stores.label_table, "MAX_CLASSES", 19)
    with pytest.raises(LabelError, match="row 21: more than 19 different labels"):
        read_labels(path)
    monkeypatch.setattr(stores.label_text, "MAX_ROWS", 10)
    with pytest.raises(LabelError, match="more than 10 rows"):
        read_labels(path)
    monkeypatch.setattr(stores.label_text, "MAX_BYTES", 10)
    with pytest.raises(LabelError, match="allowed here"):
        read_labels(path)


@pytest.mark.parametrize("kind", ["absent", "folder", "fifo"])
def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "labels.csv"
    if kind == "folder":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(LabelError, match="there is no label file"):
        read_labels(path)


names = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=8).map(str.strip)
names = names.filter(lambda name: name not in ("", "ignore") and name[0] != "'")  # ' may guard a spreadsheet


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, st.floats(0, 1e6), st.floats(0, 1e6), names), min_size=1, max_size=8))
def test_csv_gives_back_what_was_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, float, float, str]]
) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([("video", "start", "end", "label"), *rows])
    labels = read_labels(saved(tmp_path_factory.mktemp("csv"), out.getvalue()))
    for video in {row[0] for row in rows}:
        assert triples(labels, video) == [(label, start, end) for name, start, end, label in rows if name == video]


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: ("video,start,end,label\n" + text).encode()))
def test_any_bytes_are_labels_or_one_clear_error(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = saved(tmp_path_factory.mktemp("fuzz"), data)
    with suppress(LabelError):
        assert read_labels(path).videos


def charades_like(**videos: dict[str, object]) -> str:
    return json.dumps(videos)


def video_entry(*actions: list[object], **rest: object) -> dict[str, object]:
    return {"subset": "training", "duration": 10.0, "actions": list(actions)} | rest


def test_json_counts_classes_from_zero_where_zero_occurs(tmp_path: Path) -> None:
    text = charades_like(A=video_entry([0, 0.0, 1.0], [3, 2.0, 3.0]), B=video_entry(subset="testing"))
    labels = read_labels(saved(tmp_path, text, "x.json"))
    assert labels.classes == ("0", "1", "2", "3")
    assert triples(labels, "A") == [("0", 0.0, 1.0), ("3", 2.0, 3.0)]
    assert labels.label_at == "start"
    assert [(entry.subset, entry.duration) for entry in labels.videos.values()] == [("train", 10.0), ("test", 10.0)]


def test_json_counts_classes_from_one_where_zero_never_occurs_and_says_so(tmp_path: Path) -> None:
    labels = read_labels(saved(tmp_path, charades_like(A=video_entry([1, 0, 1], [3, 2, 3])), "x.json"))
    assert labels.classes == ("1", "2", "3")
    assert labels.videos["A"].classes.tolist() == [0, 2]
    assert "class numbers start at 1: class 1 is the first column" in labels.notes


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.json", '{"1": "Jump", "2": "Run", "3": "Fall"}'),
        ("names.txt", "Jump\nRun\nFall\n"),
        ("names.txt", "c001 Jump\nc002 Run\nc003 Fall\n"),
    ],
)
def test_json_takes_the_names_of_classes_from_a_file(tmp_path: Path, name: str, text: str) -> None:
    path = saved(tmp_path, charades_like(A=video_entry([1, 0, 1], [3, 2, 3])), "x.json")
    labels = read_labels(path, saved(tmp_path, text, name))
    assert labels.classes == ("Jump", "Run", "Fall")
    assert triples(labels, "A") == [("Jump", 0.0, 1.0), ("Fall", 2.0, 3.0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]", "is json, but not"),
        ('{"A": 3}', "is json, but not"),
        ('{"A": {"duration": 3}}', "video 'A': there is no list of actions"),
        ('{"A": {"actions": []}}', "no action in any of its 1 videos"),
        ('{"A": {"actions": [[1, 2]]}}', "video 'A', action 1: .* is not of the form"),
        ('{"A": {"actions": [["x", 0, 2]]}}', "action 1: .* is not of the form"),
        ('{"A": {"actions": [[true, 0, 2]]}}', "action 1: .* is not of the form"),
        ('{"A": {"actions": [[1, NaN, 2]]}}', "action 1: start is 'nan'"),
        ('{"A": {"actions": [[1, 0, 1e999]]}}', "action 1: end is 'inf'"),
        ('{"A": {"actions": [[1, null, 1]]}}', "action 1: start is 'None'"),
        ('{"A": {"actions": [[1, 0, 1]], "duration": -4}}', "duration is '-4'"),
        ('{"A": {"actions": []}, "A": {"actions": []}}', "'A' twice"),
        ('{"A": {"actions": [[1, 0, 1]]\n', "row 2: this is no sound json"),
        ("{" * 100_000, "no sound json"),
        ('{"A": {"actions": [[' + "1" * 5000 + ", 0, 1]]}}", "no sound json"),
    ],
)
def test_wrong_json_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(saved(tmp_path, text, "x.json"))


CHARADES_CSV = (
    "id,subject,descriptions,actions,length\n"
    'AAAAA,S,"He sits, and\nstands.",c092 11.90 21.20;c147 0.00 12.60,21.5\n'
    "BBBBB,S,nothing,,9.5\n"
)


def test_charades_csv(tmp_path: Path) -> None:
    labels = read_labels(saved(tmp_path, CHARADES_CSV))
    assert len(labels.classes) == 157
    assert triples(labels, "AAAAA") == [("c092", 11.9, 21.2), ("c147", 0.0, 12.6)]
    assert [entry.duration for entry in labels.videos.values()] == [21.5, 9.5]
    assert labels.video("BBBBB").sum() == 0


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("CCCCC,S,x,c1 0 1,3", "row 5: 'c1 0 1' is not of the form"),
        ("CCCCC,S,x,c001 0,3", "row 5: 'c001 0' is not of the form"),
        ("CCCCC,S,x,c001 0 x,3", "row 5: end is 'x'"),
        ("AAAAA,S,x,,3", "row 5: 'AAAAA' stands in an earlier row too"),
        ("CCCCC,S,x,,long", "row 5: length is 'long'"),
    ],
)
def test_a_wrong_row_of_charades_is_refused(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_labels(saved(tmp_path, CHARADES_CSV + row + "\n"))


def test_a_class_without_a_name_is_refused(tmp_path: Path) -> None:
    names = saved(tmp_path, "c092 Lying\n", "names.txt")
    with pytest.raises(LabelError, match="class c147"):
        read_labels(saved(tmp_path, CHARADES_CSV), names)


@pytest.mark.parametrize("text", ["", "Jump\nJump\n", '{"1": "Jump", "x": "Run"}'])
def test_names_that_are_not_one_for_each_class_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LabelError, match="one number and one name of its own"):
        read_labels(saved(tmp_path, charades_like(A=video_entry([1, 0, 1])), "x.json"), saved(tmp_path, text, "n.txt"))


# What the field knows of its own files: formats.md section 1.


def subsets(labels: Labels) -> dict[str, int]:
    found = [entry.subset for entry in labels.videos.values()]
    return {name: found.count(name) for name in ("train", "test")}


def test_the_real_charades_json(shared_data: Path) -> None:
    labels = read_labels(shared_data / "labels/charades.json")
    assert len(labels.classes) == 157
    assert subsets(labels) == {"train": 7985, "test": 1863}
    assert sum(len(entry.classes) for entry in labels.videos.values()) == 66_500
    problems = labels.problems()
    assert (problems["reversed"], problems["after the end"], problems["videos without labels"]) == (7, 19_623, 174 + 49)


def test_the_real_charades_csv_says_what_the_json_says(shared_data: Path) -> None:
    numbered = read_labels(shared_data / "labels/charades.json")
    named = read_labels(shared_data / "labels/Charades_v1_test.csv", shared_data / "labels/Charades_v1_classes.txt")
    test = [video for video, entry in numbered.videos.items() if entry.subset == "test"]
    assert sorted(named.videos) == sorted(test)
    assert named.classes[0] == "Holding some clothes"
    for video in test:
        np.testing.assert_array_equal(named.video(video), numbered.video(video))


def test_the_real_multithumos_json(shared_data: Path) -> None:
    labels = read_labels(shared_data / "labels/multithumos.json")
    assert (len(labels.classes), labels.classes[0]) == (65, "BaseballPitch")
    assert subsets(labels) == {"train": 200, "test": 213}
    assert sum(len(entry.classes) for entry in labels.videos.values()) == 38_690
    assert max(len(np.unique(entry.classes)) for entry in labels.videos.values()) == 25
    problems = labels.problems()
    assert (problems["reversed"] + problems["empty"], problems["after the end"]) == (7, 65)


def test_the_real_multithumos_has_as_many_labels_a_frame_as_the_field_says(shared_data: Path) -> None:
    """On the grid of 3 rows a second, T = floor(3 * duration), times k * duration / T, strict boundaries."""
    labels = read_labels(shared_data / "labels/multithumos.json")
    rows, positives = {"train": 0, "test": 0}, {"train": 0, "test": 0}
    for video, entry in labels.videos.items():
        assert entry.duration is not None
        assert entry.subset is not None
        table = labels.rows(video, np.zeros((math.floor(3 * entry.duration), 2)))
        rows[entry.subset] += len(table)
        positives[entry.subset] += int(table.sum())
    assert round(positives["test"] / rows["test"], 3) == 1.556
    assert round(positives["train"] / rows["train"], 3) == 1.447
