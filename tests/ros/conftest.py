from contextlib import ExitStack

import pytest


@pytest.fixture(scope="module")
def launch():
    """Start the node with parameters; nodes that run at the end are interrupted and must end with code 0."""
    pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")
    from benchmarks.ros_process import NodeProcess, private_domain
    from mirage_sim.ros.launching import node_command

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
    """Create a client in a node's domain, after the node has started."""
    from support.ros_robot import Robot

    with ExitStack() as stack:

        def meet(process):
            process.wait_for_line("runs, mode")
            return stack.enter_context(Robot(process.domain))

        yield meet
