"""Plain csv, the csv of Charades, and the lists of labels of YouTube-8M, MMX and LVU.

video,start,end,label[,subset][,duration]   one span of seconds a row
video,label[,subset]                        classes of whole videos
id,...,actions,length                       Charades: actions are `c092 11.90 21.20;c147 0.00 12.60`
VIDEO_ID,LABEL1 LABEL2                      YouTube-8M: numbers of classes, without a header
...,img_root,g1,...,g6                      MMX-Trailer-20: up to six genres; none is Drama, as in its code
class_id class_name youtube_id imdb_id      LVU, its tasks that have classes
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from stores.label_names import MAX_CLASSES
from stores.label_table import LabelFile, LabelTable, Part, ReadOptions
from stores.label_text import lines, whole_number
from stores.labels import LabelError
from stores.names import printable

CHARADES_CLASSES = 157
YT8M_CLASSES = 3862  # since 2018; 4716 before
PLAIN = ("video", "start", "end", "label", "subset", "duration")
# The order of the 19-way vector in the authors' code; the paper's name counts 20.
MMX_GENRES = (
    *("Action", "Animation", "Adventure", "Comedy", "Crime", "Documentary", "Drama", "Family", "Fantasy", "History"),
    *("Horror", "Music", "Romance", "Mystery", "TVMovie", "ScienceFiction", "Thriller", "War", "Western"),
)
LVU_CLASS_TASKS = "relationship, way_speaking, scene, director, genre, writer, year"
# What a spreadsheet would run as a formula. The writer puts ' before it, the reader takes one ' away again.
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
_DANGEROUS = re.compile(r"'*[=+\-@\t\r]")


def guarded(cell: str) -> str:
    """`cell` as a spreadsheet shows it instead of running it: with ' before = + - @.

    >>> guarded("-e6lEsIUf3U"), unguarded(guarded("-e6lEsIUf3U"))
    ("'-e6lEsIUf3U", '-e6lEsIUf3U')
    """
    return f"'{cell}" if _DANGEROUS.match(cell) else cell


def unguarded(cell: str) -> str:
    """What `guarded` was given."""
    return cell[1:] if cell[:1] == "'" and _GUARDED.match(cell) else cell


def read_csv(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """Spans or classes of whole videos, a row each; see the head of this file and of `label_files`."""
    table = LabelTable(parts, options)
    for number, place, entry in table.rows(("video", "label"), PLAIN):
        video = table.video(unguarded(entry["video"]), place)
        if subset := unguarded(entry.get("subset", "")) or parts[number].subset:
            table.set_subset(video, subset, place)
        if duration := entry.get("duration"):
            table.set_duration(video, duration, place)
        start, end = entry.get("start", ""), entry.get("end", "")
        if bool(start) != bool(end):
            raise table.error(place, "a start and an end go together, or neither is given.")
        if not entry["label"]:
            if start:
                raise table.error(place, f"the span {start} to {end} has no label.")
            continue
        label = table.label(unguarded(entry["label"]), place)
        if start:
            span = table.seconds(start, "start", place), table.seconds(end, "end", place)
            table.span(video, label, *span, place)
        else:
            table.whole(video, label, place)
    if not table.labels:
        raise LabelError(f"{table.path} has no row with a label.")
    return table.named("csv")


def read_charades(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """Charades_v1_train.csv and _test.csv."""
    table = LabelTable(parts, options)
    for number, place, entry in table.rows(("id", "actions"), ("length",)):
        known = len(table.videos)
        video = table.video(entry["id"], place)
        if video < known:
            raise table.error(place, f"'{printable(entry['id'])}' stands in an earlier row too.")
        if subset := parts[number].subset:
            table.set_subset(video, subset, place)
        if length := entry.get("length"):
            table.set_duration(video, length, place, "length")
        for action in filter(None, (part.strip() for part in entry["actions"].split(";"))):
            words = action.split()
            if len(words) != 3 or not re.fullmatch("c[0-9]{3}", words[0]):
                raise table.error(place, f"'{printable(action)[:60]}' is not of the form 'c092 11.90 21.20'.")
            label = table.label(words[0], place)
            span = table.seconds(words[1], "start", place), table.seconds(words[2], "end", place)
            table.span(video, label, *span, place)
    table.notes = [note for note in table.notes if not note.startswith("columns not used")]  # scene, script, ...
    ids = {name: int(name[1:]) for name in table.labels}
    count = max(CHARADES_CLASSES, max(ids.values(), default=0) + 1)
    return table.numbered("charades", ids, lambda: {index: f"c{index:03d}" for index in range(count)})


def read_yt8m(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """Ground-truth csv of YouTube-8M; the header `VideoId,Labels` may stand above it.

    Source: the README of google/youtube-8m. The names are in its vocabulary.csv.
    """
    table = LabelTable(parts, options)
    for number, part in enumerate(parts):
        for row, line in lines(part.path):
            name, comma, rest = line.partition(",")
            if row == 1 and (name.lower(), rest.lower()) == ("videoid", "labels"):
                continue
            place = table.place(number, row)
            known = len(table.videos)
            video = table.video(unguarded(name.strip()), place)
            if video < known:
                raise table.error(place, f"'{printable(name)[:60]}' stands in an earlier row too.")
            if part.subset:
                table.set_subset(video, part.subset, place)
            for word in rest.split():
                if not comma or whole_number(word) is None:
                    raise table.error(place, f"'{printable(rest)[:60]}' is not of the form '12 45', class numbers.")
                table.whole(video, table.label(str(whole_number(word)), place), place)
            if not comma:
                raise table.error(place, f"'{printable(line)[:60]}' is not of the form 'VIDEO_ID,12 45'.")
    if not table.labels:
        raise LabelError(f"{table.path} has no row with a label.")
    ids = {name: int(name) for name in table.labels}
    count = max(YT8M_CLASSES, max(ids.values()) + 1)
    return table.numbered("yt8m", ids, lambda: {index: str(index) for index in range(count)})


def read_mmx(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """MMX-Trailer-20: genres of trailers, in the order of the authors' 19-way vector; an empty row is Drama."""
    table = LabelTable(parts, options)
    genres = {_letters(name): name for name in MMX_GENRES}
    columns = [f"g{number}" for number in range(1, 7)]
    empty = 0
    for number, place, entry in table.rows(("img_root", "g1"), columns):
        video = table.video(entry["img_root"].rstrip("/"), place)
        if subset := parts[number].subset:
            table.set_subset(video, subset, place)
        words = [word for column in columns if (word := entry.get(column, "")) and word.lower() != "nan"]
        empty += not words
        for word in words or ["Drama"]:
            name = genres.get(_letters(word), word)
            table.whole(video, table.label(name, place), place)
    if not table.videos:
        raise LabelError(f"{table.path} has no row with a trailer.")
    if empty:
        table.notes.append(f"{empty} trailers without a genre are Drama, as in the authors' code")
    order = {name: index for index, name in enumerate(MMX_GENRES)}
    ids = {name: order.get(name, len(order) + label) for name, label in table.labels.items()}
    return table.numbered("mmx", ids, lambda: dict(enumerate(MMX_GENRES)))


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def read_lvu(parts: Sequence[Part], options: ReadOptions) -> LabelFile:
    """One task of the Long-form Video Understanding benchmark: one class a video, columns in the order of class_id.

    Source: Wu and Kraehenbuehl, CVPR 2021, lvu_1.0; the video is the column before the last, as in its code.
    """
    table = LabelTable(parts, options)
    names: dict[int, str] = {}
    for number, part in enumerate(parts):
        header: list[str] = []
        for row, line in lines(part.path):
            fields, place = line.split(), table.place(number, row)
            if not header:
                header = [name.lower() for name in fields]
                _require_class_task(part, header)
                continue
            index = whole_number(fields[0])
            if len(fields) < 4 or index is None:
                raise table.error(place, f"'{printable(line)[:60]}' is not of the form 'number name video imdb'.")
            name = " ".join(fields[1:-2])
            if names.setdefault(index, name) != name:
                raise table.error(
                    place, f"class {index} is '{printable(name)}', which was '{printable(names[index])}' before."
                )
            video = table.video(fields[-2], place)
            if part.subset:
                table.set_subset(video, part.subset, place)
            table.whole(video, table.label(str(index), place), place)
    if not table.labels:
        raise LabelError(f"{table.path} has no row with a label.")
    if len(set(names.values())) < len(names):  # the columns need names of their own
        names = {index: f"{index} {name}" for index, name in names.items()}
    count = max(names) + 1
    default = {index: names.get(index, str(index)) for index in range(min(count, MAX_CLASSES))}
    return table.numbered("lvu", {name: int(name) for name in table.labels}, lambda: default)


def _require_class_task(part: Part, header: Sequence[str]) -> None:
    if header[:2] != ["class_id", "class_name"] or len(header) < 4:
        shown = printable(" ".join(header))[:100]
        raise LabelError(
            f"{part.path} has the header '{shown}': LVU's tasks with classes ({LVU_CLASS_TASKS}) begin with "
            "'class_id class_name'; view_count and like_ratio are regression, which no head here learns."
        )
