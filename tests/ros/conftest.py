import pytest


@pytest.fixture(scope="module")
def launch():
    """Start the node with parameters; what still runs at the end is interrupted and must end well."""
    pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")
    from robot import NodeProcess

    started = []

    def launch(**parameters):
        started.append(NodeProcess(**parameters))
        return started[-1]

    yield launch
    for process in started:
        if process.process.poll() is None:
            process.interrupt()
            assert process.end() == 0


@pytest.fixture(scope="module")
def meet():
    """A client in a node's domain."""
    from robot import Robot

    met = []

    def meet(process):
        process.wait_for_line("runs, mode")
        met.append(Robot(process.domain))
        return met[-1]

    yield meet
    for robot in met:
        robot.close()
