"""The worker's side of decoding: takes one video after the other from its parent and sends pictures and sound back.

It runs in a process of its own, started by `extract.workers` as a fresh interpreter: a decoder may crash, hang or
eat memory here without harm. Small messages go over a socket; pixels go through shared memory. The worker ends when
the parent does.
"""

from __future__ import annotations

import contextlib
import math
import os
import resource
import signal
import time
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from extract.decode import (
    DecodeError,
    DecodePlan,
    Decoder,
    Limits,
    Reason,
    Sound,
    SoundLost,
    Summary,
    decoder_class,
    file_state,
)
from extract.messages import Again, Counted, Done, Free, Message, Refused, Settings, Task
from extract.packet_index import forecast
from extract.reel import Reel, count_rows
from extract.shared_frames import SharedFrames, State
from extract.views import wanted_frames

ALARM_STEP_S = 1.0  # the alarm is put off no more often: a system call a frame costs more than the frame's own beat
OUT_OF_MEMORY = 3  # exit code, after the failure was reported: what is left of the heap is not trusted


class ParentGoneError(Exception):
    """Nobody listens any more."""


class Link:
    """The connection to the parent, and the slots that are free."""

    def __init__(self, connection: Connection, memory: SharedFrames, timeout_s: float) -> None:
        self._connection = connection
        self.memory = memory
        self._free = deque(range(memory.slots))
        self._parent = os.getppid()
        self._alarm_s = 2 * timeout_s + 10
        self._armed = -math.inf  # when the alarm was last put off

    def beat(self) -> None:
        """A sign of life. The kernel ends this process if none follows and the parent is not there to do it."""
        self.memory.beat()
        if (now := time.monotonic()) - self._armed > ALARM_STEP_S:
            self._arm(now)
            if os.getppid() != self._parent:
                raise ParentGoneError

    def _arm(self, now: float) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._alarm_s)
        self._armed = now

    def task(self) -> Task | None:
        """The next video; None when there is none."""
        while True:
            message = self._receive()
            if not isinstance(message, Free):
                return message
            self._free.append(message.slot)

    def slot(self) -> int:
        """A free slot; waits until the parent gives one back."""
        while not self._free:
            message = self._receive()
            assert isinstance(message, Free), message
            self._free.append(message.slot)
        return self._free.popleft()

    def give_back(self, slot: int) -> None:
        """Put back a slot that was not sent."""
        self._free.append(slot)

    def send(self, message: Message) -> None:
        """Hand a message over; waits where the parent has many to read."""
        with self._waiting():
            try:
                self._connection.send(message)
            except OSError as error:
                raise ParentGoneError from error

    def _receive(self) -> Task | Free | None:
        with self._waiting():
            try:
                message: Task | Free | None = self._connection.recv()
            except (EOFError, OSError) as error:
                raise ParentGoneError from error
        return message

    @contextlib.contextmanager
    def _waiting(self) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_REAL, 0)
        self.memory.state = State.WAITING
        yield
        self.memory.beat()
        self.memory.state = State.WORKING
        self._arm(time.monotonic())


def decode_video(task: Task, settings: Settings, link: Link) -> Message:
    """Decode one file, sending everything but the last message, which is returned."""
    try:
        before = file_state(task.path)
        last = _decoded_or_refused(task, settings, link)
        if file_state(task.path) != before:
            return Refused(Reason.CHANGED_WHILE_READING, "was written to while it was read")
    except DecodeError as error:
        return Refused(error.reason, error.detail)
    return last


def _decoded_or_refused(task: Task, settings: Settings, link: Link) -> Message:
    try:
        return _decode(task, settings, link)
    except DecodeError as error:
        return Refused(error.reason, error.detail)


