"""The demo: draw videos, extract, train, score; each stage by the function that the command of that name calls.

    demo/demo.json      the settings, written first
         videos/        clips, labels.csv, scenes.json
         features.zarr
         runs/HEAD/     one run a head
         result.json    the table, written last

A stage that is done is not done again, so that an interrupted demo goes on.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.output import print_line
from cli.progress import ExtractionProgress
from cli.train_command import Choice, start
from extract.extract_options import ExtractOptions
from extract.inputs import enumerate_videos
from extract.pipeline import extract_videos
from extract.plan import make_plan
from extract.synthetic import generate
from extract.workers import default_workers
from heads.checkpoint import load_run, read_json
from heads.metrics import frame_map, video_map
from heads.position import position_only_scores
from heads.ranks import ALONE
from heads.run import find_device
from heads.scoring import Question, score_store
from stores import disk, open_store
from stores.errors import VlError
from stores.label_files import read_labels
from stores.labels import Labels
from stores.names import printable

BACKBONES = ("efficientnet_lite0", "logmel")
ROWS_A_SECOND = 6.25
HEADS: Mapping[str, tuple[str, ...]] = {  # what would stand after --set, beside epochs
    "linear": (),
    "meanpool": (),
    "tconv": (),
    "mlad": ("embed=32", "num_layers=2", "lr=4e-3", "dropout=0.05", "variable_length=false"),
}
TRAINING = ("batch_size=8", "eval_every=5", "window=48")  # crops shorter than a clip, so that no two epochs are alike


class DemoError(VlError):
    """The demo's folder is in the way."""


@dataclass(frozen=True)
class Settings:
    """What decides the numbers of a demo."""

    clips: int = 48
    seed: int = 0
    seconds: float = 12.0  # mean length of a clip
    epochs: int = 60


@dataclass(frozen=True)
class Line:
    """One line of the table; None where there is nothing to say."""

    name: str
    frame_map: float | None
    video_map: float | None
    parameters: int | None = None
    seconds: float | None = None  # of training


@dataclass(frozen=True)
class Result:
    """A finished demo."""

    settings: Settings
    table: tuple[Line, ...]
    videos: int
    test_videos: int
    classes: int
    device: str
    seconds: Mapping[str, float]  # stage -> wall clock of the run that finished it

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Result:
        """What `to_dict` gave."""
        settings, table = Settings(**fields["settings"]), tuple(Line(**line) for line in fields["table"])
        return cls(**{**fields, "settings": settings, "table": table})


