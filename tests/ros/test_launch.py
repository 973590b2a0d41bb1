"""The launch file and what it starts. There are no wheels of ROS's ``launch``: small stand-ins take its place."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from mirage_sim.paths import CONFIGS
from mirage_sim.ros import launching
from mirage_sim.ros.settings import Settings

ROOT = Path(__file__).parent.parent.parent
LAUNCH_FILE = ROOT / "launch" / "world.launch.py"
NOT_PARAMETERS = {"params_file", "policy", "trust_policy", "rviz", "python"}


def test_a_command_is_python_module_files_parameters() -> None:
    command = launching.node_command(
        "/some/python", params_files=["/a b/x.yaml"], seed=3, frame_rate=10.0, mode="lockstep", publish_tf=False
    )
    assert command[:6] == ["/some/python", "-m", "mirage_sim.ros.node", "--ros-args", "--params-file", "/a b/x.yaml"]
    assert command[6:] == [
        *("-p", "seed:=3"),
        *("-p", "frame_rate:=10.0"),
        *("-p", 'mode:="lockstep"'),
        *("-p", "publish_tf:=false"),
    ]
    assert launching.node_command() == [sys.executable, "-m", "mirage_sim.ros.node"]


@pytest.mark.parametrize("value", [None, [1], float("nan"), float("inf")])
def test_what_is_no_parameter_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="seed: expected"):
        launching.node_command(seed=value)


@pytest.mark.parametrize("value", [True, 7, -2.5, 1e-7, "", "10", "true", "null", "a: b # c", 'quo"te', "Straße"])
def test_values_keep_their_type(value: Any) -> None:
    word = launching.node_command(x=value)[-1].removeprefix("x:=")
    read = yaml.safe_load(word if value != 1e-7 else "1.0e-07")  # YAML 1.1 wants the dot; ROS's own parser does not
    assert read == value
    assert type(read) is type(value)


def test_the_files_name_every_parameter_with_its_default() -> None:
    assert launching.default_parameters(launching.WORLD_PARAMETERS) == asdict(Settings())


def test_empty_words_leave_the_file_its_say(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("/**: {ros__parameters: {seed: 4}}\n")
    found = launching.processes({"seed": "", "frame_rate": "20", "publish_tf": "False", "params_file": str(own)})
    files = ["--params-file", str(launching.WORLD_PARAMETERS), "--params-file", str(own)]
    assert found["world"][4:] == [*files, "-p", "frame_rate:=20.0", "-p", "publish_tf:=false"]
    assert "policy" not in found
    assert Path(found["rviz"]).is_file()


def test_a_policy_is_a_second_process() -> None:
    words = {"policy": "a.zip", "trust_policy": "true", "enable_stamped_cmd_vel": "true", "seed": "1"}
    command = launching.processes(words, "/p")["policy"]
    assert command[:3] == ["/p", "-m", "mirage_sim.ros.policy_node"]
    assert command[6:] == [
        *("-p", 'policy:="a.zip"'),
        *("-p", "trust_policy:=true"),
        *("-p", "enable_stamped_cmd_vel:=true"),
    ]
    assert "policy" not in launching.processes({"policy": "none", "trust_policy": "false"})


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ({"sped": "1"}, "arguments: expected some of"),
        ({"seed": "1.5"}, "seed: expected an integer, got '1.5'"),
        ({"frame_rate": "fast"}, "frame_rate: expected a number, got 'fast'"),
        ({"publish_tf": "maybe"}, "publish_tf: expected true or false, got 'maybe'"),
        ({"params_file": "/nowhere.yaml"}, "params_file: expected a ROS parameter file, got /nowhere.yaml"),
    ],
)
def test_bad_arguments_are_one_line(words: dict[str, str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert launching.main([json.dumps(words)]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert named in streams.err
    assert len(streams.err.splitlines()) == 1


def test_it_needs_neither_torch_nor_ros() -> None:
    program = "import sys; from mirage_sim.ros import launching as l; l.main(['{}']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert json.loads(first)["world"][0] == sys.executable
    assert not {"torch", "rclpy", "cv2"} & set(second.split())


def test_the_environment_is_of_our_nodes_only() -> None:
    before = dict(os.environ)
    environment = launching.node_environment()
    assert dict(os.environ) == before
    profile = environment["FASTDDS_DEFAULT_PROFILES_FILE"]
    assert environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == profile
    assert Path(profile).is_absolute()
    assert Path(profile).is_file()


def test_the_configuration_of_rviz_shows_what_there_is() -> None:
    config = yaml.safe_load(launching.RVIZ.read_text())
    displays = config["Visualization Manager"]["Displays"]
    topics = {display["Topic"]["Value"]: display["Topic"] for display in displays if "Topic" in display}
    pictures = {f"camera/{name}" for name in ("image_raw", "depth/image_raw", "remembered")}
    assert set(topics) == {"memory/points", "scan", "odom"} | pictures
    assert topics["memory/points"]["Durability Policy"] == "Transient Local"
    assert config["Visualization Manager"]["Global Options"]["Fixed Frame"] == "map"


# --- the launch file


class _Recorded:
    """Keeps what it was made of."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.args, self.kwargs = args, kwargs


