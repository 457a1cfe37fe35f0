"""Two scores of the same videos: is one better, or was it luck with the videos? No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from heads.metrics_bootstrap import RESAMPLES, Interval, two_sided_p
from heads.protocols import ScoringError
from heads.report import Report, interval_dict, number, with_interval
from heads.scoring import Question, Scored, draw, scored
from stores.names import printable


@dataclass(frozen=True)
class Comparison:
    """Two scores of the same videos, and their difference in a paired bootstrap."""

    reports: tuple[Report, Report]
    interval: Interval  # of the difference
    p_value: float  # two-sided

    @property
    def difference(self) -> float:
        """The first score less the second."""
        return self.reports[0].score - self.reports[1].score

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return {
            "reports": [report.to_dict() for report in self.reports],
            "difference": number(self.difference),
            "interval": interval_dict(self.interval),
            "p_value": number(self.p_value),
        }


def compare_stores(one: Path, other: Path, question: Question) -> Comparison:
    """Score two stores on the same videos, and their difference in a paired bootstrap.

    Both are scored on the same draws of videos. A permutation test would have to swap the scores of single videos
    between the two, and scores of two models are not on one scale, which pooling over videos needs.

    Raises:
        ScoringError: as `score_store`; or videos, labels, classes or protocol differ.
    """
    question = replace(question, resamples=question.resamples or RESAMPLES)
    if question.common_with:  # then videos that one of the two lacks are left out of both
        question = replace(question, common_with=tuple(dict.fromkeys((*question.common_with, one, other))))
    first, second = (scored(path, replace(question, resamples=0)) for path in (one, other))
    _require_comparable(first, second)
    place = {video: index for index, video in enumerate(first.answers.videos)}
    order = [place[video] for video in second.answers.videos]
    counts_VR = draw(first.answers, question)
    first_R = first.protocol.resample(first.answers, counts_VR)
    second_R = second.protocol.resample(second.answers, counts_VR[order])
    of_first, of_second, of_both = (
        Interval.of(values, len(order)) for values in (first_R, second_R, first_R - second_R)
    )
    reports = with_interval(first.report, of_first), with_interval(second.report, of_second)
    return Comparison(reports, of_both, two_sided_p(first_R - second_R))


def _require_comparable(one: Scored, other: Scored) -> None:
    """ScoringError unless the two scores answer one question about the same videos."""
    first, second = one.report, other.report
    both = f"{printable(first.path)} and {printable(second.path)} do not compare"
    for what, left, right in (
        ("protocol", first.protocol, second.protocol),
        ("split", first.split, second.split),
        ("labels taken", first.taken, second.taken),
    ):
        if left != right:
            raise ScoringError(f"{both}: {what} {printable(left)} and {printable(right)}.")
    for what, left_names, right_names in (
        ("video", one.answers.videos, other.answers.videos),
        ("class", one.answers.classes, other.answers.classes),
    ):
        if lone := sorted(set(left_names) ^ set(right_names)):
            holder = first.path if lone[0] in left_names else second.path
            remedy = " --common-with the other scores what both have." if what == "video" else ""
            raise ScoringError(f"{both}: only {printable(holder)} has the {what} '{printable(lone[0])}'.{remedy}")
    truths = [_truth(side) for side in (one, other)]
    if differing := sorted(video for video in truths[0] if truths[0][video] != truths[1][video]):
        raise ScoringError(f"{both}: the labels of '{printable(differing[0])}' differ. Give both the same --labels.")


def _truth(side: Scored) -> dict[str, object]:
    """Of each video the classes and spans that its labels name, comparable between stores."""
    answers, names = side.answers, side.answers.classes
    if side.protocol.level == "video":
        tables = zip(answers.videos, answers.labels, strict=True)
        return {video: dict(zip(names, table[0].tolist(), strict=True)) for video, table in tables}
    spans = zip(answers.videos, answers.segments, strict=True)
    return {video: sorted((names[index], *span) for index, *span in segments) for video, segments in spans}
