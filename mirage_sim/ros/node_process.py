"""A node of this package in a process of its own, in a domain of its own: for benchmarks, soaks and tests."""

import itertools
import os
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from mirage_sim.ros.launching import node_environment

START_S = 300.0  # imports, weights and discovery, on a machine where a dozen others work
ANSWER_S = 60.0
_DOMAINS = random.Random().sample(range(1, 101), 100)
_upcoming = itertools.cycle(_DOMAINS)


def private_domain() -> int:
    """A ROS domain id, 1 to 100, that nobody on this machine is in, and that was not given lately.

    Raises:
        RuntimeError: if all are taken.
    """
    for domain in itertools.islice(_upcoming, len(_DOMAINS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain))  # where the first in a domain listens (RTPS, 9.6.1)
            except OSError:
                continue
            return domain
    raise RuntimeError("ROS domains: expected a free one among 1 to 100, all are taken")


def middleware(domain: int) -> dict[str, str]:
    """What keeps a process in this domain and on this machine."""
    return {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


class NodeProcess:
    """A node of this package, started by ``with``, and ended with it.

    Args:
        domain: ROS domain id.
        command: as :func:`~mirage_sim.ros.launching.node_command` gives it.

    Attributes:
        domain: as given.
        lines: all that it has said so far, on stderr.
    """

    def __init__(self, domain: int, command: Sequence[str]):
        self.domain = domain
        self.lines: list[str] = []
        self._command = list(command)
        self._said = threading.Condition()
        self._silent = False  # for good

    def __enter__(self) -> "NodeProcess":
        """Start it; it is not waited for."""
        self.process = subprocess.Popen(
            self._command,
            env={**os.environ, **node_environment(), **middleware(self.domain)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ask it to end, as Ctrl-C does; kill it if it does not."""
        self.stop()

    def interrupt(self) -> None:
        """What Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def stop(self) -> int:
        """End it, if it has not; returns its exit code, -9 if it had to be killed."""
        if self.process.poll() is None:
            self.interrupt()
        return self.end(ANSWER_S)

    def end(self, seconds: float = START_S) -> int:
        """Its exit code, once it has ended by itself; -9 if it had to be killed after this time."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reader.join()
        return self.process.wait()

    def wait_for_line(self, part: str, after: int = 0) -> None:
        """Wait until it says something with this part in it, beyond its first ``after`` lines.

        Raises:
            RuntimeError: if it ends, or does not within five minutes.
        """

        def said() -> bool:
            return any(part in line for line in self.lines[after:])

        with self._said:
            self._said.wait_for(lambda: said() or self._silent, START_S)
            if not said():
                raise RuntimeError(f"the node: expected it to say {part!r}, got {self.lines[after:]}")

    def check(self) -> None:
        """See whether it runs.

        Raises:
            RuntimeError: if it has ended.
        """
        if (code := self.process.poll()) is not None:
            self._reader.join()
            raise RuntimeError(f"the node has ended: exit code {code}: {self.lines[-1] if self.lines else 'no word'}")

    def resident_bytes(self) -> int:
        """Its resident memory (Linux).

        Raises:
            RuntimeError: if it has ended.
        """
        self.check()
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def _read(self, said: IO[str]) -> None:
        with said:
            for line in said:
                with self._said:
                    self.lines.append(line.rstrip())
                    self._said.notify_all()
        with self._said:
            self._silent = True
            self._said.notify_all()
