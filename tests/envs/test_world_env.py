import os
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.error import DependencyNotInstalled, InvalidAction, ResetNeeded
from gymnasium.utils.env_checker import check_env, data_equivalence

MODES = ["twist", "discrete", "se3"]


def play(env, steps=6, seed=3):
    """Frames of a fixed sequence of random actions."""
    env.action_space.seed(seed)
    return [env.step(env.action_space.sample()) for _ in range(steps)]


def frames(transitions):
    return np.stack([observation for observation, *_ in transitions])


@pytest.mark.parametrize("observation", ["rgb", "dict"])
@pytest.mark.parametrize("mode", MODES)
def test_check_env_passes_without_warnings(make, mode, observation, display):
    env = make(action_mode=mode, observation=observation)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)


@pytest.mark.parametrize("mode", MODES)
def test_same_seed_same_episode(make, mode):
    one, other = make(action_mode=mode, observation="dict"), make(action_mode=mode, observation="dict")
    first, second = one.reset(seed=11), other.reset(seed=11)
    assert data_equivalence(first, second, exact=True)
    for a, b in zip(play(one), play(other), strict=True):
        assert data_equivalence(a, b, exact=True)


def test_seeds_differ_in_start_and_generated_content(make):
    env = make()
    first = {env.reset(seed=seed)[0].tobytes() for seed in range(12)}
    assert len(first) == 3  # every start frame comes up
    env.reset(seed=0, options={"start": 0})
    one = frames(play(env))
    env.reset(seed=1, options={"start": 0})
    assert not np.array_equal(one, frames(play(env)))


def test_options_do_not_change_later_resets(make, starts):
    one, other = make(), make()
    one.reset(seed=5)
    other.reset(seed=5, options={"image": starts[1]})
    assert np.array_equal(one.reset()[0], other.reset()[0])


def test_first_frame_is_the_start_image(make, starts):
    env = make()
    observation, info = env.reset(options={"start": 2})
    assert np.array_equal(observation, starts[2])
    assert info["remembered"] == 1.0
    assert np.array_equal(info["c2w"], np.eye(4, dtype=np.float32))
    observation, _ = env.reset(options={"image": starts[1], "fov_deg": 75})
    assert np.array_equal(observation, starts[1])
    assert env.unwrapped.world.camera.K[1, 1].item() == pytest.approx(24 / np.tan(np.radians(37.5)), rel=1e-5)


def test_info_has_documented_entries(make):
    env = make()
    _, info = env.reset(seed=0)
    common = {"c2w", "time", "frames", "remembered", "remembered_mask", "memory_bytes", "memory_points"}
    assert set(info) == common | {"explored_m2", "collision", "clearance"}
    assert info["time"] == info["explored_m2"] == 0.0
    observation, reward, terminated, truncated, after = env.step(np.array([1.0, 1.0]))
    assert set(after) == set(info)
    assert np.array_equal(after["frames"], observation[None])
    assert after["time"] == pytest.approx(0.1)
    assert after["remembered_mask"].shape == (48, 64)
    assert after["remembered"] == pytest.approx(after["remembered_mask"].mean())
    assert after["memory_bytes"] > info["memory_bytes"] > 0
    assert after["memory_points"] > info["memory_points"] > 0
    assert reward == after["explored_m2"] > 0
    assert not terminated
    assert not truncated


def test_dict_observation_agrees_with_info(make):
    env = make(observation="dict")
    env.reset(seed=0)
    observation, *_, info = env.step(np.array([0.5, -1.0]))
    assert np.array_equal(observation["pose"], info["c2w"])
    assert np.array_equal(observation["remembered"].astype(bool), info["remembered_mask"])
    assert (observation["depth"] > 0).all()
    assert observation in env.observation_space


def test_returned_arrays_are_copies(make):
    env, untouched = make(observation="dict"), make(observation="dict")
    for each in (env, untouched):
        each.reset(seed=0)
    observation, *_, info = env.step(np.array([1.0, 0.0]))
    untouched.step(np.array([1.0, 0.0]))
    for array in [*observation.values(), info["c2w"], info["remembered_mask"]]:
        array[...] = 0
    assert data_equivalence(env.step(np.array([1.0, 0.0])), untouched.step(np.array([1.0, 0.0])), exact=True)


