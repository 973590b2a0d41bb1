"""Ctrl-C while a node is still being imported, which takes seconds."""

import os
import signal


def end_at_once() -> None:
    """From now on SIGINT ends the process at once, with exit code 0: there is nothing yet to be closed.

    Python's own handler would raise within some import and write a trace.
    """
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
