"""The launch file and the processes that it starts. There is no wheel of ``launch``: small classes replace it."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from mirage_sim.ros import launching
from mirage_sim.ros.parameters import PolicyParameters, WorldParameters, parameter_file

ROOT = Path(__file__).parent.parent.parent
LAUNCH_FILE = ROOT / "launch" / "world.launch.py"
NOT_PARAMETERS = {"params_file", "policy", "trust_policy", "rviz", "python"}
NOT_PARAMETERS |= {"namespace", "name", "use_sim_time", "respawn", "log_level"}
LEVEL = ["--ros-args", "--log-level", "info"]


def test_node_command_has_files_then_parameters() -> None:
    command = launching.node_command(
        "/some/python", params_files=["/a b/x.yaml"], seed=3, frame_rate=10.0, mode="lockstep", publish_tf=False
    )
    assert command[:5] == ["/some/python", "-m", "mirage_sim.ros", "world", "--ros-args"]
    assert command[5:] == [
        *("--params-file", "/a b/x.yaml"),
        *("-p", "seed:=3"),
        *("-p", "frame_rate:=10.0"),
        *("-p", 'mode:="lockstep"'),
        *("-p", "publish_tf:=false"),
    ]
    assert launching.node_command() == [sys.executable, "-m", "mirage_sim.ros", "world"]


@pytest.mark.parametrize("value", [None, [1], float("nan"), float("inf")])
def test_node_command_refuses_other_types(value: Any) -> None:
    with pytest.raises(ValueError, match="seed: expected"):
        launching.node_command(seed=value)


@pytest.mark.parametrize("value", [True, 7, -2.5, 1e-7, "", "10", "true", "null", "a: b # c", 'quo"te', "Straße"])
def test_node_command_keeps_types_of_values(value: Any) -> None:
    word = launching.node_command(x=value)[-1].removeprefix("x:=")
    read = yaml.safe_load(word if value != 1e-7 else "1.0e-07")  # YAML 1.1 needs the dot; the parser of ROS does not
    assert read == value
    assert type(read) is type(value)


def test_parameter_files_are_those_of_the_tables() -> None:
    for path, table in (
        (launching.WORLD_PARAMETERS, WorldParameters),
        (launching.POLICY_PARAMETERS, PolicyParameters),
    ):
        assert path.read_text(encoding="utf-8") == parameter_file(table)
        values = yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["ros__parameters"]
        assert table(**values) == table()


def test_empty_arguments_keep_values_of_files(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("/**: {ros__parameters: {seed: 4}}\n")
    found = launching.processes({"seed": "", "frame_rate": "20", "publish_tf": "False", "params_file": str(own)})
    files = ["--params-file", str(launching.WORLD_PARAMETERS), "--params-file", str(own)]
    assert found["world"][5:] == [*files, "-p", "frame_rate:=20.0", "-p", "publish_tf:=false"]
    assert "policy" not in found
    assert Path(found["rviz"]).is_file()


def test_policy_is_a_second_process(tmp_path: Path) -> None:
    policy = tmp_path / "a.zip"
    policy.touch()
    words = {"policy": str(policy), "trust_policy": "true", "enable_stamped_cmd_vel": "true", "seed": "1"}
    command = launching.processes(words, "/p")["policy"]
    assert command[:5] == ["/p", "-m", "mirage_sim.ros", "policy", "--ros-args"]
    assert command[7:] == [
        *("-p", f'policy:="{policy}"'),
        *("-p", "trust_policy:=true"),
        *("-p", "enable_stamped_cmd_vel:=true"),
    ]
    assert "policy" not in launching.processes({"policy": "none", "trust_policy": "false"})


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"sped": "1"}, "arguments: expected some of"),
        ({"seed": "1.5"}, "seed: expected an integer, got '1.5'"),
        ({"frame_rate": "1000"}, "frame_rate: expected a value from 1.0 to 100.0, got 1000.0"),
        ({"mode": "sometimes"}, "mode: expected one of"),
        ({"frame_rate": "fast"}, "frame_rate: expected a number, got 'fast'"),
        ({"publish_tf": "maybe"}, "publish_tf: expected true or false, got 'maybe'"),
        ({"policy": "foo"}, "policy: expected scripted or the path of a stable-baselines3 .zip, got 'foo'"),
        ({"policy": "/nowhere.zip"}, "policy: expected the path of a stable-baselines3 .zip, got '/nowhere.zip'"),
        ({"start_image": "/nowhere.png"}, "start_image: expected the path of an image, got '/nowhere.png'"),
        ({"start": "/nowhere.world"}, "start: expected the path of a saved world, got '/nowhere.world'"),
        ({"params_file": "/nowhere.yaml"}, "params_file: expected a ROS parameter file, got /nowhere.yaml"),
    ],
)
def test_bad_arguments_give_one_line(words: dict[str, str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launching.main([json.dumps(words)]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert named in streams.err
    assert len(streams.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("/**: {ros__parameters: {seed: 4, sede: 5}}", "got ['sede']"),
        ("mirage_world: {ros__parameters: {frame_rat: 5}}", "got ['frame_rat']"),
        ("seed: 4", "params_file: expected a ROS parameter file (NODE: ros__parameters: ...)"),
        ("{", "params_file: expected a ROS parameter file (NODE: ros__parameters: ...)"),
    ],
)
def test_bad_params_file_is_refused(
    content: str, named: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(content)
    assert launching.main([json.dumps({"params_file": str(path)})]) == 2
    assert named in capsys.readouterr().err


def test_params_file_may_hold_parameters_of_other_nodes(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("/amcl: {ros__parameters: {alpha1: 0.2}}\n/**: {ros__parameters: {use_sim_time: true, steps: 5}}")
    assert str(path) in launching.processes({"params_file": str(path)})["world"]


def test_launching_needs_neither_torch_nor_ros() -> None:
    program = "import sys; from mirage_sim.ros import launching as l; l.main(['{}']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert json.loads(first)["world"][0] == sys.executable
    assert not {"torch", "rclpy", "cv2"} & set(second.split())


def test_node_environment_leaves_process_unchanged() -> None:
    before = dict(os.environ)
    environment = launching.node_environment()
    assert dict(os.environ) == before
    profile = environment["FASTDDS_DEFAULT_PROFILES_FILE"]
    assert environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == profile
    assert Path(profile).is_absolute()
    assert Path(profile).is_file()


def test_rviz_configuration_uses_published_topics() -> None:
    config = yaml.safe_load(launching.RVIZ.read_text())
    displays = config["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"]: display["Topic"] for display in displays if "Topic" in display}
    images = {f"camera/{name}" for name in ("image_raw", "depth/image_raw", "remembered")}
    assert set(topics) == {"memory/points", "scan", "odom"} | images
    assert topics["memory/points"]["Durability Policy"] == "Transient Local"
    assert config["Visualization Manager"]["Global Options"]["Fixed Frame"] == "map"


# --- the launch file


class _Recorded:
    """Keeps its arguments."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.args, self.kwargs = args, kwargs


