"""The agents as functions, and the loop of agent and world over the middleware, in two processes."""

import subprocess
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed: pip install mirage_sim[ros], or source a system ROS")

import os

from builtin_interfaces.msg import Time
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry

from benchmarks.ros_client import Driver
from benchmarks.ros_process import START_S, NodeProcess, middleware, private_domain
from mirage_sim.agents.policies import ScriptedPolicy
from mirage_sim.envs.actions import DISCRETE_COMMANDS
from mirage_sim.ros import conversions, launching
from mirage_sim.ros.policy_node import learned_agent, scripted_agent
from mirage_sim.world import WorldModel


def test_scripted_agent_repeats_walks() -> None:
    rng = np.random.default_rng(0)
    depths = rng.uniform(0.5, 5.0, (25, 12, 16)).astype(np.float32)
    frame = np.zeros((12, 16, 3), np.uint8)
    agent = scripted_agent(10)
    commands = [agent(frame, depth) for depth in depths]
    for first in (0, 10, 20):
        walk = ScriptedPolicy(10)
        for depth, command in zip(depths[first : first + 10], commands[first : first + 10], strict=True):
            assert np.array_equal(command, walk({"depth": depth}))


@pytest.fixture(scope="module")
def zips(model: WorldModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Untrained policies with different observations and actions."""
    pytest.importorskip("stable_baselines3", reason="stable-baselines3 is not installed")
    from mirage_sim.envs.sb3 import PPO, SmallCNN

    folder, paths = tmp_path_factory.mktemp("policies"), {}
    kinds = {
        "discrete": ({"action_mode": "discrete"}, "CnnPolicy", {"features_extractor_class": SmallCNN}),
        "twist": ({"action_mode": "twist"}, "CnnPolicy", {"features_extractor_class": SmallCNN}),
        "dict": ({"observation": "dict"}, "MultiInputPolicy", {}),
        "se3": ({"action_mode": "se3"}, "CnnPolicy", {"features_extractor_class": SmallCNN}),
    }
    for name, (arguments, policy, extractor) in kinds.items():
        env = gymnasium.make("MirageWorld-v0", world=model, disable_env_checker=True, **arguments)
        ppo = PPO(policy, env, n_steps=2, batch_size=2, seed=0, device="cpu", policy_kwargs=extractor)
        paths[name] = folder / f"{name}.zip"
        ppo.save(paths[name])
    return paths


@pytest.mark.parametrize("kind", ["discrete", "twist"])
def test_learned_agent_takes_frames_of_any_size(kind: str, zips: dict[str, Path]) -> None:
    from mirage_sim.envs.sb3 import PPO

    agent, ppo = learned_agent(str(zips[kind]), trust=True), PPO.load(zips[kind], device="cpu")
    frames = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
    for frame in frames:
        action, _ = ppo.predict(frame, deterministic=True)
        expected = list(DISCRETE_COMMANDS.values())[int(action)] if kind == "discrete" else np.clip(action, -1, 1)
        assert np.allclose(agent(frame, np.zeros((48, 64))), expected)
        wide = frame.repeat(10, axis=0).repeat(10, axis=1)
        assert np.allclose(agent(wide, np.zeros((480, 640))), expected)


@pytest.mark.parametrize(
    ("kind", "trust", "named"),
    [
        ("discrete", False, "trust_policy"),
        ("dict", True, "policy: expected one trained on frames"),
        ("se3", True, "policy: expected one with twists or the discrete actions"),
    ],
)
def test_learned_agent_refuses_unusable_policies(kind: str, trust: bool, named: str, zips: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=named):
        learned_agent(str(zips[kind]), trust)


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"policy": "wander"}, "policy: expected scripted or the path"),
        ({"steps": "many"}, "steps"),
    ],
)
def test_bad_parameters_give_one_line_and_code_1(parameters: dict[str, Any], named: str) -> None:
    command = launching.node_command(node="policy", **parameters)
    environment = {**os.environ, **middleware(private_domain())}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=START_S)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "FATAL" in line)
    assert named in line


def test_policy_and_world_loop_in_lockstep(tmp_path: Path) -> None:
    """The agent answers each image once, so that all images equal those of the plain environment."""
    own = tmp_path / "own.yaml"
    own.write_text("/**: {ros__parameters: {steps: 12, mode: lockstep}}\n")
    found = launching.processes({"policy": "scripted", "seed": "3", "params_file": str(own)})
    steps = 18  # more than one walk
    images: dict[int, np.ndarray] = {}  # by step
    domain = private_domain()
    with Driver(
        domain, on_image=lambda image: images.update({round(image.seconds * 10): conversions.frame_of(image.message)})
    ) as client:
        client.node.create_subscription(Twist, "cmd_vel", lambda twist: None, 100)  # another subscriber of the commands
        with NodeProcess(domain, found["world"]) as world:
            client.connect(world)
            with NodeProcess(domain, found["policy"]) as policy:
                assert client.until(lambda: len(images) > steps)
                assert policy.stop() == 0
            assert world.stop() == 0
    env = gymnasium.make("MirageWorld-v0", disable_env_checker=True, observation="dict", task="none")
    observation, _ = env.reset(seed=3)
    agent = scripted_agent(12)
    for step in range(steps + 1):
        np.testing.assert_array_equal(images[step], observation["rgb"], f"step {step}")
        observation, *_ = env.step(agent(observation["rgb"], observation["depth"]))


def test_policy_and_world_loop_in_real_time() -> None:
    words = {"policy": "scripted", "enable_stamped_cmd_vel": "true", "scan_rays": "0", "real_time_factor": "0"}
    found = launching.processes(words)
    commands: list[TwistStamped] = []
    turned: list[float] = []
    domain = private_domain()
    with Driver(domain, command=TwistStamped) as client:
        client.node.create_subscription(TwistStamped, "cmd_vel", commands.append, 100)
        client.node.create_subscription(Odometry, "odom", lambda odom: turned.append(odom.twist.twist.angular.z), 100)
        with NodeProcess(domain, found["policy"]) as policy, NodeProcess(domain, found["world"]):
            # the agent starts first, and turns left when images arrive
            assert client.until(lambda: sum(rate > 1.0 for rate in turned) >= 5 and len(commands) >= 5)
            answers = [command for command in commands if command.header.stamp.sec or command.header.stamp.nanosec]
            assert len({conversions.seconds_of(answer.header.stamp) for answer in answers}) == len(answers) >= 4
            assert {answer.header.frame_id for answer in answers} == {"base_link"}
            for _ in range(2):
                policy.interrupt()
                time.sleep(0.05)
            assert policy.end() == 0
            # the robot is stopped; that last command has no stamp
            assert client.until(lambda: commands[-1].header.stamp == Time())
            last = commands[-1].twist
            assert (last.linear.x, last.angular.z) == (0.0, 0.0)
