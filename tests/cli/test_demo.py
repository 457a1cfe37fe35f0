"""`vl demo`, on a demo small enough to wait for; the scores of the real one stand in the README."""

from __future__ import annotations

import csv
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from cli import demo, demo_command
from cli.demo import DemoError, Line, Result, Settings, finished, run_demo
from stores import open_store

TINY = Settings(clips=6, seed=1, seconds=3.0, epochs=2)


@dataclass
class Demo:
    """A demo that was cut off before its third head, and then finished."""

    out: Path
    result: Result
    kept: dict[Path, int]  # file -> time of its last change, when it was cut off


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    out = tmp_path_factory.mktemp("demo") / "out"
    train = demo.train

    def cut_off(folder: Path, head: str, settings: Settings, device: str) -> Line:
        if head == "tconv":
            raise KeyboardInterrupt
        return train(folder, head, settings, device)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "train", cut_off)
        with pytest.raises(KeyboardInterrupt):
            run_demo(out, TINY, "cpu")
    assert finished(out, TINY) is None
    kept = {path: path.stat().st_mtime_ns for path in sorted(out.rglob("*")) if path.is_file()}
    return Demo(out, run_demo(out, TINY, "cpu"), kept)


@pytest.mark.slow
def test_the_table_has_chance_position_and_every_head(tiny: Demo) -> None:
    table = {line.name: line for line in tiny.result.table}
    assert list(table) == ["chance", "position only", "linear", "meanpool", "tconv", "mlad"]
    assert [name for name, line in table.items() if line.frame_map is None] == ["meanpool"]
    for line in table.values():
        for value in (line.frame_map, line.video_map):
            assert value is None or 0 <= value <= 1
    # efficientnet_lite0 has 1280 features, logmel 512; a weight for each and class, and a bias
    assert table["linear"].parameters == (1280 + 512 + 1) * tiny.result.classes
    assert tiny.result.videos == 6
    assert tiny.result.test_videos == 2


@pytest.mark.slow
def test_a_demo_that_was_cut_off_keeps_all_that_was_done(tiny: Demo) -> None:
    done = [path for path in tiny.kept if path.suffix in {".mp4", ".safetensors"} or path.name == "labels.csv"]
    assert sum(path.suffix == ".mp4" for path in done) == 6
    assert {path.parent.name for path in done if path.suffix == ".safetensors"} == {"linear", "meanpool"}
    rows = [path for path in tiny.kept if "segments" in path.parts or "commits" in path.parts]
    assert rows
    for path in done + rows:
        assert path.stat().st_mtime_ns == tiny.kept[path], path


@pytest.mark.slow
def test_chance_is_the_share_of_test_rows_and_videos_that_show_a_class(tiny: Demo) -> None:
    with (tiny.out / "videos" / "labels.csv").open(newline="") as file:
        segments = [row for row in csv.DictReader(file) if row["subset"] == "test"]
    store = open_store(tiny.out / "features.zarr")
    rows: dict[str, list[float]] = {}
    videos: dict[str, set[str]] = {}
    total = 0
    for video in sorted({row["video"] for row in segments}):
        middles = store["efficientnet_lite0.rgb.frame"].times(video).mean(axis=1)
        total += len(middles)
        for label in {row["label"] for row in segments if row["video"] == video}:
            spans = [row for row in segments if row["video"] == video and row["label"] == label]
            on = [any(float(row["start"]) < at < float(row["end"]) for row in spans) for at in middles]
            rows.setdefault(label, []).append(sum(on))
            videos.setdefault(label, set()).add(video)
    chance = tiny.result.table[0]
    shares = [sum(counts) / total for counts in rows.values() if sum(counts)]
    assert chance.frame_map == pytest.approx(np.mean(shares))
    assert chance.video_map == pytest.approx(np.mean([len(names) / 2 for names in videos.values()]))


@pytest.mark.slow
def test_a_finished_demo_is_found_again(tiny: Demo) -> None:
    assert finished(tiny.out, TINY) == tiny.result


@pytest.mark.slow
def test_a_demo_with_other_settings_is_left_alone(tiny: Demo) -> None:
    with pytest.raises(DemoError, match=r"holds a demo with clips 6, not 9.*--out a new folder"):
        finished(tiny.out, dataclasses.replace(TINY, clips=9))


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(DemoError, match="holds no demo"):
        finished(tmp_path, TINY)


def test_a_new_or_empty_folder_is_free_for_a_demo(tmp_path: Path) -> None:
    assert finished(tmp_path, TINY) is None
    assert finished(tmp_path / "new", TINY) is None


def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "demo").write_text("notes")
    with pytest.raises(DemoError, match="holds no demo"):
        finished(tmp_path / "demo", TINY)


TABLE = (Line("chance", 0.0954, 0.5), Line("meanpool", None, 0.66), Line("mlad", 0.7981, 0.9449, 772604, 45.6))
SECONDS = {"videos": 18.2, "features": 60.1, "heads": 59.8}


def test_the_command_shows_the_table_of_a_finished_demo_and_does_nothing_else(tmp_path: Path) -> None:
    settings = Settings(clips=6, seed=1)
    result = Result(settings, TABLE, 6, 2, 14, "cpu", SECONDS)
    (tmp_path / "demo.json").write_text(json.dumps(dataclasses.asdict(settings)))
    (tmp_path / "result.json").write_text(json.dumps(result.to_dict()))
    app = typer.Typer()
    demo_command.register(app)
    shown = CliRunner().invoke(app, ["--out", str(tmp_path), "--clips", "6", "--seed", "1", "--json"])
    assert json.loads(shown.stdout) == json.loads(json.dumps(result.to_dict()))
    assert "is finished" in shown.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["demo.json", "result.json"]


def test_the_text_has_one_aligned_line_for_each_entry_and_says_where_the_files_are() -> None:
    text = demo_command.text(Result(TINY, TABLE, 48, 12, 14, "cpu", SECONDS), Path("demo"))
    assert text.splitlines()[:4] == [
        "               frame mAP video mAP  parameters  seconds",
        "chance             0.095     0.500           -        -",
        "meanpool               -     0.660           -        -",
        "mlad               0.798     0.945     772,604       46",
    ]
    assert "12 held-out videos of 48, 14 classes" in text
    assert "vl score demo/runs/mlad" in text
