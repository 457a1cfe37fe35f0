"""What a table says to those who read it: everything it has, what is missing, and what must not be believed."""

import csv
import dataclasses
import io
from typing import Any

import pytest

from heads.table import Line, Spread, Table
from heads.table_files import table_csv, table_figure, table_markdown, with_prefix


def line(head: str, score: float, **fields: Any) -> Line:
    plain: dict[str, Any] = {
        "level": "video",
        "sets": ("cnn.rgb.map",),
        "video": Spread(score, 0.0125),
        "rows": None,
        "val": Spread(0.5, None),
        "val_protocol": "video-map",
        "video_chance": 0.25,
        "rows_chance": None,
        "videos_scored": 8,
        "videos_expected": 8,
        "parameters": 53_244_218,
        "multiply_adds": 10_879_000_000,
        "pass_rows": 32,
        "seconds_per_epoch": 12.34,
        "peak_memory": 5 << 30,
        "peak_memory_of": "tensors on the GPU",
        "seeds": (0, 1),
        "random_weights": False,
    }
    return Line(head, **{**plain, **fields})


TABLE = Table(
    (line("stld", 0.75), line("asf", 0.5, seconds_per_epoch=None, video=Spread(0.5, None), seeds=(1,))),
    {"gated": "gated needs a set of frame rows for audio; there is $x$ and a_b^c."},
    {"asf-seed0": "the loss of epoch 3 is nan."},
)
RANDOM = dataclasses.replace(TABLE, lines=(TABLE.lines[0], line("asf", 0.5, random_weights=True)))


def words(table: Table) -> list[str]:
    """Every text of the picture."""
    figure = table_figure(table)
    axes = figure.axes[0]
    return [text.get_text() for text in (*figure.texts, *axes.texts, *axes.get_yticklabels())]


def test_the_picture_has_every_number_and_every_head_that_is_missing() -> None:
    shown = words(TABLE)
    for text in ("stld", "asf", "0.7500 ± 0.0125", "0.5000", "53,244,218", "10.9 G", "12.3", "5,120", "chance 0.250"):
        assert text in shown, text
    assert any("gated does not fit: gated needs a set of frame rows for audio" in text for text in shown)
    assert any("asf-seed0 failed: the loss of epoch 3 is nan." in text for text in shown)
    figure = table_figure(TABLE)
    figure.canvas.draw()
    inside = figure.bbox
    for drawn in (*figure.texts, *figure.axes[0].texts):
        box = drawn.get_window_extent()
        assert inside.x0 <= box.x0
        assert box.x1 <= inside.x1
        assert inside.y0 <= box.y0
        assert box.y1 <= inside.y1


def test_columns_of_the_picture_do_not_touch() -> None:
    wide = line("gated", 1.0, rows=Spread(0.5, 0.5), parameters=1_234_567_890, peak_memory=140 << 30)
    figure = table_figure(Table((wide,), {}, {}))
    figure.canvas.draw()
    texts = [text for text in figure.axes[0].texts if not text.get_text().startswith("chance")]
    boxes = [text.get_window_extent() for text in texts]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :]), texts[number].get_text()


def test_random_weights_head_every_form_of_the_table() -> None:
    assert words(RANDOM)[0].startswith("RANDOM WEIGHTS")
    assert not any("RANDOM" in text for text in words(TABLE))
    assert table_markdown(RANDOM).startswith("**RANDOM WEIGHTS")
    assert "| asf (RANDOM WEIGHTS) |" in table_markdown(RANDOM)
    assert "| stld |" in table_markdown(RANDOM)
    assert "RANDOM" not in table_markdown(TABLE)
    lines = list(csv.DictReader(io.StringIO(table_csv(RANDOM).decode())))
    assert [line["weights"] for line in lines] == ["trained", "RANDOM WEIGHTS", ""]


def test_the_page_says_what_the_numbers_are_of() -> None:
    page = table_markdown(TABLE)
    assert "| chance | 0.2500 | - |" in page
    assert "- stld: cnn.rgb.map; 32 rows in the median training video; seeds 0, 1" in page
    assert "(tensors on the GPU)" in page
    assert "- asf-seed0 failed: the loss of epoch 3 is nan." in page
    few = dataclasses.replace(TABLE, lines=(TABLE.lines[0], line("asf", 0.5, videos_scored=7)))
    assert "asf: cnn.rgb.map; 32 rows in the median training video; seeds 0, 1; scored on 7 of 8 test videos" in (
        table_markdown(few)
    )
    assert "not all heads are scored on the same number of test videos" in table_markdown(few)
    assert "not all heads" not in page


def test_the_file_for_a_spreadsheet_has_a_line_for_every_head() -> None:
    lines = {line["head"]: line for line in csv.DictReader(io.StringIO(table_csv(TABLE).decode()))}
    assert list(lines) == ["stld", "asf", "gated"]
    assert (lines["stld"]["video_map"], lines["stld"]["video_map_sd"]) == ("0.75", "0.0125")
    assert (lines["asf"]["video_map_sd"], lines["asf"]["seconds_per_epoch"], lines["asf"]["seeds"]) == ("", "", "1")
    assert lines["asf"]["status"] == "asf-seed0 failed: the loss of epoch 3 is nan."
    assert lines["gated"]["status"].startswith("does not fit: gated needs")
    assert lines["stld"]["peak_memory_bytes"] == str(5 << 30)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0"), (999, "999"), (1000, "1.00 k"), (12_417_433_600, "12.4 G"), (428_461_440, "428 M"), (10**12, "1.00 T")],
)
def test_large_counts_have_three_digits_and_a_prefix(count: int, text: str) -> None:
    assert with_prefix(count) == text
