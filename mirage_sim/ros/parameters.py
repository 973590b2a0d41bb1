"""Parameters of both nodes: each is declared here once, with type, default, range and description.

The files in ``configs/ros``, from which the launch file takes its arguments, and the tables in ``docs/ros2.md`` are
made from these declarations; ``python -m mirage_sim.ros.parameters`` writes the files and prints the tables. Only
:func:`declare` needs ROS.
"""

import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from mirage_sim.paths import CONFIGS

WORLDS = tuple(sorted(path.stem for path in (CONFIGS / "world").glob("*.yaml")))
MODES = ("realtime", "lockstep")
TRANSPORTS = ("raw", "compressed")
COLLISIONS = ("report", "block", "slide", "ignore")
SCRIPTED = "scripted"  # the agent that needs no file
_ROS_PARAMETERS = ("use_sim_time", "start_type_description_service")  # of every node
_LARGEST = 2**31 - 1  # no bound in practice


def _parameter(
    default: Any,
    description: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    read_only: bool = False,
) -> Any:
    about = {"description": description, "low": low, "high": high, "choices": choices, "read_only": read_only}
    return field(default=default, metadata=about)


@dataclass(frozen=True)
class Parameters:
    """Base class of the two tables. Every field is a ROS parameter.

    The metadata of a field holds ``description``, ``low`` and ``high`` (inclusive; None without bounds), ``choices``
    (empty without a restriction) and ``read_only`` (fixed when the node starts).

    Raises:
        ValueError: with the name of the first parameter that has a wrong type or is out of range.
    """

    def __post_init__(self) -> None:
        """Check all values; convert integers to floats where a float is declared."""
        for parameter in fields(self):
            object.__setattr__(self, parameter.name, checked(parameter, getattr(self, parameter.name)))


@dataclass(frozen=True)
class WorldParameters(Parameters):
    """Parameters of the node `mirage_world`."""

    world: str = _parameter("mini", "The learned world.", choices=WORLDS, read_only=True)
    device: str = _parameter("cpu", "Device of the networks: cpu, cuda, cuda:1, ...", read_only=True)
    mode: str = _parameter(
        "realtime", "Steps at frame_rate, or only by commands and ~/step.", choices=MODES, read_only=True
    )
    frame_rate: float = _parameter(10.0, "Images per second of simulation.", 1.0, 100.0)
    real_time_factor: float = _parameter(
        1.0, "Seconds of simulation per second of wall clock, realtime mode; 0: as fast as possible.", 0.0, 100.0
    )
    image_width: int = _parameter(
        0, "Width of published images in pixels; 0: the world's own, or in proportion.", 0, 8192
    )
    image_height: int = _parameter(
        0, "Height of published images in pixels; 0: the world's own, or in proportion.", 0, 8192
    )
    seed: int = _parameter(0, "Seed of the start image and of generated content, from the next reset on.", 0, _LARGEST)
    start_image: str = _parameter("", "Path of a start image, from the next reset on; empty: a built-in one.")
    start: str = _parameter(
        "", "Path of a saved world to start in (mirage recording import), from the next reset on; empty: a start image."
    )
    collisions: str = _parameter("report", "What an obstacle does to a motion.", choices=COLLISIONS, read_only=True)
    scan_rays: int = _parameter(360, "Rays of the range scan; 0: no scan.", 0, 3600, read_only=True)
    cmd_vel_timeout: float = _parameter(
        0.5, "Seconds of simulation without a command after which the robot stops; 0: never.", 0.0, 3600.0
    )
    enable_stamped_cmd_vel: bool = _parameter(False, "Take TwistStamped instead of Twist on cmd_vel.", read_only=True)
    publish_clock: bool = _parameter(True, "Publish /clock.", read_only=True)
    publish_tf: bool = _parameter(True, "Publish /tf and /tf_static, if tf2_msgs is installed.", read_only=True)
    jpeg_quality: int = _parameter(80, "Quality of the compressed images.", 1, 100)
    camera_height: float = _parameter(
        1.5, "Metres from base_link, on the floor, to the camera.", 0.05, 10, read_only=True
    )
    frame_prefix: str = _parameter("", "Prefix of the names of all frames, such as robot1/.", read_only=True)
    map_resolution: float = _parameter(0.05, "Edge of a cell of map in metres.", 0.01, 1.0)
    map_generated: bool = _parameter(True, "Show generated parts on map; otherwise they are unknown.")
    observe: bool = _parameter(
        False, "Fill the memory from the camera and the poses of a robot, until ~/start_here.", read_only=True
    )
    image_transport: str = _parameter(
        "raw", "How the observed robot sends its images.", choices=TRANSPORTS, read_only=True
    )

    def __post_init__(self) -> None:
        """Check all values, and that the start image or the saved world exists."""
        super().__post_init__()
        for name, path, kind in (("start_image", self.start_image, "an image"), ("start", self.start, "a saved world")):
            if path and not Path(path).is_file():
                raise ValueError(f"{name}: expected the path of {kind}, got {path!r}, not a file")
        if self.start and self.start_image:
            raise ValueError(f"start, start_image: expected at most one of them, got {self.start!r} and an image")

    def output_size(self, native: tuple[int, int]) -> tuple[int, int]:
        """Return the size ``(height, width)`` of published images for a world whose images have size `native`."""
        height, width = self.image_height, self.image_width
        if not height and not width:
            return native
        return (
            height or max(round(width * native[0] / native[1]), 1),
            width or max(round(height * native[1] / native[0]), 1),
        )


