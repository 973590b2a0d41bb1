"""What ``launch/world.launch.py`` starts: argument vectors and environments, without a line of ROS.

The launch file runs in whatever Python ``ros2`` has, which need not have this package's dependencies. So it asks the
Python that will run the nodes: ``python -m mirage_sim.ros.launching JSON`` writes the processes to stdout.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mirage_sim.paths import CONFIGS

WORLD_MODULE = "mirage_sim.ros.node"
POLICY_MODULE = "mirage_sim.ros.policy_node"
WORLD_PARAMETERS = CONFIGS / "ros" / "world.yaml"
POLICY_PARAMETERS = CONFIGS / "ros" / "policy.yaml"
RVIZ = CONFIGS / "ros" / "world.rviz"
FASTDDS = CONFIGS / "fastdds.xml"
NO_POLICY = "none"
_OWN = ("params_file", "policy", "trust_policy")  # arguments that are not parameters of the world


def node_command(
    python: str | None = None,
    *,
    module: str = WORLD_MODULE,
    params_files: Sequence[str | Path] = (),
    **parameters: bool | int | float | str,
) -> list[str]:
    """The argument vector that runs a node of this package.

    Args:
        python: interpreter of the environment to run it in; by default this one.
        module: of the node.
        params_files: ROS parameter files; later ones win.
        parameters: of the node, which win over the files.

    Raises:
        ValueError: for a parameter that is no finite number, bool or string.
    """
    command = [python or sys.executable, "-m", module]
    arguments = [word for path in params_files for word in ("--params-file", str(path))]
    for name, value in parameters.items():
        arguments += ["-p", f"{name}:={_as_yaml(name, value)}"]
    return [*command, "--ros-args", *arguments] if arguments else command


def node_environment() -> dict[str, str]:
    """What a node's environment has beyond its parent's. For our nodes only: other participants keep their own.

    A shared-memory segment that holds several images; two names, because Fast DDS changed its own. And the guard of the
    ROS wheels must not come from a parent in another environment, or their libraries are not found.
    """
    profile = str(FASTDDS.resolve())
    return {
        "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        "FASTRTPS_DEFAULT_PROFILES_FILE": profile,
        "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "",
    }


def processes(arguments: Mapping[str, str], python: str | None = None) -> dict[str, Any]:
    """What a launch consists of.

    Args:
        arguments: of the launch, as words. Parameters of the world (``configs/ros/world.yaml`` lists them), where an
            empty word leaves what the file says; ``params_file``, an own file on top of that one; ``policy`` and
            ``trust_policy`` of the policy node.
        python: interpreter of the nodes; by default this one.

    Returns:
        ``world`` and, with a policy, ``policy``: the argument vectors; ``environment`` of both; ``rviz``: the path of
        its configuration.

    Raises:
        ValueError: for an unknown argument, or a word that is not of its parameter's type.
        FileNotFoundError: for a parameter file that does not exist.
    """
    own = {name: arguments.get(name, "") for name in _OWN}
    files: list[Path] = [WORLD_PARAMETERS]
    if own["params_file"]:
        files.append(Path(own["params_file"]).expanduser().resolve())
        if not files[-1].is_file():
            raise FileNotFoundError(f"params_file: expected a ROS parameter file, got {files[-1]}, not a file")
    world = typed({key: word for key, word in arguments.items() if key not in _OWN}, WORLD_PARAMETERS)
    found: dict[str, Any] = {
        "world": node_command(python, params_files=files, **world),
        "environment": node_environment(),
        "rviz": str(RVIZ.resolve()),
    }
    if own["policy"] not in ("", NO_POLICY):
        stamped = {"enable_stamped_cmd_vel": arguments.get("enable_stamped_cmd_vel", "")}
        of_policy = typed({"policy": own["policy"], "trust_policy": own["trust_policy"], **stamped}, POLICY_PARAMETERS)
        files = [POLICY_PARAMETERS, *files[1:]]
        found["policy"] = node_command(python, module=POLICY_MODULE, params_files=files, **of_policy)
    return found


def default_parameters(path: Path) -> dict[str, Any]:
    """The parameters in one of this package's own parameter files, by name."""
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    return dict(content["/**"]["ros__parameters"])


def typed(words: Mapping[str, str], path: Path) -> dict[str, Any]:
    """Parameters from words, of the types that they have in a parameter file; empty words are left out.

    Raises:
        ValueError: for a name that is not in the file, or a word that is not of the type.
    """
    defaults = default_parameters(path)
    if unknown := sorted(set(words) - set(defaults)):
        raise ValueError(f"arguments: expected some of {sorted([*defaults, *_OWN])}, got {unknown}")
    return {name: _typed(name, word, type(defaults[name])) for name, word in words.items() if word != ""}


def _typed(name: str, word: str, kind: type) -> Any:
    if kind is bool:
        if word.lower() not in ("true", "false"):
            raise ValueError(f"{name}: expected true or false, got {word!r}")
        return word.lower() == "true"
    try:
        return kind(word)
    except ValueError as error:
        kinds = {int: "an integer", float: "a number"}
        raise ValueError(f"{name}: expected {kinds[kind]}, got {word!r}") from error


def _as_yaml(name: str, value: Any) -> str:
    """JSON is YAML, and its quotes keep a string a string: ``"10"`` stays one, ``10.0`` stays a double."""
    if not isinstance(value, (bool, int, float, str)):
        raise ValueError(f"{name}: expected a bool, a number or a string, got {value!r}")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{name}: expected a finite number, got {value!r}") from error


def main(argv: Sequence[str] | None = None) -> int:
    """Write what :func:`processes` gives for a JSON object of arguments; 2 after one line on stderr if it is bad."""
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
