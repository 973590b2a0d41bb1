"""Run a ROS 2 node of this package in a child process, in a ROS domain of its own. Benchmarks and tests use it."""

import itertools
import os
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from mirage_sim.ros.launching import node_environment

START_S = 300.0  # imports, weights and discovery on a busy machine
ANSWER_S = 60.0
_DOMAINS = random.Random().sample(range(1, 101), 100)
_upcoming = itertools.cycle(_DOMAINS)


def private_domain() -> int:
    """Return a ROS domain id from 1 to 100 that no process on this machine uses.

    Ids repeat only after all of them were returned.

    Raises:
        RuntimeError: if all ids are in use.
    """
    for domain in itertools.islice(_upcoming, len(_DOMAINS)):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain))  # discovery port of a domain's first participant (RTPS, 9.6.1)
            except OSError:
                continue
            return domain
    raise RuntimeError("ROS domains: expected a free one among 1 to 100, all are taken")


def middleware(domain: int) -> dict[str, str]:
    """Return the environment variables that keep a process in `domain` and on this machine."""
    return {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}


class NodeProcess:
    """A child process that runs a node. Entering the context starts it, leaving the context ends it.

    Args:
        domain: ROS domain id.
        command: argument vector, see :func:`~mirage_sim.ros.launching.node_command`.

    Attributes:
        lines: all lines that the process has written to stderr.
    """

    def __init__(self, domain: int, command: Sequence[str]):
        self.domain = domain
        self.lines: list[str] = []
        self._command = list(command)
        self._changed = threading.Condition()
        self._closed = False  # stderr

    def __enter__(self) -> "NodeProcess":
        """Start the process without waiting for the node."""
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

    def __exit__(self, *_: Any) -> None:
        """End the process as Ctrl-C does; kill it if that fails."""
        self.stop()

    def interrupt(self) -> None:
        """Send SIGINT, as Ctrl-C does."""
        self.process.send_signal(signal.SIGINT)

    def stop(self) -> int:
        """Interrupt the process if it runs; return its exit code, -9 if it had to be killed after a minute."""
        if self.process.poll() is None:
            self.interrupt()
        return self.end(ANSWER_S)

    def end(self, seconds: float = START_S) -> int:
        """Wait for the process to end; return its exit code, -9 if it had to be killed after `seconds`."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self._reader.join()
        return self.process.wait()

    def wait_for_line(self, part: str, after: int = 0) -> None:
        """Wait until a line on stderr, beyond the first `after` lines, contains `part`.

        Raises:
            RuntimeError: if the process ends, or five minutes pass, without such a line.
        """

        def found() -> bool:
            return any(part in line for line in self.lines[after:])

        with self._changed:
            self._changed.wait_for(lambda: found() or self._closed, START_S)
            if not found():
                raise RuntimeError(f"the node: expected a line with {part!r}, got {self.lines[after:]}")

    def check(self) -> None:
        """Check that the process runs.

        Raises:
            RuntimeError: if it has ended.
        """
        if (code := self.process.poll()) is not None:
            self._reader.join()
            raise RuntimeError(f"the node has ended: exit code {code}: {self.lines[-1] if self.lines else 'no output'}")

    def resident_bytes(self) -> int:
        """Return the resident memory of the process (Linux).

        Raises:
            RuntimeError: if it has ended.
        """
        self.check()
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def _read(self, stderr: IO[str]) -> None:
        with stderr:
            for line in stderr:
                with self._changed:
                    self.lines.append(line.rstrip())
                    self._changed.notify_all()
        with self._changed:
            self._closed = True
            self._changed.notify_all()
