"""Labels at any times, and which video of a store has which labels."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stores.labels import Boundary, LabelAt, LabelError, Labels, VideoLabels, match_videos

CLASSES = ("run", "jump", "fall")
SECOND_ROWS = np.array([[0, 1], [1, 2], [2, 3], [3, 4]], float)


def labels_of(*segments: tuple[int, float, float], **rest: object) -> Labels:
    return Labels(CLASSES, {"v": VideoLabels.of(segments, **rest)})


def slow_rows(
    labels: VideoLabels, num_classes: int, times: NDArray[np.float64], at: LabelAt, boundary: Boundary
) -> NDArray[np.int8]:
    """The definition, spelled out row by row and span by span."""
    table = np.zeros((len(times), num_classes), np.int8)
    whole = labels.duration if labels.duration is not None else (times[-1, 1] if len(times) else 0)
    for k, (begin, finish) in enumerate(times):
        low = high = (begin + finish) / 2
        if at == "start":
            low = high = k * whole / len(times)
        if at == "overlap":
            low, high = begin, finish
        table[k, list(labels.video_level)] = -1
        covered = []
        for index, (start, end) in zip(labels.classes, labels.spans, strict=True):
            if boundary == "strict":
                inside = start < end and start < high and end > low
            else:
                inside = start <= end and start <= high and end >= low
            if inside:
                covered.append(index)
        table[k, [index for index in covered if index >= 0]] = 1
        table[k, list(labels.unknown)] = -1
        if -1 in covered:
            table[k] = -1
    return table


tenths = st.integers(0, 30).map(lambda tenth: tenth / 10)  # coarse, so that boundaries are met


@settings(max_examples=150, deadline=None)
@given(
    segments=st.lists(st.tuples(st.integers(-1, 2), tenths, tenths), max_size=6),
    cells=st.lists(st.tuples(tenths, tenths).map(sorted), max_size=6),
    facts=st.fixed_dictionaries(
        {
            "duration": st.none() | tenths,
            "video_level": st.sampled_from([(), (1,)]),
            "unknown": st.sampled_from([(), (0,), (0, 2)]),
        }
    ),
    at=st.sampled_from(["centre", "start", "overlap"]),
    boundary=st.sampled_from(["strict", "inclusive"]),
)
def test_rows_are_what_the_definition_says_row_by_row(segments, cells, facts, at, boundary) -> None:  # type: ignore[no-untyped-def]
    labels = labels_of(*segments, **facts)
    times = np.array(cells, float).reshape(-1, 2)
    expected = slow_rows(labels.videos["v"], len(CLASSES), times, at, boundary)
    np.testing.assert_array_equal(labels.rows("v", times, at, boundary), expected)


def test_a_span_is_active_strictly_between_its_ends_or_on_them_if_asked() -> None:
    labels = labels_of((1, 0.5, 2.5))  # the centres of rows 0 and 2 lie on its ends
    assert labels.rows("v", SECOND_ROWS)[:, 1].tolist() == [0, 1, 0, 0]
    assert labels.rows("v", SECOND_ROWS, boundary="inclusive")[:, 1].tolist() == [1, 1, 1, 0]


def test_overlap_takes_every_row_that_is_touched() -> None:
    labels = labels_of((0, 1.9, 3.0))
    assert labels.rows("v", SECOND_ROWS, "overlap")[:, 0].tolist() == [0, 1, 1, 0]


def test_an_open_span_without_length_touches_nothing() -> None:
    labels = labels_of((0, 1.5, 1.5))
    assert labels.rows("v", SECOND_ROWS, "overlap")[:, 0].tolist() == [0, 0, 0, 0]
    assert labels.rows("v", SECOND_ROWS, "overlap", "inclusive")[:, 0].tolist() == [0, 1, 0, 0]


def test_start_counts_rows_over_the_duration_of_the_label_file() -> None:
    labels = labels_of((2, 1.9, 2.1), duration=8.0)  # rows stand at 0, 2, 4, 6 s
    assert labels.rows("v", SECOND_ROWS, "start")[:, 2].tolist() == [0, 1, 0, 0]
    assert labels.rows("v", SECOND_ROWS, "start", duration=4.0)[:, 2].tolist() == [0, 0, 1, 0]


def test_start_falls_back_to_the_end_of_the_last_row() -> None:
    assert labels_of((2, 1.9, 2.1)).rows("v", SECOND_ROWS, "start")[:, 2].tolist() == [0, 0, 1, 0]


def test_rows_look_where_the_label_file_says_unless_told() -> None:
    labels = dataclasses.replace(labels_of((0, 0.4, 0.6)), label_at="start")
    assert labels.rows("v", SECOND_ROWS).sum() == 0
    assert labels.rows("v", SECOND_ROWS, "centre")[:, 0].tolist() == [1, 0, 0, 0]


def test_an_ignored_span_makes_every_class_unknown() -> None:
    labels = labels_of((0, 0, 4), (-1, 1, 3))
    assert labels.rows("v", SECOND_ROWS).tolist() == [[1, 0, 0], [-1, -1, -1], [-1, -1, -1], [1, 0, 0]]
    assert labels.video("v").tolist() == [1, 0, 0]


def test_a_class_known_of_the_video_only_is_unknown_in_rows() -> None:
    labels = labels_of((0, 0, 1), video_level=(1,))
    assert labels.rows("v", SECOND_ROWS)[:2].tolist() == [[1, -1, 0], [0, -1, 0]]
    assert labels.video("v").tolist() == [1, 1, 0]


def test_a_class_nobody_looked_for_is_unknown_everywhere() -> None:
    labels = labels_of((0, 0, 1), unknown=(2,))
    assert labels.rows("v", SECOND_ROWS)[0].tolist() == [1, 0, -1]
    assert labels.video("v").tolist() == [1, 0, -1]


def test_a_video_of_ignored_spans_alone_is_unknown() -> None:
    assert labels_of((-1, 0, 4)).video("v").tolist() == [-1, -1, -1]


def test_a_reversed_span_is_never_active_but_counted() -> None:
    labels = labels_of((0, 3, 1), (1, 2, 2), (2, 3, 9), duration=4.0)
    assert labels.rows("v", SECOND_ROWS, "overlap", "inclusive")[:, 0].tolist() == [0, 0, 0, 0]
    assert labels.video("v").tolist() == [0, 1, 1]
    assert labels.problems() == {"reversed": 1, "empty": 1, "after the end": 1, "videos without labels": 0}


def test_unknown_videos_and_ways_of_looking_are_refused() -> None:
    labels = labels_of((0, 0, 1))
    with pytest.raises(LabelError, match="no video 'x'"):
        labels.rows("x", SECOND_ROWS)
    with pytest.raises(LabelError, match="'middle'"):
        labels.rows("v", SECOND_ROWS, "middle")  # type: ignore[arg-type]
    with pytest.raises(LabelError, match="'open'"):
        labels.rows("v", SECOND_ROWS, boundary="open")  # type: ignore[arg-type]


def test_labels_survive_json() -> None:
    videos = {
        "a.mp4": VideoLabels.of([(0, 0.1, 2.3), (-1, 4, 5)], duration=9.5, subset="train"),
        "b.mp4": VideoLabels.of([], video_level=(2,), unknown=(0,)),
    }
    labels = Labels(CLASSES, videos, "start", ("a note",))
    again = Labels.from_dict(json.loads(json.dumps(labels.to_dict())))
    assert again.to_dict() == labels.to_dict()
    assert again.fingerprint == labels.fingerprint
    np.testing.assert_array_equal(again.rows("a.mp4", SECOND_ROWS), labels.rows("a.mp4", SECOND_ROWS))


def test_the_fingerprint_follows_the_labels_and_not_the_notes() -> None:
    labels = labels_of((0, 0, 1))
    assert dataclasses.replace(labels, notes=("other",)).fingerprint == labels.fingerprint
    assert labels_of((0, 0, 1.5)).fingerprint != labels.fingerprint


@pytest.mark.parametrize(
    "change",
    [
        {"videos": None},
        {"videos": {"v": {"segments": [[7, 0, 1]]}}},
        {"videos": {"v": {"segments": [[0, 0, float("nan")]]}}},
        {"videos": {"v": {"segments": [[0, 0]]}}},
        {"classes": ["run"]},
        {"label_at": "never"},
    ],
)
def test_malformed_attached_labels_are_refused(change: dict[str, object]) -> None:
    document = labels_of((1, 0, 1)).to_dict()
    if isinstance(change.get("videos"), dict):
        change = {"videos": {"v": document["videos"]["v"] | change["videos"]["v"]}}  # type: ignore[index]
    with pytest.raises(LabelError):
        Labels.from_dict(document | change)


def test_only_keeps_the_videos_asked_for() -> None:
    labels = Labels(CLASSES, {"a": VideoLabels.of([]), "b": VideoLabels.of([])})
    assert list(labels.only(["b"]).videos) == ["b"]


@pytest.mark.parametrize(
    ("in_store", "in_labels"),
    [
        ("a/clip.mp4", "a/clip.mp4"),
        ("a/clip.mp4", "a/clip"),
        ("a/clip.mp4", "a/clip.avi"),
        ("a/clip.mp4", "clip.mp4"),
        ("a/clip.mp4", "clip"),
        ("a/clip.mp4", "b/clip.mkv"),
        ("take.1.mp4", "take.1"),
        ("caf\u00e9.mp4", "cafe\u0301"),  # the same name, composed and decomposed
    ],
)
def test_a_video_is_found_by_id_or_by_stem(in_store: str, in_labels: str) -> None:
    matched = match_videos([in_store, "other.mp4"], [in_labels, "third"])
    assert matched.pairs == {in_store: in_labels}
    assert (matched.only_store, matched.only_labels) == (("other.mp4",), ("third",))


def test_an_exact_id_goes_before_a_stem() -> None:
    matched = match_videos(["a/clip.mp4", "clip.mp4"], ["clip.mp4"])
    assert matched.pairs == {"clip.mp4": "clip.mp4"}
    assert matched.only_store == ("a/clip.mp4",)


def test_videos_that_differ_in_their_ending_alone_go_by_their_exact_ids() -> None:
    assert match_videos(["a.mp4", "a.avi"], ["a.avi", "a.mp4"]).pairs == {"a.mp4": "a.mp4", "a.avi": "a.avi"}


def test_numbered_takes_are_not_taken_for_each_other() -> None:
    assert match_videos(["take.1"], ["take.2"]).pairs == {}


@pytest.mark.parametrize(
    ("in_store", "in_labels"), [(["a/clip.mp4", "b/clip.mp4"], ["clip"]), (["clip.mp4"], ["a/clip", "b/clip.avi"])]
)
def test_an_ambiguous_stem_is_an_error_that_names_both(in_store: list[str], in_labels: list[str]) -> None:
    with pytest.raises(LabelError) as error:
        match_videos(in_store, in_labels)
    for video in in_store + in_labels:
        assert f"'{video}'" in str(error.value)
