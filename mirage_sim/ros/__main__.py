"""Run a node: ``python -m mirage_sim.ros world --ros-args -p seed:=3``, or ``policy`` instead of ``world``."""

import importlib
import os
import signal
import sys


def run(node: str) -> int:
    """Run a node until SIGINT or SIGTERM, with the ROS arguments of the process.

    Args:
        node: ``world`` or ``policy``.

    Returns:
        Exit code: 0, or 1 after one log line about what is wrong.
    """
    # Importing torch and ROS takes seconds. Python's own handler would raise within some import and print a traceback.
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    main = importlib.import_module(f"mirage_sim.ros.{node}_node").main

    import rclpy
    import rclpy.logging
    from rclpy.exceptions import ParameterException

    try:
        return int(main())
    except (ImportError, OSError, ParameterException, ValueError) as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        rclpy.logging.get_logger(f"mirage_{node}").fatal(message)
        return 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the shutdown
        rclpy.try_shutdown()


def world() -> int:
    """Entry point of the command ``mirage_world``."""
    return run("world")


def policy() -> int:
    """Entry point of the command ``mirage_policy``."""
    return run("policy")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("world", "policy"):
        sys.exit(f"mirage_sim.ros: error: node: expected world or policy, got {sys.argv[1:2]}")
    sys.exit(run(sys.argv[1]))