@dataclass(frozen=True)
class PolicyParameters(Parameters):
    """Parameters of the node `mirage_policy`."""

    policy: str = _parameter(
        "scripted", "The agent: scripted, or the path of a stable-baselines3 PPO zip.", read_only=True
    )
    trust_policy: bool = _parameter(
        False, "Load that zip. It holds pickled objects, which can run any code.", read_only=True
    )
    steps: int = _parameter(200, "Images per walk of the scripted agent.", 1, _LARGEST, read_only=True)
    enable_stamped_cmd_vel: bool = _parameter(
        False, "Publish TwistStamped instead of Twist on cmd_vel.", read_only=True
    )

    def __post_init__(self) -> None:
        """Check all values, and that the policy's file exists and is trusted."""
        super().__post_init__()
        if self.policy == SCRIPTED:
            return
        if not self.policy.endswith(".zip"):
            raise ValueError(f"policy: expected scripted or the path of a stable-baselines3 .zip, got {self.policy!r}")
        if not Path(self.policy).is_file():
            raise ValueError(f"policy: expected the path of a stable-baselines3 .zip, got {self.policy!r}, not a file")
        if not self.trust_policy:
            raise ValueError(f"trust_policy: expected true to load {self.policy}, which can run any code, got false")


Table = TypeVar("Table", bound=Parameters)


def checked(parameter: Field[Any], value: Any) -> Any:
    """Return a value in the type of a parameter.

    Raises:
        ValueError: if it has another type (integers may stand for floats) or is out of range.
    """
    kind, about = type(parameter.default), parameter.metadata
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not kind:
        raise ValueError(f"{parameter.name}: expected a value of type {kind.__name__}, got {value!r}")
    if about["choices"] and value not in about["choices"]:
        raise ValueError(f"{parameter.name}: expected one of {list(about['choices'])}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{parameter.name}: expected a finite number, got {value!r}")
    low, high = about["low"], about["high"]
    if low is not None and not low <= value <= high:
        raise ValueError(f"{parameter.name}: expected a value from {low} to {high}, got {value!r}")
    return value


def parsed(table: type[Parameters], words: Mapping[str, str]) -> dict[str, Any]:
    """Convert words of a command line to the types of their parameters. Empty words are left out.

    Raises:
        ValueError: for a name that is not in the table, or a word that is not a valid value.
    """
    known = {parameter.name: parameter for parameter in fields(table)}
    if unknown := sorted(set(words) - set(known)):
        raise ValueError(f"arguments: expected some of {sorted(known)}, got {unknown}")
    return {name: checked(known[name], _value(known[name], word)) for name, word in words.items() if word != ""}


def _value(parameter: Field[Any], word: str) -> Any:
    kind: Any = type(parameter.default)
    if kind is bool:
        if word.lower() not in ("true", "false"):
            raise ValueError(f"{parameter.name}: expected true or false, got {word!r}")
        return word.lower() == "true"
    try:
        return kind(word)
    except ValueError as error:
        names = {int: "an integer", float: "a number"}
        raise ValueError(f"{parameter.name}: expected {names[kind]}, got {word!r}") from error


def check_names(source: str, names: Iterable[str]) -> None:
    """Check that names are parameters of a node of this package. One file may hold those of both nodes.

    Raises:
        ValueError: with `source` and the unknown names.
    """
    known = {parameter.name for table in (WorldParameters, PolicyParameters) for parameter in fields(table)}
    known |= set(_ROS_PARAMETERS)
    if unknown := sorted(name for name in names if name not in known and not name.startswith("qos_overrides.")):
        raise ValueError(f"{source}: expected parameters among {sorted(known)}, got {unknown}")


def check_file(path: Path) -> None:
    """Check a ROS parameter file: it must name only known parameters in the sections of this package's nodes.

    Raises:
        FileNotFoundError: if it does not exist.
        ValueError: if it is not a ROS parameter file or has an unknown parameter.
    """
    import yaml

    if not path.is_file():
        raise FileNotFoundError(f"params_file: expected a ROS parameter file, got {path}, not a file")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        sections = [(str(node).split("/")[-1], dict(section["ros__parameters"])) for node, section in content.items()]
    except (AttributeError, KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"params_file: expected a ROS parameter file (NODE: ros__parameters: ...), got {path}"
        ) from error
    for node, parameters in sections:
        if node in ("*", "**", "mirage_world", "mirage_policy"):
            check_names(f"params_file {path}", (name for name in parameters if name != "qos_overrides"))


