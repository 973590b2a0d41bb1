"""Roll-outs by several workers: whether an episode is lost or made twice when one is killed, and how fast they are."""

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

from mirage_sim.evaluation.benchmarks.measure import positive_integers

PATIENCE = 600.0  # seconds within which a roll-out must have begun to leave episodes


def bench_rollout(cfg: dict[str, Any]) -> dict[str, Any]:
    """Make the same episodes by ``backend=local``, by ``backend=ray``, and by ``backend=ray`` with a worker killed.

    The built-in world as it is, random actions.

    Args:
        cfg: ``episodes``, ``steps`` of each, ``worlds`` generated as one batch, ``num_workers`` and ``seed``.

    Returns:
        ``{"metrics": ...}``, after a worker was killed: ``lost``, episodes that are not there, ``doubled``, episodes
        that
        are there more than once, and ``identical``, whether all have the bits that the local backend leaves;
        ``episodes_per_s_local`` and ``episodes_per_s_ray`` undisturbed, once under way, and ``speedup_ray``, their
        ratio.

    Raises:
        ValueError: for unusable settings.
        ChildProcessError: with the last that a roll-out said, if it fails.
    """
    positive_integers(cfg, "episodes", "steps", "worlds", "num_workers")
    workers, worlds, episodes = cfg["num_workers"], cfg["worlds"], cfg["episodes"]
    if episodes <= (workers + 1) * worlds:
        raise ValueError(
            f"episodes: expected more than {(workers + 1) * worlds}, a batch of {worlds} for each of {workers} workers "
            f"and more, got {episodes}"
        )
    names = ("episodes", "steps", "worlds", "seed")
    command = [sys.executable, "-m", "mirage_sim.cli", "rollout", "policy=random", "format=npz"]
    command += [f"{name}={cfg[name]}" for name in names]
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
        lost, doubled = compare(disturbed.folder, range(cfg["seed"], cfg["seed"] + episodes))
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
    """A roll-out with ``format=npz`` in a process of its own.

    Args:
        command: that starts it.
        folder: where it leaves its episodes; what it says goes to a file beside it.
    """

    def __init__(self, command: list[str], folder: Path):
        self.folder, self._command = folder, command
        self._log = folder.with_name(f"{folder.name}.log")

    def start(self) -> None:
        """Start it, and wait until it has begun to leave episodes.

        Raises:
            ChildProcessError: with the last that it said, if it does not get so far.
        """
        with self._log.open("w") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + PATIENCE
        while not self.episodes():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise self._failed()
            time.sleep(0.02)

    def finish(self) -> None:
        """Wait for its end.

        Raises:
            ChildProcessError: with the last that it said, if it failed.
        """
        if self.process.wait() != 0:
            raise self._failed()

    def run(self) -> "Driver":
        """Start it and wait for its end."""
        self.start()
        self.finish()
        return self

    def said(self) -> str:
        """All that it has written to its output so far."""
        return self._log.read_text(encoding="utf-8")

    def _failed(self) -> ChildProcessError:
        lines = self.said().strip().splitlines() or ["it took too long and said nothing"]
        return ChildProcessError(f"rollout: {lines[-1].removeprefix('mirage: error: ')}")

    def workers(self) -> list[int]:
        """The ids of its workers' processes, as they were at first."""
        return [int(number) for number in re.findall(r"worker \d+ is process (\d+) on", self.said())]

    def episodes(self) -> list[Path]:
        """The files of those that are there."""
        return sorted(self.folder.glob("episode_*.npz"))

    def content(self) -> dict[str, bytes]:
        """The bytes of each."""
        return {path.name: path.read_bytes() for path in self.episodes()}

    def rate(self, behind: int) -> float:
        """Episodes per second, counted once so many are there: the first ones come after networks are loaded."""
        times = sorted(path.stat().st_mtime for path in self.episodes())
        return (len(times) - behind) / (times[-1] - times[behind - 1])


def compare(folder: Path, seeds: range) -> tuple[int, int]:
    """How many episodes of these seeds a folder lacks, and how many it has more than once."""
    found: Counter[int] = Counter()
    for path in folder.rglob("*.npz"):
        with np.load(path, allow_pickle=False) as episode:
            found[int(episode["seed"])] += 1
    return len(set(seeds) - set(found)), sum(count - 1 for count in found.values())
