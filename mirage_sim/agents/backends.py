"""Where the episodes of a roll-out are made: here, or in workers of Ray. The only module that imports Ray."""

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from mirage_sim.agents.recorder import Recorder

RESTARTS = 8  # of a worker and of what it was at, before the roll-out gives up
READY = 300.0  # seconds within which all workers must have started
OBJECT_STORE = 80 * 2**20  # bytes, little more than Ray's least: only numbers pass between processes

log = logging.getLogger(__name__)


class Backend(Protocol):
    """Makes batches of episodes."""

    def run(self, cfg: dict[str, Any], batches: list[list[int]]) -> Iterator[int]:
        """Make all batches, each as :meth:`Recorder.record` does; yields how many episodes each has added."""


@dataclass(frozen=True)
class Local:
    """One batch after the other, in this process."""

    def run(self, cfg: dict[str, Any], batches: list[list[int]]) -> Iterator[int]:
        """See :class:`Backend`."""
        recorder = Recorder(cfg)
        for batch in batches:
            yield recorder.record(batch)


@dataclass(frozen=True)
class Ray:
    """Workers that make a batch each at the same time. One that dies is started anew and does its batch again.

    Ray passes settings and calls between its processes as pickles. They never leave the cluster, which is the user's
    own, and no file that is read or kept holds any.

    Attributes:
        num_workers: how many.
        address: of a running cluster (``HOST:6379``, or ``auto``), whose nodes see the same folders as this one; None
            starts Ray on this machine, for itself: it listens on localhost alone and ends with this process.
        cpus: cores of a worker, and its threads.
        gpus: of a worker; may be a fraction.

    Raises:
        ValueError: for unusable numbers.
    """

    num_workers: int = 2
    address: str | None = None
    cpus: int = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        for name in ("num_workers", "cpus"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}: expected a positive integer, got {value!r}")
        if isinstance(self.gpus, bool) or not isinstance(self.gpus, (int, float)) or not 0 <= self.gpus < 1000:
            raise ValueError(f"gpus: expected a number from 0, got {self.gpus!r}")
        if self.address is not None and not isinstance(self.address, str):
            raise ValueError(f"address: expected HOST:PORT, got {self.address!r}")

    def run(self, cfg: dict[str, Any], batches: list[list[int]]) -> Iterator[int]:
        """See :class:`Backend`.

        Raises:
            ImportError: if Ray is not installed.
            ConnectionError: if there is no cluster at the address.
            ChildProcessError: if a worker has died too often.
            ValueError: if the cluster has no room for the workers; and whatever making an episode raises.
        """
        if not batches:
            return
        ray = self._connected()
        from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
        from ray.util import ActorPool

        options = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        again = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS}
        try:
            worker = ray.remote(_Worker).options(**options, **again)
            workers = [worker.remote(cfg, os.getcwd()) for _ in range(min(self.num_workers, len(batches)))]
            for i, (host, process) in enumerate(ray.get([each.where.remote() for each in workers], timeout=READY)):
                log.info("worker %d is process %d on %s", i, process, host)
            yield from ActorPool(workers).map_unordered(lambda each, batch: each.record.remote(batch), batches)
        except GetTimeoutError as error:
            raise ValueError(
                f"num_workers: expected as many as the cluster has room for, got {self.num_workers} with {options} each"
            ) from error
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError as error:
            raise ChildProcessError(
                f"backend: a worker died more than {RESTARTS} times; the same command would go on from there: {error}"
            ) from error
        finally:
            ray.shutdown()

    def _connected(self) -> Any:
        """Ray, with a cluster behind it."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
        if self.address is None:
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # on Linux, too: listen on localhost alone
            os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 gets next to nothing of a busy machine
        try:
            import ray
        except ImportError as error:
            raise ImportError("Ray is not installed: pip install 'mirage_sim[ray]'") from error
        settings: dict[str, Any] = {"address": self.address, "log_to_driver": False, "configure_logging": False}
        if self.address is None:
            settings |= {
                "address": "local",
                "num_cpus": self.num_workers * self.cpus,
                "object_store_memory": OBJECT_STORE,
                "include_dashboard": False,
            }
        ray.init(**settings)
        return ray


class _Worker:
    """A recorder in a process of its own."""

    def __init__(self, cfg: dict[str, Any], folder: str):
        os.chdir(folder)  # so that relative paths are the same here
        self._recorder = Recorder(cfg)

    def where(self) -> tuple[str, int]:
        """Names of the host and the process."""
        return socket.gethostname(), os.getpid()

    def record(self, numbers: list[int]) -> int:
        """See :meth:`Recorder.record`."""
        return self._recorder.record(numbers)
