"""An extraction by workers that are lost: who gets what again, and when a video is given up."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from extract.accounts import Observer, Summary
from extract.crew import TRIES, Lost, Order, Share, Worker, extract_with, halves
from extract.decode import Limits, Reason
from extract.extract_options import ExtractOptions
from extract.inputs import VideoInput, enumerate_videos
from extract.pipeline import extract_videos
from extract.plan import Plan, make_plan
from extract.synthetic import generate
from stores import open_store
from stores.spec import Failure

OPTIONS = ExtractOptions(("logmel",), device="cpu")


class LocalCrew:
    """Three workers in this process; `lose` says who does not come back, and after how much of its share."""

    size = 3

    def __init__(self, order: Order, lose: Callable[[Sequence[VideoInput]], int | None]) -> None:
        self.worker = Worker(order)
        self.lose = lose
        self.given: list[tuple[int, list[str]]] = []
        self.waiting: list[tuple[int, Sequence[VideoInput]]] = []

    def give(self, number: int, videos: Sequence[VideoInput]) -> None:
        assert number not in dict(self.waiting), "that one is at work"
        self.given.append((number, [video.id for video in videos]))
        self.waiting.append((number, videos))

    def wait(self) -> tuple[int, Summary | Lost]:
        number, videos = self.waiting.pop()
        done = self.lose(videos)
        if done is None:
            return number, self.worker.extract(videos)
        self.worker.extract(videos[:done])
        return number, Lost("killed")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crew") / "videos"
    generate(folder, clips=13, seconds=1.0, seed=5, size=(32, 32))
    return folder


@pytest.fixture(scope="module")
def plan() -> Plan:
    return make_plan(OPTIONS, report=lambda _: None)


@pytest.fixture(scope="module")
def plain(videos: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("plain") / "s.zarr"
    extract_videos(enumerate_videos([videos]).videos, (), plan, out, observer=Observer())
    return out


def run(
    videos: Path, plan: Plan, out: Path, lose: Callable[[Sequence[VideoInput]], int | None]
) -> tuple[Summary, LocalCrew, list[str]]:
    order = Order(OPTIONS, out, 1, Limits())
    crew = LocalCrew(order, lose)
    notes: list[str] = []
    found = enumerate_videos([videos])
    summary = extract_with(
        crew,
        found.videos,
        [Failure("pipe.mp4", "not_regular", "")],
        plan,
        order,
        observer=Observer(),
        attachments={"labels": {"x": 1}},
        note=notes.append,
    )
    return summary, crew, notes


def test_lost_workers_cost_nothing(videos: Path, plan: Plan, plain: Path, tmp_path: Path) -> None:
    losses = iter([0, None, 1, None, None, 0])
    summary, crew, notes = run(videos, plan, tmp_path / "s.zarr", lambda _: next(losses, None))
    assert len(notes) == 3
    assert (summary.done, summary.failed, summary.there, summary.partly) == (13, 1, 0, 0)
    here, there = (open_store(path)["logmel.audio.frame"] for path in (tmp_path / "s.zarr", plain))
    assert list(here) == list(there)
    for video in there:
        assert here.entry(video).sha256 == there.entry(video).sha256
    store = open_store(tmp_path / "s.zarr")
    assert store.attachment("labels") == {"x": 1}
    assert [failure.video for failure in store.failures()] == ["pipe.mp4"]
    # Running it again finds all there, and starts nobody.
    again, crew, _ = run(videos, plan, tmp_path / "s.zarr", lambda _: None)
    assert (again.there, again.done, crew.given) == (13, 0, [])


def test_a_video_that_takes_its_workers_down_is_found_and_given_up(videos: Path, plan: Plan, tmp_path: Path) -> None:
    bad = "0007.mp4" if (videos / "0007.mp4").exists() else sorted(path.name for path in videos.glob("*.mp4"))[7]
    summary, crew, _ = run(
        videos, plan, tmp_path / "s.zarr", lambda share: 0 if bad in [video.id for video in share] else None
    )
    assert (summary.done, summary.failed) == (12, 2)
    (failure,) = [failure for failure in summary.failures if failure.video == bad]
    assert failure.reason == Reason.CRASHED
    assert sum(ids == [bad] for _, ids in crew.given) == TRIES
    assert len(open_store(tmp_path / "s.zarr")["logmel.audio.frame"]) == 12


def test_a_share_is_halved_until_a_video_is_alone() -> None:
    several = tuple(VideoInput(str(number), Path(str(number))) for number in range(5))
    assert [len(share.videos) for share in halves(Share(several))] == [2, 3]
    share, tried = Share(several[:1]), 0
    while again := halves(share):
        (share,) = again
        tried += 1
    assert tried == TRIES - 1