def _decode(task: Task, settings: Settings, link: Link) -> Done:
    """Once through the video; a second time only where clips were laid out for another number of frames than came."""
    counts = _forecast(task.path, settings, link)
    summary, reel = _pass(task, settings, link, counts)
    decoded = summary.frames_decoded
    if counts is not None and reel.num_frames != counts:
        link.send(Again())
        counts = reel.num_frames
        summary, reel = _pass(task, settings, link, counts)
        decoded += summary.frames_decoded
        if reel.num_frames != counts:
            found = f"{counts} frames when read once and {reel.num_frames} when read again"
            raise DecodeError(Reason.DECODE_ERROR, f"gives {found}")
    has_audio = settings.plan.audio_rate is not None and not reel.sound_lost
    return Done(summary.end, decoded, summary.frames_expected, bool(summary.missing), has_audio)


def _forecast(path: str, settings: Settings, link: Link) -> tuple[int, ...] | None:
    """Rows that the container announces for each rate; None where no clips have to be laid out."""
    if not settings.plan.clips or settings.probe_only:
        return None
    announced = forecast(path, link.beat)
    rates = settings.plan.rates
    return count_rows(announced, rates) if announced is not None else (0,) * len(rates)


def _pass(task: Task, settings: Settings, link: Link, counts: tuple[int, ...] | None) -> tuple[Summary, Reel]:
    """Send everything but the last message."""
    plan, limits = settings.plan, settings.limits
    reel = Reel(plan, link)
    with _opened(task.path, plan, settings, link) as decoder:
        link.send(decoder.probe)
        if settings.probe_only:
            return Summary(decoder.probe.duration or 0.0, 0, decoder.probe.num_frames), reel
        if counts is not None:
            link.send(Counted(counts))
            for lane, clips, num_frames in zip(reel.lanes, plan.clips, counts, strict=True):
                if clips:
                    lane.keep(wanted_frames(clips, num_frames))
        if task.wanted is not None:
            reel.keep(task.wanted)
        try:
            summary = _play(decoder, reel, link, limits, partly=task.wanted is not None)
        finally:
            for lane in reel.lanes:
                lane.drop()
    return summary, reel


@contextlib.contextmanager
def _opened(path: str, plan: DecodePlan, settings: Settings, link: Link) -> Iterator[Decoder]:
    name = plan.decoder if plan.rates else "pyav"  # the sound alone always comes through PyAV
    decoder = decoder_class(name)(path, plan, settings.limits, link.beat)
    with contextlib.closing(decoder):
        yield decoder


def _play(decoder: Decoder, reel: Reel, link: Link, limits: Limits, *, partly: bool) -> Summary:
    """Everything that a decoder gives, into `reel`; DecodeError if too much is missing.

    Args:
        partly: stop once all that is wanted was handed over.
    """
    for item in decoder:
        link.beat()
        if isinstance(item, (Sound, SoundLost)):
            reel.hear(item)
            link.send(item)
        else:
            reel.push(item)
        if partly and reel.complete:
            reel.send()
            return Summary(reel.seconds, reel.pictures, None)
    summary = decoder.summary()
    if summary.missing and not limits.allow_partial:
        raise DecodeError(Reason.PARTIAL, summary.missing)
    reel.finish(summary.end)
    return summary


def limit_memory(allowed: int) -> None:
    """Let this process allocate `allowed` bytes beyond what it has; a crash writes no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    statm = Path("/proc/self/statm")  # Linux alone has it, and alone enforces the limit
    if statm.exists():
        present = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (present + allowed, present + allowed))


def main(connection_descriptor: int, memory_descriptor: int) -> None:
    """Serve the parent at the other end of `connection_descriptor` until it has no more videos."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    connection = Connection(connection_descriptor)
    try:
        settings: Settings = connection.recv()
    except EOFError:
        return
    memory = SharedFrames(memory_descriptor, settings.slots, settings.slot_bytes)
    link = Link(connection, memory, settings.limits.timeout_s)
    decoder_class(settings.plan.decoder)  # the import counts as starting, not as work on a video
    limit_memory(settings.limits.memory_bytes)
    try:
        while (task := link.task()) is not None:
            link.send(decode_video(task, settings, link))
    except ParentGoneError:
        return
    except MemoryError:
        link.send(Refused(Reason.OOM, f"needs more than {settings.limits.memory_bytes >> 20} MiB"))
        raise SystemExit(OUT_OF_MEMORY) from None
