"""``mirage bench ros``, which runs from a checkout."""

import importlib
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[3]


def bench_ros(cfg: dict[str, Any]) -> dict[str, Any]:
    """Run ``benchmarks/ros.py`` of the checkout.

    Raises:
        ImportError: if the package does not lie in a checkout, or ROS 2 is not installed.
    """
    if not (_ROOT / "benchmarks" / "ros.py").exists():
        raise ImportError(f"mirage bench ros: expected a checkout with benchmarks/ros.py, got {_ROOT}")
    if str(_ROOT) not in sys.path:
        sys.path.append(str(_ROOT))
    result: dict[str, Any] = importlib.import_module("benchmarks.ros").ros(cfg)
    return result