class _Argument(_Recorded):
    def __init__(self, name: str, *, default_value: str, description: str, choices: list[str] | None = None):
        assert choices is None or default_value in choices  # the real one refuses this, too
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
    ):
        super().__init__()
        self.command = [executable, *(arguments or [])]
        self.package, self.environment, self.on_exit = package, additional_env, on_exit


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


def started(launch_file: ModuleType, **given: str) -> list[_Node]:
    """What the launch starts, given these arguments."""
    entities = launch_file.generate_launch_description().args[0]
    context = {name: argument.default for name, argument in declared(launch_file).items()} | given
    return entities[-1].kwargs["function"](context)


def test_the_launch_file_imports_nothing_of_this_package() -> None:
    """The Python of ``ros2`` may lack all that the package depends on."""
    tree = ast.parse(LAUNCH_FILE.read_text())
    compile(tree, str(LAUNCH_FILE), "exec")
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.split(".")[0] for name in imported}
    assert roots - set(sys.stdlib_module_names) == {"launch", "launch_ros"}


def test_every_parameter_is_an_argument_with_a_description(launch_file: ModuleType) -> None:
    arguments = declared(launch_file)
    assert set(arguments) == set(asdict(Settings())) | NOT_PARAMETERS
    for argument in arguments.values():
        assert len(argument.description) > 10
        assert argument.description.endswith(".")
    for name, default in asdict(Settings()).items():
        assert arguments[name].default == ""
        if isinstance(default, bool):
            assert arguments[name].choices == ["", "true", "false"]
    for setting in Settings.__dataclass_fields__.values():
        if setting.metadata["choices"]:
            assert set(arguments[setting.name].choices or ()) == {"", *setting.metadata["choices"]}
    worlds = {path.stem for path in (CONFIGS / "world").glob("*.yaml")}
    assert set(arguments["world"].choices or ()) == {"", *worlds}


def test_the_python_is_that_of_the_active_environment(launch_file: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIRTUAL_ENV", "/some/venv")
    assert declared(launch_file)["python"].default == "/some/venv/bin/python"
    monkeypatch.delenv("VIRTUAL_ENV")
    assert declared(launch_file)["python"].default == sys.executable


def test_by_default_it_starts_the_world_alone(launch_file: ModuleType) -> None:
    (world,) = started(launch_file, python=sys.executable)
    assert world.command == launching.processes({})["world"]
    assert world.environment == launching.node_environment()
    assert world.on_exit is not None  # nothing is left running without its world


def test_it_starts_a_policy_and_rviz_when_asked(launch_file: ModuleType) -> None:
    world, policy, rviz = started(launch_file, python=sys.executable, policy="scripted", rviz="true", seed="3")
    assert world.command[-2:] == ["-p", "seed:=3"]
    assert policy.command[1:3] == ["-m", "mirage_sim.ros.policy_node"]
    assert (rviz.package, rviz.command) == ("rviz2", ["rviz2", "-d", str(launching.RVIZ.resolve())])
    assert rviz.environment is None


def test_a_python_without_the_package_is_told(launch_file: ModuleType, tmp_path: Path) -> None:
    alien = tmp_path / "python"
    alien.write_text("#!/bin/sh\nexit 1\n")
    alien.chmod(0o755)
    with pytest.raises(RuntimeError, match="give python:=PATH"):
        started(launch_file, python=str(alien))


# --- what it starts, really started


def test_the_commands_run_with_what_launch_adds(tmp_path: Path) -> None:
    pytest.importorskip("rclpy", reason="ROS 2 is not installed")
    from rcl_interfaces.srv import GetParameters

    from mirage_sim.ros.client import Client
    from mirage_sim.ros.node_process import NodeProcess, private_domain

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
