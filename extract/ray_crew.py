"""A crew on Ray: one actor for each GPU, or for each group of cores.

Joins the cluster at an address, or starts one of this machine alone, without a dashboard. Ray opens ports whichever it
is: `announce` says which, read from the kernel, since its options promise less than they seem to. docs/cluster.md tells
how to fence them. Nothing here is imported without `--engine ray`.

Source: the package ray (Moritz et al., "Ray: A Distributed Framework for Emerging AI Applications", OSDI 2018).
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from extract.accounts import Summary
from extract.backbone import BackboneError
from extract.crew import Lost, Order, Worker
from extract.inputs import VideoInput
from extract.listening import listeners
from stores.errors import VlError
from stores.names import printable

CORES = 4  # of a worker without a GPU, unless the number of workers is given
OBJECT_BYTES = 80 << 20  # shared memory for results, which are small; Ray takes no less
CONNECT_S = 10.0
WAIT_S = 1.0  # signals are looked at in between


class RayCrew:
    """Implements `Crew`."""

    def __init__(self, order: Order, size: int, cpus: float, gpus: int) -> None:
        import ray

        self.size = size
        self._order = order
        self._kind = ray.remote(Worker).options(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)
        self._actors: dict[int, Any] = {}
        self._work: dict[Any, int] = {}

    def give(self, number: int, videos: Sequence[VideoInput]) -> None:
        """Start on a share; a worker that was lost is replaced first."""
        if number not in self._actors:
            self._actors[number] = self._kind.remote(self._order)
        self._work[self._actors[number].extract.remote(list(videos))] = number

    def wait(self) -> tuple[int, Summary | Lost]:
        """The next worker that is done with its share, or lost.

        Raises:
            VlError: what a worker says that another try would not mend (no space, another spec, no networks).
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        ready: list[Any] = []
        while not ready:
            try:
                ready, _ = ray.wait(list(self._work), num_returns=1, timeout=WAIT_S)
            except SystemError as error:  # a signal came inside Ray, which wraps what our handler raises
                raise error.__cause__ or error from None
        number = self._work.pop(ready[0])
        try:
            return number, ray.get(ready[0])
        except RayTaskError as error:
            if isinstance(error.cause, VlError):
                raise error.cause from None
            raise
        except RayError as error:
            why = printable(str(error).strip().splitlines()[0])
            if getattr(error, "actor_init_failed", False):
                raise BackboneError(
                    f"a worker cannot start: {printable(str(error).strip().splitlines()[-1])}"
                ) from None
            del self._actors[number]
            return number, Lost(why)


@contextmanager
def ray_crew(order: Order, *, address: str | None, size: int | None, say: Callable[[str], None]) -> Iterator[RayCrew]:
    """A crew on the cluster at `address`, or on a local one that ends with the block.

    Args:
        order: what the workers do; its paths must lead to the same files on every machine.
        address: HOST:PORT, or `auto` for the cluster that this machine is part of; None starts one.
        size: workers; by default one for each GPU, else one for every four cores.
        say: is told what listens.

    Raises:
        BackboneError: Ray is not installed, or there is no cluster at the address.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # read when it is imported
    try:
        import ray
    except ImportError as error:
        raise BackboneError("--engine ray needs the package ray: pip install 'vl[ray]'.") from error
    if address is not None:
        require_answer(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    common: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    cores = len(os.sched_getaffinity(0))
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=max(cores, size or 1),
                include_dashboard=False,
                object_store_memory=OBJECT_BYTES,
                _node_ip_address="127.0.0.1",
                **common,
            )
        else:
            ray.init(address=address, **common)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = printable(str(error).strip().splitlines()[0]).rstrip(".")
        hint = ""
        if address not in (None, "auto") and "RAY_AUTH_MODE" not in os.environ:  # Ray sends no token unasked
            hint = " If it asks for a token, set RAY_AUTH_MODE=token (docs/cluster.md)."
        raise BackboneError(f"no Ray cluster at {printable(address or 'this machine')}: {reason}.{hint}") from error
    for number, handler in handlers.items():  # Ray takes them; ours end a run so that it can be resumed
        signal.signal(number, handler)
    try:
        announce(address, say)
        there = ray.cluster_resources()
        gpus = int(there.get("GPU", 0)) if order.options.device != "cpu" else 0
        cpus = int(there.get("CPU", 1))
        size = size or gpus or max(1, cpus // CORES)
        share = max(0.01, int(100 * cpus / size) / 100) if cpus < size else float(cpus // size)
        say(f"ray: {size} workers, {'one GPU' if gpus else f'{share:g} cores'} each")
        yield RayCrew(order, size, min(share, CORES) if gpus == 0 else 1, 1 if gpus else 0)
    finally:
        ray.shutdown()


def require_answer(address: str) -> None:
    """BackboneError unless something listens at HOST:PORT, since Ray itself asks for minutes; `auto` is left to Ray."""
    host, colon, port = address.rpartition(":")
    if address == "auto":
        return
    if not colon or not port.isdecimal() or "/" in host:
        raise BackboneError(f"--ray-address is HOST:PORT or auto, not {printable(address)}.")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise BackboneError(f"nobody answers at --ray-address {printable(address)}: {error}.") from error


def announce(address: str | None, say: Callable[[str], None]) -> None:
    """Say what this process and those that it started listen on."""
    found = listeners(os.getpid())
    started = (
        "a cluster of this machine alone, without dashboard" if address is None else f"joined {printable(address)}"
    )
    say(f"ray: {started}; {len(found)} ports are open here now, its workers open more (docs/cluster.md fences them):")
    for listener in found:
        say(f"  {listener}{'' if listener.loopback else '  <- NOT ONLY THIS MACHINE can connect'}")