def declare(node: Any, table: type[Table], changed: Callable[[Table], None] | None = None) -> Table:
    """Declare a table's parameters on an rclpy node and validate them whenever they are set.

    Args:
        node: the node.
        table: whose fields are declared.
        changed: called with the new values after some were set, in the thread that set them.

    Returns:
        The values with which the node was started.

    Raises:
        rclpy.exceptions.ParameterException: for a value of a wrong type or out of range.
        ValueError: for another unusable value, or an unknown name on the command line or in a parameter file.
    """
    from rcl_interfaces.msg import SetParametersResult
    from rclpy.parameter import Parameter

    check_names("parameters", node._parameter_overrides)  # rclpy ignores names that are not declared
    names = [parameter.name for parameter in fields(table)]
    values = table(
        **{
            parameter.name: node.declare_parameter(parameter.name, parameter.default, _descriptor(parameter)).value
            for parameter in fields(table)
        }
    )

    def own(parameters: Sequence[Any]) -> dict[str, Any]:
        return {parameter.name: parameter.value for parameter in parameters if parameter.name in names}

    def floats(parameters: Sequence[Any]) -> list[Any]:
        """Replace integers where floats are declared, so that setting a parameter does not change its type."""
        return [
            Parameter(parameter.name, value=float(parameter.value))
            if type(getattr(values, parameter.name, None)) is float and type(parameter.value) is int
            else parameter
            for parameter in parameters
        ]

    def check(parameters: Sequence[Any]) -> Any:
        try:
            replace(values, **own(parameters))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def follow(parameters: Sequence[Any]) -> None:
        nonlocal values
        if changes := own(parameters):
            values = replace(values, **changes)
            if changed:
                changed(values)

    node.add_pre_set_parameters_callback(floats)
    node.set_parameters([node.get_parameter(name) for name in names if type(getattr(values, name)) is float])
    node.add_on_set_parameters_callback(check)
    node.add_post_set_parameters_callback(follow)
    return values


def _descriptor(parameter: Field[Any]) -> Any:
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, ParameterType

    types = {
        bool: ParameterType.PARAMETER_BOOL,
        int: ParameterType.PARAMETER_INTEGER,
        float: ParameterType.PARAMETER_DOUBLE,
        str: ParameterType.PARAMETER_STRING,
    }
    kind, about = type(parameter.default), parameter.metadata
    descriptor = ParameterDescriptor(
        name=parameter.name,
        type=types[kind],
        description=about["description"],
        read_only=about["read_only"],
        dynamic_typing=kind is float,  # so that integers may stand for floats
    )
    if about["choices"]:
        descriptor.additional_constraints = "one of: " + ", ".join(about["choices"])
    if about["low"] is not None and kind is float:
        descriptor.floating_point_range = [FloatingPointRange(from_value=about["low"], to_value=about["high"])]
    elif about["low"] is not None:
        descriptor.integer_range = [IntegerRange(from_value=about["low"], to_value=about["high"])]
    return descriptor


def _sentence(parameter: Field[Any]) -> str:
    """Return the description of a parameter with its choices or its range."""
    about = parameter.metadata
    if about["choices"]:
        return f"{about['description']} One of: {', '.join(about['choices'])}."
    if about["low"] is None or about["high"] == _LARGEST:
        return str(about["description"])
    return f"{about['description'].removesuffix('.')} ({about['low']:g} to {about['high']:g})."


def parameter_file(table: type[Parameters]) -> str:
    """Return a ROS parameter file with all parameters of a table and their defaults."""
    lines = [f"# {(table.__doc__ or '').strip().replace('`', '')} Made by: python -m mirage_sim.ros.parameters"]
    lines += ["/**:", "  ros__parameters:"]
    for parameter in fields(table):
        default = parameter.default or '""' if isinstance(parameter.default, str) else json.dumps(parameter.default)
        lines.append(f"    {parameter.name}: {default}  # {_sentence(parameter)}")
    return "\n".join(lines) + "\n"


def markdown_table(table: type[Parameters]) -> str:
    """Return a table in Markdown with all parameters of a table."""
    lines = ["| parameter | default | at run time | |", "|---|---|---|---|"]
    for parameter in fields(table):
        default = f"`{json.dumps(parameter.default)}`".replace('"', "").replace("``", "")
        settable = "fixed" if parameter.metadata["read_only"] else "settable"
        lines.append(f"| `{parameter.name}` | {default} | {settable} | {_sentence(parameter)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for _name, _table in (("world", WorldParameters), ("policy", PolicyParameters)):
        (CONFIGS / "ros" / f"{_name}.yaml").write_text(parameter_file(_table), encoding="utf-8")
        sys.stdout.write(f"{markdown_table(_table)}\n")