def finished(out: Path, settings: Settings) -> Result | None:
    """The result that lies in `out`; None if there is still something to do.

    Raises:
        DemoError: `out` holds something else, or a demo with other settings.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    if not (out / "demo.json").is_file():
        raise DemoError(f"{printable(out)} is there and holds no demo. Give --out a new folder.")
    begun, wanted = read_json(out / "demo.json"), dataclasses.asdict(settings)
    for name, value in wanted.items():
        if begun.get(name) != value:
            raise DemoError(
                f"{printable(out)} holds a demo with {name} {printable(begun.get(name))}, not {value}. "
                "Give --out a new folder, or the settings of that demo to resume it."
            )
    return Result.from_dict(read_json(out / "result.json")) if (out / "result.json").is_file() else None


def run_demo(out: Path, settings: Settings, device: str) -> Result:
    """Do what is left to do in `out`, and give the table; `finished` has looked at `out` before."""
    disk.ensure_directory(out)
    disk.write_atomically(out / "demo.json", json.dumps(dataclasses.asdict(settings)).encode())
    seconds: dict[str, float] = {}
    began = time.monotonic()

    print_line(f"1 of 3: {settings.clips} labelled videos in {out / 'videos'}")
    labels = draw(out / "videos", settings)
    seconds["videos"] = time.monotonic() - began

    print_line(f"2 of 3: features by {' and '.join(BACKBONES)} in {out / 'features.zarr'}")
    extract_features(out / "videos", out / "features.zarr", labels, device)
    seconds["features"] = time.monotonic() - began - seconds["videos"]

    print_line(f"3 of 3: {', '.join(HEADS)}, trained on the videos of train and scored on those of test")
    heads = [train(out, head, settings, device) for head in HEADS]
    table = [*floors(out, labels), *heads]
    seconds["heads"] = time.monotonic() - began - seconds["videos"] - seconds["features"]

    tested = sum(entry.subset == "test" for entry in labels.videos.values())
    place = str(find_device(device))
    result = Result(settings, tuple(table), len(labels.videos), tested, len(labels.classes), place, seconds)
    disk.write_atomically(out / "result.json", json.dumps(result.to_dict(), indent=1).encode())
    return result


def draw(folder: Path, settings: Settings) -> Labels:
    """The videos, unless all of them are there."""

    def tell(written: int) -> None:
        if written % 12 == 0 or written == settings.clips:
            print_line(f"{written} of {settings.clips} videos drawn")

    if not (folder / "labels.csv").is_file():
        generate(folder, clips=settings.clips, seconds=settings.seconds, seed=settings.seed, written=tell)
    return read_labels(folder / "labels.csv")


def extract_features(videos: Path, store: Path, labels: Labels, device: str) -> None:
    """What `vl extract --backbone efficientnet_lite0,logmel --fps 6.25` does."""
    found = enumerate_videos([videos])
    options = ExtractOptions(backbones=BACKBONES, fps={"": ROWS_A_SECOND}, device=device)
    with ExtractionProgress() as progress:
        summary = extract_videos(
            found.videos,
            found.failures,
            make_plan(options, report=print_line),
            store,
            observer=progress,
            workers=default_workers(),
            retry_failed=True,
            attachments={"labels": labels.to_dict()},
        )
    if summary.failures:
        first = summary.failures[0]
        raise DemoError(
            f"{len(summary.failures)} demo videos gave no features, {printable(first.video)} first: "
            f"[{first.reason}] {printable(first.detail)}. Run the demo again to try them again."
        )


def train(out: Path, head: str, settings: Settings, device: str) -> Line:
    """One head, unless it is trained, as `vl train-head` does; its scores on the test videos as `vl score` does."""
    run = out / "runs" / head
    if not (run / "result.json").is_file():
        words = (*TRAINING, *HEADS[head], f"epochs={settings.epochs}")
        choice = Choice(head, (out / "features.zarr",), None, words, (), {}, split_seed=settings.seed)
        start(choice, settings.seed, run, find_device(device), ALONE)
    model = load_run(run).model
    of_rows = score(run, "frame-map")[0] if model.head.level == "row" else None
    parameters = sum(weights.numel() for weights in model.parameters())
    return Line(head, of_rows, score(run, "video-map")[0], parameters, read_json(run / "result.json")["seconds"])


def score(run: Path, protocol: str) -> tuple[float, float | None]:
    """The score of a run's test videos under a protocol, and that of chance."""
    report = score_store(run / "test.zarr", Question(protocol=protocol))
    return report.score, report.chance


def floors(out: Path, labels: Labels) -> tuple[Line, Line]:
    """What is reached without looking: by chance, and by how often a class is on at a time of a video."""
    import numpy as np

    linear = out / "runs" / "linear"
    chance = Line("chance", score(linear, "frame-map")[1], score(linear, "video-map")[1])
    store = open_store(out / "features.zarr")
    try:
        features = store["efficientnet_lite0.rgb.frame"]
        times = {video: features.times(video) for video in labels.videos}
    finally:
        store.close()
    rows = {video: labels.rows(video, times[video]) for video in labels.videos}
    train, test = (
        [video for video, entry in labels.videos.items() if entry.subset == name] for name in ("train", "test")
    )
    known, when = [rows[video] for video in train], [times[video] for video in train]
    guessed = [position_only_scores(known, when, times[video], relative=True) for video in test]
    of_rows = frame_map(np.concatenate(guessed), np.concatenate([rows[video] for video in test]))
    highest = np.stack([scores.max(axis=0) for scores in guessed])
    of_videos = video_map(highest, np.stack([labels.video(video) for video in test]))
    return chance, Line("position only", of_rows, of_videos)
