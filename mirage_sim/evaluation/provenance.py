"""Where a figure comes from: machine and commit. Light, so that the command line can import it."""

import os
import platform
import subprocess
from pathlib import Path

import mirage_sim


def cpu() -> str:
    """Model and number of usable cores, such as ``"AMD EPYC 7B13, 2 cores"``."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores"


def commit() -> str:
    """Commit of the checkout that this package runs from (``-dirty`` when changed), else the package's version."""
    root = Path(mirage_sim.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return f"v{mirage_sim.__version__}"
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # git is not installed, or does not trust the folder
        return f"v{mirage_sim.__version__}"
