"""Rollouts by several workers: their speed, and whether killing one loses or duplicates an episode."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mirage_sim.settings.benchmarks import RolloutBenchSettings

TIMEOUT = 600.0  # seconds within which a rollout must write its first episode


def bench_rollout(settings: RolloutBenchSettings) -> dict[str, Any]:
    """Roll out the same episodes with ``backend=local``, ``backend=ray``, and ``backend=ray`` with a worker killed.

    Uses the built-in world with its default settings and random actions.

    Args:
        settings: of the benchmark.

    Returns:
        ``{"marks": ...}``: after a worker was killed, the number of ``lost`` and ``doubled`` episodes; ``identical``,
        whether both runs by Ray have the bits of the local one; ``episodes_per_s_local`` and ``episodes_per_s_ray``
        without disturbance, after start-up; and ``speedup_ray``, their ratio.

    Raises:
        ValueError: for unusable settings.
        ChildProcessError: with the last line of a rollout's output, if it fails.
    """
    workers, worlds, episodes = settings.num_workers, settings.worlds, settings.episodes
    if episodes <= (workers + 1) * worlds:
        raise ValueError(
            f"episodes: expected more than {(workers + 1) * worlds}, more than a batch of {worlds} for each of "
            f"{workers} workers, got {episodes}"
        )
    names = ("episodes", "steps", "worlds", "seed")
    command = [sys.executable, "-m", "mirage_sim.cli", "rollout", "policy=random", "format=npz"]
    command += [f"{name}={getattr(settings, name)}" for name in names]
    by_ray = [*command, "backend=ray", f"num_workers={workers}"]
    with tempfile.TemporaryDirectory() as folder:
        local, ray, disturbed = (
            Driver([*each, f"output={folder}/{name}"], Path(folder) / name)
            for name, each in (("local", command), ("ray", by_ray), ("disturbed", by_ray))
        )
        rates = [driver.run().rate(behind) for driver, behind in ((local, worlds), (ray, workers * worlds))]
        disturbed.start()
        os.kill(disturbed.workers()[0], signal.SIGKILL)
        disturbed.finish()
        lost, doubled = compare(disturbed.folder, range(settings.seed, settings.seed + episodes))
        identical = local.content() == ray.content() == disturbed.content()
    return {
        "marks": {
            "lost": lost,
            "doubled": doubled,
            "identical": identical,
            "episodes_per_s_local": rates[0],
            "episodes_per_s_ray": rates[1],
            "speedup_ray": rates[1] / rates[0],
        }
    }


class Driver:
    """A rollout with ``format=npz`` in a process of its own.

    Args:
        command: that starts it.
        folder: of its episodes; a log file is written beside it.
    """

    def __init__(self, command: list[str], folder: Path):
        self.folder, self._command = folder, command
        self._log = folder.with_name(f"{folder.name}.log")

    def start(self) -> None:
        """Start the process, and wait for its first episode.

        Raises:
            ChildProcessError: with the last line of its output, if it fails before.
        """
        with self._log.open("w") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + TIMEOUT
        while not self.episodes():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise self._failed()
            time.sleep(0.02)

    def finish(self) -> None:
        """Wait for the process to end.

        Raises:
            ChildProcessError: with the last line of its output, if it failed.
        """
        if self.process.wait() != 0:
            raise self._failed()

    def run(self) -> "Driver":
        """Start the process and wait for it to end."""
        self.start()
        self.finish()
        return self

    def output(self) -> str:
        """Everything that the process has printed so far."""
        return self._log.read_text(encoding="utf-8")

    def _failed(self) -> ChildProcessError:
        lines = self.output().strip().splitlines() or ["it timed out without any output"]
        return ChildProcessError(f"rollout: {lines[-1].removeprefix('mirage: error: ')}")

    def workers(self) -> list[int]:
        """Process ids of the workers that were started first."""
        return [int(number) for number in re.findall(r"worker \d+ is process (\d+) on", self.output())]

    def episodes(self) -> list[Path]:
        """Paths of the episodes that have been written."""
        return sorted(self.folder.glob("episode_*.npz"))

    def content(self) -> dict[str, bytes]:
        """Bytes of each episode, by file name."""
        return {path.name: path.read_bytes() for path in self.episodes()}

    def rate(self, behind: int) -> float:
        """Episodes per second after the first ``behind``, which include the time to load networks."""
        times = sorted(path.stat().st_mtime for path in self.episodes())
        return (len(times) - behind) / (times[-1] - times[behind - 1])


def compare(folder: Path, seeds: range) -> tuple[int, int]:
    """Count the episodes of these seeds that a folder lacks, and the duplicates that it holds."""
    found: Counter[int] = Counter()
    for path in folder.rglob("*.npz"):
        with np.load(path, allow_pickle=False) as episode:
            found[int(episode["seed"])] += 1
    return len(set(seeds) - set(found)), sum(count - 1 for count in found.values())
