"""The checker finds each kind of dirt, with its row, and the corrected copy corrects only what has one answer."""

import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.label_check import KINDS, Report, check
from stores.label_files import read_label_file
from stores.label_fix import fixed
from stores.label_table import LabelFile, ReadOptions
from stores.labels import Labels, VideoLabels

HEADER = "video,start,end,label,subset,duration\n"


def csv(folder: Path, *rows: str, classes: str | None = None) -> LabelFile:
    (folder / "x.csv").write_text(HEADER + "".join(f"{row}\n" for row in rows))
    if classes is not None:
        (folder / "names.txt").write_text(classes)
    names = None if classes is None else folder / "names.txt"
    return read_label_file(folder / "x.csv", ReadOptions(names, lenient=True))


def found(report: Report) -> dict[str, int]:
    return {kind: count for kind, count in report.counts.items() if count}


def only(report: Report, kind: str) -> list[tuple[str, str]]:
    return [(finding.where, finding.text) for finding in report.shown[kind]]


def test_clean_labels_have_no_finding(tmp_path: Path) -> None:
    report = check(csv(tmp_path, "a,0,1,run,train,9", "a,1,9,run,train,9", "a,0,1,jump,train,9"))
    assert (found(report), report.total, report.without_duration) == ({}, 0, 0)


@pytest.mark.parametrize(
    ("row", "kinds"),
    [
        ("a,3,2,run,,9", {"reversed": 1}),
        ("a,3,3,run,,9", {"empty": 1}),
        ("a,3,9.5,run,,9", {"late": 1}),
        ("a,9,10,run,,9", {"late": 1, "beyond": 1}),
        ("a,0,1,run,,9", {"duplicate": 1}),
        ("a,0.5,2,run,,9", {"overlap": 1}),
        ("a,1,2,run,,9", {}),
        ("a,0.5,2,jump,,9", {}),
        ("b,,,,,9", {"no-labels": 1}),
        ("a,3,4, Run!,,9", {"similar-names": 1}),
        ("a,3,4,ignore,,9", {}),
    ],
)
def test_each_kind_is_found_at_its_row(tmp_path: Path, row: str, kinds: dict[str, int]) -> None:
    report = check(csv(tmp_path, "a,0,1,run,,9", row))
    assert found(report) == kinds
    for kind in kinds:
        assert only(report, kind)[0][0] == ("" if kind == "similar-names" else "row 3")


def test_a_finding_says_what_and_where(tmp_path: Path) -> None:
    report = check(csv(tmp_path, "a\x1b[2J,3.25,2.5,run,,9"))
    assert only(report, "reversed") == [("row 2", r"'a\x1b[2J': run 3.25 to 2.5 of 9")]


def test_without_a_duration_nothing_is_late_and_that_is_said(tmp_path: Path) -> None:
    report = check(csv(tmp_path, "a,0,1e9,run,,", "b,0,1,run,,5"))
    assert (found(report), report.without_duration) == ({}, 1)


def test_overlaps_are_counted_against_the_furthest_end(tmp_path: Path) -> None:
    report = check(csv(tmp_path, "a,0,9,run,,", "a,1,2,run,,", "a,3,4,run,,", "b,3,4,run,,", "a,9,10,run,,"))
    assert [where for where, _ in only(report, "overlap")] == ["row 3", "row 4"]


def test_a_class_of_a_whole_video_that_is_given_twice_is_a_duplicate(tmp_path: Path) -> None:
    assert only(check(csv(tmp_path, "a,,,run,,", "a,,,run,,")), "duplicate") == [("row 3", "'a' has run already")]


def test_unknown_classes_and_classes_without_positives(tmp_path: Path) -> None:
    file = csv(
        tmp_path, "a,0,1,run,train,", "b,0,1,jump,test,", "b,4,3,run,test,", "b,0,1,hop,,", classes="run\njump\n"
    )
    report = check(file)
    assert only(report, "unknown-class") == [("row 5", "'b': class hop has no name")]
    assert only(report, "no-positives") == [("", "run has no positive in test"), ("", "jump has no positive in train")]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (("Shot put", "Shotput"), ["Shot put and Shotput"]),
        (("drinking", "drinkimg", "thinking"), ["drinking and drinkimg"]),
        (("walking", "walkin"), ["walking and walkin"]),
        (("jump", "jmup"), ["jump and jmup"]),
        (("sit", "sitt", "at", "by"), []),
        (("class1", "class2", "class12"), []),
        (("opening a door", "closing a door"), []),
    ],
)
def test_names_that_are_nearly_the_same(tmp_path: Path, names: tuple[str, ...], pairs: list[str]) -> None:
    file = csv(tmp_path, *(f"a,{at},{at + 1},{name},," for at, name in enumerate(names)), classes="\n".join(names))
    assert [text for _, text in only(check(file), "similar-names")] == pairs


@functools.cache
def distance(a: str, b: str) -> int:
    """Edit distance by its definition, in which two neighbours that change places are one edit."""
    if not a or not b:
        return len(a) + len(b)
    ways = [distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0])]
    if a[:2] == b[1::-1]:
        ways.append(distance(a[2:], b[2:]) + 1)
    return min(ways)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("abc", min_size=4, max_size=7), min_size=2, max_size=8, unique=True))
