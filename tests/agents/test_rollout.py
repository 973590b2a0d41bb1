import json
from pathlib import Path
from typing import Any

import gymnasium
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image
from support.rollouts import rollout_of
from support.toy_world import SIZE

from mirage_sim.agents.policies import RandomPolicy, ReplayPolicy, ScriptedPolicy
from mirage_sim.agents.visualize import coloured_points
from mirage_sim.data.clips import Clip
from mirage_sim.data.video_io import video_facts
from mirage_sim.geometry import Camera, VelocityLimits
from mirage_sim.world import World, WorldModel


def test_replay_saves_video_images_and_metrics(toy_config: dict[str, Any], clip: Clip, tmp_path: Path) -> None:
    result = rollout_of(toy_config | {"policy": "replay", "output": str(tmp_path / "out")})
    steps = 2 * (len(clip) - 1)
    assert result["steps"] == steps
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".rollout",
        "map.png",
        "metrics.json",
        "rollout.mp4",
        "sheet.png",
    ]
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(metrics["per_step"]["psnr"]) == steps + 1
    assert metrics["per_step"]["psnr"][0] == 50.0  # the first frame is the true one
    assert metrics["psnr_out"] == pytest.approx(np.mean(metrics["per_step"]["psnr"][1 : len(clip)]))
    assert metrics["psnr_out_first_frame_repeated"] == 50.0  # of a walk whose frames are all the same

    video = imageio_ffmpeg.read_frames(str(tmp_path / "out" / "rollout.mp4"))
    facts = next(video)
    assert facts["codec"] == "h264" and facts["pix_fmt"].startswith("yuv420p")
    assert facts["size"] == (3 * 3 * SIZE[1], 3 * SIZE[0] + 20)
    assert len(list(video)) == steps + 1


@pytest.mark.parametrize("policy", ["scripted", "random"])
def test_policies_repeat_with_the_same_seed(toy_config: dict[str, Any], tmp_path: Path, policy: str) -> None:
    figures = []
    for name in ("a", "b"):
        rollout_of(toy_config | {"policy": policy, "steps": 6, "seed": 3, "output": str(tmp_path / name)})
        figures.append(json.loads((tmp_path / name / "metrics.json").read_text()))
        assert figures[-1].pop("steps_per_s") > 0
    assert figures[0] == figures[1]
    assert "psnr_out" not in figures[0]
    pictures = [(tmp_path / name / "sheet.png").read_bytes() for name in ("a", "b")]
    assert pictures[0] == pictures[1]


