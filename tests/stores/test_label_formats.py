"""Every form of label file that is not plain csv, charades.json or its csv: read by its content, refused by its row."""

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from stores.label_files import FORMATS, read_label_file, read_labels
from stores.label_table import LabelFile, ReadOptions
from stores.labels import LabelError
from tests.stores.label_samples import FORMS, LABEL_STUDIO, MATRIX, contents, options, write_sample

Triple = tuple[str, float, float]
LVU = "class_id class_name youtube_id imdb_id"


def opened(folder: Path, form: str) -> LabelFile:
    return read_label_file(write_sample(folder, form), options(form))


def triples(file: LabelFile, video: str) -> list[Triple]:
    entry = file.labels.videos[video]
    names = [file.labels.classes[index] if index >= 0 else "?" for index in entry.classes]
    return [(name, start, end) for name, (start, end) in zip(names, entry.spans.tolist(), strict=True)]


def whole(file: LabelFile, video: str) -> set[str]:
    return {file.labels.classes[index] for index in file.labels.videos[video].video_level}


def subsets(file: LabelFile) -> list[str | None]:
    return [entry.subset for entry in file.labels.videos.values()]


@pytest.mark.parametrize("form", FORMS)
def test_the_content_tells_the_form(tmp_path: Path, form: str) -> None:
    assert opened(tmp_path, form).form == form
    assert read_label_file(write_sample(tmp_path, form), options(form), form).form == form


def test_there_is_a_sample_of_every_form() -> None:
    assert set(FORMS) == set(FORMATS)


@pytest.mark.parametrize("form", FORMS)
def test_every_span_has_a_place_in_the_file(tmp_path: Path, form: str) -> None:
    file = opened(tmp_path, form)
    for video, entry in file.labels.videos.items():
        assert len(file.places[video]) == len(entry.classes)
        assert file.locate(file.video_places[video])


def test_activitynet(tmp_path: Path) -> None:
    file = opened(tmp_path, "activitynet")
    assert file.labels.classes == ("Archery", "Long jump")
    assert triples(file, "v1") == [("Long jump", 0.5, 3.0), ("Archery", 4.0, 9.5)]
    assert subsets(file) == ["val", "test"]
    assert [entry.duration for entry in file.labels.videos.values()] == [9.5, None]
    assert file.locate(int(file.places["v1"][1])) == "video 'v1', annotation 2"


def test_multithumos_text(tmp_path: Path) -> None:
    file = opened(tmp_path, "multithumos")
    assert file.labels.classes == ("Fall", "Hug", "Jump")
    assert sorted(triples(file, "video_test_1")) == [("Fall", 3.0, 4.0), ("Jump", 1.5, 2.5)]
    assert file.locate(int(file.places["video_test_2"][0])) == "Jump.txt, row 2"


def test_a_list_of_classes_gives_their_order_and_which_others_there_are(tmp_path: Path) -> None:
    index = tmp_path / "category_idx.txt"
    index.write_text("Jump\nSit\nHug\nFall\n")
    path = write_sample(tmp_path, "multithumos")
    assert read_labels(path, index).classes == ("Jump", "Sit", "Hug", "Fall")
    index.write_text("Jump\nSit\nHug\n")
    with pytest.raises(LabelError, match=r"Fall.txt, row 1: class Fall, for which the 3 class names have no name"):
        read_labels(path, index)
    index.write_text("7 Jump\n9 Fall\n12 Hug\n")  # as THUMOS numbers its classes
    assert read_labels(path, index).classes == ("Jump", "Fall", "Hug")


def test_yt8m(tmp_path: Path) -> None:
    file = opened(tmp_path, "yt8m")
    assert len(file.labels.classes) == 3862
    assert [entry.video_level for entry in file.labels.videos.values()] == [(3, 17), (17,), ()]
    names = tmp_path / "vocabulary.csv"
    names.write_text('Index,TrainVideoCount,Name,Url\n3,9,Game,\n17,9,"Car, old",\n18,1,,\n')
    labels = read_labels(tmp_path / "x.csv", names)
    assert labels.classes == ("Game", "Car, old", "18")
    assert labels.videos["abcd"].video_level == (0, 1)


