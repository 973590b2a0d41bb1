from contextlib import ExitStack

import pytest


@pytest.fixture(scope="module")
def launch():
    """Start the node with parameters; what still runs at the end is interrupted and must end well."""
    pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")
    from mirage_sim.ros.launching import node_command
    from mirage_sim.ros.node_process import NodeProcess, private_domain

    started = []

    def launch(**parameters):
        started.append(stack.enter_context(NodeProcess(private_domain(), node_command(**parameters))))
        return started[-1]

    with ExitStack() as stack:
        yield launch
        for process in started:
            if process.process.poll() is None:
                assert process.stop() == 0


@pytest.fixture(scope="module")
def meet():
    """A client in a node's domain."""
    from support.ros_robot import Robot

    with ExitStack() as stack:

        def meet(process):
            process.wait_for_line("runs, mode")
            return stack.enter_context(Robot(process.domain))

        yield meet
