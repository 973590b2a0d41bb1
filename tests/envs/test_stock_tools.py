"""Tools of Gymnasium's and Python's own take the environment as it is."""

import copy
import multiprocessing
import pickle
import warnings

import cloudpickle
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.utils.env_checker import data_equivalence

from mirage_sim.envs.actions import Actions
from mirage_sim.envs.window import frames_per_second
from mirage_sim.geometry import VelocityLimits

FORWARD = np.array([1.0, 0.0], np.float32)


@pytest.mark.parametrize(("dt", "rate"), [(0.1, 10), (0.25, 4), (1 / 3, 3), (0.3, 1 / 0.3)])
def test_whole_frame_rates_are_ints(dt, rate):
    assert frames_per_second(dt) == rate
    assert type(frames_per_second(dt)) is type(rate)


def test_metadata_has_frame_rate_of_the_world(make):
    fps = make().metadata["render_fps"]
    assert fps == 10 and type(fps) is int


def test_recorded_video_has_frames_and_rate(make, tmp_path):
    pytest.importorskip("moviepy", reason="MoviePy is not installed")
    from mirage_sim.data.video_io import video_facts

    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="gymnasium")
        env = wrappers.RecordVideo(make(render_mode="rgb_array"), str(tmp_path / "videos"), disable_logger=True)
        env.reset(seed=0)
        for _ in range(4):
            env.step(FORWARD)
        env.close()
    (video,) = tmp_path.glob("videos/*.mp4")
    assert video_facts(video) == (10.0, 5, (48, 64))


@pytest.mark.parametrize(
    ("mode", "forward", "left"), [("twist", 0.15, 6.0), ("discrete", 0.15, 6.0), ("se3", 0.15, 6.0)]
)
def test_keys_move_as_documented(mode, forward, left):
    actions = Actions(mode, VelocityLimits())
    keys = actions.keys()
    motions = {key: actions.motion(action).numpy() for key, action in keys.items() if action in actions.space}
    assert motions.keys() == keys.keys() >= set("wasd")
    assert motions["w"][2, 3] == pytest.approx(forward) and motions["s"][2, 3] == pytest.approx(-forward)
    for key, sign in (("a", 1.0), ("d", -1.0)):  # the new forward axis points to the left, -x
        assert motions[key][0, 2] == pytest.approx(-sign * np.sin(np.radians(left)), abs=1e-6)
    assert ("wa" in motions) == (mode != "discrete")


@pytest.mark.parametrize(("mode", "settings"), [("twist", {"noop": np.zeros(2, np.float32)}), ("discrete", {})])
def test_play_drives_by_keys(make, monkeypatch, mode, settings):
    pygame = pytest.importorskip("pygame", reason="pygame is not installed")
    matplotlib = pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    backend = matplotlib.get_backend()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where its choice of a backend cannot be had
        from gymnasium.utils.play import play

    matplotlib.use(backend)  # play chooses another
    actions = []

    def press(before, after, action, *others):
        actions.append(action)
        keys = {1: pygame.K_w, 2: pygame.K_ESCAPE}
        if len(actions) in keys:
            pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=keys[len(actions)]))

    play(make(action_mode=mode, render_mode="rgb_array"), callback=press, seed=0, fps=None, **settings)
    assert len(actions) == 2
    assert np.array_equal(actions[1], FORWARD if mode == "twist" else 0)


def go_on(pickled, queue):
    queue.put(pickle.loads(pickled).step(FORWARD))


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps], ids=["pickle", "cloudpickle"])
def test_environment_can_be_pickled_at_any_time(make, dumps):
    env = make(observation="dict", task="goal", collisions="block", scan=5, render_mode="rgb_array")
    fresh = pickle.loads(dumps(env))
    assert data_equivalence(fresh.reset(seed=2), env.reset(seed=2), exact=True)
    for _ in range(3):
        there, here = pickle.loads(dumps(env)), env
        assert data_equivalence(there.step(FORWARD), here.step(FORWARD), exact=True)
        assert np.array_equal(there.render(), here.render())
    assert data_equivalence(there.reset(), here.reset(), exact=True), "the generator of later resets travels, too"


@pytest.mark.slow
def test_environment_continues_in_another_process(make):
    env = make()
    env.reset(seed=1)
    env.step(FORWARD)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=go_on, args=(pickle.dumps(env), queue), daemon=True)
    process.start()
    assert data_equivalence(queue.get(timeout=120), env.step(FORWARD), exact=True)
    process.join()


def test_snapshots_forks_and_worlds_can_be_pickled(make):
    env = make()
    env.reset(seed=1)
    env.step(FORWARD)
    (fork,) = env.unwrapped.fork(1)
    world = env.unwrapped.world
    snapshot, fork, there = pickle.loads(pickle.dumps((env.unwrapped.snapshot(), fork, world)))
    assert np.array_equal(there.step(there.camera).frames, world.fork(1)[0].step(world.camera).frames)
    expected = env.step(FORWARD)
    assert data_equivalence(fork.step(FORWARD), expected, exact=True)
    env.reset(seed=5)
    env.unwrapped.restore(snapshot)
    assert data_equivalence(env.step(FORWARD), expected, exact=True)


def test_networks_can_be_copied_after_use(model, make):
    make().reset(seed=0)
    frame = np.zeros((1, 3, 1, 48, 64), np.float32)
    with torch.inference_mode():
        expected = model.codec.encode(torch.from_numpy(frame))
        assert torch.equal(copy.deepcopy(model.codec).encode(torch.from_numpy(frame)), expected)
