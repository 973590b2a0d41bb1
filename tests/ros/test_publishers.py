"""Published messages. There is no wheel of tf2_msgs: a plain class replaces it."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

from nav_msgs.msg import Odometry  # noqa: E402

from benchmarks.ros_client import Client  # noqa: E402
from benchmarks.ros_process import private_domain  # noqa: E402
from mirage_sim.ros.parameters import WorldParameters  # noqa: E402
from mirage_sim.ros.publishers import Publishers, resize_image, resize_nearest  # noqa: E402
from mirage_sim.ros.simulation import Simulation  # noqa: E402


class TFMessage:
    def __init__(self):
        self.transforms = []

    @classmethod
    def get_fields_and_field_types(cls):
        return {"transforms": "sequence<geometry_msgs/TransformStamped>"}


class Recorder:
    msg_type = TFMessage

    def __init__(self):
        self.sent = []

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
    """A real node, except for publishers of the missing type."""
    node = client.node
    create, node.recorders = node.create_publisher, {}

    def create_publisher(kind, topic, *arguments, **more):
        if kind is not TFMessage:
            return create(kind, topic, *arguments, **more)
        return node.recorders.setdefault(topic, Recorder())

    monkeypatch.setattr(node, "create_publisher", create_publisher)
    return node


def test_transforms_lead_from_map_to_optical_frame(node, monkeypatch):
    module = ModuleType("tf2_msgs.msg")
    module.TFMessage = TFMessage
    monkeypatch.setitem(sys.modules, "tf2_msgs", ModuleType("tf2_msgs"))
    monkeypatch.setitem(sys.modules, "tf2_msgs.msg", module)
    settings = WorldParameters(scan_rays=0, mode="lockstep", publish_clock=False)
    simulation = Simulation(settings)
    publishers = Publishers(node, simulation)
    simulation.command(1.0, 0.0)
    frame = simulation.step()
    publishers.publish(frame)
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


def test_messages_are_made_for_subscribers_only(client, monkeypatch):
    kinds, send = set(), Publishers._send

    def record(publishers, publisher, fields):
        kinds.add(publisher.msg_type.__name__)
        send(publishers, publisher, fields)

    monkeypatch.setattr(Publishers, "_send", record)
    settings = WorldParameters(mode="lockstep")
    simulation = Simulation(settings)
    publishers = Publishers(client.node, simulation)
    publishers.publish(simulation.frame)
    assert kinds == {"PointCloud2", "OccupancyGrid"}  # kept for late subscribers
    kinds.clear()
    client.node.create_subscription(Odometry, "odom", lambda message: None, 1)

    def received():
        publishers.publish(simulation.frame)
        return "Odometry" in kinds

    assert client.until(received)
    assert kinds == {"Odometry"}
    simulation.close()


def test_publish_tf_false_publishes_no_transforms(node):
    Publishers(node, SimpleNamespace(parameters=WorldParameters(publish_tf=False)))
    assert not node.recorders


def test_resizing_preserves_values():
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 3:] = 200
    assert resize_image(image, (4, 6)) is image
    np.testing.assert_array_equal(resize_image(image, (2, 2)), [[[0] * 3, [200] * 3]] * 2)
    larger = resize_image(image, (8, 12))
    assert larger.shape == (8, 12, 3) and (larger[:, :5] == 0).all() and (larger[:, 7:] == 200).all()
    depth = np.array([[1.0, 0.0], [5.0, 9.0]], np.float32)
    # no values in between
    np.testing.assert_array_equal(resize_nearest(depth, (4, 4)), depth.repeat(2, 0).repeat(2, 1))