def test_standing_still_has_no_reward_and_writes_nothing(make):
    env = make()
    env.reset(seed=0)
    *_, info = env.step(np.zeros(2))
    for _ in range(3):
        _, reward, *_, after = env.step(np.zeros(2))
        assert reward == 0.0
        assert after["memory_points"] == info["memory_points"]


def test_snapshot_and_restore_replay_bit_for_bit(make):
    env = make(observation="dict")
    env.reset(seed=1)
    play(env)
    snapshot = env.unwrapped.snapshot()
    first = play(env, seed=8)
    env.reset(seed=99)
    play(env, seed=9)
    env.unwrapped.restore(snapshot)
    second = play(env, seed=8)
    for a, b in zip(first, second, strict=True):
        assert data_equivalence(a, b, exact=True)


def test_restore_returns_moment_and_rewinds_resets(make):
    env = make()
    env.reset(seed=1)
    *_, (observation, *_) = play(env)
    snapshot = env.unwrapped.snapshot()
    later = env.reset()[0]
    again, info = env.unwrapped.restore(snapshot)
    assert np.array_equal(again, observation)
    assert info["memory_points"] == snapshot.world.state.map.points
    assert np.array_equal(env.reset()[0], later)


def test_forks_are_independent_and_share_the_networks(make):
    env = make(observation="dict")
    env.reset(seed=1)
    play(env)
    left, right = env.unwrapped.fork(2)
    expected = play(env, seed=4)
    play(left, seed=5)
    for a, b in zip(expected, play(right, seed=4), strict=True):
        assert data_equivalence(a, b, exact=True)
    assert left.world.model is right.world.model is env.unwrapped.world.model


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_fork_requires_a_positive_number(make, n):
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="n: expected a positive integer"):
        env.unwrapped.fork(n)


@pytest.mark.parametrize("call", [lambda e: e.step(np.zeros(2)), lambda e: e.snapshot(), lambda e: e.fork(2)])
def test_calls_before_reset_are_rejected(make, call):
    with pytest.raises(ResetNeeded, match=r"expected reset\(\) first"):
        call(make().unwrapped)


def test_invalid_actions_change_nothing(make):
    env, untouched = make(), make()
    for each in (env, untouched):
        each.reset(seed=2)
    for action in ([2.0, 0.0], [np.nan, 0.0], "x", np.zeros(3)):
        with pytest.raises(InvalidAction):
            env.unwrapped.step(action)
    assert np.array_equal(frames(play(env)), frames(play(untouched)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"imagge": "x"}, r"options: expected keys of .*got \['imagge'\]"),
        ({"image": np.zeros((4, 4, 3), np.uint8)}, "image: expected sides of 16 to 8192"),
        ({"image": np.zeros((48, 64, 3))}, "image: expected a path or a uint8 array"),
        ({"image": None}, "image: expected a path .*, got None, which is what cv2.imread returns"),
        ({"image": None, "start": 1}, "image, start: expected at most one"),
        ({"image": torch.zeros(48, 64, 3)}, "image: expected .*, got a tensor, torch.float32 .*tensor.numpy"),
        ({"image": 5}, "image: expected a path or a uint8 array .*, got int"),
        ({"start": 3}, r"start: expected an index in \[0, 3\), got 3"),
        ({"start": -1}, "start: expected an index"),
        ({"start": 0.5}, "start: expected an index"),
        ({"start": 0, "image": np.zeros((48, 64, 3), np.uint8)}, "image, start: expected at most one"),
        ({"fov_deg": 180}, "fov_deg: expected .* got 180"),
        ({"fov_deg": float("nan")}, "fov_deg: expected .* got nan"),
        ({"fov_deg": "wide"}, "fov_deg: expected a number, got 'wide'"),
    ],
)
def test_invalid_options_change_nothing(make, options, message):
    env, untouched = make(), make()
    for each in (env, untouched):
        each.reset(seed=2)
    with pytest.raises(ValueError, match=message):
        env.reset(seed=77, options=options)
    assert np.array_equal(frames(play(env)), frames(play(untouched)))
    assert np.array_equal(env.reset()[0], untouched.reset()[0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"action_mode": "fly"}, "action_mode: expected"),
        ({"observation": "text"}, "observation: expected 'rgb' or 'dict', got 'text'"),
        ({"task": "win"}, "task: expected"),
        ({"world": 5}, "world: expected the name of a configuration or a WorldModel, got int"),
        ({"starts": np.zeros((48, 64, 3), np.uint8)}, "starts: expected a uint8 array"),
    ],
)
def test_invalid_arguments_are_rejected(model, starts, arguments, message):
    with pytest.raises(ValueError, match=message):
        gymnasium.make("MirageWorld-v0", **{"world": model, "starts": starts, **arguments})


