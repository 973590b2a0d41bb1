"""Commands and environments of the nodes, without importing ROS.

``launch/world.launch.py`` runs in the Python of ``ros2``, which may lack the dependencies of this package. It therefore
asks the Python that will run the nodes: ``python -m mirage_sim.ros.launching JSON`` writes the processes to stdout.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mirage_sim.paths import CONFIGS
from mirage_sim.ros.parameters import PolicyParameters, WorldParameters, check_file, parsed

WORLD_PARAMETERS = CONFIGS / "ros" / "world.yaml"
POLICY_PARAMETERS = CONFIGS / "ros" / "policy.yaml"
RVIZ = CONFIGS / "ros" / "world.rviz"
FASTDDS = CONFIGS / "fastdds.xml"
NO_POLICY = "none"
_NOT_OF_WORLD = ("params_file", "policy", "trust_policy")


def node_command(
    python: str | None = None,
    *,
    node: str = "world",
    params_files: Sequence[str | Path] = (),
    **parameters: bool | int | float | str,
) -> list[str]:
    """Return the argument vector that runs a node.

    Args:
        python: interpreter of the environment to run it in; by default the present one.
        node: ``world`` or ``policy``.
        params_files: ROS parameter files; later ones override earlier ones.
        parameters: of the node; they override the files.

    Raises:
        ValueError: for a parameter that is not a finite number, a bool or a string.
    """
    command = [python or sys.executable, "-m", "mirage_sim.ros", node]
    arguments = [word for path in params_files for word in ("--params-file", str(path))]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={_as_yaml(name, value)}"]
    return [*command, "--ros-args", *arguments] if arguments else command


def node_environment() -> dict[str, str]:
    """Return the environment variables to add for a node. Other ROS participants keep their own.

    The Fast DDS profile provides a shared-memory segment that holds several images; Fast DDS has renamed its variable.
    The ROS wheels set a guard variable, which a child in another environment must not inherit, or it does not find its
    libraries.
    """
    profile = str(FASTDDS.resolve())
    return {
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "",
    }


def processes(arguments: Mapping[str, str], python: str | None = None) -> dict[str, Any]:
    """Return what a launch starts.

    Args:
        arguments: launch arguments as words: parameters of the world, where an empty word keeps the value of the
            parameter file; ``params_file``, a parameter file that overrides ``configs/ros``; ``policy`` and
            ``trust_policy`` of the policy node.
        python: interpreter of the nodes; by default the present one.

    Returns:
        ``world`` and, with a policy, ``policy``: the argument vectors; ``environment``: variables to add for both;
        ``rviz``: path of the RViz configuration.

    Raises:
        ValueError: for an unknown argument, or a word that is not a valid value.
        FileNotFoundError: for a file that does not exist.
    """
    params_file, policy, trust_policy = (arguments.get(name, "") for name in _NOT_OF_WORLD)
    own_files = [Path(params_file).expanduser().resolve()] if params_file else []
    for path in own_files:
        check_file(path)
    world = parsed(WorldParameters, {name: word for name, word in arguments.items() if name not in _NOT_OF_WORLD})
    WorldParameters(**world)  # checks that the files of the start exist
    found: dict[str, Any] = {
        "world": node_command(python, params_files=[WORLD_PARAMETERS, *own_files], **world),
        "environment": node_environment(),
        "rviz": str(RVIZ.resolve()),
    }
    if policy not in ("", NO_POLICY):
        stamped = arguments.get("enable_stamped_cmd_vel", "")
        words = {"policy": policy, "trust_policy": trust_policy, "enable_stamped_cmd_vel": stamped}
        values, files = parsed(PolicyParameters, words), [POLICY_PARAMETERS, *own_files]
        PolicyParameters(**values)  # checks the policy's file
        found["policy"] = node_command(python, node="policy", params_files=files, **values)
    return found


def _as_yaml(name: str, value: Any) -> str:
    """Return JSON, which is YAML: quotes keep ``"10"`` a string, and ``10.0`` stays a double."""
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError(f"{name}: expected a bool, a number or a string, got {value!r}")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{name}: expected a finite number, got {value!r}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Write :func:`processes` of a JSON object of arguments to stdout; on bad ones write a line to stderr, return 2."""
    (words,) = sys.argv[1:] if argv is None else argv
    try:
        found = processes(json.loads(words))
    except (ValueError, OSError) as error:
        sys.stderr.write(f"mirage_sim: error: {' '.join(str(error).split())}\n")
        return 2
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
