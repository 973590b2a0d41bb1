"""Drive a running world over ROS 2, and plot camera, depth, memory and scan to ros_session.png.

mirage_world                                     # in one terminal; or: ros2 launch mirage_sim world.launch.py
python examples/04_ros_session.py --frames 100   # in another
"""

import argparse
import math

import matplotlib
import numpy as np
import rclpy
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, LaserScan, PointCloud2

from mirage_sim.ros.conversions import depth_of, frame_of, mask_of

matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--frames", type=int, default=100, help="frames to drive")
args = parser.parse_args()

rclpy.init()
node = rclpy.create_node("session")
commands = node.create_publisher(Twist, "cmd_vel", 1)
latest, path = {}, []


def drive(odometry):
    """Answer every pose with the next command: forward, weaving left and right."""
    position = odometry.pose.pose.position
    path.append((position.x, position.y, odometry.pose.pose.orientation))
    command = Twist()
    command.linear.x = 0.6
    command.angular.z = 0.6 * math.cos(len(path) / 12)
    commands.publish(command)


topics = {"camera/image_raw": Image, "camera/depth/image_raw": Image, "camera/remembered": Image, "scan": LaserScan}
for topic, kind in topics.items():
    node.create_subscription(kind, topic, lambda message, topic=topic: latest.update({topic: message}), 2)
latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
node.create_subscription(PointCloud2, "memory/points", lambda message: latest.update(points=message), latched)
node.create_subscription(Odometry, "odom", drive, 10)
while len(path) < args.frames or len(latest) < len(topics) + 1:
    rclpy.spin_once(node)
commands.publish(Twist())  # stop
node.destroy_node()
rclpy.shutdown()

# x, y, z as floats and 0x00RRGGBB; the plan shows points between knee and head height
words = np.frombuffer(latest["points"].data, "<u4").reshape(-1, 4)
x, y, z = words[:, :3].view("<f4").T
shown = (z > 0.2) & (z < 1.8) & (np.hypot(x, y) < 15)
colours = (words[:, 3:] >> [16, 8, 0] & 255)[shown] / 255
figure, axes = plt.subplots(1, 4, figsize=(15, 3.4), width_ratios=[4, 4, 4, 3.4], layout="constrained")
axes[0].imshow(frame_of(latest["camera/image_raw"]))
axes[1].imshow(depth_of(latest["camera/depth/image_raw"]), vmin=0, vmax=10)
axes[2].imshow(mask_of(latest["camera/remembered"]), cmap="gray", vmin=0, vmax=1)
for axis, name in zip(axes, topics, strict=False):
    axis.set(title=name, xticks=[], yticks=[])
axes[3].scatter(x[shown], y[shown], s=1, c=colours, label="memory/points")
at_x, at_y, turn = path[-1]
heading = 2 * math.atan2(turn.z, turn.w)
scan = latest["scan"]
ranges = np.array(scan.ranges)
angles = heading + scan.angle_min + scan.angle_increment * np.arange(len(ranges))
hit = np.isfinite(ranges)
axes[3].plot(at_x + (ranges * np.cos(angles))[hit], at_y + (ranges * np.sin(angles))[hit], "r.", ms=2, label="scan")
axes[3].plot([pose[0] for pose in path], [pose[1] for pose in path], "b", label="odom")
axes[3].set(title="in map, metres", aspect="equal")
axes[3].legend(fontsize=7, loc="best")
figure.savefig("ros_session.png", dpi=80)
print(f"drove {len(path)} frames; {len(words)} points remembered; wrote ros_session.png")
