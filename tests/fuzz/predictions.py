"""Hostile predictions: sound files of every form, changed at random; each is scored, or refused with one line.

`python -m tests.fuzz.predictions --cases 10000` changes every form that often, and prints what came of it. A case
depends on its seed alone; `--form` and `--first` repeat one.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from heads.scoring import Question, score_store
from stores.errors import VlError

VIDEOS = ("a", "b", "c")
CLASSES = ("run", "jump")
LABELS = "video,start,end,label,duration\na,0,2,run,5\na,1,4,jump,5\nb,2,3,run,5\nc,1,2,jump,5\n"
NASTY = (
    b"nan", b"inf", b"1e999", b"-1", b"", b"0", b"1_0", b"9" * 400, b"\x00", b"\xff\xfe", b'"', b"'", b",", b" ",
    b"\n", b"\r", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b"null", b"true", b"NaN", b"Infinity", b"video", b"c000",
    b"\xe2\x80\xae", b"=1+1", b"../../x", b"0x10", b"1e-400", b"(1000000000000,)", b"|O", b"<U9", b"<f8", b"<f2",
)  # fmt: skip


def npz_of_videos() -> bytes:
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    arrays: dict[str, Any] = {video: rng.random((5, 2), np.float32) for video in VIDEOS}
    np.savez(out, classes=np.array(CLASSES), **arrays)
    return out.getvalue()


def npz_of_rows() -> bytes:
    rng = np.random.default_rng(0)
    out = io.BytesIO()
    times = np.tile(np.arange(5.0), 3)
    np.savez_compressed(
        out,
        classes=np.array(CLASSES),
        scores=rng.random((15, 2)),
        videos=np.repeat(VIDEOS, 5),
        times=np.stack([times, times + 1], axis=1),
    )
    return out.getvalue()


def csv_of_frames() -> bytes:
    rng = np.random.default_rng(0)
    rows = [f"{video},{k}.5,{rng.random():.4f},{rng.random():.4f}" for video in VIDEOS for k in range(5)]
    return ("video,time,run,jump\n" + "\n".join(rows) + "\n").encode()


def csv_of_segments() -> bytes:
    rng = np.random.default_rng(0)
    rows = [f"{video},{k},{k + 1.5},{CLASSES[k % 2]},{rng.random():.4f}" for video in VIDEOS for k in range(4)]
    return ("video,start,end,label,score\n" + "\n".join(rows) + "\n").encode()


def activitynet() -> bytes:
    entry = '{"segment": [1.0, %d.5], "label": "%s", "score": 0.%d}'
    videos = [
        f'"{v}": [{entry % (k + 2, CLASSES[k % 2], k + 3)}, {entry % (4, "run", k + 5)}]' for k, v in enumerate(VIDEOS)
    ]
    return ('{"version": "1.3", "results": {' + ", ".join(videos) + "}}").encode()


def charades(frames: int) -> bytes:
    rng = np.random.default_rng(0)
    lines = []
    for video in VIDEOS:
        for frame in range(1, max(frames, 1) + 1):
            number = [str(frame)] if frames else []
            lines.append(" ".join([video, *number, *(f"{value:.3f}" for value in rng.random(157))]))
    return ("\n".join(lines) + "\n").encode()


def yt8m() -> bytes:
    return b"VideoId,LabelConfidencePairs\na,0 0.9 1 0.8 17 0.1\nb,1 0.7 0 0.3\nc,5 0.6 1 0.25\n"


FORMS: dict[str, tuple[Callable[[], bytes], str]] = {
    "npz-videos": (npz_of_videos, ".npz"),
    "npz-rows": (npz_of_rows, ".npz"),
    "csv-frames": (csv_of_frames, ".csv"),
    "csv-segments": (csv_of_segments, ".csv"),
    "activitynet": (activitynet, ".json"),
    "charades-classify": (lambda: charades(0), ".txt"),
    "charades-localize": (lambda: charades(25), ".txt"),
    "yt8m": (yt8m, ".csv"),
}


def mutated(sound: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes of the bytes; half of the changes of an npz happen inside of its members."""
    if sound.startswith(b"PK") and rng.random() < 0.6:
        return _mutated_member(sound, rng)
    data = bytearray(sound)
    for _ in range(int(rng.integers(1, 5))):
        place = int(rng.integers(len(data) + 1))
        size = int(rng.integers(1, 20))
        kind = int(rng.integers(7))
        if kind == 0:
            for at in range(place, min(place + size, len(data))):
                data[at] = int(rng.integers(256))
        elif kind == 1:
            del data[place : place + size]
        elif kind == 2:
            data[place:place] = data[place : place + size * 4]
        elif kind == 3:
            data[place : place + int(rng.integers(4))] = NASTY[int(rng.integers(len(NASTY)))]
        elif kind == 4:
            del data[place:]
        elif kind == 5:
            lines = bytes(data).split(b"\n")
            lines.insert(int(rng.integers(len(lines))), lines[int(rng.integers(len(lines)))])
            data = bytearray(b"\n".join(lines))
        else:
            words = bytes(data).split(b",")
            words[int(rng.integers(len(words)))] = NASTY[int(rng.integers(len(NASTY)))]
            data = bytearray(b",".join(words))
    return bytes(data)


