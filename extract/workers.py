"""The parent's side of decoding: workers that may crash, and one stream of events from all of them.

Each worker is a fresh interpreter (never a fork: decoders deadlock after one) that imports numpy and a decoder. It
decodes one video after the other; whatever worker is ready is read next, so nothing waits for order across videos.
A worker that shows no sign of life is killed. A video that took its worker down is tried once more at the end,
alone; then it has failed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, wait
from types import TracebackType
from typing import Self

from extract import messages
from extract.decode import DecodePlan, Limits, Probe, Reason, Sound, SoundLost
from extract.inputs import VideoInput
from extract.messages import Done, Free, Message, Refused, Segment, Settings, Task, Wanted
from extract.shared_frames import SharedFrames, State, slot_bytes
from extract.worker_events import Audio, AudioFailed, Counted, Event, Failed, Finished, Frames, Restarted, Started
from stores.spec import Failure

SEGMENTS_IN_FLIGHT = 3  # for each worker
START_TIMEOUT_S = 60.0  # for an interpreter on a busy machine
POLL_S = 0.25
LEAST_WORKERS, MOST_WORKERS = 2, 8  # by default: with one, short videos are decoded only while no network runs


def default_workers() -> int:
    """One for each processor but one, which the network has."""
    return min(max(len(os.sched_getaffinity(0)) - 1, LEAST_WORKERS), MOST_WORKERS)


# The parent's module search path is the worker's too; nothing of the parent's main module is run again.
BOOT = "import sys; sys.path[:] = {path!r}; from extract.worker_process import main; main({connection}, {memory})"


class _Worker:
    """One process, its connection, its shared memory, and the video it is busy with."""

    def __init__(self, settings: Settings) -> None:
        memory = SharedFrames.file(settings.slots, settings.slot_bytes)
        mine, theirs = socket.socketpair()
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `end`
        try:
            self.memory = SharedFrames(memory, settings.slots, settings.slot_bytes)
            boot = BOOT.format(path=sys.path, connection=theirs.fileno(), memory=memory)
            self.process = subprocess.Popen(  # noqa: S603  # this very interpreter
                [sys.executable, "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=self.stderr,
                stderr=self.stderr,
                pass_fds=(theirs.fileno(), memory),
                process_group=0,  # the terminal's Ctrl-C goes to the parent, which decides
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            )
        finally:
            theirs.close()
            os.close(memory)
        self.connection = Connection(mine.detach())
        self._lock = threading.Lock()  # `free` may be called from any thread
        self._ended = False
        self.video: VideoInput | None = None
        self._beats = -1
        self._changed = time.monotonic()
        self._send(settings)

    def assign(self, video: VideoInput, wanted: Wanted | None) -> None:
        """Start on `video`, of which what is `wanted` is handed over."""
        self.video = video
        self._changed = time.monotonic()
        self._send(Task(os.fspath(video.path), wanted))

    def free(self, slot: int) -> None:
        """The consumer has done with a slot."""
        self._send(Free(slot))

    def hangs(self, timeout_s: float) -> bool:
        """Whether this worker should have shown a sign of life by now."""
        now, state, beats = time.monotonic(), self.memory.state, self.memory.beats
        if beats != self._beats or state is State.WAITING:
            self._beats, self._changed = beats, now
        allowed = max(timeout_s, START_TIMEOUT_S) if state is State.STARTING else timeout_s
        return now - self._changed > allowed

    def end(self, kill: bool) -> int:
        """End the process and give its handles back; returns its exit code."""
        with self._lock:
            self._ended = True
            self.connection.close()
        if not kill:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=1)
        self.process.kill()
        code = self.process.wait()
        self.stderr.close()
        return code

    def last_words(self) -> str:
        """The last line that the process wrote."""
        self.stderr.seek(0, os.SEEK_END)
        self.stderr.seek(max(0, self.stderr.tell() - 4096))
        lines = self.stderr.read().decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _send(self, message: Settings | Task | Free) -> None:
        with self._lock:
            if not self._ended:
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end is seen on reading
                    self.connection.send(message)


class IdleWorkers:
    """Workers between one pool and the next of the same plan and limits; who has them closes them."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []

    def close(self) -> None:
        """End them."""
        while self._workers:
            self._workers.pop().end(kill=True)

    def take(self) -> _Worker | None:
        """One that still runs, if there is one."""
        while self._workers:
            worker = self._workers.pop()
            if worker.process.poll() is None:
                return worker
            worker.end(kill=True)
        return None

    def leave(self, worker: _Worker) -> None:
        """Keep one that has nothing to do."""
        assert worker.video is None, worker.video
        self._workers.append(worker)


