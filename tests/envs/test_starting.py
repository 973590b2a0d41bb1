"""Where episodes start: measured depth, several observations, saved worlds."""

import gymnasium
import numpy as np
import pytest
import torch
from support.toy_world import SIZE

from mirage_sim.envs.world_env import MirageWorldEnv
from mirage_sim.geometry import Camera, se3_exp
from mirage_sim.world import World

FAR = 3.0
TURNED = se3_exp(torch.tensor([0.0, 0.0, 0.0, 0.0, 1.0, 0.0])).numpy()  # by 57 degrees to the right


def image(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), np.uint8)
    return coarse.repeat(8, axis=0).repeat(8, axis=1)


def flat(metres: float = FAR) -> np.ndarray:
    return np.full(SIZE, metres, np.float32)


@pytest.fixture
def env(model) -> MirageWorldEnv:
    return MirageWorldEnv(model, action_mode="se3", observation="dict", task="none")


@pytest.fixture(scope="module")
def lab(model, tmp_path_factory):
    """A saved world with three keyframes, at the second step of an episode."""
    world = World(model)
    world.reset(image(0), depth=flat())
    for seed, turn in ((1, 1.0), (2, -1.0)):
        c2w = se3_exp(torch.tensor([0.0, 0.0, 0.0, 0.0, turn, 0.0]))
        world.observe(image(seed), Camera(c2w, world.camera.K, world.camera.size), flat())
    world.step(world.camera)
    path = tmp_path_factory.mktemp("saved") / "lab, 2. Stock.world"
    world.save(path)
    return path


def still(env):
    return env.step(np.zeros(6, np.float32))


def test_measured_depth_of_the_start_image_is_kept(env):
    observation, _ = env.reset(seed=0, options={"image": image(0), "depth": flat()})
    np.testing.assert_allclose(observation["depth"], FAR, atol=1e-4)
    assert env.world.state.keyframes.entries[0].measured
    observation, *_ = still(env)
    np.testing.assert_allclose(observation["depth"][4:-4, 4:-4], FAR, atol=0.02)


def test_depth_may_be_a_file(env, tmp_path):
    np.save(tmp_path / "depth.npy", flat(2.0))
    observation, _ = env.reset(seed=0, options={"image": image(0), "depth": tmp_path / "depth.npy"})
    np.testing.assert_allclose(observation["depth"], 2.0, atol=1e-4)


def test_all_observations_are_in_memory(env):
    entries = [
        {"image": image(0), "c2w": np.eye(4), "depth": flat()},
        {"image": image(1), "c2w": TURNED, "depth": flat(), "fov_deg": 60.0},
    ]
    observation, info = env.reset(seed=0, options={"observations": entries})
    np.testing.assert_array_equal(observation["rgb"], image(0))
    np.testing.assert_array_equal(info["c2w"], np.eye(4))
    world = env.world.fork(1)[0]
    shown = world.step(Camera(torch.from_numpy(TURNED), world.camera.K, world.camera.size)).frame
    np.testing.assert_allclose(shown.astype(int), image(1), atol=1)


def test_observation_with_intrinsics_uses_them(env):
    K = np.array([[40.0, 0, 30.0], [0, 41.0, 20.0], [0, 0, 1]])
    env.reset(seed=0, options={"observations": [{"image": image(0), "c2w": np.eye(4), "K": K}]})
    # cut to the aspect ratio and centred: fx stays, because the image has the world's size
    assert float(env.world.camera.K[0, 0]) == pytest.approx(40.0)


def test_saved_world_goes_on_where_it_was(env, lab):
    _, info = env.reset(seed=0, options={"world": lab})
    assert info["time"] == 0.0 and len(env.world.state.keyframes) == 3
    np.testing.assert_array_equal(info["c2w"], np.eye(4))
    observation, info = env.reset(seed=0, options={"world": str(lab), "start": 1})
    np.testing.assert_array_equal(observation["rgb"], image(1))
    np.testing.assert_allclose(info["c2w"], TURNED, atol=1e-6)


def test_seeds_choose_keyframes_as_starts(model, lab):
    env = MirageWorldEnv(model, starts=lab)
    seen = []
    for seed in range(12):
        observation, _ = env.reset(seed=seed)
        again, _ = env.reset(seed=seed)
        np.testing.assert_array_equal(observation, again)
        seen.append(next(i for i in range(3) if np.array_equal(observation, image(i))))
    assert set(seen) == {0, 1, 2}
    observation, _ = env.reset(seed=0, options={"start": 2})
    np.testing.assert_array_equal(observation, image(2))
    observation, _ = env.reset(seed=0, options={"image": image(7)})
    np.testing.assert_array_equal(observation, image(7))
    (fork,) = env.fork(1)
    observation, _ = fork.reset(seed=0, options={"start": 2})
    np.testing.assert_array_equal(observation, image(2))


