"""Shared by all parts: their arguments, and ``results.json``, which each part fills as it runs.

As a program, it records how a part ended: ``report.py OUT PART STATUS SECONDS REASON``. Needs no torch.
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

logger = logging.getLogger("gpu")


class Report:
    """The results of one part in ``results.json``, which all parts share.

    Every change rewrites the file atomically, so that the results of a stopped part are kept.

    Args:
        out: folder of ``results.json``.
        part: name of the part.
    """

    def __init__(self, out: Path, part: str):
        self.path = out / "results.json"
        self.part = part

    def put(self, name: str, value: Any) -> None:
        """Save one result; ``value`` must be fit for JSON."""
        logger.info("%s.%s: %s", self.part, name, json.dumps(value))
        self._change(lambda entry: entry.setdefault("results", {}).update({name: value}))

    def missing(self, name: str, reason: object) -> None:
        """Save null as a result, and the reason."""
        self.put(name, None)
        line = " ".join(str(reason).split())[:300] or type(reason).__name__
        self._change(lambda entry: entry.setdefault("missing", {}).update({name: line}))

    def end(self, status: str, seconds: float, reason: str) -> None:
        """Save how the part ended: ``"ok"``, ``"failed"``, ``"timeout"`` or ``"skipped"``."""
        ended = {"status": status, "seconds": seconds, "reason": reason or None}
        self._change(lambda entry: entry.update(ended))

    def _change(self, change: Any) -> None:
        results = json.loads(self.path.read_text()) if self.path.exists() else {}
        change(results.setdefault(self.part, {}))
        partial = self.path.with_suffix(f".partial{os.getpid()}")
        partial.write_text(json.dumps(results, indent=1) + "\n")
        partial.replace(self.path)


class Part:
    """A running part: its settings, report and time limit.

    Attributes:
        out: folder for results.
        work: folder for temporary files.
        device: name of a torch device.
        toy: whether to use toy sizes.
        report: see :class:`Report`.
    """

    def __init__(self, name: str, description: str | None):
        self._began = time.monotonic()
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--out", type=Path, required=True, help="folder for results")
        parser.add_argument("--work", type=Path, required=True, help="folder for temporary files")
        parser.add_argument("--seconds", type=float, required=True, help="time limit of this part")
        parser.add_argument("--device", default="cuda", help="name of a torch device")
        parser.add_argument("--toy", action="store_true", help="use toy sizes")
        arguments = parser.parse_args()
        self.out, self.work, self.device, self.toy = arguments.out, arguments.work, arguments.device, arguments.toy
        self._seconds = arguments.seconds
        self.report = Report(arguments.out, name)
        self._failed: list[str] = []
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")

    def attempt(self, name: str, call: Callable[[], Any]) -> Any:
        """Return the result of a call; on an error, report it and return None.

        The part continues in both cases. Any error but too little memory on the device makes the part fail at its end.
        """
        try:
            return call()
        except Exception as error:
            logger.exception("%s", name)
            self.report.missing(name, f"{type(error).__name__}: {error}")
            if type(error).__name__ != "OutOfMemoryError":
                self._failed.append(name)
            return None

    def measure(self, name: str, call: Callable[[], Any]) -> Any:
        """Report the result of a call; see :meth:`attempt`."""
        result = self.attempt(name, call)
        if result is not None:
            self.report.put(name, result)
        return result

    def end(self) -> NoReturn:
        """Exit, with code 1 and the names of failed measurements if there are any."""
        sys.exit(f"failed: {', '.join(self._failed)}" if self._failed else 0)

    @property
    def seconds_left(self) -> float:
        """Seconds until this part is stopped."""
        return self._seconds - (time.monotonic() - self._began)


if __name__ == "__main__":
    out, part, status, seconds, *reason = sys.argv[1:]
    Report(Path(out), part).end(status, float(seconds), " ".join(reason))
