"""Launch a learned world as a ROS 2 robot: ``ros2 launch mirage_sim world.launch.py``; ``--show-args`` lists arguments.

``mirage_sim.ros.launching`` decides which processes run, in the Python that runs them. The Python of ``ros2`` reads
this file, and may lack the dependencies of the package.
"""

import json
import os
import re
import subprocess
import sys

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

# Each line of this file declares a parameter: "    name: default  # Description."
WORLD_PARAMETERS = os.path.join(os.path.dirname(__file__), "..", "configs", "ros", "world.yaml")
RESPAWN_DELAY_S = 2.0
# name: (default, description, choices)
OTHERS = {
    "params_file": ("", "A ROS parameter file with other defaults.", None),
    "policy": ("none", "An agent that drives: none, scripted, or the path of a stable-baselines3 PPO zip.", None),
    "trust_policy": ("false", "Load that zip. It holds pickled objects, which can run any code.", ["true", "false"]),
    "rviz": ("false", "Start RViz.", ["true", "false"]),
    "namespace": ("", "Namespace of the nodes and their topics.", None),
    "name": ("mirage_world", "Name of the world's node.", None),
    "use_sim_time": ("true", "Whether the policy and RViz take the time from /clock.", ["true", "false"]),
    "respawn": ("false", "Start the world again when it ends, instead of ending the launch.", ["true", "false"]),
    "log_level": ("info", "Least severity of log lines.", ["debug", "info", "warn", "error", "fatal"]),
}
OF_LAUNCH = ("rviz", "namespace", "name", "use_sim_time", "respawn", "log_level")  # not of the processes


def world_parameters():
    """Return description and choices of the world's parameters by name."""
    with open(WORLD_PARAMETERS, encoding="utf-8") as file:
        lines = re.findall(r"^    (\w+): (.*?)  # (.+)$", file.read(), re.MULTILINE)
    found = {}
    for name, default, description in lines:
        listed = re.search(r"One of: (.+)\.$", description)
        values = ["true", "false"] if default in ("true", "false") else listed[1].split(", ") if listed else []
        found[name] = (description, ["", *values] if values else None)
    return found


def default_python():
    """Return the Python of the active virtual environment, else the one that runs this file."""
    environment = os.environ.get("VIRTUAL_ENV")
    return os.path.join(environment, "bin", "python") if environment else sys.executable


def start(context, *args, **kwargs):
    """Return the actions that start the processes, after the arguments are known."""
    names = [*world_parameters(), *OTHERS, "python"]
    words = {name: LaunchConfiguration(name).perform(context) for name in names}
    python, own = words.pop("python"), {name: words.pop(name) for name in OF_LAUNCH}
    command = [python, "-m", "mirage_sim.ros.launching", json.dumps(words)]
    try:
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    except OSError as error:
        raise RuntimeError(f"python: expected the path of a Python interpreter, got {python!r}: {error}") from error
    if answer.returncode:
        raise RuntimeError(
            f"{python} cannot start a world (see above). If mirage_sim is not installed there, "
            "activate its environment or pass python:=PATH"
        )
    found = json.loads(answer.stdout)
    level, times = ["--ros-args", "--log-level", own["log_level"]], [{"use_sim_time": own["use_sim_time"] == "true"}]
    common = {"additional_env": found["environment"], "output": "screen"}
    if own["namespace"]:
        common["namespace"] = own["namespace"]
    world, policy = found["world"], found.get("policy")
    respawn = own["respawn"] == "true"
    ending = {"respawn": True, "respawn_delay": RESPAWN_DELAY_S} if respawn else {"on_exit": Shutdown()}
    actions = [Node(executable=world[0], name=own["name"], arguments=[*world[1:], *level], **ending, **common)]
    if policy:
        actions.append(Node(executable=policy[0], arguments=[*policy[1:], *level], parameters=times, **common))
    if own["rviz"] == "true":
        # images carry simulation time
        actions.append(Node(package="rviz2", executable="rviz2", arguments=["-d", found["rviz"]], parameters=times))
    return actions


def generate_launch_description() -> LaunchDescription:
    """Return the launch description; called by ``ros2 launch``."""
    empty = "Empty: as the parameter file says."
    arguments = [
        DeclareLaunchArgument(name, default_value="", description=f"{description} {empty}", choices=choices)
        for name, (description, choices) in world_parameters().items()
    ]
    arguments += [
        DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
        for name, (default, description, choices) in OTHERS.items()
    ]
    python = "Python that runs the nodes; mirage_sim and its dependencies are installed there."
    arguments.append(DeclareLaunchArgument("python", default_value=default_python(), description=python))
    return LaunchDescription([*arguments, OpaqueFunction(function=start)])
