"""What all parts share: their arguments, and ``results.json``, which each of them fills as it goes.

As a program it notes how a part ended: ``report.py OUT PART STATUS SECONDS REASON``. Needs no torch.
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
    """The results of one part, in ``results.json`` among those of the others.

    Every change rewrites the file, which appears whole or not at all, so that what was measured before a part is
    stopped is kept.

    Args:
        out: folder of ``results.json``.
        part: whose results these are.
    """

    def __init__(self, out: Path, part: str):
        self.path = out / "results.json"
        self.part = part

    def put(self, name: str, value: Any) -> None:
        """Keep one result; ``value`` is whatever JSON can hold."""
        logger.info("%s.%s: %s", self.part, name, json.dumps(value))
        self._change(lambda entry: entry.setdefault("results", {}).update({name: value}))

    def missing(self, name: str, reason: object) -> None:
        """Keep null as a result, and why there is no other."""
        self.put(name, None)
        line = " ".join(str(reason).split())[:300] or type(reason).__name__
        self._change(lambda entry: entry.setdefault("missing", {}).update({name: line}))

    def end(self, status: str, seconds: float, reason: str) -> None:
        """Keep how the part ended: ``"ok"``, ``"failed"``, ``"timeout"`` or ``"skipped"``."""
        ended = {"status": status, "seconds": seconds, "reason": reason or None}
        self._change(lambda entry: entry.update(ended))

    def _change(self, change: Any) -> None:
        results = json.loads(self.path.read_text()) if self.path.exists() else {}
        change(results.setdefault(self.part, {}))
        partial = self.path.with_suffix(f".partial{os.getpid()}")
        partial.write_text(json.dumps(results, indent=1) + "\n")
        partial.replace(self.path)


class Part:
    """One part at work: its settings, its report and its time.

    Attributes:
        out: folder for what comes back.
        work: folder for what does not.
        device: as torch names it.
        toy: whether everything is at toy size.
        report: see :class:`Report`.
    """

    def __init__(self, name: str, description: str | None):
        self._began = time.monotonic()
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("--out", type=Path, required=True, help="folder for what comes back")
        parser.add_argument("--work", type=Path, required=True, help="folder for what does not")
        parser.add_argument("--seconds", type=float, required=True, help="after which this part will be stopped")
        parser.add_argument("--device", default="cuda", help="as torch names it")
        parser.add_argument("--toy", action="store_true", help="toy sizes, to rehearse")
        given = parser.parse_args()
        self.out, self.work, self.device, self.toy = given.out, given.work, given.device, given.toy
        self._seconds = given.seconds
        self.report = Report(given.out, name)
        self._failed: list[str] = []
        logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")

    def attempt(self, name: str, call: Callable[[], Any]) -> Any:
        """What a call returns; or None, and the error is reported in place of a result. The part goes on either way.

        Too little memory on the device is a result; any other error makes the part fail in the end.
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
        """Report what a call returns; see :meth:`attempt`."""
        result = self.attempt(name, call)
        if result is not None:
            self.report.put(name, result)
        return result

    def end(self) -> NoReturn:
        """Leave the process, with an exit code of 1 and a line that says why if anything failed."""
        sys.exit(f"failed: {', '.join(self._failed)}" if self._failed else 0)

    @property
    def seconds_left(self) -> float:
        """Until this part is stopped."""
        return self._seconds - (time.monotonic() - self._began)


if __name__ == "__main__":
    out, part, status, seconds, *reason = sys.argv[1:]
    Report(Path(out), part).end(status, float(seconds), " ".join(reason))
