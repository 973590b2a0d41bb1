"""A learned world as a ROS 2 robot: ``ros2 launch mirage_sim world.launch.py``; ``--show-args`` lists the arguments.

Which processes run, and how, is decided by ``mirage_sim.ros.launching`` in the Python that runs them: this file may be
read by a Python that knows launch and nothing of the package's dependencies.
"""

import json
import os
import subprocess
import sys

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

BOOLS = ["", "true", "false"]
# name: (description, choices). Where nothing is given, params_file decides, then configs/ros/world.yaml
WORLD = {
    "world": ("The learned world.", ["", "mini", "wan5b", "wan5b-toy"]),
    "device": ("Where the networks run: cpu, cuda, cuda:1, ...", None),
    "mode": ("Keep pace with the clock, or advance only when stepped or commanded.", ["", "realtime", "lockstep"]),
    "frame_rate": ("Images per second of simulation.", None),
    "real_time_factor": ("Seconds of simulation per second; 0: as fast as it goes.", None),
    "image_width": ("Width of the published images in pixels; 0: the world's own.", None),
    "image_height": ("Height of the published images in pixels; 0: the world's own.", None),
    "seed": ("Decides the start frame and all that is invented.", None),
    "start_image": ("Path of a picture to start from.", None),
    "collisions": ("What an obstacle does to a motion.", ["", "report", "block", "slide", "ignore"]),
    "scan_rays": ("Rays of the range scan; 0: no scan.", None),
    "enable_stamped_cmd_vel": ("cmd_vel is TwistStamped instead of Twist.", BOOLS),
    "cmd_vel_timeout": ("Seconds of simulation without a command after which the robot stands; 0: never.", None),
    "publish_clock": ("Publish /clock.", BOOLS),
    "publish_tf": ("Publish /tf and /tf_static.", BOOLS),
    "jpeg_quality": ("Quality of the compressed images, 1 to 100.", None),
}
# name: (default, description, choices)
OTHERS = {
    "params_file": ("", "A ROS parameter file with other defaults.", None),
    "policy": ("none", "An agent that drives: none, scripted, or the path of a stable-baselines3 zip.", None),
    "trust_policy": ("false", "Load that zip; it can run any code its maker put there.", ["true", "false"]),
    "rviz": ("false", "Start RViz.", ["true", "false"]),
}


def default_python() -> str:
    """The active virtual environment's, else the one that runs this file."""
    environment = os.environ.get("VIRTUAL_ENV")
    return os.path.join(environment, "bin", "python") if environment else sys.executable


def start(context, *args, **kwargs):
    """The processes, once the arguments are known."""
    given = {name: LaunchConfiguration(name).perform(context) for name in [*WORLD, *OTHERS, "python"]}
    python, with_rviz = given.pop("python"), given.pop("rviz") == "true"
    asked = subprocess.run(
        [python, "-m", "mirage_sim.ros.launching", json.dumps(given)], stdout=subprocess.PIPE, text=True, check=False
    )
    if asked.returncode:
        raise RuntimeError(
            f"{python} does not start a world (see above). If mirage_sim is missing there, "
            "activate its environment or give python:=PATH"
        )
    found = json.loads(asked.stdout)
    common = {"additional_env": found["environment"], "output": "screen"}
    world, policy = found["world"], found.get("policy")
    actions = [Node(executable=world[0], arguments=world[1:], on_exit=Shutdown(), **common)]
    if policy:
        actions.append(Node(executable=policy[0], arguments=policy[1:], **common))
    if with_rviz:
        # the images are stamped with the time of the simulation
        times = [{"use_sim_time": True}]
        actions.append(Node(package="rviz2", executable="rviz2", arguments=["-d", found["rviz"]], parameters=times))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Called by ``ros2 launch``."""
    empty = "Empty: as the parameter file says."
    arguments = [
        DeclareLaunchArgument(name, default_value="", description=f"{description} {empty}", choices=choices)
        for name, (description, choices) in WORLD.items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
        for name, (default, description, choices) in OTHERS.items()
    ]
    python = "Python that runs the nodes; mirage_sim and its dependencies are installed there."
    arguments.append(DeclareLaunchArgument("python", default_value=default_python(), description=python))
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