def test_unknown_render_mode_is_rejected(model, starts):
    from mirage_sim.envs.world_env import MirageWorldEnv

    with pytest.raises(ValueError, match="render_mode: expected"):
        MirageWorldEnv(model, starts=starts, render_mode="ansi")


def test_human_rendering_shows_every_frame_in_one_window(make, display):
    env = make(render_mode="human")
    assert not display  # no window before there is something to see
    observation, _ = env.reset(seed=0)
    assert np.array_equal(display[1][1][1], observation[..., ::-1])
    play(env, steps=2)
    env.close()
    env.close()
    assert [name for name, _ in display] == ["namedWindow", "imshow", "imshow", "imshow", "destroyWindow"]


def test_human_rendering_without_display_is_rejected(make, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(DependencyNotInstalled, match="needs a display"):
        make(render_mode="human").reset(seed=0)


def test_stock_wrappers(make, model):
    env = make(render_mode="rgb_array", max_episode_steps=4)
    env = wrappers.RecordEpisodeStatistics(wrappers.FrameStackObservation(wrappers.ClipAction(env), 3))
    observation, _ = env.reset(seed=0)
    assert observation.shape == (3, *model.size, 3)
    total = 0.0
    for step in range(4):
        observation, reward, terminated, truncated, info = env.step(np.array([3.0, 0.5], np.float32))
        total += reward
        assert truncated == (step == 3)
    assert info["episode"]["r"] == pytest.approx(total)
    assert np.array_equal(observation[-1], env.render())


def test_record_video(make, tmp_path):
    pytest.importorskip("moviepy", reason="gymnasium's RecordVideo writes with moviepy")
    env = wrappers.RecordVideo(make(render_mode="rgb_array"), str(tmp_path), episode_trigger=lambda episode: True)
    env.reset(seed=0)
    play(env, steps=5)
    env.close()
    (video,) = tmp_path.glob("*.mp4")
    import cv2

    capture = cv2.VideoCapture(str(video))
    read = [capture.read() for _ in range(7)]
    assert [ok for ok, _ in read] == [True] * 6 + [False]
    assert read[0][1].shape == (48, 64, 3)


def test_vector_environment(model, starts):
    env = gymnasium.make_vec("MirageWorld-v0", num_envs=2, vectorization_mode="sync", world=model, starts=starts)
    observation, info = env.reset(seed=0)
    assert observation.shape == (2, *model.size, 3)
    observation, reward, *_, info = env.step(env.action_space.sample())
    assert reward.shape == (2,)
    assert info["memory_points"].shape == (2,)
    env.close()


def test_import_registers_without_loading_torch():
    program = (
        "import sys, mirage_sim, gymnasium\n"
        "assert 'MirageWorld-v0' in gymnasium.registry\n"
        "assert 'torch' not in sys.modules and 'cv2' not in sys.modules, 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


WITHOUT_OPENCV = """
import sys
sys.modules["cv2"] = None  # an import of it fails now, as it does where the system lacks libGL
import gymnasium, numpy, PIL.Image, pytest
import mirage_sim
from support.toy_world import toy_model, toy_starts

PIL.Image.fromarray(toy_starts(1)[0]).resize((200, 100)).save(sys.argv[1])
env = gymnasium.make("MirageWorld-v0", world=toy_model(), starts=toy_starts(), render_mode="rgb_array")
for options in (None, {"image": sys.argv[1]}):
    env.reset(seed=0, options=options)
    frame, *_ = env.step(numpy.array([1.0, 0.3], numpy.float32))
    assert numpy.array_equal(frame, env.render())
import mirage_sim.agents.rollout, mirage_sim.cli, mirage_sim.evaluation.runner, mirage_sim.training
env = gymnasium.make("MirageWorld-v0", world=toy_model(), starts=toy_starts(), render_mode="human")
with pytest.raises(gymnasium.error.DependencyNotInstalled, match="needs OpenCV"):
    env.reset(seed=0)
env.close()
"""


def test_only_windows_need_opencv(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", WITHOUT_OPENCV, str(tmp_path / "start.png")]
    subprocess.run(command, env=environment, check=True)
