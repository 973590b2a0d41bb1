"""A subscriber that tests kill. It writes the time of each image to stdout."""

import sys

import rclpy
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("listener")


def write_time(message: Image) -> None:
    sys.stdout.write(f"{message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec}\n")
    sys.stdout.flush()


node.create_subscription(Image, "camera/image_raw", write_time, 2)
rclpy.spin(node)
