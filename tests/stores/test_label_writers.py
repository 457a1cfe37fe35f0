"""What is written is read back equal where the form can hold it; what it cannot hold is counted."""

import csv
import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stores.label_csv import guarded, unguarded
from stores.label_files import read_labels
from stores.label_writers import WRITABLE, write_labels
from stores.labels import IGNORED, LabelError, Labels, VideoLabels

NAMES = {"csv": "x.csv", "super-events": "x.json", "activitynet": "x.json", "multithumos": "x", "yt8m": "x.csv"}
letters = st.characters(codec="utf-8", categories=("L", "N", "P", "S"))
any_names = st.text(letters, min_size=1, max_size=6).map(str.strip).filter(lambda name: name not in {"", "ignore"})
file_names = st.text("abcXYZ -_()&", min_size=1, max_size=6).filter(
    lambda name: name[0].isalpha() and name[-1].isalpha()
)
ids = any_names.filter(lambda name: "," not in name and '"' not in name)
times = st.floats(0, 1e6, allow_subnormal=False)


@st.composite
def labels_for(draw: st.DrawFn, form: str) -> Labels:
    """Labels that `form` can hold; the classes as its reader orders them."""
    named = file_names if form == "multithumos" else any_names
    folded = draw(st.lists(named, min_size=1, max_size=4, unique_by=str.casefold))
    classes = tuple(sorted(folded)) if form in {"csv", "activitynet", "multithumos"} else tuple(folded)
    classes = tuple(name for name in classes if not name.isdigit()) or ("a",)
    names = st.integers(0, len(classes) - 1)
    timed = form != "yt8m"
    ignore = st.just(IGNORED) if form == "csv" else names
    videos = {}
    for video in draw(st.lists(ids, min_size=1, max_size=4, unique=True)):
        segments = draw(st.lists(st.tuples(names | ignore, times, times), max_size=4)) if timed else []
        whole = draw(st.lists(names, max_size=3, unique=True)) if form in {"csv", "yt8m"} else []
        facts = form in {"csv", "super-events", "activitynet"}
        videos[video] = VideoLabels.of(
            sorted(segments, key=lambda segment: segment[0]) if form == "multithumos" else segments,
            duration=draw(st.none() | times) if facts else None,
            subset=draw(st.sampled_from([None, "train", "val", "test", "other"])) if facts else None,
            video_level=tuple(sorted(whole)) if form == "yt8m" else tuple(whole),
        )
    used = {index for entry in videos.values() for index in (*entry.classes.tolist(), *entry.video_level)} - {IGNORED}
    missing = [index for index in range(len(classes)) if index not in used]
    extra = [(index, 0.0, 1.0) for index in missing] if timed else []
    level = {} if timed else {"video_level": tuple(missing or [0])}
    videos["zz"] = VideoLabels.of(extra or ([(0, 0.0, 1.0)] if timed else []), **level)
    if form == "multithumos":
        videos = {video: entry for video, entry in videos.items() if len(entry.classes)}
    return Labels(classes, videos)


def facts(labels: Labels, form: str) -> dict[str, object]:
    """Everything but the order of videos, the notes, and where rows are labelled; a file a class has its own order."""
    document = labels.to_dict()
    for entry in document["videos"].values() if form == "multithumos" else ():
        entry["segments"].sort(key=lambda segment: segment[0])
    return {"classes": document["classes"], "videos": document["videos"]}


