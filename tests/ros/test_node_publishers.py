"""What is published, and when. tf2_msgs is in no registry of wheels: a plain class takes its place."""

import sys
from types import ModuleType

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from nav_msgs.msg import Odometry  # noqa: E402

from mirage_sim.ros import conversions  # noqa: E402
from mirage_sim.ros.client import Client  # noqa: E402
from mirage_sim.ros.node_process import private_domain  # noqa: E402
from mirage_sim.ros.publishers import Publishers, _resized, _sampled  # noqa: E402
from mirage_sim.ros.settings import Settings  # noqa: E402
from mirage_sim.ros.simulation import Simulation  # noqa: E402


class TFMessage:
    def __init__(self):
        self.transforms = []

    @classmethod
    def get_fields_and_field_types(cls):
        return {"transforms": "sequence<geometry_msgs/TransformStamped>"}


class Recorder:
    def __init__(self, topic):
        self.topic, self.sent = topic, []

    def publish(self, message):
        self.sent.append(message)

    def get_subscription_count(self):
        return 1


@pytest.fixture
def client():
    with Client(private_domain()) as client:
        yield client


@pytest.fixture
def node(client, monkeypatch):
    """A real node, but for publishers of the missing type."""
    node = client.node
    create, node.recorders = node.create_publisher, {}

    def create_publisher(kind, topic, *arguments, **more):
        if kind is not TFMessage:
            return create(kind, topic, *arguments, **more)
        return node.recorders.setdefault(topic, Recorder(topic))

    monkeypatch.setattr(node, "create_publisher", create_publisher)
    return node


def test_transforms_go_from_map_to_the_optical_frame(node, monkeypatch):
    module = ModuleType("tf2_msgs.msg")
    module.TFMessage = TFMessage
    monkeypatch.setitem(sys.modules, "tf2_msgs", ModuleType("tf2_msgs"))
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", module)
    settings = Settings(scan_rays=0, mode="lockstep", publish_clock=False)
    simulation = Simulation(settings)
    publishers = Publishers(node, settings, simulation.cloud)
    simulation.command(1.0, 0.0)
    frame = simulation.step()
    publishers.show(frame, settings)
    (static,), (moving,) = (node.recorders[topic].sent for topic in ("/tf_static", "/tf"))
    edges = [(t.header.frame_id, t.child_frame_id) for t in [*moving.transforms, *static.transforms]]
    assert edges == [
        ("map", "odom"),
        ("odom", "base_link"),
        ("base_link", "camera_link"),
        ("camera_link", "camera_optical_frame"),
    ]
    assert moving.transforms[1].transform.translation.x == pytest.approx(0.1, abs=1e-4)
    assert moving.transforms[1].header.stamp.nanosec == round(frame.seconds * 1e9)
    simulation.close()


def test_nothing_is_made_for_nobody(client, monkeypatch):
    made, make = set(), conversions.message
    monkeypatch.setattr(conversions, "message", lambda kind, fields: made.add(kind.__name__) or make(kind, fields))
    settings = Settings(mode="lockstep")
    simulation = Simulation(settings)
    publishers = Publishers(client.node, settings, simulation.cloud)
    publishers.show(simulation.frame, settings)
    assert made == {"PointCloud2"}  # which is kept for those who come late
    made.clear()
    client.node.create_subscription(Odometry, "odom", lambda message: None, 1)

    def heard():
        publishers.show(simulation.frame, settings)
        return "Odometry" in made

    assert client.until(heard)
    assert made == {"Odometry"}
    simulation.close()


def test_no_transforms_where_they_are_not_wanted(node):
    Publishers(node, Settings(publish_tf=False), lambda: None)
    assert not node.recorders


def test_resizing_keeps_what_it_can():
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[:, 3:] = 200
    assert _resized(picture, (4, 6)) is picture
    np.testing.assert_array_equal(_resized(picture, (2, 2)), [[[0] * 3, [200] * 3]] * 2)
    larger = _resized(picture, (8, 12))
    assert larger.shape == (8, 12, 3) and (larger[:, :5] == 0).all() and (larger[:, 7:] == 200).all()
    depth = np.array([[1.0, 0.0], [5.0, 9.0]], np.float32)
    # nothing in between: a mean of two surfaces is on neither
    np.testing.assert_array_equal(_sampled(depth, (4, 4)), depth.repeat(2, 0).repeat(2, 1))