def test_names_one_edit_apart_are_found(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    file = csv(tmp_path_factory.mktemp("x"), *(f"a,{at},{at + 1},{name},," for at, name in enumerate(names)))
    ordered = file.labels.classes
    expected = {f"{a} and {b}" for at, a in enumerate(ordered) for b in ordered[at + 1 :] if distance(a, b) == 1}
    assert {finding.text for finding in check(file, None).shown["similar-names"]} == expected


@pytest.mark.parametrize(
    ("first", "names", "text"),
    [
        (1, None, "class ids run from 1 to 3: most code wants 0 to 2 (subtract 1)"),
        (0, None, None),
        (1, '{"0": "a", "1": "b", "2": "c"}', "class 3 is one past the 3 names, and the first is never used"),
        (0, '{"1": "a", "2": "b", "3": "c"}', "class 0 is one before the 3 names, and the last is never used"),
    ],
)
def test_ids_that_are_off_by_one(tmp_path: Path, first: int, names: str | None, text: str | None) -> None:
    actions = ", ".join(f"[{first + at}, {at}, {at + 1}]" for at in range(3))
    (tmp_path / "x.json").write_text(f'{{"v": {{"actions": [{actions}]}}}}')
    if names is not None:
        (tmp_path / "x_classes.json").write_text(names)
    report = check(read_label_file(tmp_path / "x.json", ReadOptions(lenient=True)))
    texts = [found for _, found in only(report, "off-by-one")]
    assert text in texts if text else not texts
    assert report.counts["unknown-class"] == (names is not None)


def test_the_first_of_each_kind_are_shown_or_all(tmp_path: Path) -> None:
    file = csv(tmp_path, *(f"a,{at},{at},run,," for at in range(20)))
    assert len(check(file).shown["empty"]) == 5
    assert len(check(file, None).shown["empty"]) == check(file).counts["empty"] == 20


# What the field knows of its own files: formats.md sections 1 and 6.


def test_the_real_multithumos(shared_data: Path) -> None:
    report = check(read_label_file(shared_data / "labels/multithumos.json"))
    assert report.counts["reversed"] + report.counts["empty"] == 7
    assert report.counts["late"] == 65
    assert report.counts["off-by-one"] == 1
    worst = only(report, "late")[0]
    assert worst == ("video 'video_test_0000950', action 26", "Run 398.44 to 4000.36 of 1315.39")  # by 2,685 s


def test_the_real_charades(shared_data: Path) -> None:
    report = check(read_label_file(shared_data / "labels/charades.json"))
    assert (report.counts["reversed"], report.counts["late"], report.counts["no-labels"]) == (7, 19_623, 223)
    assert report.counts["off-by-one"] == 0


@pytest.mark.parametrize("name", ["multithumos.json", "charades.json"])
def test_the_corrected_copy_of_a_real_file_is_clean(shared_data: Path, name: str) -> None:
    file = read_label_file(shared_data / "labels" / name)
    labels, done = fixed(file)
    problems = labels.problems()
    assert problems["reversed"] == problems["empty"] == problems["after the end"] == 0
    before = sum(len(entry.classes) for entry in file.labels.videos.values())
    after = sum(len(entry.classes) for entry in labels.videos.values())
    assert before - after == sum(count for what, count in done.items() if what.startswith("dropped"))
    assert list(labels.videos) == list(file.labels.videos)


def test_what_is_corrected_and_what_is_left(tmp_path: Path) -> None:
    file = csv(
        tmp_path,
        *("a,0,1,run,,9", "a,0,1,run,,9", "a,0.5,2,run,,9", "a,3,2,run,,9", "a,3,3,run,,9", "a,9,10,run,,9"),
        *("a,8,9.5,jump,,9", "a,8,10,jump,,9", "b,,,run,,", "b,,,run,,", "c,,,,,", "d,0,1e6,run,,"),
    )
    labels, done = fixed(file)
    assert labels.videos["a"].spans.tolist() == [[0, 1], [0.5, 2], [8, 9]]
    assert labels.videos["d"].spans.tolist() == [[0, 1e6]]
    assert set(labels.videos) == {"a", "b", "c", "d"}
    assert done == {
        "cut at the end of the video": 2,
        "dropped: reversed": 1,
        "dropped: empty": 1,
        "dropped: beyond": 1,
        "dropped: duplicate": 3,  # one as it stood, one after the cut, one of a whole video
    }


spans = st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 9))


@settings(max_examples=100, deadline=None)
@given(st.lists(spans, max_size=8), st.integers(1, 9))
def test_correcting_changes_no_labelled_row(segments: list[tuple[int, float, float]], duration: float) -> None:
    """A row inside the video has the labels it had: what is dropped or cut was never active there."""
    labels = Labels(("a", "b", "c"), {"v": VideoLabels.of(segments, duration=float(duration))})
    file = LabelFile(Path("x"), "csv", labels, str, {"v": np.arange(len(segments))}, {"v": 0})
    mended, _ = fixed(file)
    times = np.stack([np.arange(8 * duration), np.arange(8 * duration) + 1], axis=1) / 8
    np.testing.assert_array_equal(mended.rows("v", times), labels.rows("v", times))
    report = check(LabelFile(Path("x"), "csv", mended, str, {"v": np.arange(len(segments))}, {"v": 0}))
    assert not set(found(report)) & {"reversed", "empty", "late", "beyond", "duplicate"}


def test_every_kind_has_words() -> None:
    assert set(Report().counts) == set(KINDS)