def _mutated_member(sound: bytes, rng: np.random.Generator) -> bytes:
    """An archive with right checksums, one member of which is changed, renamed, doubled or missing."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(sound)) as old, zipfile.ZipFile(out, "w") as new:
        names = old.namelist()
        chosen = names[int(rng.integers(len(names)))]
        kind = int(rng.integers(6))
        for name in names:
            data, stored = bytearray(old.read(name)), name
            if name == chosen and kind == 0:
                continue
            if name == chosen and kind == 1:
                stored = ["scores.npy", "classes.npy", "videos.npy", "x", "../x.npy", ".npy"][int(rng.integers(6))]
            elif name == chosen:
                place = int(rng.integers(min(128, len(data)) if kind < 4 else len(data)))
                data[place : place + int(rng.integers(1, 5))] = NASTY[int(rng.integers(len(NASTY)))]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a name that stands there twice
                new.writestr(stored, bytes(data))
    return out.getvalue()


def attempt(folder: Path, form: str, seed: int) -> str:
    """What came of one case: `scored`, or the error's first words. Anything else is raised."""
    make, ending = FORMS[form]
    path = folder / f"p{ending}"
    path.write_bytes(mutated(make(), np.random.default_rng([seed, *form.encode()])))
    labels = folder / "labels.csv"
    if not labels.exists():
        labels.write_text(LABELS)
        rows = LABELS
        for place, name in enumerate(CLASSES):
            rows = rows.replace(f",{name},", f",{place},")
        (folder / "numbered.csv").write_text(rows)
    if form in ("yt8m", "charades-classify", "charades-localize"):
        labels = folder / "numbered.csv"
    try:
        score_store(path, Question(labels=labels, split="all", allow_missing=True, fps=1.0))
    except VlError as error:
        message = str(error)
        assert "\n" not in message, f"more than one line: {message!r}"
        assert len(message) < 1500, f"a line of {len(message)} characters"
        return "refused"
    return "scored"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--form", choices=sorted(FORMS))
    options = parser.parse_args()
    warnings.simplefilter("error")
    crashed = 0
    with tempfile.TemporaryDirectory() as folder:
        for form in [options.form] if options.form else FORMS:
            outcomes: Counter[str] = Counter()
            for seed in range(options.first, options.first + options.cases):
                try:
                    outcomes[attempt(Path(folder), form, seed)] += 1
                except Exception as error:  # noqa: BLE001 (that there is one is what is looked for)
                    outcomes["CRASHED"] += 1
                    crashed += 1
                    print(f"{form} --first {seed}: {type(error).__name__}: {error}"[:300], flush=True)
            print(f"{form}: {options.cases} cases, {dict(outcomes)}", flush=True)
    sys.exit(bool(crashed))


if __name__ == "__main__":
    main()
