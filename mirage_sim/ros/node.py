"""``mirage_world``: a robot in a learned world. ``python -m mirage_sim.ros.node --ros-args -p seed:=3``."""

import sys
from collections.abc import Sequence

from mirage_sim.ros.interrupts import end_at_once


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM.

    Args:
        args: command line, ROS arguments included; that of the process if None.

    Returns:
        0; 1 after one line that says what was wrong.
    """
    end_at_once()
    from mirage_sim.ros.world_node import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