class DecodePool:
    """Decodes `inputs` in `workers` processes; iterating gives the events, in order within one video.

    At most three segments (32 MiB or 64 frames each) a worker are in flight, so whoever iterates must release them.
    Leaving the `with` block ends all workers at once, whatever they are doing.
    """

    def __init__(
        self,
        inputs: Sequence[VideoInput],
        plan: DecodePlan,
        *,
        workers: int,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        probe_only: bool = False,
        wanted: Mapping[str, Wanted] | None = None,
        room: threading.Semaphore | None = None,
        idle: IdleWorkers | None = None,
    ) -> None:
        """What to decode, and how much of it at once.

        Args:
            inputs: may name a file twice, under two ids.
            probe_only: open every video and decode its first frame; Started and Finished are all that comes.
            wanted: video id to what of it to hand over; without an entry everything.
            room: one is taken for every video before it is begun; who consumes gives it back. None: no bound.
            idle: of earlier pools of this plan and these limits: taken before others are started, and left there when
                all is done. None: workers begin and end with the pool.
        """
        assert workers >= 1, workers
        slots = max(SEGMENTS_IN_FLIGHT, len(plan.rates) + 1)  # each rate fills one while others are in flight
        self._settings = Settings(plan, limits, slots, slot_bytes(limits.max_pixels), probe_only)
        self._limits = limits
        self._rows = wanted or {}
        self._room = room
        self._idle = idle
        self._stopped = False
        self._most_workers = max(1, min(workers, len(inputs)))
        self._queue = deque(inputs)
        self._again: deque[VideoInput] = deque()  # tried once more, each alone, after all others
        self._tried: set[str] = set()
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        while not self._stopped and self._assign():
            busy = {worker.connection: worker for worker in self._workers if worker.video is not None}
            for connection in wait(list(busy), timeout=POLL_S):
                assert isinstance(connection, Connection)
                yield from self._read(busy[connection])
            for worker in busy.values():
                if worker.video is not None and worker.hangs(self._limits.timeout_s):
                    detail = f"showed no progress for {self._limits.timeout_s:g} s"
                    yield from self._fallen(worker, Reason.TIMEOUT, detail)
        for worker in self._workers:
            if self._idle is not None and worker.video is None:
                self._idle.leave(worker)
            else:
                worker.end(kill=False)
        self._workers.clear()

    def stop(self) -> None:
        """Let the iteration end soon, whatever is left; to be called from any thread."""
        self._stopped = True

    def close(self) -> None:
        """End all workers at once."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.end(kill=True)
        self._workers.clear()
        self._queue.clear()
        self._again.clear()

    def _assign(self) -> bool:
        """Give every idle worker a video, starting workers as needed; False when all is done."""
        while self._queue:
            idle = next((worker for worker in self._workers if worker.video is None), None)
            if idle is None:
                if len(self._workers) >= self._most_workers:
                    break
                idle = self._start(self._idle)
            if self._room is not None and not self._room.acquire(blocking=False):
                break
            self._give(idle, self._queue.popleft())
        busy = any(worker.video is not None for worker in self._workers)
        if not busy and self._again:
            while self._workers:
                self._workers.pop().end(kill=False)
            self._give(self._start(), self._again.popleft())
            busy = True
        return busy or bool(self._queue)

    def _give(self, worker: _Worker, video: VideoInput) -> None:
        worker.assign(video, self._rows.get(video.id))

    def _start(self, idle: IdleWorkers | None = None) -> _Worker:
        worker = (idle.take() if idle is not None else None) or _Worker(self._settings)
        self._workers.append(worker)
        return worker

    def _read(self, worker: _Worker) -> Iterator[Event]:
        """The event of the worker's next message, or of its end."""
        assert worker.video is not None
        try:
            message: Message = worker.connection.recv()
        except (EOFError, OSError):
            yield from self._crashed(worker)
            return
        if isinstance(message, (Done, Refused)):
            video, worker.video = worker.video.id, None
        else:
            video = worker.video.id
        yield _event(video, message, worker)
        if isinstance(message, Refused) and message.reason is Reason.OOM:
            self._retire(worker)

    def _retire(self, worker: _Worker, kill: bool = False) -> int:
        self._workers.remove(worker)
        return worker.end(kill)

    def _crashed(self, worker: _Worker) -> Iterator[Event]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.process.wait(timeout=5)  # its connection is closed already
        words = worker.last_words()
        code = worker.process.poll()
        if code is not None and -code == signal.SIGKILL:
            yield from self._fallen(worker, Reason.OOM, "the system killed the decoder, as it does without memory")
            return
        reason = Reason.OOM if "bad_alloc" in words else Reason.CRASHED  # C++ for: no memory
        how = f"died of {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with code {code}"
        yield from self._fallen(worker, reason, f"the decoder {how}" + (f": {words}" if words else ""))

    def _fallen(self, worker: _Worker, reason: Reason, detail: str) -> Iterator[Event]:
        """The worker is gone, or has to go: try its video once more at the end, or give it up."""
        video = worker.video
        assert video is not None
        self._retire(worker, kill=True)
        if video.id in self._tried:
            yield Failed(video.id, reason, detail)
        else:
            self._tried.add(video.id)
            self._again.append(video)
            yield Restarted(video.id)


def _event(video: str, message: Message, worker: _Worker) -> Event:
    match message:
        case Probe():
            return Started(video, message)
        case messages.Counted(num_frames):
            return Counted(video, num_frames)
        case messages.Again():
            return Restarted(video)
        case Segment(rate_index, first, slot, layout, times):
            images = worker.memory.slot(slot, (len(times), *layout.frame_shape))
            return Frames(video, rate_index, first, images, layout, times, partial(worker.free, slot))
        case Sound(first, samples):
            return Audio(video, first, samples)
        case SoundLost(reason, detail):
            return AudioFailed(video, reason, detail)
        case Done():
            return Finished(video, *message)
        case Refused(reason, detail):
            return Failed(video, reason, detail)


def probe_all(
    inputs: Sequence[VideoInput],
    plan: DecodePlan,
    *,
    workers: int,
    limits: Limits = Limits(),  # noqa: B008  # frozen
) -> Iterator[tuple[str, Probe | Failure]]:
    """What each container says, or why the video cannot be decoded, as (video id, ...) in any order."""
    plan = replace(plan, rates=(None,), audio_rate=None)
    with DecodePool(inputs, plan, workers=workers, limits=limits, probe_only=True) as pool:
        for event in pool:
            if isinstance(event, Started):
                yield event.video, event.probe
            elif isinstance(event, Failed):
                yield event.video, Failure(event.video, event.reason, event.detail)