class _Argument(_Recorded):
    def __init__(self, name: str, *, default_value: str, description: str, choices: list[str] | None = None):
        assert choices is None or default_value in choices  # as in launch
        super().__init__(name)
        self.name, self.default, self.description, self.choices = name, default_value, description, choices


class _Node(_Recorded):
    def __init__(
        self,
        *,
        executable: str,
        package: str | None = None,
        parameters: list[Any] | None = None,
        arguments: list[str] | None = None,
        additional_env: dict[str, str] | None = None,
        output: str = "log",
        on_exit: Any = None,
        name: str | None = None,
        namespace: str | None = None,
        respawn: bool = False,
        respawn_delay: float | None = None,
    ):
        super().__init__()
        self.command = [executable, *(arguments or [])]
        self.package, self.environment, self.on_exit = package, additional_env, on_exit
        self.name, self.namespace, self.respawn, self.parameters = name, namespace, respawn, parameters


class _Configuration(_Recorded):
    def perform(self, context: dict[str, str]) -> str:
        return context[self.args[0]]


@pytest.fixture
def launch_file(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The launch file as a module."""
    stand_ins = {
        "launch": {"LaunchDescription": _Recorded},
        "launch.actions": {"DeclareLaunchArgument": _Argument, "OpaqueFunction": _Recorded, "Shutdown": _Recorded},
        "launch.substitutions": {"LaunchConfiguration": _Configuration},
        "launch_ros": {},
        "launch_ros.actions": {"Node": _Node},
    }
    for name, content in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(**content))  # type: ignore[arg-type]
    specification = importlib.util.spec_from_file_location("world_launch", LAUNCH_FILE)
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    yield module


def declared(launch_file: ModuleType) -> dict[str, _Argument]:
    entities = launch_file.generate_launch_description().args[0]
    return {entity.name: entity for entity in entities if isinstance(entity, _Argument)}


def started(launch_file: ModuleType, **arguments: str) -> list[_Node]:
    """Return what the launch starts with these arguments."""
    entities = launch_file.generate_launch_description().args[0]
    context = {name: argument.default for name, argument in declared(launch_file).items()} | arguments
    return entities[-1].kwargs["function"](context)


def test_launch_file_does_not_import_the_package() -> None:
    """The Python of ``ros2`` may lack the dependencies of the package."""
    tree = ast.parse(LAUNCH_FILE.read_text())
    compile(tree, str(LAUNCH_FILE), "exec")
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in imported}
    assert roots - set(sys.stdlib_module_names) == {"launch", "launch_ros"}


def test_every_parameter_is_a_described_argument(launch_file: ModuleType) -> None:
    arguments = declared(launch_file)
    parameters = {parameter.name: parameter for parameter in fields(WorldParameters)}
    assert set(arguments) == set(parameters) | NOT_PARAMETERS
    for argument in arguments.values():
        assert len(argument.description) > 10
        assert argument.description.endswith(".")
    for name, parameter in parameters.items():
        argument = arguments[name]
        assert argument.default == ""
        assert argument.description.startswith(parameter.metadata["description"].removesuffix("."))
        choices = ("true", "false") if isinstance(parameter.default, bool) else parameter.metadata["choices"]
        assert argument.choices == (["", *choices] if choices else None)


def test_python_defaults_to_active_environment(launch_file: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/some/venv")
    assert declared(launch_file)["python"].default == "/some/venv/bin/python"
    monkeypatch.delenv("VIRTUAL_ENV")
    assert declared(launch_file)["python"].default == sys.executable


def test_launch_starts_only_the_world_by_default(launch_file: ModuleType) -> None:
    (world,) = started(launch_file, python=sys.executable)
    assert world.command == [*launching.processes({})["world"], *LEVEL]
    assert (world.name, world.namespace, world.respawn) == ("mirage_world", None, False)
    assert world.environment == launching.node_environment()
    assert world.on_exit is not None  # the launch ends with its world


def test_launch_starts_policy_and_rviz_on_request(launch_file: ModuleType) -> None:
    world, policy, rviz = started(launch_file, python=sys.executable, policy="scripted", rviz="true", seed="3")
    assert world.command[-5:] == ["-p", "seed:=3", *LEVEL]
    assert policy.command[1:4] == ["-m", "mirage_sim.ros", "policy"]
    assert (rviz.package, rviz.command) == ("rviz2", ["rviz2", "-d", str(launching.RVIZ.resolve())])
    assert rviz.environment is None


def test_launch_names_the_nodes_of_a_robot(launch_file: ModuleType) -> None:
    words = {"namespace": "robot1", "name": "simulator", "log_level": "debug", "use_sim_time": "false"}
    world, policy = started(launch_file, python=sys.executable, policy="scripted", frame_prefix="robot1/", **words)
    assert (world.name, world.namespace) == ("simulator", "robot1")
    assert world.command[-5:] == ["-p", 'frame_prefix:="robot1/"', "--ros-args", "--log-level", "debug"]
    assert policy.namespace == "robot1"
    assert policy.name is None
    assert policy.parameters == [{"use_sim_time": False}]


def test_respawned_world_does_not_end_the_launch(launch_file: ModuleType) -> None:
    (world,) = started(launch_file, python=sys.executable, respawn="true")
    assert world.respawn
    assert world.on_exit is None


def test_missing_python_is_reported(launch_file: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="python: expected the path of a Python interpreter, got '/nope'"):
        started(launch_file, python="/nope")


def test_python_without_package_is_reported(launch_file: ModuleType, tmp_path: Path) -> None:
    alien = tmp_path / "python"
    alien.write_text("#!/bin/sh\nexit 1\n")
    alien.chmod(0o755)
    with pytest.raises(RuntimeError, match="pass python:=PATH"):
        started(launch_file, python=str(alien))


# --- the processes


def test_launched_world_has_parameters_of_all_sources(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from rcl_interfaces.srv import GetParameters

    from benchmarks.ros_client import Client
    from benchmarks.ros_process import NodeProcess, private_domain

    own = tmp_path / "own.yaml"
    own.write_text("/**: {ros__parameters: {seed: 4, jpeg_quality: 55, mode: lockstep}}\n")
    words = {"params_file": str(own), "seed": "6", "frame_rate": "20", "publish_tf": "false"}
    found = launching.processes(words)
    command = [*found["world"], "--ros-args", "-r", "__ns:=/robot"]
    domain, service = private_domain(), "/robot/mirage_world/get_parameters"
    with NodeProcess(domain, command) as process, Client(domain) as client:
        assert client.until(client.service(GetParameters, service).service_is_ready)
        names = ["seed", "frame_rate", "publish_tf", "jpeg_quality", "mode", "start_image"]
        answer = client.ask(GetParameters, service, GetParameters.Request(names=names))
        seed, rate, tf, quality, mode, image = answer.values
        assert (seed.integer_value, rate.double_value, tf.bool_value) == (6, 20.0, False)
        assert (quality.integer_value, mode.string_value, image.string_value) == (55, "lockstep", "")
        assert process.stop() == 0