@pytest.mark.parametrize("form", WRITABLE)
def test_there_and_back(form: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    @settings(max_examples=40, deadline=None)
    @given(labels_for(form))
    def holds(labels: Labels) -> None:
        out = tmp_path_factory.mktemp("x") / NAMES[form]
        written = write_labels(labels, out, form)
        assert not written.lost
        assert facts(read_labels(out, form=form), form) == facts(labels, form)

    holds()


def test_every_form_counts_what_it_cannot_hold(tmp_path: Path) -> None:
    entry = VideoLabels.of(
        [(0, 0.0, 1.0), (IGNORED, 2.0, 3.0)], duration=9.0, subset="train", video_level=(1,), unknown=(2,)
    )
    labels = Labels(("a", "b", "c"), {"v": entry, "w": VideoLabels.of([])})
    all_lost = {
        "times of segments": 1,
        "classes of whole videos": 1,
        "ignored stretches": 1,
        "classes not looked for in a video": 1,
        "subsets of videos": 1,
        "durations of videos": 1,
        "videos without segments": 1,
        "classes that no video has": 1,
    }
    held = {
        "csv": 6,  # all but the class that nobody looked for, and the one that nobody has
        "super-events": 5,
        "activitynet": 4,
        "multithumos": 2,
        "yt8m": 3,
    }
    for form, count in held.items():
        lost = write_labels(labels, tmp_path / f"{form}-{NAMES[form]}", form).lost
        assert lost.items() <= all_lost.items()
        assert len(all_lost) - len(lost) == count, form


def test_super_events_is_as_the_field_has_it(tmp_path: Path) -> None:
    labels = Labels(("a", "b"), {"v": VideoLabels.of([(1, 0.5, 2.0)], duration=9.0, subset="train")})
    written = write_labels(labels, tmp_path / "x.json", "super-events", first=1)
    assert json.loads((tmp_path / "x.json").read_text()) == {
        "v": {"subset": "training", "duration": 9.0, "actions": [[2, 0.5, 2.0]]}
    }
    assert json.loads((tmp_path / "x_classes.json").read_text()) == {"1": "a", "2": "b"}
    assert written.files == (tmp_path / "x.json", tmp_path / "x_classes.json")


@pytest.mark.parametrize("name", ["multithumos.json", "charades.json"])
@pytest.mark.parametrize("form", ["csv", "super-events"])
def test_a_real_file_survives(shared_data: Path, tmp_path: Path, name: str, form: str) -> None:
    labels = read_labels(shared_data / "labels" / name)
    write_labels(labels, tmp_path / "x", form)
    again = read_labels(tmp_path / "x", form=form)
    if form == "super-events":
        assert again.fingerprint == labels.fingerprint
    for video, entry in labels.videos.items():
        ours = again.videos[video]
        assert [again.classes[index] for index in ours.classes] == [labels.classes[index] for index in entry.classes]
        assert ours.spans.tolist() == entry.spans.tolist()
        assert (ours.duration, ours.subset) == (entry.duration, entry.subset)


DANGEROUS = ["=1+1", "+1", "-e6lEsIUf3U", "@SUM(A1)", "'=1", "''-1"]


def test_nothing_written_is_a_formula(tmp_path: Path) -> None:
    labels = Labels(tuple(DANGEROUS), {name: VideoLabels.of([(0, 0, 1)], subset=name) for name in DANGEROUS})
    write_labels(labels, tmp_path / "x.csv", "csv")
    with (tmp_path / "x.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell[:1] in set("=+-@\t\r")]
    again = read_labels(tmp_path / "x.csv")
    assert list(again.videos) == DANGEROUS
    assert [entry.subset for entry in again.videos.values()] == DANGEROUS


@given(st.text("'=+-@\t\rax1"))
def test_the_guard_is_undone_exactly(cell: str) -> None:
    assert unguarded(guarded(cell)) == cell
    assert guarded(cell)[:1] not in set("=+-@\t\r")


@pytest.mark.parametrize(
    ("form", "classes", "video", "message"),
    [
        ("csv", ("ignore",), "v", "cannot stand in csv"),
        ("csv", (" a",), "v", "cannot stand in csv"),
        ("multithumos", ("../a",), "v", r"class '\.\./a' cannot name a file"),
        ("multithumos", ("a", "A"), "v", "cannot name a file of its own"),
        ("multithumos", (".hidden",), "v", "cannot name a file"),
        ("multithumos", ("a",), "v\nw", "cannot stand in a row"),
        ("yt8m", ("a",), "v,w", "cannot stand in this csv"),
        ("matrix", ("a",), "v", "cannot be written. There are: csv"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, form: str, classes: tuple[str, ...], video: str, message: str
) -> None:
    labels = Labels(classes, {video: VideoLabels.of([(0, 0.0, 1.0)])})
    with pytest.raises(LabelError, match=message):
        write_labels(labels, tmp_path / "x", form)
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    labels = Labels(("a",), {"v": VideoLabels.of([(0, 0.0, 1.0)])})
    (tmp_path / "x.csv").write_text("mine")
    with pytest.raises(LabelError, match="exists already"):
        write_labels(labels, tmp_path / "x.csv", "csv")
    (tmp_path / "x_classes.json").write_text("mine")
    with pytest.raises(LabelError, match=r"x_classes.json exists already"):
        write_labels(labels, tmp_path / "x.json", "super-events")
    with pytest.raises(LabelError, match="there is no folder"):
        write_labels(dataclasses.replace(labels), tmp_path / "no/x.csv", "csv")
    assert (tmp_path / "x.csv").read_text() == "mine"