def test_mmx_is_in_the_order_of_the_authors_and_without_a_genre_drama(tmp_path: Path) -> None:
    file = opened(tmp_path, "mmx")
    assert len(file.labels.classes) == 19
    assert file.labels.classes[6] == "Drama"
    assert file.labels.videos["t/1"].video_level == (0, 15)
    assert file.labels.videos["t/2"].video_level == (6,)
    assert set(file.labels.videos["t/3"].video_level) == {18, 6}
    assert subsets(file) == ["train", "train", "test"]
    assert "1 trailers without a genre are Drama, as in the authors' code" in file.labels.notes


def test_lvu(tmp_path: Path) -> None:
    file = opened(tmp_path, "lvu")
    assert file.labels.classes == ("office", "1", "hotel room")
    assert [whole(file, video) for video in ("-abc", "def", "ghi")] == [{"office"}, {"hotel room"}, {"hotel room"}]
    assert subsets(file) == ["train", "train", "test"]
    assert file.locate(file.video_places["ghi"]) == "scene_test.csv, row 2"


@pytest.mark.parametrize("header", ["view_count youtube_id imdb_id", "like dislike youtube_id imdb_id"])
def test_what_lvu_has_no_classes_for_is_named(tmp_path: Path, header: str) -> None:
    path = tmp_path / "train.csv"
    path.write_text(f"{header}\n1234 abc tt01\n")
    with pytest.raises(LabelError, match="view_count and like_ratio are regression"):
        read_labels(path)


@pytest.mark.parametrize(
    ("task", "classes", "sizes"), [("relationship", 4, (149, 53, 42)), ("scene", 6, (557, 120, 86))]
)
def test_the_real_lvu(shared_data: Path, task: str, classes: int, sizes: tuple[int, int, int]) -> None:
    labels = read_labels(shared_data / "labels/lvu" / task)
    found = [entry.subset for entry in labels.videos.values()]
    assert tuple(found.count(name) for name in ("train", "val", "test")) == sizes
    assert len(labels.classes) == classes


def test_slowfast_frames_in_a_row_are_one_span(tmp_path: Path) -> None:
    file = opened(tmp_path, "slowfast")  # at 2 frames a second
    assert sorted(triples(file, "AAAAA")) == [("c003", 0.5, 1.0), ("c012", 0.5, 1.5), ("c012", 2.0, 2.5)]
    assert [entry.duration for entry in file.labels.videos.values()] == [2.5, 0.5]
    assert len(file.labels.classes) == 157
    assert file.labels.video("AAAAA")[[3, 12]].tolist() == [1, 1]


def test_a_matrix_keeps_what_nobody_knows(tmp_path: Path) -> None:
    file = opened(tmp_path, "matrix")  # at 4 rows a second
    entry = file.labels.videos["x"]
    assert sorted(triples(file, "x")) == [("0", 0.0, 0.5), ("1", 0.25, 0.75), ("?", 0.75, 1.25)]
    assert entry.unknown == (2,)
    times = np.stack([np.arange(5), np.arange(1, 6)], axis=1) / 4
    expected = MATRIX.copy()
    expected[4, 0] = -1  # the rest of a row that is unknown in part is given up
    np.testing.assert_array_equal(file.labels.rows("x", times), expected)


def test_labels_given_up_in_a_matrix_are_counted(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.array([[1, 0], [1, -1]]))
    labels = read_labels(tmp_path / "x.npy", fps=1.0)
    assert labels.videos["x"].classes.tolist() == [0, -1]
    assert labels.videos["x"].spans.tolist() == [[0, 1], [1, 2]]
    assert "1 labels stand in rows that are unlabelled in part: such rows count as unlabelled" in labels.notes


@pytest.mark.parametrize("form", ["slowfast", "matrix", "label-studio"])
def test_frames_need_a_rate(tmp_path: Path, form: str) -> None:
    with pytest.raises(LabelError, match="--fps"):
        read_labels(write_sample(tmp_path, form))


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_is_positive(tmp_path: Path, fps: float) -> None:
    with pytest.raises(LabelError, match="must be positive"):
        read_labels(write_sample(tmp_path, "matrix"), fps=fps)


