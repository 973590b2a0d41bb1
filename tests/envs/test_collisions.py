"""The environment's body, in a memory into which walls are written where the test wants them."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence

from mirage_sim.memory.latent_map import Points
from mirage_sim.world import Body, WorldModel

FORWARD = np.array([1.0, 0.0], np.float32)


class _FlatDepth(torch.nn.Module):
    """Sees nothing nearer than the sky: what is in the way is only what a test put there."""

    def forward(self, frames, camera, known):
        return torch.full_like(frames[:, 0], 90.0)


@pytest.fixture
def make_walled(model, make, starts):
    """An environment in a world with nothing but a wall, at some distance ahead."""

    def make_walled(distance=None, **arguments):
        parts = {field.name: getattr(model, field.name) for field in fields(WorldModel)}
        env = make(**arguments)
        env.unwrapped.world.model = WorldModel(**parts | {"depth": _FlatDepth()})
        _, info = env.reset(seed=1)
        if distance is not None:
            moment = env.unwrapped.snapshot()
            state = moment.world.state
            walled = replace(state, map=_with_wall(state.map, distance))
            env.unwrapped.restore(replace(moment, world=replace(moment.world, state=walled)))
        return env

    return make_walled


def _with_wall(map, distance):
    x, y = np.meshgrid(np.arange(-3, 3, 0.1), np.arange(-1.2, 1.5, 0.1))
    xyz = torch.from_numpy(np.stack([x.ravel(), y.ravel(), np.full(x.size, distance)], 1)).float()
    n = len(xyz)
    points = Points(xyz, torch.zeros(n, map.channels), map.next_id + torch.arange(n), torch.full((n,), 0.1))
    return map.add(points, torch.zeros(0, dtype=torch.int64), n)


def walk(env, steps, action=FORWARD):
    infos = [env.step(action)[-1] for _ in range(steps)]
    return [info["c2w"][2, 3].item() for info in infos], [info["collision"] for info in infos], infos


def test_report_moves_through_and_reports(make_walled):
    z, collision, infos = walk(make_walled(0.98), 5)
    assert z == pytest.approx([0.15, 0.3, 0.45, 0.6, 0.75], abs=1e-5)
    assert collision == [False, False, False, True, True]  # touches at 0.58
    assert infos[0]["clearance"] == pytest.approx(0.98 - 0.15 - 0.4, abs=0.01)
    assert infos[4]["clearance"] == 0.0


def test_block_stops_before_the_wall_and_rotates(make_walled):
    env = make_walled(0.98, collisions="block")
    z, collision, _ = walk(env, 5)
    assert z == pytest.approx([0.15, 0.3, 0.45, 0.45, 0.45], abs=1e-5)
    assert collision == [False, False, False, True, True]
    before = env.unwrapped.world.camera.c2w
    _, _, _, _, info = env.step(np.array([1.0, 1.0], np.float32))
    assert info["collision"] and not np.allclose(info["c2w"][:3, :3], before[:3, :3])
    assert np.allclose(info["c2w"][:3, 3], before[:3, 3])
    assert not env.step(-FORWARD)[-1]["collision"]


def test_slide_moves_along_the_wall(make_walled):
    env = make_walled(1.0, collisions="slide")
    for _ in range(8):
        env.step(np.array([0.0, 1.0], np.float32))  # 48 degrees to the left
    _, collision, infos = walk(env, 8)
    x, z = infos[-1]["c2w"][[0, 2], 3]
    assert collision[-1] and 0.55 < z <= 0.6
    assert x < -0.8  # all of the way to the left is kept: 8 x 0.15 x sin 48


def test_ignore_adds_no_info(make_walled):
    env = make_walled(0.5, collisions="ignore")
    info = env.step(FORWARD)[-1]
    assert not {"collision", "clearance", "scan"} & set(info)
    assert "scan" in make_walled(0.5, collisions="ignore", scan=4).step(FORWARD)[-1]


def test_scan_sees_the_wall(make_walled):
    env = make_walled(1.0, scan=16)
    scan = env.step(FORWARD)[-1]["scan"]
    assert scan.shape == (16,) and scan.dtype == np.float32
    assert scan[8] == pytest.approx(0.85, abs=0.01)
    assert np.isinf(scan[0]) and np.isinf(scan[4])
    scan[:] = 0.0  # the user's own copy
    assert env.unwrapped.restore(env.unwrapped.snapshot())[1]["scan"][8] > 0.5


def test_body_argument_is_used(make_walled):
    assert make_walled(1.0, body=Body(radius=0.2)).step(FORWARD)[-1]["clearance"] == pytest.approx(0.65, abs=0.01)
    blocked = make_walled(None, collisions="block", body=Body(unseen="blocked"))
    info = blocked.step(FORWARD)[-1]
    assert info["collision"] and np.allclose(info["c2w"][:3, 3], 0.0)  # nothing but sky has been seen


def test_collision_condition_terminates(make_walled):
    env = make_walled(0.6, terminate_on=("collision",))
    results = [env.step(FORWARD) for _ in range(2)]
    assert [terminated for _, _, terminated, _, _ in results] == [False, True]


def test_snapshots_and_forks_keep_contact_state(make_walled):
    env = make_walled(0.6, collisions="block", scan=8)
    walk(env, 2)
    moment = env.unwrapped.snapshot()
    felt = env.unwrapped.restore(moment)[1]
    assert felt["collision"]
    (fork,) = env.unwrapped.fork(1)
    assert data_equivalence(fork.restore(moment)[1], felt, exact=True)
    first = walk(env, 3, np.array([-0.5, 0.5], np.float32))[2]
    assert not env.unwrapped.restore(env.unwrapped.snapshot())[1]["collision"]
    env.unwrapped.restore(moment)
    for one, other in zip(first, walk(env, 3, np.array([-0.5, 0.5], np.float32))[2], strict=True):
        assert data_equivalence(one, other, exact=True)


@pytest.mark.parametrize("collisions", ["report", "block", "slide", "ignore"])
def test_check_env_passes_without_warnings(make, collisions):
    check_env(make(collisions=collisions, scan=12).unwrapped, skip_render_check=True)


def test_reset_reports_contact_state(make):
    env = make(scan=6)
    _, info = env.reset(seed=0)
    assert info["collision"] is False and info["clearance"] >= 0.0 and info["scan"].shape == (6,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"collisions": "bounce"}, "collisions: expected one of"),
        ({"body": 0.4}, "body: expected a mirage_sim.world.Body"),
        ({"scan": 0}, "scan: expected None or a positive number"),
        ({"scan": True}, "scan: expected None or a positive number"),
        ({"collisions": "ignore", "body": Body()}, "body: expected None with"),
        ({"collisions": "ignore", "terminate_on": ("collision",)}, "terminate_on: expected no 'collision'"),
    ],
)
def test_invalid_settings_are_rejected(make, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make(**arguments)
