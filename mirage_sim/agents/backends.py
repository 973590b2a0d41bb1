"""Backends of a rollout: generate episodes in this process or in Ray workers. The only module that imports Ray."""

import logging
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from mirage_sim.agents.recorder import Recorder
from mirage_sim.settings import RolloutSettings

RESTARTS = 8  # of a worker and its batch, before the rollout fails
READY = 300.0  # seconds within which all workers must have started
OBJECT_STORE = 80 * 2**20  # bytes, near Ray's minimum: only numbers pass between processes

log = logging.getLogger(__name__)


class Backend(Protocol):
    """Generates batches of episodes."""

    def run(self, settings: RolloutSettings, batches: list[list[int]]) -> Iterator[int]:
        """Generate and save all batches of episode numbers; yield the number of episodes that each has added."""


@dataclass(frozen=True)
class Local:
    """Generates one batch after the other in this process."""

    def run(self, settings: RolloutSettings, batches: list[list[int]]) -> Iterator[int]:
        """See :class:`Backend`."""
        recorder = Recorder(settings)
        for batch in batches:
            yield recorder.record(batch)


@dataclass(frozen=True)
class Ray:
    """Generates a batch in each of several worker processes. A worker that dies is restarted and repeats its batch.

    Ray passes settings and calls between its processes as pickles. They stay within the user's cluster; no file that
    is read or written contains any.

    Attributes:
        num_workers: number of workers.
        address: of a running cluster (``HOST:6379``, or ``auto``), whose nodes see the same folders as this one. None
            starts Ray on this machine: it listens on localhost only and ends with this process.
        cpus: cores and threads of a worker.
        gpus: GPUs of a worker; may be a fraction.

    Raises:
        ValueError: for values out of range.
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

    def run(self, settings: RolloutSettings, batches: list[list[int]]) -> Iterator[int]:
        """See :class:`Backend`.

        Raises:
            ImportError: if Ray is not installed.
            ConnectionError: if there is no cluster at the address.
            ChildProcessError: if a worker died too often.
            ValueError: if the cluster lacks resources for the workers. Errors of episodes pass through.
        """
        if not batches:
            return
        ray = self._connect()
        from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError
        from ray.util import ActorPool

        options = {"num_cpus": self.cpus, "num_gpus": self.gpus}
        again = {"max_restarts": RESTARTS, "max_task_retries": RESTARTS}
        try:
            worker = ray.remote(_Worker).options(**options, **again)
            workers = [worker.remote(settings, os.getcwd()) for _ in range(min(self.num_workers, len(batches)))]
            for i, (host, process) in enumerate(ray.get([each.where.remote() for each in workers], timeout=READY)):
                log.info("worker %d is process %d on %s", i, process, host)
            yield from ActorPool(workers).map_unordered(lambda each, batch: each.record.remote(batch), batches)
        except GetTimeoutError as error:
            raise ValueError(
                f"num_workers: expected as many as fit the cluster, got {self.num_workers} with {options} each"
            ) from error
        except RayTaskError as error:
            raise error.cause from None
        except RayActorError as error:
            raise ChildProcessError(
                f"backend: a worker died more than {RESTARTS} times; the same command continues from there: {error}"
            ) from error
        finally:
            ray.shutdown()

    def _connect(self) -> Any:
        """Connect to the cluster, or start one, and return the module of Ray."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports
        if self.address is None:
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # listen on localhost only, on Linux, too
            os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's default, 15, starves on a busy machine
        try:
            import ray
        except ImportError as error:
            raise ImportError("Ray is not installed: pip install 'mirage_sim[ray]'") from error
        options: dict[str, Any] = {"address": self.address, "log_to_driver": False, "configure_logging": False}
        if self.address is None:
            options |= {
                "address": "local",
                "num_cpus": self.num_workers * self.cpus,
                "object_store_memory": OBJECT_STORE,
                "include_dashboard": False,
            }
        ray.init(**options)
        return ray


class _Worker:
    """A recorder in a Ray process."""

    def __init__(self, settings: RolloutSettings, folder: str):
        os.chdir(folder)  # relative paths mean the same in all workers
        self._recorder = Recorder(settings)

    def where(self) -> tuple[str, int]:
        """Return the host and the process id."""
        return socket.gethostname(), os.getpid()

    def record(self, numbers: list[int]) -> int:
        """See :meth:`Recorder.record`."""
        return self._recorder.record(numbers)
