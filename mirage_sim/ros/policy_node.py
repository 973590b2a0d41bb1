"""``mirage_policy``: an agent that drives. ``python -m mirage_sim.ros.policy_node --ros-args -p steps:=50``."""

import sys
from collections.abc import Sequence

from mirage_sim.ros.interrupts import end_at_once


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM; then the robot is told to stand.

    Args:
        args: command line, ROS arguments included; that of the process if None.

    Returns:
        0; 1 after one line that says what was wrong.
    """
    end_at_once()
    from mirage_sim.ros.agent_node import run

    return run(args)


if __name__ == "__main__":
    sys.exit(main())
