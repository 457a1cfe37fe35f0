"""One small label file of every form, written by hand as its tool or data set writes it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np

from stores.label_table import ReadOptions

BORIS = """Observation id,obs1,,,,,
Media file(s),,,,,,

Time,Media file path,Total length,FPS,Subject,Behavior,Behavioral category,Comment,Status
1.5,C:\\videos\\a.mp4,60.0,25,ape,run,moving,,START
2.0,C:\\videos\\a.mp4,60.0,25,ape,call,voice,,POINT
4.25,C:\\videos\\a.mp4,60.0,25,ape,run,moving,,STOP
"""
ELAN = (
    "Tier\tParticipant\tBegin Time - hh:mm:ss.ms\tBegin Time - ss.msec\tEnd Time - hh:mm:ss.ms\tEnd Time - ss.msec\t"
    "Annotation\nhands\t\t00:00:01.500\t1.5\t00:00:02.250\t2.25\twave\nmouth\t\t00:01:00.000\t60.0\t00:01:01.000\t61.0\t\n"
)
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"video": "/data/local-files/?d=clips/a.mp4"},
        "annotations": [
            {"was_cancelled": True, "result": []},
            {
                "result": [
                    {
                        "type": "timelinelabels",
                        "value": {"ranges": [{"start": 1, "end": 25}], "timelinelabels": ["run"]},
                    },
                    {"type": "labels", "value": {"start": 2.5, "end": 3.0, "labels": ["call"]}},
                    {"type": "choices", "value": {"choices": ["outdoor"]}},
                    {"type": "videorectangle", "value": {"labels": ["box"], "sequence": []}},
                ]
            },
        ],
    },
    {"id": 2, "data": {"video": "b.mp4"}, "annotations": []},
]
SLOWFAST = """original_vido_id video_id frame_id path labels
AAAAA 0 0 AAAAA/AAAAA-000001.jpg ""
AAAAA 0 1 AAAAA/AAAAA-000002.jpg "12,3"
AAAAA 0 2 AAAAA/AAAAA-000003.jpg "12"
AAAAA 0 3 AAAAA/AAAAA-000004.jpg ""
AAAAA 0 4 AAAAA/AAAAA-000005.jpg "12"
BBBBB 1 0 BBBBB/BBBBB-000001.jpg ""
"""
ACTIVITYNET = {
    "version": "1.3",
    "database": {
        "v1": {
            "subset": "validation",
            "duration": 9.5,
            "url": "https://video.invalid",
            "annotations": [{"segment": [0.5, 3], "label": "Long jump"}, {"segment": [4.0, 9.5], "label": "Archery"}],
        },
        "v2": {"subset": "testing", "annotations": []},
    },
}
SUPER_EVENTS = {
    "A": {"subset": "training", "duration": 10.0, "actions": [[1, 0.0, 1.0], [3, 2.0, 3.5]]},
    "B": {"subset": "testing", "duration": 4.0, "actions": []},
}
# name of the file, or of the file in a folder, -> content
FILES: dict[str, dict[str, str]] = {
    "csv": {"x.csv": "video,start,end,label,subset,duration\n"
                     "a,0,1.5,run,train,9\na,2,3,ignore,,\nb,,,jump,test,\nc,,,,,\n"},
    "charades": {"x.csv": 'id,actions,length\nAAAAA,"c092 11.90 21.20;c147 0.00 12.60",21.5\nBBBBB,,9.5\n'},
    "super-events": {"x.json": json.dumps(SUPER_EVENTS)},
    "activitynet": {"x.json": json.dumps(ACTIVITYNET)},
    "multithumos": {
        "annotations/Jump.txt": "video_test_1   1.5 2.5\nvideo_test_2 0 1\n",
        "annotations/Fall.txt": "video_test_1 3 4\n",
        "annotations/Hug.txt": "",
    },
    "yt8m": {"x.csv": "abcd,3 17\nefgh,17\nijkl,\n"},
    "mmx": {"mmx/train.csv": "img_root,g1,g2,g3,g4,g5,g6\nt/1,Action,Science Fiction,,,,\nt/2,,,,,,\n",
            "mmx/test.csv": "img_root,g1,g2,g3,g4,g5,g6\nt/3,Western,Drama,,,,\n"},
    "lvu": {"scene_train.csv": "class_id class_name youtube_id imdb_id\n0 office -abc tt01\n2 hotel room def tt02\n",
            "scene_test.csv": "class_id class_name youtube_id imdb_id\n2 hotel room ghi tt03\n"},
    "slowfast": {"x.csv": SLOWFAST},
    "elan": {"x.txt": ELAN},
    "boris": {"x.csv": BORIS},
    "label-studio": {"x.json": json.dumps(LABEL_STUDIO)},
    "align": {"align/bbaf2n.align": "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 74500 sp\n"},
}  # fmt: skip
OPENED = {"multithumos": "annotations", "mmx": "mmx", "lvu": "scene", "align": "align", "matrix": "x.npy"}
MATRIX = np.array([[1, 0, -1], [1, 1, -1], [0, 1, -1], [-1, -1, -1], [0, -1, -1]], np.int8)
OPTIONS = {
    "slowfast": ReadOptions(fps=2.0),
    "matrix": ReadOptions(fps=4.0),
    "label-studio": ReadOptions(fps=25.0),
}
FORMS = (*FILES, "matrix")


def contents(form: str) -> dict[str, bytes]:
    """Name -> bytes of the files of a form."""
    if form == "matrix":
        buffer = io.BytesIO()
        np.save(buffer, MATRIX)
        return {"x.npy": buffer.getvalue()}
    return {name: text.encode() for name, text in FILES[form].items()}


def write_sample(folder: Path, form: str, changed: dict[str, bytes] | None = None) -> Path:
    """Write the files of a form, or others in their place; the path to open."""
    files = changed or contents(form)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder / OPENED.get(form, next(iter(files)))


def options(form: str) -> ReadOptions:
    """What must be told to read the sample of a form."""
    return OPTIONS.get(form, ReadOptions())