@pytest.mark.parametrize("kind", ["mp4", "npz", "mcap", "minari"])
def test_rollouts_start_in_a_saved_world(kind: str, toy_config: dict[str, Any], tmp_path: Path, model, starts) -> None:
    for library in {"mcap": ("rosbags",), "minari": ("minari",)}.get(kind, ()):
        pytest.importorskip(library)
    world = World(model, starts)
    world.reset(start=2)
    world.step(world.camera)
    world.save(tmp_path / "lab.world")
    settings = toy_config | {"start": str(tmp_path / "lab.world"), "image": None, "policy": "random", "steps": 3}
    result = rollout_of(settings | {"format": kind, "output": str(tmp_path / "out")})
    assert result["steps"] == 3 and result["memory_points"] > 0
    if kind == "npz":
        with np.load(next((tmp_path / "out").glob("*.npz")), allow_pickle=False) as archive:
            np.testing.assert_array_equal(archive["observations/rgb"][0], starts[2])
    elif kind == "mp4":
        assert np.asarray(Image.open(tmp_path / "out" / "map.png")).std() > 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"start": -1}, ValueError, "start: expected an index of at least 0"),
        ({"start": "none.world"}, ValueError, "image, start: expected at most one"),
        ({"start": "none.world", "image": None}, FileNotFoundError, "none.world"),
        ({"policy": "clever"}, ValueError, "policy: expected one of .*'scripted'.*, got 'clever'"),
        ({"steps": 0}, ValueError, "steps: expected a positive integer, got 0"),
        ({"steps": "many"}, ValueError, "steps: .*'many'"),
        ({"episodes": 0}, ValueError, "episodes: expected a positive integer, got 0"),
        ({"worlds": 0}, ValueError, "worlds: expected a positive integer, got 0"),
        ({"episodes": 2}, ValueError, "episodes: expected 1 with format=mp4, got 2"),
        ({"format": "gif"}, ValueError, "format: expected one of .*'npz'.*, got 'gif'"),
        ({"output": "minari"}, ValueError, "output: expected a folder, got 'minari'.* format="),
        ({"seed": -1}, ValueError, "seed: expected an integer from 0, got -1"),
        ({"policy": "replay", "walk": "nowhere.safetensors"}, FileNotFoundError, "walk: .*nowhere"),
        ({"policy": "replay", "walk": 10_000}, ValueError, "walk: expected an index in"),
        ({"env": {"action_mode": "se3", "task": "none"}}, ValueError, "env.action_mode: expected 'twist'"),
        ({"image": "nowhere.png"}, FileNotFoundError, "image: .*nowhere"),
    ],
)
def test_unusable_settings_are_named(
    toy_config: dict[str, Any], tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        rollout_of(toy_config | {"output": str(tmp_path)} | change)


def test_replay_follows_the_poses_of_the_walk(model: WorldModel, clip: Clip) -> None:
    env = gymnasium.make("MirageWorld-v0", world=model, action_mode="se3", observation="dict")
    observation, _ = env.reset(options={"image": clip.frames[0].numpy()})
    policy = ReplayPolicy(clip)
    expected = torch.linalg.inv(clip.c2w[0]) @ torch.cat([clip.c2w, clip.c2w.flip(0)[1:]])
    for pose in expected[1:]:
        observation, *_ = env.step(policy(observation))
        np.testing.assert_allclose(observation["pose"], pose.numpy(), atol=2e-5)


def test_too_fast_walk_is_refused(clip: Clip) -> None:
    far = clip.c2w.clone()
    far[2, 0, 3] += 1.0
    with pytest.raises(ValueError, match="walk: expected steps of at most 0.150 m"):
        ReplayPolicy(Clip(**{**clip.__dict__, "c2w": far}))


def walked(depths: list[np.ndarray], steps: int) -> np.ndarray:
    policy = ScriptedPolicy(steps)
    return np.stack([policy({"depth": depth}) for depth in depths])


def test_scripted_policy_looks_around_walks_and_returns() -> None:
    open_room = np.full((12, 16), 5.0, dtype=np.float32)
    commands = walked([open_room] * 120, 120)
    assert (commands[:40] == [0.0, 1.0]).all()
    np.testing.assert_allclose(commands[80:], -commands[40:80][::-1])
    assert commands[40:80, 0].max() == 1.0
    assert np.abs(commands).max() <= 1.0


def test_scripted_policy_turns_to_open_space() -> None:
    near, far = np.full((12, 16), 1.5, dtype=np.float32), np.full((12, 16), 9.0, dtype=np.float32)
    depths = [near] * 60
    depths[15] = far  # seen after 15 of 20 turns to the left: 5 turns to the right lead back to it
    commands = walked(depths, 60)
    assert (commands[20:25] == [0.0, -1.0]).all()
    assert commands[25, 0] == 1.0


def test_scripted_policy_turns_away_from_walls() -> None:
    wall = np.full((12, 16), 0.8, dtype=np.float32)
    wall[:, :5] = 4.0  # room on the left
    assert walked([wall], 2).tolist() == [[0.0, 1.0]]  # two steps leave no time for looking around
    assert walked([wall[:, ::-1]], 2).tolist() == [[0.0, -1.0]]


def test_random_actions_depend_on_the_seed() -> None:
    space = gymnasium.spaces.Box(-1.0, 1.0, (2,))
    first = [RandomPolicy(space, 5)({}) for _ in range(2)]
    np.testing.assert_array_equal(*first)
    assert (RandomPolicy(space, 6)({}) != first[0]).any()


def test_points_have_the_colour_of_their_frame(world: World) -> None:
    red, green = (np.zeros((*SIZE, 3), dtype=np.uint8) for _ in range(2))
    red[..., 0], green[..., 1] = 200, 150
    red[:, SIZE[1] // 2 :, 2] = 100  # the right half of the first frame is purple
    world.reset(image=red)
    points, colours = coloured_points(world.state.map, [red])
    assert len(points) == len(colours) == world.state.map.points > 0
    assert (colours[points[:, 0] < 0] == [200, 0, 0]).all()
    assert (colours[points[:, 0] > 0] == [200, 0, 100]).all()
    turned = VelocityLimits().motion(torch.tensor([0.0, 1.0]))
    for _ in range(4):
        world.step(Camera(world.camera.c2w @ turned, world.camera.K, SIZE))
    _, colours = coloured_points(world.state.map, [red] + 4 * [green])
    assert {tuple(colour) for colour in colours} == {(200, 0, 0), (200, 0, 100), (0, 150, 0)}


def test_video_rate_and_length_match_the_walk(toy_config: dict[str, Any], tmp_path: Path) -> None:
    slow = toy_config["world"] | {"horizon": {"_target_": "mirage_sim.world.Horizon", "fps": 4.0}}
    rollout_of(toy_config | {"world": slow, "policy": "random", "steps": 3, "output": str(tmp_path)})
    rate, frames, _ = video_facts(tmp_path / "rollout.mp4")
    assert (rate, frames) == (4.0, 4)
