"""A client to be killed: says on stdout the time of each picture that it gets."""

import sys

import rclpy
from sensor_msgs.msg import Image

rclpy.init()
node = rclpy.create_node("listener")


def tell(message: Image) -> None:
    sys.stdout.write(f"{message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec}\n")
    sys.stdout.flush()


node.create_subscription(Image, "camera/image_raw", tell, 2)
rclpy.spin(node)