def test_elan(tmp_path: Path) -> None:
    assert triples(opened(tmp_path, "elan"), "x") == [("wave", 1.5, 2.25), ("mouth", 60.0, 61.0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hands\t1.5\t2\twave\n", [("wave", 1.5, 2.0)]),
        ("Tier\tBegin Time - msec\tEnd Time - msec\tAnnotation\nhands\t1500\t2000\twave\n", [("wave", 1.5, 2.0)]),
        ("hands\t01:00:01.500\t01:00:02\twave\n", [("wave", 3601.5, 3602.0)]),
        ("Begin Time - ss.msec\tEnd Time - ss.msec\thands\tmouth\n1\t2\twave\t\n3\t4\t\tsmile\n",
         [("wave", 1.0, 2.0), ("smile", 3.0, 4.0)]),
    ],
)  # fmt: skip
def test_elan_writes_times_and_tiers_in_many_ways(tmp_path: Path, text: str, expected: list[Triple]) -> None:
    (tmp_path / "v.txt").write_text(text)
    assert triples(read_label_file(tmp_path / "v.txt"), "v") == expected


def test_a_folder_of_elan_files_is_read_if_it_is_said_to_be_one(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text("hands\t1\t2\twave\n")
    file = read_label_file(tmp_path, form="elan")
    assert [triples(file, name) for name in "ab"] == [[("wave", 1.0, 2.0)]] * 2
    assert file.locate(int(file.places["b"][0])) == "b.txt, row 1"


def test_boris(tmp_path: Path) -> None:
    file = opened(tmp_path, "boris")
    assert triples(file, "C:/videos/a.mp4") == [("call", 2.0, 2.0), ("run", 1.5, 4.25)]
    assert file.labels.videos["C:/videos/a.mp4"].duration == 60.0
    assert "1 points: spans without length, which are never active" in file.labels.notes
    assert file.locate(int(file.places["C:/videos/a.mp4"][1])) == "row 5"


def test_boris_of_today_and_aggregated(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(
        "Observation id\tMedia duration (s)\tSubject\tBehavior\tBehavior type\tTime\tMedia file name\n"
        "o\t9\ta\trun\tSTART\t1\tv.mp4\no\t9\tb\trun\tSTART\t2\tv.mp4\no\t9\ta\trun\tSTOP\t3\tv.mp4\n"
        "o\t9\tb\trun\tSTOP\t4\tv.mp4\n"
    )
    assert triples(read_label_file(tmp_path / "t.tsv"), "v.mp4") == [("run", 1.0, 3.0), ("run", 2.0, 4.0)]
    (tmp_path / "a.csv").write_text("Media file,Behavior,Behavior type,Start (s),Stop (s)\nv.mp4,run,STATE,1,3\n")
    assert triples(read_label_file(tmp_path / "a.csv"), "v.mp4") == [("run", 1.0, 3.0)]


def test_label_studio(tmp_path: Path) -> None:
    file = opened(tmp_path, "label-studio")  # at 25 frames a second; frame 1 begins at 0, frame 25 ends at 1
    assert triples(file, "clips/a.mp4") == [("run", 0.0, 1.0), ("call", 2.5, 3.0)]
    assert whole(file, "clips/a.mp4") == {"outdoor"}
    assert list(file.labels.videos) == ["clips/a.mp4", "b.mp4"]
    assert "results of other kinds, not read: 1 videorectangle" in file.labels.notes


def test_grid_align(tmp_path: Path) -> None:
    assert triples(opened(tmp_path, "align"), "bbaf2n") == [("bin", 0.95, 1.18), ("blue", 1.18, 1.36)]


def test_the_real_grid(shared_data: Path) -> None:
    labels = read_labels(shared_data / "grid/align")
    assert (len(labels.videos), len(labels.classes)) == (579, 51)
    assert {len(entry.classes) for entry in labels.videos.values()} == {6}


def test_the_csv_of_charades_and_its_json_say_the_same(shared_data: Path) -> None:
    """Segment by segment, but for what the json leaves out and rounds."""
    named = read_label_file(shared_data / "labels/Charades_v1_test.csv")
    numbered = read_labels(shared_data / "labels/charades.json")
    for video in named.labels.videos:
        ours, theirs = named.labels.videos[video], numbered.videos[video]
        assert sorted(ours.classes.tolist()) == sorted(theirs.classes.tolist())


@pytest.mark.parametrize(
    ("form", "name", "text", "message"),
    [
        ("activitynet", "x.json", '{"database": {"v": {"annotations": [{"segment": [0], "label": "x"}]}}}',
         "video 'v', annotation 1: .* is not of the form"),
        ("activitynet", "x.json", '{"database": {"v": {"annotations": [{"segment": [0, "a"], "label": "x"}]}}}',
         "annotation 1: end is 'a'"),
        ("activitynet", "x.json", '{"database": {"v": 3}}', "video 'v': there is no list of annotations"),
        ("activitynet", "x.json", '{"database": {"v": {"annotations": []}}}', "no annotation in any of its 1 videos"),
        ("multithumos", "annotations/Jump.txt", "v 1 2\nv 1\n", "row 2: 'v 1' is not of the form"),
        ("multithumos", "annotations/Jump.txt", "v 1 x\n", "row 1: end is 'x'"),
        ("yt8m", "x.csv", "abcd,3\nabcd,4\n", "row 2: 'abcd' stands in an earlier row too"),
        ("yt8m", "x.csv", "abcd,3\nefgh,x\n", "row 2: 'x' is not of the form"),
        ("yt8m", "x.csv", "abcd,3\nefgh\n", "row 2: 'efgh' is not of the form"),
        ("yt8m", "x.csv", "abcd,999999999\n", "has class 999999999, over the 20000 classes"),
        ("mmx", "mmx/train.csv", "img_root,g1\n", "no row with a trailer"),
        ("mmx", "mmx/train.csv", "img_root,g1\nt,Opera\n", "row 2: class Opera, for which the 19 class names"),
        ("lvu", "scene_train.csv", f"{LVU}\nx office a b\n", "row 2: 'x office a b' is"),
        ("lvu", "scene_train.csv", f"{LVU}\n0 a b c\n0 d e f\n", "row 3: class 0 is 'd'"),
        ("slowfast", "x.csv", "original_vido_id a b c d\nA 0 0 p \"\"\n", "no frame with a label"),
        ("lvu", "scene_train.csv", f"{LVU}\n0 a\x00 b c\n0 d e f\n", r"which was 'a\\x00' before"),
        ("elan", "x.txt", 'Tier\tBegin\tEnd\tAnnotation\na\t"b" c\t1\tx\n', r"row 2: '\\t' expected after"),
        ("slowfast", "x.csv", "original_vido_id a b c d\nA 0 x p \"\"\n", "row 2: 'A 0 x p \"\"' is not of the form"),
        ("slowfast", "x.csv", "original_vido_id a b c d\nA 0 1 p \"y\"\n", "row 2: '\"y\"' are no numbers"),
        ("elan", "x.txt", "Tier\tBegin\tEnd\tAnnotation\na\tb\t1\tx\n", "row 2: the time is 'b'"),
        ("elan", "x.txt", "Tier\tBegin\tEnd\tAnnotation\n\t0\t1\t\n", "row 2: there is neither"),
        ("boris", "x.csv", "Behavior,Status,Time,Source\nrun,START,1,v\n", "row 2: 'run' starts here and never stops"),
        ("boris", "x.csv", "Behavior,Status,Time,Source\nrun,STOP,1,v\n", "row 2: 'run' stops without a start"),
        ("boris", "x.csv", "Behavior,Status,Time,Source\nrun,HALT,1,v\n", "row 2: 'HALT' is none of"),
        ("align", "align/v.align", "0 1 bin now\n", "row 1: '0 1 bin now' is not of the form"),
        ("align", "align/v.align", "0 1 sil\n", "has no word"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_refused_by_its_place(tmp_path: Path, form: str, name: str, text: str, message: str) -> None:
    path = write_sample(tmp_path, form, {name: text.encode()})
    with pytest.raises(LabelError, match=message):
        read_label_file(path, options(form), form)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotations": [{"result": []}, {"result": []}]}, "task 1: it has 2 annotations"),
        ({"annotations": [{"result": [3]}]}, "task 1, result 1: it has no"),
        ({"annotations": [{"result": [{"type": "choices", "value": {}}]}]}, "result 1: it names no class"),
        ({"annotations": 3}, "its annotations are no list"),
        ({"data": {"a": 1}}, "task 1: the video has no name"),
        ({"data": {"video": "b.mp4"}}, "task 2: its video stands in an earlier task"),
    ],
)
def test_a_wrong_task_of_label_studio_is_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    text = json.dumps([{**LABEL_STUDIO[0], **change}, LABEL_STUDIO[1]])
    with pytest.raises(LabelError, match=message):
        read_label_file(write_sample(tmp_path, "label-studio", {"x.json": text.encode()}), options("label-studio"))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros(3), "must be a matrix"),
        (np.zeros((3, 0)), "which is no matrix of labels"),
        (np.array([[0, 1], [2, 0]]), "row 1: 2 in column 0 is none of"),
        (np.array([[0.0, np.nan]]), "row 0: nan in column 1"),
        (np.array([["a", "b"]]), "must be a matrix of numbers"),
        (np.array([[{}]], dtype=object), "no sound npy file"),
    ],
)
def test_a_wrong_matrix_is_refused(tmp_path: Path, matrix: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", matrix)
    with pytest.raises(LabelError, match=message):
        read_labels(tmp_path / "x.npy", fps=1.0)


def test_a_matrix_that_promises_more_than_it_has_is_refused(tmp_path: Path) -> None:
    data = contents("matrix")["x.npy"]
    for wrong in (data.replace(b"(5, 3)", b"(5, 9)"), data[:-1], data[:40], data.replace(b"'|i1'", b"'|O' ")):
        (tmp_path / "x.npy").write_bytes(wrong)
        with pytest.raises(LabelError, match="no sound npy file"):
            read_labels(tmp_path / "x.npy", fps=1.0)


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = write_sample(tmp_path, "super-events", {"x.json": b'{"v\\uD800": {"actions": [[1, 0, 1]]}}'})
    with pytest.raises(LabelError, match=r"has half a character, as '\\ud800'"):
        read_labels(path)
    path = write_sample(tmp_path, "multithumos", {os.fsdecode(b"annotations/\xff.txt"): b"v 0 1\n"})
    with pytest.raises(LabelError, match=r"row 0: '\\udcff' is no UTF-8"):
        read_labels(path)
    (tmp_path / "pair.json").write_text('{"v\\ud83d\\ude00": {"actions": [[1, 0, 1]]}}')
    assert list(read_labels(tmp_path / "pair.json").videos) == ["v\U0001f600"]


def test_a_form_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=re.escape("there is no format 'xml'. There are: csv, charades")):
        read_label_file(write_sample(tmp_path, "csv"), form="xml")
    with pytest.raises(LabelError, match="json of the form activitynet, not super-events"):
        read_label_file(write_sample(tmp_path, "activitynet"), form="super-events")
    with pytest.raises(LabelError, match=r"a folder of .txt files, as multithumos has, not align"):
        read_label_file(write_sample(tmp_path, "multithumos"), form="align")
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabelError, match="there is no label file in the folder"):
        read_label_file(tmp_path / "empty")


def test_a_lenient_reader_keeps_labels_without_a_class_apart(tmp_path: Path) -> None:
    index = tmp_path / "names.txt"
    index.write_text("Jump\n")
    file = read_label_file(write_sample(tmp_path, "multithumos"), ReadOptions(index, lenient=True))
    assert [(stray.video, stray.label) for stray in file.unknown] == [("video_test_1", "Fall")]
    assert triples(file, "video_test_1") == [("Jump", 1.5, 2.5)]
    assert dataclasses.replace(file).labels.classes == ("Jump",)