def test_equal_seeds_repeat_in_a_saved_world(model, lab):
    first, second = (MirageWorldEnv(model, starts=str(lab)) for _ in range(2))
    for env in (first, second):
        env.reset(seed=4)
    action = np.float32([0.4, 0.9])
    for _ in range(2):
        np.testing.assert_array_equal(first.step(action)[0], second.step(action)[0])


def test_vector_env_starts_in_a_saved_world(model, lab):
    envs = gymnasium.make_vec("MirageWorld-v0", 2, vectorization_mode="vector_entry_point", world=model, starts=lab)
    observations, _ = envs.reset(seed=[0, 1])
    single = MirageWorldEnv(model, starts=lab)
    for number, observation in enumerate(observations):
        np.testing.assert_array_equal(observation, single.reset(seed=number)[0])
    envs.step(envs.action_space.sample() * 0)
    envs.close()


def test_replaced_file_is_loaded_again(model, lab, tmp_path, env):
    path = tmp_path / "place.world"
    path.write_bytes(lab.read_bytes())
    env.reset(seed=0, options={"world": path})
    world = World(model)
    world.reset(image(9))
    world.save(path)
    observation, _ = env.reset(seed=0, options={"world": path, "start": 0})
    np.testing.assert_array_equal(observation["rgb"], image(9))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": image(0), "world": "lab.world"}, "options: expected at most one of image, observations and world"),
        ({"world": 3}, "world: expected the path of a saved world, got int"),
        ({"observations": []}, r"observations: expected a list of dicts"),
        ({"observations": "ab"}, r"observations: expected a list of dicts"),
        ({"observations": [{"image": image(0)}]}, r"observations\[0\]: expected .* got \['image'\]"),
        (
            {"observations": [{"image": image(0), "c2w": np.eye(3)}]},
            r"observations\[0\]: c2w: expected numbers \[4, 4\]",
        ),
        ({"observations": [{"image": image(0), "c2w": 2 * np.eye(4)}]}, "c2w|camera"),
        (
            {"observations": [{"image": image(0), "c2w": np.eye(4), "K": "K"}]},
            r"observations\[0\]: K: expected numbers",
        ),
        ({"image": image(0), "depth": flat()[:4]}, "depth: expected"),
        ({"image": image(0), "depth": flat(5000.0)}, "depth: expected metres"),
        ({"image": image(0), "depth": -flat()}, "depth: expected"),
    ],
)
def test_wrong_starts_are_refused(env, options, message):
    before, _ = env.reset(seed=0)
    moment = env.snapshot().world
    with pytest.raises(ValueError, match=message):
        env.reset(seed=1, options=options)
    assert env.snapshot().world is moment


def test_wrong_keyframes_and_files_are_refused(env, model, lab, tmp_path):
    with pytest.raises(ValueError, match="start: expected the index of one of 3 keyframes, got 3"):
        env.reset(options={"world": lab, "start": 3})
    with pytest.raises(FileNotFoundError, match=r"none\.world"):
        env.reset(options={"world": tmp_path / "none.world"})
    with pytest.raises(FileNotFoundError, match=r"none\.world"):
        MirageWorldEnv(model, starts=tmp_path / "none.world")
    (tmp_path / "text.world").write_text("no world")
    with pytest.raises(ValueError, match=r"text\.world"):
        MirageWorldEnv(model, starts=tmp_path / "text.world")


def test_env_observes_at_any_time(env):
    env.reset(seed=0, options={"image": image(0), "depth": flat()})
    still(env)
    _, info = env.observe(image(1), TURNED, flat())
    np.testing.assert_array_equal(info["c2w"], np.eye(4))
    assert info["time"] == pytest.approx(0.1)
    world = env.world.fork(1)[0]
    shown = world.step(Camera(torch.from_numpy(TURNED), world.camera.K, world.camera.size)).frame
    np.testing.assert_allclose(shown.astype(int), image(1), atol=1)


def test_env_goes_on_from_an_observation_with_move(env):
    env.reset(seed=0, options={"image": image(0), "depth": flat()})
    observation, info = env.observe(image(1), TURNED, flat(), move=True)
    np.testing.assert_array_equal(observation["rgb"], image(1))
    np.testing.assert_allclose(info["c2w"], TURNED, atol=1e-6)
    observation, *_ = still(env)
    np.testing.assert_allclose(observation["rgb"].astype(int), image(1), atol=1)


def test_wrong_env_observations_change_nothing(env):
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.observe(image(0))
    env.reset(seed=0)
    moment = env.snapshot().world
    for arguments in ({"c2w": np.eye(3)}, {"depth": flat()[:4]}, {"c2w": np.full((4, 4), np.nan)}):
        with pytest.raises(ValueError, match="expected"):
            env.observe(image(1), **arguments)
    assert env.snapshot().world is moment
