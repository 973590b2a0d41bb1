"""Run a node: ``python -m mirage_sim.ros world --ros-args -p seed:=3``, or ``policy`` instead of ``world``."""

import importlib
import os
import signal
import sys
from typing import NoReturn


def run(node: str) -> NoReturn:
    """Run a node until SIGINT or SIGTERM, with the ROS arguments of the process.

    The process exits with code 0, or with 1 after one log line about what is wrong.

    Args:
        node: ``world`` or ``policy``.
    """
    # Importing torch and ROS takes seconds. Python's own handler would raise within some import and print a traceback.
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    main = importlib.import_module(f"mirage_sim.ros.{node}_node").main

    import rclpy
    import rclpy.logging
    from rclpy.exceptions import ParameterException

    try:
        code = int(main())
    except (ImportError, OSError, ParameterException, ValueError) as error:
        message = f"{type(error).__name__}: {' '.join(str(error).split())}"
        rclpy.logging.get_logger(f"mirage_{node}").fatal(message)
        code = 1
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the shutdown
        rclpy.try_shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # The interpreter's last garbage collection takes seconds with torch, and `ros2 launch` sends signals after five.
    os._exit(code)


def world() -> NoReturn:
    """Entry point of the command ``mirage_world``."""
    run("world")


def policy() -> NoReturn:
    """Entry point of the command ``mirage_policy``."""
    run("policy")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("world", "policy"):
        sys.exit(f"mirage_sim.ros: error: node: expected world or policy, got {sys.argv[1:2]}")
    run(sys.argv[1])
